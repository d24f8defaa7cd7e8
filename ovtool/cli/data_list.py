"""`ovtool data list`: the data sets that are known by name."""

from __future__ import annotations

from typing import Any

from ovtool.cli import output
from ovtool.settings.shared import Json


def data_list(*, json: Json = False) -> None:
    """List the data sets that are known by name: what each is, its splits, whether it is at hand.

    A data set stands for its images wherever a command takes images: `NAME` or `NAME:SPLIT`.

    $ ovtool data list
    """
    from ovtool.stages import data_list as stage

    sets = stage.run()
    if json:
        output.print_json({"data_sets": sets})
    else:
        output.print_facts(_facts(sets))


def _facts(sets: list[dict[str, Any]]) -> dict[str, Any]:
    """The splits below their data set."""
    facts: dict[str, Any] = {}
    for row in sets:
        about = facts.setdefault(row["data_set"], {"what": row["what"], "splits": {}})
        about["splits"][row["split"] + (" (default)" if row["default"] else "")] = row["state"]
    return facts

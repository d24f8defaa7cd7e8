"""`ovtool doctor`: the state of this machine, for people and for bug reports."""

from __future__ import annotations

import typer

from ovtool.cli import output
from ovtool.settings.shared import Json


def doctor(*, json: Json = False) -> None:
    """List versions, device, caches, bundled weights and the model hub; say how to mend what is missing.

    The exit status is 1 if something is missing that every command needs, else 0. The hub is given
    3 seconds to answer.

    $ ovtool doctor
    """
    from ovtool.stages import doctor as stage

    facts = stage.run()
    if json:
        output.print_json(facts)
    else:
        output.print_facts(facts)
    if any(item["required"] for item in facts["missing"]):
        raise typer.Exit(1)

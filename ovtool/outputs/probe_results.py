"""What a probe leaves: a document that JSON can hold, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import Measure
from ovtool.runtime import runs

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def sureness(rows: Sequence[Measure], images: int) -> list[dict[str, Any]]:
    """How sure the rows of a table are, by the bootstrap over its images.

    Args:
        rows: the measure of each row.
        images: how many there are.

    Returns:
        For each row `intervals`, measure to the 95 % interval (`low`, `high`); and for each but the first
        `difference`, measure to how much higher it is there (`value`, `low`, `high`), from the same samples.
    """

    def data(measure: Measure, *, with_value: bool) -> dict[str, Any]:
        by_name = bootstrap.intervals(measure, images)
        return {name: own.as_data(with_value=with_value) for name, own in by_name.items()}

    sure = [{"intervals": data(row, with_value=False)} for row in rows]
    for own, row in zip(sure[1:], rows[1:], strict=True):
        own["difference"] = data(bootstrap.difference(rows[0], row), with_value=True)
    return sure


def document(
    metric: str, measured: Mapping[str, Any], clip: Clip, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a probe with what made it, without the path of any file.

    Args:
        metric: the probe, such as `alignment`.
        measured: its figures.
        clip: the model.
        settings: all that shapes the figures, as plain data.
    """
    model = {"name": clip.name, "fingerprint": clip.fingerprint}
    return {
        "metric": metric,
        **measured,
        **runs.provenance(f"probe {metric}", settings, model),
    }

"""What a probe leaves: a document that JSON can hold, and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ovtool
from ovtool.formats import atomic
from ovtool.settings.shared import Run

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def plot_place(plot: str | Path | None, run: Run) -> Path | None:
    """Where a plot goes; a place that must not be written to is refused before any work.

    Raises:
        OutputExistsError, InputError.
    """
    if plot is None:
        return None
    atomic.check_output(Path(plot), run.overwrite)
    return Path(plot)


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
    return {
        "metric": metric,
        **measured,
        "ovtool": {
            "version": ovtool.__version__,
            "command": f"probe {metric}",
            "model": {"name": clip.name, "fingerprint": clip.fingerprint},
            "settings": dict(settings),
        },
    }

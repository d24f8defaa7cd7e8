"""What the commands of trainings share: options, progress, and what a network for pixels learned."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.field import FileOption
from ovtool.settings.shared import Run

if TYPE_CHECKING:  # it imports torch
    from ovtool.training.run import Trained


TrainingRun = Annotated[Run, Only("resume", "overwrite", "update", "strict", "dry_run")]
NetworkFile = Annotated[Path, FileOption("Where the trained network goes.")]


def progress(total: int | None, description: str) -> AbstractContextManager[Callable[..., None]]:
    """A bar on stderr, of images while they are checked or encoded, else of steps."""
    return output.progress(total, description, "image" if "images" in description else "step")


def say(trained: Trained, noun: str, as_json: bool) -> None:
    """Says on stderr what was trained, or what would be; with `as_json`, on stdout as one object.

    Args:
        trained: What the stage returned.
        noun: What the count `names` counts: "classes".
        as_json: Whether stdout gets the object.
    """
    if not trained.is_first:
        return  # another process of torchrun speaks
    counts, backbone = trained.counts, trained.notes["backbone"]
    parameters = sum(trained.parameters.values())
    left_out = counts.get("left_out")
    output.message(
        f"{parameters / 1e6:.2f} million parameters, backbone from {backbone or 'random weights'}; "
        f"{counts['images']} images of {counts['names']} {noun}, {counts['held_out']} held out"
        + ("" if left_out is None else f", {left_out} without a label")
    )
    files = f"{trained.outputs.file}, {trained.outputs.curve}"
    if trained.is_plan:
        output.message(f"would train for {trained.steps} steps, and write {files}")
    else:
        rows = [(name, f"{value:.4g}") for name, value in trained.last.items()]
        output.table(("last step", ""), rows)
        output.message(f"written: {files}")
    if as_json:
        output.print_json(trained.as_data())

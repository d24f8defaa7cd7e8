"""`merge`: the parts that the shards of a run left, to the file that one process would have written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovtool.errors import InputError, UpToDate, UsageError
from ovtool.formats import atomic, coco, lock, merge
from ovtool.formats.merge import Output
from ovtool.inputs import asked as requests
from ovtool.runtime.outcome import Outcome
from ovtool.settings.shared import Run


def run(
    folders: Sequence[str | Path], *, out: str | Path | None = None, run: Run = Run()
) -> Outcome:
    """Writes the file that one process would have written, to the byte; the parts stay.

    Args:
        folders: folders of parts, `OUT.parts`, which hold all parts of one run between them.
        out: where to write; `-` is stdout, None is the name of the one folder without `.parts`.
        run: `overwrite` replaces what is there, `update` only what is older than the parts; `dry_run` writes
            nothing.

    Returns:
        The data set, and the images that failed.

    Raises:
        UsageError: there is no name to write to, or it is that of a part.
        InputError: a part is missing, damaged or there twice.
        MismatchError: parts of different runs.
        OutputExistsError: an output exists, without `run.overwrite`.
        UpToDate: with `run.update` the output is newer than all parts.
    """
    given = [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    if not given:
        raise UsageError("no parts are named; give the folders that the shards left, OUT.parts")
    target = str(out or _default_output(given))
    atomic.check_output(Path(target), run.replaces)
    parts = [part for folder in given for part in folder.glob("*")]
    requests.refuse_inputs([Path(target)], parts)
    if run.update and requests.is_newer(Path(target), parts):
        raise UpToDate(target)
    pieces = merge.collected(given)
    header, where = pieces.header, str(given[0])
    if not isinstance(header.preface, Mapping) or "output" not in header.settings:
        raise InputError(f"{where}: its parts do not say what they are of; make them again")
    output = Output(**header.settings["output"])
    info = header.preface["info"]
    places = _places(header.settings["beside"], target)
    _check_places(target, places, run)
    categories = coco.parse_categories(header.preface, where)
    dataset = merge.dataset_of(pieces, info, categories, output)
    if run.dry_run:
        return Outcome(dataset, target, files=places, planned=len(dataset.images))
    with lock.held(target, *places.values()):
        _check_places(target, places, run)  # another run may have written them meanwhile
        tensors = pieces.tensors()
        # what needs torch is imported where there is something to do, which is seldom
        if info["ovtool"]["command"] == "refine" and not dataset.annotations:
            from ovtool.stages import refine

            refine.finish(dataset, tensors, places, output.facts)
        if "embeddings" in places:
            from ovtool.stages import propose

            propose.finish(dataset, tensors, places, output.facts)
        if "crops" in places:
            from ovtool.outputs.crops import PairCrops

            crops = PairCrops(Path(places["crops"]))
            crops.finish(dataset)
        merge.write(dataset, tensors, output, target)
        if "crops" in places:
            crops.clean()
        return Outcome(dataset, target, dataset.info["ovtool"]["failures"], files=places)


def _check_places(target: str, places: Mapping[str, str], run: Run) -> None:
    """Refuses files that cannot or must not be written; folders are added to."""
    for place in (target, *places.values()):
        if place == target or not Path(place).is_dir():
            atomic.check_output(Path(place), run.replaces)


def _default_output(folders: Sequence[Path]) -> str:
    """The name that a folder of parts was made beside."""
    name = os.path.normpath(folders[0])
    if len(folders) > 1 or not name.endswith(".parts"):
        raise UsageError("the name of the output is not known from the folders; give it with -o")
    return name.removesuffix(".parts")


def _places(beside: Mapping[str, str], target: str) -> dict[str, str]:
    """Where else things are written: from the folder of the output."""
    folder = os.path.dirname(target)
    return {kind: os.path.normpath(os.path.join(folder, place)) for kind, place in beside.items()}

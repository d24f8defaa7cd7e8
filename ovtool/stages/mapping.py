"""Maps images to records and records to one COCO JSON: the frame of every stage of that shape.

The images are cut into parts; each part is written whole; the parts are merged at the end, in order.
A run that is cut off goes on with `resume`, and gives the same bytes.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import ovtool
from ovtool.errors import InputError
from ovtool.formats import atomic, coco, merge, parts
from ovtool.formats.images import ImageItem
from ovtool.runtime import engine

Progress = Callable[[int | None, str], AbstractContextManager[Callable[..., None]]]


@contextmanager
def no_progress(total: int | None, description: str) -> Iterator[Callable[..., None]]:
    """A progress bar that nobody sees."""
    yield lambda n=1: None


@dataclass(frozen=True)
class Run:
    """How a run over many images goes; none of it changes the results but `part_size`.

    dry_run: check the inputs and the place of the output, and stop.
    """

    part_size: int = 256
    resume: bool = False
    overwrite: bool = False
    strict: bool = False
    dry_run: bool = False
    progress: Progress = no_progress


@dataclass(frozen=True)
class Outcome:
    """What a run left: the merged data set, where it was written, and what failed, with reasons.

    planned: the number of images of a dry run, which leaves nothing.
    """

    dataset: coco.Dataset
    out: str
    failures: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    planned: int | None = None

    @property
    def failed_all(self) -> bool:
        """Whether not one image went well."""
        return bool(self.failures) and not self.dataset.images


def provenance(
    command: str, settings: Mapping[str, Any], model: Mapping[str, str] | None
) -> dict[str, Any]:
    """`info.ovtool` of an output: version, command, model, and the settings that shape the result."""
    made_by: dict[str, Any] = {"version": ovtool.__version__, "command": command}
    if model is not None:
        made_by["model"] = dict(model)
    return {"ovtool": {**made_by, "settings": dict(settings)}}


def run_settings(items: Sequence[ImageItem], device: torch.device) -> dict[str, Any]:
    """What must agree between the parts of one run beside the stage's settings: the images, the
    number of threads and the device's kind."""
    sizes = [item.path.stat().st_size if item.path.exists() else -1 for item in items]
    listed = parts.settings_digest({"names": [item.name for item in items], "sizes": sizes})
    return {
        "images": listed,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "torch": torch.__version__,
    }


def map_images(
    items: Sequence[ImageItem],
    work: Callable[[Sequence[ImageItem]], engine.PartOutput],
    *,
    info: Mapping[str, Any],
    categories: Sequence[coco.Category],
    out: str,
    device: torch.device,
    run: Run,
    description: str,
) -> Outcome:
    """Runs `work` over the images part by part and writes the COCO JSON `out` (`-` is stdout).

    work: gives one record (`parts.image_record` or `parts.failure_record`) for each item it is given.
    info: the output's `info`, which with the images, threads and device kind makes the digest.

    Raises OutputExistsError, MismatchError (parts of another run), InputError (a place that cannot be
    written; with `run.strict`, the first image that fails; no image that went well).
    """
    to_file = out != "-"
    if to_file:
        atomic.check_output(Path(out), run.overwrite)
    if run.dry_run:
        return Outcome(coco.Dataset(info, (), (), categories), out, planned=len(items))
    whole = parts.cut(len(items), run.part_size)
    settings = {**info, "run": run_settings(items, device), "part_size": run.part_size}
    with _parts_folder(Path(out) if to_file else None) as folder:
        store = parts.PartStore(
            folder,
            parts.settings_digest(settings),
            settings,
            merge.preface(info, categories),
        )
        with run.progress(len(items), description) as advance:
            seen = 0

            def count(done: int) -> None:
                nonlocal seen
                advance(done - seen)
                seen = done

            engine.run_local(
                whole,
                store,
                lambda part: work(items[part.start : part.stop]),
                resume=run.resume,
                strict=run.strict,
                progress=count,
            )
        dataset = merge.merge_records(store.records(whole), info, categories)
        outcome = Outcome(dataset, out, dataset.info["ovtool"]["failures"])
        if outcome.failed_all:
            first = outcome.failures[0]
            store.remove()
            raise InputError(
                f"none of the {len(items)} images could be read; the first: {first['reason']}"
            )
        coco.write(dataset, out)
        store.remove()
    return outcome


@contextmanager
def _parts_folder(out: Path | None) -> Iterator[Path]:
    """Where the parts of a run lie: beside its output, or in a scratch folder when that is stdout."""
    if out is not None:
        yield Path(f"{os.fspath(out)}.parts")
        return
    with tempfile.TemporaryDirectory(prefix="ovtool-") as scratch:
        yield Path(scratch) / "parts"

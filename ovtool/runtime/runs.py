"""Maps images to records, and records to one COCO JSON, for every stage that works so.

The images are cut into parts; each part is written whole; the parts are merged at the end, in order.
A run that is cut off goes on with `resume`, and gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ovtool
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, lock, merge, parts
from ovtool.formats.images import ImageItem
from ovtool.formats.mask_store import Masks
from ovtool.formats.parts import Part
from ovtool.runtime import engine, shards
from ovtool.runtime.outcome import Outcome
from ovtool.runtime.processes import Processes
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.shared import Run

Rgb = NDArray[np.uint8]

_LIBRARIES = ("torch", "numpy", "pillow", "open_clip_torch", "scikit-image")


def provenance(
    command: str, settings: Mapping[str, Any], model: Mapping[str, str] | None
) -> dict[str, Any]:
    """`info.ovtool` of an output: version, command, model, and the settings that shape the result."""
    made_by: dict[str, Any] = {"version": ovtool.__version__, "command": command}
    if model is not None:
        made_by["model"] = dict(model)
    return {"ovtool": {**made_by, "settings": dict(settings)}}


def check_place(out: str, run: Run) -> None:
    """Refuses a place that the output cannot or must not be written to, before any work is done.

    Raises OutputExistsError, InputError, UsageError (`resume` where no parts can be kept).
    """
    if _is_stream(out) and (run.shard is not None or run.engine != "local"):
        flag = "--engine" if run.shard is None else "--shard"
        raise UsageError(f"{flag} needs a file as output: no parts are kept beside {out}")
    if run.resume and _is_stream(out):
        raise UsageError(f"--resume needs a file as output: no parts are kept beside {out}")
    if run.update and _is_stream(out):
        raise UsageError(f"--update compares the times of files; name a file in place of {out}")
    atomic.check_output(Path(out), run.replaces)


def is_begun(out: str) -> bool:
    """Whether a run to this output was cut off, in its first part or later."""
    return _folder_beside(out).is_dir()


def goes_on(out: str, run: Run) -> bool:
    """Whether this run adds to what is there: one that is resumed, or a shard beside others."""
    return is_begun(out) and (run.resume or run.shard is not None)


def places_from(out: str, places: Mapping[str, str]) -> dict[str, str]:
    """Places as paths from the folder of the output, which do not change when all is moved."""
    folder = os.path.dirname(os.path.abspath(out))
    return {kind: os.path.relpath(place, folder) for kind, place in places.items()}


def planned(
    items: Sequence[ImageItem],
    categories: Sequence[coco.Category],
    out: str,
    run: Run,
    device: torch.device,
) -> Outcome:
    """What a dry run leaves: the number of images, how they would be shared out, and where they would go."""
    dataset = coco.Dataset({}, (), (), categories)
    return Outcome(dataset, out, planned=len(items), plan=plan_of(len(items), run, device))


def plan_of(n_items: int, run: Run, device: torch.device) -> dict[str, Any]:
    """How images would be shared out, as plain data."""
    cuts = _own(parts.cut(n_items, run.part_size), run)
    return {
        "parts": len(cuts),
        "part_size": run.part_size,
        "workers": min(run.workers, max(len(cuts), 1)),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def _own(cuts: list[Part], run: Run) -> list[Part]:
    """The parts that this run makes: all, or those of its shard."""
    number, count = shards.place(run.shard)
    return cuts[number - 1 :: count]


def image_records(
    items: Sequence[ImageItem], record: Callable[[ImageItem, Rgb], parts.Record]
) -> Iterator[parts.Record]:
    """`record` of each image and its pixels, uint8 (H, W, 3); what cannot be read is a failure, whose
    reason names the image as the output does, wherever it lies."""
    for item in items:
        try:
            rgb = item.rgb()
        except InputError as error:
            reason = str(error).replace(str(item.path), item.name)
            yield parts.failure_record(item.name, reason)
        else:
            yield record(item, rgb)


@dataclass(frozen=True, eq=False)
class Job:
    """What a run over images makes.

    Attributes:
        info: the output's `info`.
        categories: of the output.
        out: the file that is written; `-` is stdout.
        device: where the work is computed.
        description: for the progress bar.
        output: how it is written.
        beside: what else the work writes, kind to place; parts that were made with other places are not
            resumed.
        begin: checks and prepares the places of `beside`; called when no other run can write them.
        finish: gets the merged data set and the tensors of the parts, before the output is written.
    """

    info: Mapping[str, Any]
    categories: Sequence[coco.Category]
    out: str
    device: torch.device
    description: str
    output: merge.Output = merge.Output()
    beside: Mapping[str, str] = field(default_factory=dict)
    begin: Callable[[], object] = lambda: None
    finish: Callable[[coco.Dataset, Sequence[Mapping[str, torch.Tensor]]], None] | None = None


def map_images(
    items: Sequence[ImageItem],
    work: Callable[[Sequence[ImageItem]], engine.PartOutput],
    job: Job,
    run: Run,
    progress: Progress = no_progress,
) -> Outcome:
    """Runs `work` over the images part by part and writes the output of the job; a shard leaves its parts.

    Args:
        items: the images.
        work: gives one record (`parts.image_record` or `parts.failure_record`) for each item of a part.
        job: what is made.
        run: how the run goes.
        progress: opens a bar.

    Raises:
        MismatchError: parts of another run.
        OutputExistsError: another run writes the output, or has written it by now.
        InputError: a place that cannot be written; with `run.strict`, the first image that fails; no image
            that went well.
    """
    preface = merge.preface(job.info, job.categories)
    settings = {
        "run": _run_settings(items, job.device),
        "part_size": run.part_size,
        "beside": dict(job.beside),
    }
    digest = parts.settings_digest({**preface, **settings})
    whole = parts.cut(len(items), run.part_size)
    own = _own(whole, run)
    with _parts_folder(job.out, run.shard) as folder, lock.held(*_places_beside(job, run)):
        if not _is_stream(job.out):  # another run may have written it since `check_place`
            atomic.check_output(Path(job.out), run.replaces)
        job.begin()
        kept = {**settings, "output": job.output.entry()}
        store = parts.PartStore(folder, digest, kept, preface)
        with progress(sum(part.stop - part.start for part in own), job.description) as advance:
            engine.run_parts(
                own,
                store,
                lambda part: _with_ids(work, items[part.start : part.stop]),
                engine=_engine(run, job.device),
                resume=run.resume,
                anew=run.update,
                strict=run.strict,
                advance=advance,
            )
        if run.shard is not None:
            return _shard(store, own, job, run)
        return _merged(store, whole, job)


def _engine(run: Run, device: torch.device) -> engine.Engine:
    """What runs the parts."""
    if run.engine == "ray":
        from ovtool.runtime.cluster import Cluster

        return Cluster(run.workers, run.ray_address, device.type == "cuda")
    return engine.in_turn if run.workers == 1 else Processes(run.workers)


def _shard(store: parts.PartStore, own: Sequence[Part], job: Job, run: Run) -> Outcome:
    """What a shard leaves: its parts."""
    pieces = merge.Pieces([(store, part) for part in own])
    dataset = merge.streamed(pieces, job.info, job.categories)
    failures, folder = dataset.info["ovtool"]["failures"], str(store.folder)
    number, count = shards.place(run.shard)
    return Outcome(dataset, folder, failures, shard=f"{number}/{count}")


def _merged(store: parts.PartStore, whole: Sequence[Part], job: Job) -> Outcome:
    """Writes the output, removes the parts, and says what was written."""
    pieces = merge.Pieces([(store, part) for part in whole])
    try:
        dataset = merge.dataset_of(pieces, job.info, job.categories, job.output)
    except merge.AllFailed:
        store.remove()
        raise
    tensors = pieces.tensors()
    if job.finish is not None:
        job.finish(dataset, tensors)
    merge.write(dataset, tensors, job.output, job.out)
    if isinstance(dataset.annotations, merge.Streamed):  # the parts are gone in a moment
        if job.output.format == "coco" and not _is_stream(job.out):
            dataset = merge.of_file(dataset, Path(job.out))
        else:
            dataset = replace(dataset, annotations=Masks(dataset.annotations))
    store.remove()
    return Outcome(dataset, job.out, dataset.info["ovtool"]["failures"])


def _with_ids(
    work: Callable[[Sequence[ImageItem]], engine.PartOutput], items: Sequence[ImageItem]
) -> engine.PartOutput:
    """What `work` makes of the images, each with the id that its source gives it, if any."""
    output = work(items)
    ids = {item.name: item.id for item in items if item.id is not None}
    return replace(output, records=parts.with_source_ids(output.records, ids)) if ids else output


def _run_settings(items: Sequence[ImageItem], device: torch.device) -> dict[str, Any]:
    """What must agree between the parts of one run beside the stage's settings: the images, the
    number of threads, the device's kind and the libraries."""
    sizes = [item.path.stat().st_size if item.path.exists() else -1 for item in items]
    listed = parts.settings_digest(
        {
            "names": [item.name for item in items],
            "sizes": sizes,
            "ids": [item.id for item in items],
            "exif": sorted({item.exif for item in items}),
        }
    )
    return {
        "images": listed,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # installed by other means than a package
        return None


def _is_stream(out: str) -> bool:
    """Whether the output is stdout, a device or a pipe, beside which nothing can be kept."""
    path = Path(out)
    return out == "-" or (path.exists() and not path.is_file() and not path.is_dir())


def _places_beside(job: Job, run: Run) -> list[Path]:
    """What the work writes beside its output; none of a shard, which shares them with others."""
    if run.shard is not None:
        return []
    folder = os.path.dirname(job.out)
    places = [Path(os.path.normpath(os.path.join(folder, p))) for p in job.beside.values()]
    for place in places:
        atomic.make_folder(place.parent)
    return places


def _folder_beside(out: str) -> Path:
    return Path(f"{out}.parts")


@contextmanager
def _parts_folder(out: str, shard: str | None) -> Iterator[Path]:
    """Where the parts of a run lie: beside its output, or in a scratch folder if that is no file. The output
    is locked; of shards, which run beside each other, each its own."""
    if not _is_stream(out):
        number, count = shards.place(shard)
        with lock.Lock(Path(out if shard is None else f"{out}.{number}-of-{count}")):
            yield _folder_beside(out)
        return
    with atomic.scratch_folder() as scratch:
        yield scratch / "parts"

"""`cam`: images and the labels of each to class activation maps, one for each label of an image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.batches import labels as label_batches
from ovtool.batches.readable import Check
from ovtool.cams import sources as cam_sources
from ovtool.cams import training as cam_training
from ovtool.cams.sources import NetworkMaps, Source
from ovtool.cams.training import Maker
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, image_labels, merge, parts, plots, tensors
from ovtool.formats.image_labels import Labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import asked as requests
from ovtool.inputs import labels as label_inputs
from ovtool.models import recommendations, resolve
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.cam import (
    CamMethod,
    ClassifierMaps,
    GivenMaps,
    Gradcam,
    LabelMatching,
    PaclMaps,
    Spread,
)
from ovtool.settings.layers import as_data
from ovtool.settings.option import name_of
from ovtool.settings.shared import Compute, Run
from ovtool.trainers import classifier as classifier_trainer
from ovtool.training import checkpoints, distributed, loop
from ovtool.training import run as frames

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Made:
    """What a run left.

    Attributes:
        out: the file of the maps.
        method: by which they were made.
        images, maps, categories: how many.
        constant: how many of the maps have one value everywhere.
        loss: the last one of a training, None without one.
        written: what else was written, kind to place.
        failures: the images that failed, with reasons.
        is_plan: whether nothing was made (a dry run).
        plan: how a dry run would share the images out, None for a run.
        shard: which shard this was, such as `3/16`; its parts are in `out`.
        is_first: whether this process is the one that writes and speaks, among those of torchrun.
    """

    out: str
    method: str
    images: int
    maps: int
    categories: int
    constant: int = 0
    loss: float | None = None
    written: Mapping[str, str] | None = None
    failures: Sequence[Mapping[str, str]] = ()
    is_plan: bool = False
    plan: Mapping[str, Any] | None = None
    shard: str | None = None
    is_first: bool = True


def run(
    labels: str | Path,
    method: CamMethod = Gradcam(),
    spread: Spread = Spread(),
    *,
    images: Path | str | None = None,
    classes: str | None = None,
    limit: int | None = None,
    out: str | None = None,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Made:
    """Writes the maps of every labelled image as a file of kind `cams`.

    Args:
        labels: image-level labels: a data set `NAME[:SPLIT]`, a COCO JSON, or a file of two columns.
        method: how the maps are made. Those that are trained (`ClassifierMaps`, `LabelMatching`) draw their
            losses in a PNG beside the output, and go on with `run.resume`.
        spread: whether maps are spread along the CLIP's attention.
        images: the folder that the file names of the labels start from.
        classes: the classes that a file of two columns may name.
        limit: the first so many images alone.
        out: where to write; `-` is stdout, None is a name made from that of the labels, in the current folder.
        compute: the model and the device.
        run: how the run goes. An image that cannot be read is a failure, unless `run.strict`.
        progress: opens a progress bar.

    Returns:
        What was made.

    Raises:
        UsageError: arguments do not go together.
        InputError: an input is not there or is broken.
        OutputExistsError: an output exists, without `run.overwrite`.
        ModelError: the model cannot be had.
        MismatchError: a file belongs to another model or other classes, or a checkpoint to other settings.
        TrainingError: a loss that is not finite.
    """
    compute = resolve.for_data(compute, labels)
    devices.set_threads(compute.threads)
    source, folder = str(labels), None if images is None else Path(images)
    if distributed.is_many() and not (isinstance(method, LabelMatching) and method.trains):
        raise UsageError(
            "under torchrun cam trains --method matching alone; start it without torchrun, and share the images "
            "out with --workers or --shard"
        )
    place = devices.choose(compute.device)
    target = str(out or f"{requests.stem_of(source)}.cams.safetensors")
    outputs = _checked_outputs(target, method, run)
    _check_files(method)
    listed = label_inputs.read(source, folder, classes, limit)
    maps = method.from_maps if isinstance(method, GivenMaps) else None
    shaping = (method, spread, listed.digest, compute)
    asked = requests.of("cam", *shaping, sources=(source, maps), items=listed.items)
    run = requests.begin(asked, target, run, _beside(target, method))
    usable = listed
    if isinstance(method, ClassifierMaps | LabelMatching) and _trains(method):
        usable = label_batches.readable_labels(
            listed, Check(run.strict, method.loader_workers, progress)
        )
    if isinstance(method, ClassifierMaps):
        classifier_trainer.check(usable)
    plan = Made(
        out=target,
        method=name_of(type(method)),
        images=len(listed.images),
        maps=sum(len(image.category_ids) for image in listed.images),
        categories=len(listed.categories),
        is_plan=True,
    )
    with distributed.joined(place) as ranks:
        plan = replace(plan, is_first=ranks.is_first)
        clip = None
        if spread.affinity or isinstance(method, Gradcam | LabelMatching | PaclMaps):
            from ovtool.models import clip as clips

            clip = clips.load(compute.model, ranks.device, torch.float32)
        if run.dry_run:
            return replace(plan, plan=runs.plan_of(len(listed.images), run, place))
        frame = frames.Frame(
            outputs=outputs,
            shapes={"labels": usable.digest, "model": "" if clip is None else clip.fingerprint},
            title=f"cam --method {plan.method}",
            run=run,
            ranks=ranks,
            progress=progress,
            asked=asked.digest,
        )
        maker = _maker(method, spread, usable, clip, frame)
    if not ranks.is_first:
        return plan  # the first process makes the maps
    settings = {**as_data(spread), **maker.settings}
    settings |= {"method": plan.method, "labels": listed.digest}
    made = _map(_Maps(listed, maker.source, settings, clip, frame), run)
    return made if made.shard is not None else replace(made, **_finished(method, maker, frame))


def _checked_outputs(target: str, method: CamMethod, run: Run) -> frames.Outputs:
    """The places that are written to, checked before any work."""
    outputs = frames.Outputs.of(target)
    runs.check_place(target, run)
    if run.shard is not None and _trains(method):
        raise UsageError(
            f"--shard does not go with --method {name_of(type(method))}, which would be trained in every shard; "
            "train matching once with --save-generator, and give that to the shards as --generator"
        )
    beside = _beside(target, method)
    if target == "-":
        tensors.check_stdout()
        if _trains(method):
            raise UsageError(
                "a training keeps a curve and a checkpoint beside its output; name a file in place of -"
            )
    atomic.check_distinct([outputs.file, *beside])
    begun = runs.is_begun(target) or checkpoints.beside(outputs.file, "").path.exists()
    for path in beside:
        atomic.check_output(path, run.replaces or (run.resume and begun))
    return outputs


def _beside(target: str, method: CamMethod) -> list[Path]:
    """What is written beside the maps: the curve of a training, and its generator."""
    beside = [Path(target).with_suffix(".png")] if _trains(method) else []
    if isinstance(method, LabelMatching) and method.save_generator is not None:
        beside.append(method.save_generator)
    return beside


def _trains(method: CamMethod) -> bool:
    return isinstance(method, ClassifierMaps) or (
        isinstance(method, LabelMatching) and method.trains
    )


def _check_files(method: CamMethod) -> None:
    """Raises InputError for a file of the method that is not there."""
    path = method.pacl if isinstance(method, PaclMaps) else None
    if isinstance(method, LabelMatching):
        path = method.generator_file
    if path is not None and not path.exists():
        raise InputError(f"no such file: {path}")


def _finished(method: CamMethod, maker: Maker, frame: frames.Frame) -> dict[str, Any]:
    """Draws the curve of a training, removes its checkpoint, and returns what to add to the outcome."""
    written = {}
    if maker.curve is not None and _trains(method):
        plots.losses(frame.outputs.curve, loop.thinned(maker.curve), frame.title)
        written["curve"] = str(frame.outputs.curve)
    if isinstance(method, LabelMatching) and method.save_generator is not None:
        written["generator"] = str(method.save_generator)
    if maker.begun is not None:
        maker.begun.checkpoint.remove()
    return {"loss": maker.curve[-1]["loss"] if maker.curve else None, "written": written}


def _maker(
    method: CamMethod,
    spread: Spread,
    labels: Labelled,
    clip: Clip | None,
    frame: frames.Frame,
) -> Maker:
    """The maker of the maps of a method, trained where it has to be."""
    maker = _plain_maker(method, labels, clip, frame)
    if not spread.affinity:
        return maker
    assert clip is not None
    side = spread.affinity_side
    if side is None and not isinstance(method, GivenMaps):
        side = method.short_side
    source = cam_sources.Spread(maker.source, clip, side)
    if spread.box_threshold is not None:
        source = replace(source, threshold=spread.box_threshold)
    return replace(maker, source=source)


def _plain_maker(
    method: CamMethod, labels: Labelled, clip: Clip | None, frame: frames.Frame
) -> Maker:
    """The maker of maps that are not spread yet."""
    if isinstance(method, GivenMaps):
        return Maker(cam_sources.GivenFiles.of(method.from_maps, labels))
    if isinstance(method, ClassifierMaps):
        return cam_training.classifier(method, labels, frame)
    assert clip is not None
    if isinstance(method, LabelMatching):
        return cam_training.generator(method, labels, clip, frame)
    views = (labels.categories, method.scales, method.flip)
    if isinstance(method, PaclMaps):
        source = NetworkMaps(cam_sources.pacl(clip, labels, method), *views)
        head = tensors.fingerprint(tensors.load(method.pacl)[1])
        return Maker(source, as_data(method, {"pacl": head}))
    gradcam, origins = recommendations.settled(clip, method, cam_sources.GRADCAM)
    network, words = cam_sources.gradcam(clip, labels, gradcam)
    settings = as_data(gradcam) | {"background_words": list(words), "origins": dict(origins)}
    return Maker(NetworkMaps(network, *views), settings)


@dataclass(frozen=True, eq=False)
class _Maps:
    """The maps of all images: what makes them, and what their file says."""

    labels: Labelled
    source: Source
    settings: Mapping[str, Any]
    clip: Clip | None
    frame: frames.Frame

    @cached_property
    def ids(self) -> Mapping[str, tuple[int, ...]]:
        """The categories of each image, by its name."""
        return image_labels.of_image(self.labels)

    def part_output(self, items: Sequence[ImageItem]) -> engine.PartOutput:
        """The records of a part, with its maps as tensors."""
        kept: dict[str, tensors.Array] = {}

        def record(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
            height, width = rgb.shape[:2]
            ids = self.ids[item.name]
            try:
                kept[item.name] = self.source(item, torch.from_numpy(rgb), ids).cpu().half()
            except InputError as error:
                reason = str(error).replace(str(item.path), item.name)
                return parts.failure_record(item.name, reason)
            return parts.image_record(item.name, height, width, [], category_ids=list(ids))

        return engine.PartOutput(runs.image_records(items, record), tensors=kept)


def _map(maps: _Maps, run: Run) -> Made:
    """Makes and writes the maps, part by part."""
    clip, target = maps.clip, str(maps.frame.outputs.file)
    model = None if clip is None else {"name": clip.name, "fingerprint": clip.fingerprint}
    facts: dict[str, Any] = {
        "settings": dict(maps.settings),
        "model": None if clip is None else clip.name,
        "fingerprint": None if clip is None else clip.fingerprint,
        "failures": [],
    }
    constant = 0

    def count(dataset: coco.Dataset, several: Sequence[Mapping[str, Tensor]]) -> None:
        nonlocal constant
        constant = sum(
            int((image_maps.amax(dim=(1, 2)) == image_maps.amin(dim=(1, 2))).sum())
            for part in several
            for image_maps in part.values()
            if image_maps.ndim == 3  # others are refused where they are written
        )

    job = runs.Job(
        info=runs.provenance("cam", maps.settings, model),
        categories=maps.labels.categories,
        out=target,
        device=maps.frame.ranks.device,
        description="making maps",
        output=merge.Output("cams", maps.frame.asked, facts),
        finish=count,
    )
    outcome = runs.map_images(maps.labels.items, maps.part_output, job, run, maps.frame.progress)
    if constant:
        _logger.warning("%d maps have one value everywhere and say nothing of where", constant)
    counts = [len(maps.ids[image.file_name]) for image in outcome.dataset.images]
    return Made(
        out=outcome.out,
        method=str(maps.settings["method"]),
        images=len(counts),
        maps=sum(counts),
        categories=len(maps.labels.categories),
        constant=constant,
        failures=outcome.failures,
        shard=outcome.shard,
    )

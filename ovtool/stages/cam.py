"""`cam`: pictures and the labels of each to class activation maps, one for each label of a picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovtool.cams import options as cam_options
from ovtool.cams import sources as cam_sources
from ovtool.cams.options import Options
from ovtool.cams.sources import Source, Views
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, cams, coco, given_maps, image_labels, parts, plots, tensors
from ovtool.formats import images as pictures
from ovtool.formats.image_labels import Labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import category_texts
from ovtool.inputs import labels as label_inputs
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.runs import Run
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Record

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

# a picture and its pixels, uint8 (H, W, 3), to maps (K, h, w) in [0, 1] of its categories
Make = Callable[[ImageItem, Tensor], Tensor]
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Made:
    """What a run left. constant: how many of the maps have one value everywhere.

    loss: the last one of a training, None without one. written: what else was written, kind to place.
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


def run(
    source: str,
    *,
    images: Path | None = None,
    classes: str | None = None,
    method: str | None = None,
    model: str | None = None,
    device: str | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    affinity: bool = False,
    options: Options | None = None,
    seed: int = 0,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Made:
    """Writes the maps of every labelled image as a file of kind `cams`.

    source: image-level labels, with `images` and `classes` as `inputs.labels.read` takes them.
    method: one of `cam_options.METHODS`, None for `gradcam`, or `maps` where `options.from_maps` is given.
    options: what only some methods take.
    affinity: spread the maps along the CLIP's attention.

    Trainings (`classifier`, `matching`) draw their losses in a PNG beside the output, and go on with
    `how.resume`. An image that cannot be read is no error but a failure, unless `how.strict`.

    Raises UsageError, InputError, OutputExistsError, ModelError, MismatchError, TrainingError.
    """
    how, views = how or Run(), Views(scales, flip)
    chosen = cam_options.settled(method, options or Options(), affinity, scales, flip)
    if distributed.is_many():
        raise UsageError("cam is one process: start it without torchrun")
    place = devices.choose(device)
    target = out or f"{_stem(source)}.cams.safetensors"
    if target == "-":
        raise UsageError("cam writes a safetensors file: name it with -o")
    picture = Path(target).with_suffix(".png") if chosen.trains else None
    runs.check_place(target, how)
    beside = [path for path in (picture, chosen.save_generator) if path is not None]
    begun = runs.is_begun(target) or checkpoints.beside(Path(target), "").path.exists()
    atomic.check_distinct([Path(target), *beside])
    for path in beside:
        atomic.check_output(path, how.overwrite or (how.resume and begun))
    found = label_inputs.read(source, images, classes, limit)
    if chosen.method == "classifier":
        from ovtool.trainers import classifier as classifier_trainer

        classifier_trainer.check(found)
    plan = Made(
        target, chosen.method, len(found.images),
        sum(len(one.category_ids) for one in found.images), len(found.categories), is_plan=True,
    )  # fmt: skip
    clip = _clip(model, place) if chosen.needs_clip else None
    if how.dry_run:
        return plan
    built = _build(chosen, found, clip, views, seed, place, target, how)
    settings = {"method": chosen.method, **chosen.shown, **built.settings, "labels": found.digest}
    settings |= {"scales": list(scales), "flip": flip, "affinity": affinity, "seed": seed}
    made = _map(found, built.make, settings, clip, target, place, how)
    written = {}
    if built.curve is not None and picture is not None:
        plots.losses(picture, loop.thinned(built.curve), f"cam --method {chosen.method}")
        written["curve"] = str(picture)
    if chosen.save_generator is not None:
        written["generator"] = str(chosen.save_generator)
    if built.checkpoint is not None:
        built.checkpoint.remove()
    loss = built.curve[-1]["loss"] if built.curve else None
    return replace(made, loss=loss, written=written)


@dataclass(frozen=True, eq=False)
class _Built:
    """What makes the maps, with what a file says of it and what its training left."""

    make: Make
    settings: Mapping[str, Any]
    curve: list[Record] | None = None
    checkpoint: Checkpoint | None = None


def _build(
    chosen: Options,
    found: Labelled,
    clip: Clip | None,
    views: Views,
    seed: int,
    place: torch.device,
    target: str,
    how: Run,
) -> _Built:
    spread = None
    if chosen.affinity:
        assert clip is not None
        spread = cam_sources.Affinity(clip, chosen.short_side, chosen.box_threshold)
    if chosen.method == "maps":
        return _Built(_given(chosen, found, spread), {})
    checkpoint, curve, settings = None, None, dict[str, Any]()
    if chosen.method == "gradcam":
        assert clip is not None
        sentence = chosen.sentence or category_texts.sharp_sentence(clip)
        source, words = cam_sources.gradcam(
            clip, found, chosen.background, sentence, chosen.short_side
        )
        settings = {"background_words": list(words), "sentence": sentence}
    elif chosen.method == "pacl":
        assert clip is not None and chosen.pacl is not None
        source = cam_sources.pacl(clip, found, chosen.pacl, chosen.short_side)
        settings = {"pacl": tensors.fingerprint(tensors.load(chosen.pacl)[1])}
    elif chosen.method == "matching":
        assert clip is not None
        from ovtool.cams import training as cam_training

        trained = cam_training.generator(chosen, found, clip, seed, target, how)
        source = cam_sources.generator(trained.network)
        checkpoint, curve, settings = trained.checkpoint, trained.curve, trained.settings
    else:
        from ovtool.cams import training as cam_training

        learned = cam_training.classifier(chosen, found, seed, place, target, how)
        source = cam_sources.classifier(learned.network)
        checkpoint, curve, settings = learned.checkpoint, learned.curve, learned.settings
    return _Built(_seen(source, found, views, spread), settings, curve, checkpoint)


def _seen(
    source: Source, found: Labelled, views: Views, spread: cam_sources.Affinity | None
) -> Make:
    """Maps by a network."""
    place = {category.id: k for k, category in enumerate(found.categories)}
    ids = image_labels.of_image(found)

    def make(item: ImageItem, rgb: Tensor) -> Tensor:
        maps = cam_sources.maps_of(source, rgb, [place[one] for one in ids[item.name]], views)
        return maps if spread is None else spread(rgb, maps)

    return make


def _given(chosen: Options, found: Labelled, spread: cam_sources.Affinity | None) -> Make:
    """Maps from files."""
    assert chosen.from_maps is not None
    files = given_maps.find(chosen.from_maps, [item.name for item in found.items])
    ids = image_labels.of_image(found)

    def make(item: ImageItem, rgb: Tensor) -> Tensor:
        path = files[item.name]
        try:
            maps = given_maps.read(path, ids[item.name], found.categories)
        except InputError as error:  # what is written says no place of this machine
            raise InputError(str(error).replace(str(path), path.name)) from None
        return maps if spread is None else spread(rgb, maps)

    return make


def _map(
    found: Labelled,
    make: Make,
    settings: Mapping[str, Any],
    clip: Clip | None,
    target: str,
    place: torch.device,
    how: Run,
) -> Made:
    ids = image_labels.of_image(found)
    name = None if clip is None else _name(clip)
    model = None if clip is None else {"name": str(name), "fingerprint": clip.fingerprint}
    constant = 0

    def records(
        items: Sequence[ImageItem], kept: dict[str, tensors.Array]
    ) -> Iterator[parts.Record]:
        for item in items:
            try:
                rgb = torch.from_numpy(pictures.read_rgb(item.path))
                maps = make(item, rgb)
            except InputError as error:
                reason = str(error).replace(str(item.path), item.name)
                yield parts.failure_record(item.name, reason)
                continue
            kept[item.name] = maps.cpu().half()
            shown = {"category_ids": list(ids[item.name])}
            yield parts.image_record(item.name, rgb.shape[0], rgb.shape[1], [], **shown)

    def work(items: Sequence[ImageItem]) -> engine.PartOutput:
        kept: dict[str, tensors.Array] = {}
        return engine.PartOutput(records(items, kept), tensors=kept)

    def write(dataset: coco.Dataset, several: Sequence[Mapping[str, Tensor]]) -> None:
        nonlocal constant
        by_name = {key: value for part in several for key, value in part.items()}
        listed = [
            cams.CamImage(
                one.id, one.file_name, one.height, one.width, tuple(one.extra["category_ids"])
            )
            for one in dataset.images
        ]
        maps = {one.id: by_name[one.file_name] for one in dataset.images}
        constant = sum(
            int((one.amax(dim=(1, 2)) == one.amin(dim=(1, 2))).sum()) for one in maps.values()
        )
        cams.write(
            Path(target), listed, found.categories, maps, settings,
            model=name, fingerprint=None if clip is None else clip.fingerprint,
            failures=dataset.info["ovtool"]["failures"],
        )  # fmt: skip

    outcome = runs.map_images(
        found.items,
        work,
        runs.Job(
            info=runs.provenance("cam", settings, model),
            categories=found.categories,
            out=target,
            device=place,
            description="making maps",
            write=write,
        ),
        how,
        how.progress,
    )
    if constant:
        _logger.warning("%d maps have one value everywhere and say nothing of where", constant)
    shown = [ids[image.file_name] for image in outcome.dataset.images]
    return Made(
        target, str(settings["method"]), len(shown), sum(map(len, shown)), len(found.categories),
        constant, failures=outcome.failures,
    )  # fmt: skip


def _clip(model: str | None, place: torch.device) -> Clip:
    from ovtool.models import clip as door

    return door.load(model, place, torch.float32)


def _name(clip: Clip) -> str:
    return Path(clip.name).name if Path(clip.name).exists() else clip.name


def _stem(source: str) -> str:
    return source.replace(":", "-") if not Path(source).exists() else Path(source).resolve().stem

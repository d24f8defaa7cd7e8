"""`train-segmenter`: pictures with labels, pseudo masks or true ones, to a segmenter of their classes.

This is the last stage of masks from image-level labels (SemPLeS, WACV 2025): a network learns the pseudo
masks of the training pictures, and then needs no labels of a picture to segment it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovtool.batches import label_maps as label_map_batches
from ovtool.batches.label_maps import Labels
from ovtool.errors import UsageError
from ovtool.formats import atomic, parts, plots
from ovtool.models import resolve, segmenter
from ovtool.models.segmenter import Network
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.trainers import segmenter as segmenter_trainer
from ovtool.trainers.segmenter import Settings
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.distributed import Ranks

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

_logger = logging.getLogger("ovtool")


def run(
    labels: str,
    *,
    out: Path,
    images: Path | None = None,
    with_background: bool = False,
    model: str | None = None,
    device: str | None = None,
    architecture: str = "deeplabv3_resnet50",
    steps: int = 20_000,
    batch_size: int = 16,
    rate: float | None = None,
    side: int | None = None,
    short_side: int | None = None,
    warmup: int | None = None,
    precision: str = "auto",
    held_out_share: float = 0.05,
    validation: str | None = None,
    validation_images: Path | None = None,
    validate_every: int = 2000,
    save_every: int = 500,
    seed: int = 0,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Trains a segmenter and writes it, with the picture of its losses beside it (`.png`).

    labels: a COCO JSON or a folder of label maps, of pictures in `images`, or a data set's name.
    with_background: what no mask covers is background; otherwise it is ignored.
    model: the CLIP under `--arch clip`. rate, side, short_side, warmup: None is the architecture's.
    validation: labels to measure on in place of those held out, of pictures in `validation_images`
        (None: in `images`); the header says which.

    Alone or under torchrun, whose first process writes. Returns what was learned: parameters, images,
    the last loss and the last validation, where it was written, and where the backbone began.

    Raises UsageError, InputError (labels that are missing, broken or all ignored), OutputExistsError,
    ModelError, MismatchError (a checkpoint of other settings; a validation of other classes),
    TrainingError (a loss that is not finite; the checkpoint of the last good step stays).
    """
    settings = Settings(
        architecture, steps, batch_size, rate, side, short_side, warmup, seed, precision,
        held_out_share if validation is None else 0.0, validate_every,
    )  # fmt: skip
    picture = out.with_suffix(".png")
    atomic.check_outputs((out, picture), overwrite)
    _check_model(architecture, model)
    data = label_map_batches.read(labels, images, with_background)
    rows, held_out = label_map_batches.split(data, settings.held_out_share, seed)
    measured_on, measured_rows = data, held_out
    if validation is not None:
        folder = validation_images or images
        measured_on = label_map_batches.read_truth(validation, folder, data.names)
        measured_rows = list(range(len(measured_on.pictures)))
    with distributed.joined(devices.choose(device)) as ranks:
        network, backbone, clip = start(settings, len(data.names), model, ranks)
        recipe = settings.recipe
        shown = asdict(settings) | {
            "labels": data.digest, "with_background": with_background, "backbone": backbone,
            "validation": "held-out labels" if validation is None else measured_on.digest,
            "names": list(data.names),
        }  # fmt: skip
        digest = parts.settings_digest(
            shown
            | {"clip": None if clip is None else clip.fingerprint}
            | {"device": ranks.device.type, "world": ranks.world}
        )
        checkpoint = checkpoints.beside(out, digest)
        begun = checkpoints.begin_together(checkpoint, ranks, resume, overwrite)
        curve = segmenter_trainer.fit(
            network,
            label_map_batches.examples_of(data, rows, seed, batch_size, recipe.side, recipe.scales),
            settings,
            checkpoint,
            frozen_norms=backbone is not None,
            begun=begun,
            validate=_validation(network, measured_on, measured_rows, recipe.short_side),
            ranks=ranks,
            save_every=save_every,
            workers=workers,
            progress=progress if ranks.is_first else no_progress,
        )
        if ranks.is_first:
            thin = loop.thinned(curve)
            shown |= asdict(recipe) | {"images": len(rows), "curve": thin}
            segmenter.save(out, network, shown, clip)
            plots.losses(picture, thin, "train-segmenter")
            checkpoint.remove()
    return {
        "output": str(out),
        "curve": str(picture),
        "parameters": sum(one.numel() for one in network.parameters()),
        "backbone": backbone or (clip and clip.name),
        "images": len(rows),
        "held_out": len(held_out),
        "left_out": data.left_out,
        "names": len(data.names),
        "last": curve[-1],
        "is_first": ranks.is_first,
    }


def start(
    settings: Settings, classes: int, model: str | None, ranks: Ranks
) -> tuple[Network, str | None, Clip | None]:
    """A network at its first step, the same in every process; the name of its backbone's weights, None
    where they are random; and the CLIP that it stands on, if any."""
    clip = None
    if settings.architecture == "clip":
        from ovtool.models import clip as door

        clip = door.load(model, ranks.device, torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = segmenter.build(settings.architecture, classes, clip)
    backbone = segmenter.start_backbone(network, settings.architecture)
    weights = segmenter.pretrained(settings.architecture)
    if backbone is None and weights is not None and ranks.is_first:
        _logger.warning(
            "the backbone of %s begins at random weights, since %s is not in the cache",
            settings.architecture, weights,
        )  # fmt: skip
    network = network.to(ranks.device, memory_format=torch.channels_last)
    distributed.share(network, ranks)
    return network, backbone, clip


def _check_model(architecture: str, model: str | None) -> None:
    """A model that means nothing, or that nothing needs, is told before any work. Raises UsageError."""
    if model is None:
        return
    if architecture != "clip":
        raise UsageError(f"--model is the CLIP under --arch clip, and {architecture} has none")
    resolve.spec(resolve.choose(model))


def _validation(
    network: Network, labels: Labels, rows: Sequence[int], short_side: int
) -> Callable[[], Mapping[str, float]] | None:
    if not rows:
        return None
    return lambda: segmenter_trainer.validation(network, labels, rows, short_side)

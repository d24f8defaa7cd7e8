"""The training of a segmenter: what an architecture decides, its start, its steps and its validation.

Cross-entropy over the pixels that have a label (DeepLab's), or for MaskFormer the losses of
`models.mask_losses` with one mask a class, on every decoder layer; what is ignored counts in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from ovtool.batches.label_maps import IGNORED, Batches, ExampleOf, Labels
from ovtool.batches.loader import Loader
from ovtool.methods import class_maps, metrics
from ovtool.models import segmenter
from ovtool.models.segmenter import Network, Queries
from ovtool.runtime import device as devices
from ovtool.settings.layers import Origin, known
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.trainers import pixel_networks
from ovtool.trainers.pixel_networks import Recipe
from ovtool.training import distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Task

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

STEPS = 20_000
MOMENTUM = 0.9


_DEEPLAB = Recipe(
    lr=1e-2, weight_decay=1e-4, crop_size=512, warmup=0, optimizer="sgd", fits_images=True
)
RECIPES: Mapping[str, Recipe] = {
    "tiny": Recipe(lr=1e-3, crop_size=128, short_side=256, warmup=100, scales=(1.0, 2.0)),
    "clip": Recipe(lr=1e-3, crop_size=160, short_side=256, warmup=100, scales=(1.0, 2.0)),
    "photo": Recipe(
        lr=1e-3,
        crop_size=256,
        short_side=384,
        warmup=100,
        scales=(1.0, 2.0),
        backbone_multiplier=0.1,
        fits_images=True,
    ),
    **dict.fromkeys(segmenter.DEEPLAB, _DEEPLAB),
    **{f"maskformer-{name}": recipe for name, recipe in pixel_networks.MASKFORMER.items()},
}


def settled(
    training: SegmenterTraining, images: int, sides: Iterable[int] = ()
) -> tuple[SegmenterTraining, dict[str, Origin]]:
    """The settings with nothing left open, and where each value comes from.

    Args:
        training: As they were given.
        images: To learn from, for the steps of `epochs`.
        sides: The longer side of each in pixels, for the crops (`pixel_networks.fitting`).
    """
    recipe = pixel_networks.fitting(RECIPES[training.architecture], sides)
    return pixel_networks.settled(training, recipe, STEPS, images)


def start(
    training: SegmenterTraining, classes: int, model: str | None, ranks: Ranks
) -> tuple[Network, str | None, Clip | None]:
    """A network at its first step, the same in every process.

    Args:
        training: The settings.
        classes: How many classes there are.
        model: The CLIP under the architecture `clip`.
        ranks: This process among them.

    Returns:
        The network; the name of its backbone's weights, None where they are random; and the CLIP that it
        stands on, if any.
    """
    architecture, clip = training.architecture, None
    if architecture == "clip":
        from ovtool.models import clip as clips

        clip = clips.load(model, ranks.device, torch.float32)
    network = pixel_networks.drawn(
        lambda: segmenter.build(architecture, classes, clip), training.seed
    )
    backbone = segmenter.start_backbone(network, architecture)
    pretrained = segmenter.pretrained(architecture)
    pixel_networks.warn_of_random_backbone(architecture, backbone, pretrained, ranks)
    return pixel_networks.placed(network, ranks), backbone, clip


def optimizer_of(network: Network, training: SegmenterTraining) -> torch.optim.Optimizer:
    """The architecture's; the backbone at its multiple of the rate; no decay on what is no matrix or
    kernel."""
    recipe = RECIPES[training.architecture]
    backbone = set() if network.backbone is None else {*network.backbone.parameters()}
    parameters = (
        (parameter, parameter in backbone, parameter.ndim >= 2)
        for parameter in network.parameters()
    )
    groups = pixel_networks.parameter_groups(parameters, training, recipe.backbone_multiplier)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    return torch.optim.AdamW(groups)


def task(
    network: Network,
    example_of: ExampleOf,
    training: SegmenterTraining,
    ranks: Ranks,
    *,
    dtype: torch.dtype = torch.float32,
    frozen_norms: bool = False,
    validate: Callable[[], Mapping[str, float]] | None = None,
) -> Task:
    """The training of a network, which is put in training mode.

    Args:
        network: At its first step.
        example_of: What each row of each step shows.
        training: The settings, with nothing left open.
        ranks: This process among them.
        dtype: What the network computes in; losses are computed in its own.
        frozen_norms: The backbone's batch norms keep their statistics, as those of a pretrained one
            should; the others are normalised by each process's own rows, so the number of processes
            changes the result.
        validate: Measures the network; None where there is nothing to measure on.

    Raises:
        UsageError: The processes cannot share the batch evenly.
    """
    rows = distributed.own_rows(known(training.batch_size), ranks, least=2)
    batches = Loader(Batches(example_of, rows), known(training.steps), training.loader_workers)
    frozen = pixel_networks.batch_norms(network.backbone) if frozen_norms else []
    pixel_networks.set_mode(network, True, frozen)
    number = next(network.parameters()).dtype
    losses_of = _query_losses if isinstance(network.body, Queries) else _pixel_losses

    def step(index: int) -> dict[str, float]:
        batch = batches(index)
        pixel_networks.seed_step(training.seed, index, ranks)
        pixels = batch.pixels.to(ranks.device).permute(0, 3, 1, 2).to(number) / 255
        with devices.autocast(ranks.device, dtype):
            losses = losses_of(network, pixels, batch.labels.to(ranks.device), ranks)
        return pixel_networks.descend(losses, ranks)

    clip_norm = RECIPES[training.architecture].clip_norm
    return Task(
        name="training the segmenter",
        modules={"network": network},
        optimizer=optimizer_of(network, training),
        plan=loop.plan_of(training, "poly", clip_norm, validate is not None),
        step=step,
        validate=pixel_networks.validated(validate, network, frozen, ranks),
        memory=pixel_networks.smaller(training.architecture),
    )


def _pixel_losses(
    network: Network, pixels: Tensor, labels: Tensor, ranks: Ranks
) -> dict[str, Tensor]:
    """The cross-entropy of this process's rows, its share of the mean over all labelled pixels."""
    logits = network(pixels).to(pixels.dtype)
    logits = interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    count = distributed.sum_over_ranks((labels != IGNORED).sum(), ranks).clamp(min=1)
    entropy = cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return {"entropy": entropy / count}


def _query_losses(
    network: Network, pixels: Tensor, labels: Tensor, ranks: Ranks
) -> dict[str, Tensor]:
    """MaskFormer's losses, summed over its layers, with one mask for each class of an image."""
    from ovtool.models import mask_losses

    assert isinstance(network.body, Queries)
    present = [label_map[label_map != IGNORED].unique() for label_map in labels]
    targets = mask_losses.Targets(
        [
            (label_map == classes[:, None, None]).to(pixels.dtype)
            for label_map, classes in zip(labels, present, strict=True)
        ],
        present,
        [label_map == IGNORED for label_map in labels],
    )
    counts = distributed.sum_over_ranks(targets.counts(network.body.network.queries), ranks)
    sums: dict[str, Tensor] = {}
    for logits, layer in network.body.layers(network.normalised(pixels)):
        losses = mask_losses.layer_losses(
            logits.to(pixels.dtype), layer.masks.to(pixels.dtype), targets, counts
        )
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
    return sums


@torch.no_grad()
def validation(
    network: Network, labels: Labels, rows: Sequence[int], short_side: int
) -> dict[str, float]:
    """The mIoU of the images at some rows, at one scale; nothing where no pixel has a label."""
    count = len(labels.names)
    total = np.zeros((count, count + 1), np.int64)
    for row in rows:
        rgb, true = labels.example(row)
        scores = segmenter.rows(network, rgb, short_side)
        named = class_maps.label_blocks(scores, (rgb.shape[0], rgb.shape[1]), count)
        total += metrics.confusion(named.label, true, count, IGNORED)
    return {"miou": metrics.scores(total).miou_truth} if total.any() else {}

"""The training of a proposer: what an architecture decides, its start, its steps and its validation.

The recipe is OVSeg's (CVPR 2023, sections 3.1 and 4.1); the losses are those of `models.mask_losses`, on
every decoder layer. Where examples come from is left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ovtool.batches.loader import Loader
from ovtool.batches.masks import Batch, Batches, ExampleOf, Truth
from ovtool.formats import coco, rle
from ovtool.methods import metrics, recall
from ovtool.models import maskformer
from ovtool.models.maskformer import MaskFormer
from ovtool.proposers import proposals
from ovtool.runtime import device as devices
from ovtool.settings.layers import Origin, known
from ovtool.settings.propose import Propose
from ovtool.settings.proposer import ProposerTraining
from ovtool.trainers import pixel_networks
from ovtool.training import distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Task

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models import mask_losses
    from ovtool.models.clip import Clip

STEPS = 120_000
UNLABELLED = -1


def settled(
    training: ProposerTraining, images: int, sides: Iterable[int] = ()
) -> tuple[ProposerTraining, dict[str, Origin]]:
    """The settings with nothing left open, and where each value comes from.

    Args:
        training: As they were given.
        images: To learn from, for the steps of `epochs`.
        sides: The longer side of each in pixels, for the crops (`pixel_networks.fitting`).
    """
    recipe = pixel_networks.fitting(pixel_networks.MASKFORMER[training.architecture], sides)
    return pixel_networks.settled(training, recipe, STEPS, images)


def embedded(model: str | None, names: Sequence[str], templates: str) -> tuple[Clip, Tensor]:
    """The CLIP of a name, and unit text embeddings (K, C) of the names, on the CPU, in float32."""
    from ovtool.models import clip as clips
    from ovtool.models import text

    clip = clips.load(model, torch.device("cpu"), torch.float32)
    text.warn_unlearned(clip, names)
    return clip, text.embed_words(clip, names, templates).float()


def start(
    training: ProposerTraining, embed_dim: int, ranks: Ranks
) -> tuple[MaskFormer, str | None]:
    """A network at its first step, the same in every process.

    Args:
        training: The settings.
        embed_dim: Width of the text embeddings that proposals are compared with.
        ranks: This process among them.

    Returns:
        The network, and the name of its backbone's weights, None where they are random.
    """
    architecture = training.architecture

    def build() -> MaskFormer:
        configuration = maskformer.configuration(architecture, training.queries)
        network = MaskFormer(configuration, embed_dim)
        if architecture in ("tiny", "photo"):
            maskformer.start_queries(network)
        else:
            maskformer.start_decoder(network)
        return network

    network = pixel_networks.drawn(build, training.seed)
    backbone = maskformer.start_backbone(network, architecture)
    pretrained = maskformer.BACKBONES.get(architecture)
    pixel_networks.warn_of_random_backbone(architecture, backbone, pretrained, ranks)
    return pixel_networks.placed(network, ranks), backbone


def optimizer_of(network: MaskFormer, training: ProposerTraining) -> torch.optim.AdamW:
    """AdamW; the backbone at its multiple of the rate; no decay on norms, embeddings, the tables of
    relative positions and "no object"."""
    bare = _undecayed(network)
    parameters: Iterator[tuple[nn.Parameter, bool, bool]] = (
        (parameter, name.startswith("model.pixel_level_module.encoder."), name not in bare)
        for name, parameter in network.named_parameters()
    )
    multiplier = pixel_networks.MASKFORMER[training.architecture].backbone_multiplier
    return torch.optim.AdamW(pixel_networks.parameter_groups(parameters, training, multiplier))


def _undecayed(network: MaskFormer) -> set[str]:
    """The names of the parameters that no weight decay pulls."""
    free = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
    return {
        f"{name}.{own}".removeprefix(".")
        for name, module in network.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, free) or own == "relative_position_bias_table"
    } | {"no_object"}


def task(
    network: MaskFormer,
    words: Tensor,
    example_of: ExampleOf,
    training: ProposerTraining,
    ranks: Ranks,
    *,
    dtype: torch.dtype = torch.float32,
    frozen_norms: bool = False,
    validate: Callable[[], Mapping[str, float]] | None = None,
    target_stride: int = 1,
) -> Task:
    """The training of a network, which is put in training mode.

    Args:
        network: At its first step.
        words: Unit text embeddings (K, C) of the labels, on the device.
        example_of: What each row of each step shows.
        training: The settings, with nothing left open.
        ranks: This process among them.
        dtype: What the network computes in; losses are computed in its own.
        frozen_norms: Batch norms keep their statistics, as those of a pretrained backbone should. Where
            they do not, each process normalises by its own rows, so their number changes the result.
        validate: Measures the images held out; None where there are none.
        target_stride: Masks are compared at every so many pixels in the losses; 1 is the paper's.

    Raises:
        UsageError: The processes cannot share the batch evenly.
    """
    rows = distributed.own_rows(known(training.batch_size), ranks)
    batches = Loader(Batches(example_of, rows), known(training.steps), training.loader_workers)
    frozen = pixel_networks.batch_norms(network) if frozen_norms else []
    pixel_networks.set_mode(network, True, frozen)

    def step(number: int) -> dict[str, float]:
        batch = batches(number)
        pixel_networks.seed_step(training.seed, number, ranks)
        targets = _targets(network, batch, target_stride)
        losses = _losses(network, words, batch.pixels, targets, training.class_weight, ranks, dtype)
        return pixel_networks.descend(losses, ranks)

    clip_norm = pixel_networks.MASKFORMER[training.architecture].clip_norm
    return Task(
        name="training the proposer",
        modules={"network": network},
        optimizer=optimizer_of(network, training),
        plan=loop.plan_of(training, "poly", clip_norm, validate is not None),
        step=step,
        validate=pixel_networks.validated(validate, network, frozen, ranks),
        memory=pixel_networks.smaller(training.architecture),
    )


def _targets(network: MaskFormer, batch: Batch, stride: int) -> mask_losses.Targets:
    """The masks of a batch at every `stride` pixels, and their labels, on the network's device."""
    from ovtool.models import mask_losses

    device, number = network.no_object.device, network.no_object.dtype
    start = stride // 2
    return mask_losses.Targets(
        [masks[:, start::stride, start::stride].to(device, number) for masks in batch.masks],
        [labels.to(device) for labels in batch.labels],
    )


def _losses(
    network: MaskFormer,
    words: Tensor,
    rgb: Tensor,
    targets: mask_losses.Targets,
    class_weight: float,
    ranks: Ranks,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """This process's share of MaskFormer's losses, summed over the layers of the decoder."""
    from ovtool.models import mask_losses

    device, number = network.no_object.device, network.no_object.dtype
    counts = distributed.sum_over_ranks(targets.counts(network.queries), ranks)
    pixels = maskformer.normalise(rgb.to(device)).to(number)
    with devices.autocast(device, dtype):
        layers = network(pixels)
    sums = dict.fromkeys(("class", "mask", "dice"), torch.zeros((), device=device))
    for layer in layers:
        logits = network.class_logits(layer.embeddings.to(number), words.to(number))
        losses = mask_losses.layer_losses(logits, layer.masks.to(number), targets, counts)
        losses["class"] = class_weight * losses["class"]
        sums = {name: sums[name] + value for name, value in losses.items()}
    return sums


@torch.no_grad()
def validation(
    network: MaskFormer, words: Tensor, truth: Truth, short_side: int
) -> dict[str, float]:
    """On the images held out: the average recall of the targets at 100 proposals, and the mIoU of the
    network's own class scores, each pixel of a target being one of its label."""
    true: dict[str, list[coco.Annotation]] = {}
    proposed: dict[str, list[coco.Annotation]] = {}
    count = len(truth.names)
    total = np.zeros((count, count + 1), np.int64)
    for row in truth.held_out:
        name, rgb = truth.images[row].file_name, truth.rgb(row)
        masks, labels = truth.targets(row)
        soft, embeddings = maskformer.predict(network, rgb, short_side)
        probabilities = network.class_logits(embeddings, words.float()).softmax(-1)
        quality = maskformer.scores(soft, probabilities[:, -1])
        bounds = Propose(min_area=0.0)
        kept = proposals.bounded(soft.cpu().numpy(), quality.cpu().numpy(), bounds)
        true[name] = _annotations(masks, None)
        proposed[name] = _annotations(kept.masks(), kept.quality)
        best = torch.einsum("nk,nhw->khw", probabilities[:, :-1], soft).argmax(0)
        truly = np.full(rgb.shape[:2], UNLABELLED, np.int64)
        for mask, label in zip(masks, labels, strict=True):
            truly[mask] = label
        total += metrics.confusion(best.cpu(), truly, count, UNLABELLED)
    measured = recall.measure(true, proposed).measures
    scores = {"recall": measured["average_recall"], "miou": metrics.scores(total).miou_truth}
    return {name: float(value) for name, value in scores.items() if value is not None}


def _annotations(
    masks: NDArray[np.bool_], scores: NDArray[np.floating] | None
) -> list[coco.Annotation]:
    return [
        coco.annotation(
            index + 1, 1, 1, mask, None if scores is None else round(float(scores[index]), 6)
        )
        for index, mask in enumerate(rle.encode_many(masks))
    ]

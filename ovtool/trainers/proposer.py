"""The training of a proposer: what shapes it, its steps and its validation.

The recipe is OVSeg's (CVPR 2023, sections 3.1 and 4.1); the losses are those of `models.mask_losses`, on
every decoder layer. Where examples come from is left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovtool.batches import masks as mask_batches
from ovtool.batches.masks import TARGETS, ExampleOf, Truth
from ovtool.errors import UsageError
from ovtool.formats import coco, rle
from ovtool.methods import metrics, recall
from ovtool.models import maskformer
from ovtool.models.maskformer import MaskFormer
from ovtool.proposers import proposals
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.propose import Propose
from ovtool.training import distributed, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Plan, Record, Task

UNLABELLED = -1


@dataclass(frozen=True)
class Recipe:
    """What differs between architectures: rates, and the side of crops and of pictures in use."""

    rate: float
    weight_decay: float
    backbone_multiplier: float
    side: int
    warmup: int


RECIPES: Mapping[str, Recipe] = {  # the larger two as the paper's small and large one
    "tiny": Recipe(1e-3, 1e-2, 1.0, 256, 200),
    "resnet50": Recipe(2e-4, 1e-4, 0.1, 512, 1500),
    "swin-base": Recipe(6e-5, 1e-2, 1.0, 640, 1500),
}


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside data and CLIP.

    target_stride: masks are compared at every so many pixels in the losses; 1 is the paper's.
    held_out_share: of the pictures, for validation.
    """

    architecture: str = "resnet50"
    targets: str = "categories"
    queries: int = 100
    steps: int = 120_000
    batch_size: int = 32
    rate: float | None = None
    side: int | None = None
    warmup: int | None = None
    templates: str = "vild"
    seed: int = 0
    precision: str = "auto"
    held_out_share: float = 0.05
    validate_every: int = 5000
    target_stride: int = 1
    class_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.architecture not in maskformer.ARCHITECTURES:
            known = ", ".join(maskformer.ARCHITECTURES)
            raise UsageError(f"unknown architecture '{self.architecture}'; choose from {known}")
        if self.targets not in TARGETS:
            raise UsageError(f"unknown targets '{self.targets}'; choose from {', '.join(TARGETS)}")

    @property
    def recipe(self) -> Recipe:
        """The architecture's, with what was given in its place."""
        given = {"rate": self.rate, "side": self.side, "warmup": self.warmup}
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.architecture], **chosen)


def optimizer_of(network: MaskFormer, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; the backbone at its multiple of the rate; no decay on norms, embeddings, the tables of
    relative positions and "no object"."""
    free = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
    bare = {
        f"{name}.{own}".removeprefix(".")
        for name, module in network.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, free) or own == "relative_position_bias_table"
    } | {"no_object"}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        is_backbone = name.startswith("model.pixel_level_module.encoder.")
        key = (is_backbone, name in bare)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": chosen,
                "lr": recipe.rate * (recipe.backbone_multiplier if is_backbone else 1.0),
                "weight_decay": 0.0 if is_bare else recipe.weight_decay,
            }
            for (is_backbone, is_bare), chosen in groups.items()
        ]
    )


def fit(
    network: MaskFormer,
    words: Tensor,
    example_of: ExampleOf,
    settings: Settings,
    checkpoint: Checkpoint,
    *,
    frozen_norms: bool = False,
    begun: Mapping[str, Any] | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    ranks: Ranks | None = None,
    save_every: int = 100,
    workers: int = 0,
    progress: Progress = no_progress,
) -> list[Record]:
    """Trains a network in place and returns the curve.

    words: unit text embeddings (K, C) of the labels. example_of: what each row of each step shows.
    frozen_norms: batch norms keep their statistics, as those of a pretrained backbone should. Where
        they do not, each process normalises by its own rows, so their number changes the result.

    Raises UsageError where the processes cannot share the batch evenly, and as `loop.train`.
    """
    from ovtool.models import mask_losses

    ranks = ranks or Ranks(0, 1, network.no_object.device)
    if settings.batch_size % ranks.world:
        raise UsageError(
            f"--batch-size {settings.batch_size} cannot be shared by {ranks.world} processes: give a "
            "multiple of their number"
        )
    own = settings.batch_size // ranks.world
    rows = range(ranks.rank * own, (ranks.rank + 1) * own)
    first = 0 if begun is None else len(begun["curve"])
    batches = mask_batches.stream(example_of, first, rows, workers)
    device, number = network.no_object.device, network.no_object.dtype
    lower = devices.precision(settings.precision, device)
    stride = settings.target_stride
    set_mode(network, True, frozen_norms)

    def gradients(step: int) -> dict[str, float]:
        batch = next(batches)
        torch.manual_seed((settings.seed * 1_000_003 + step) * 1009 + ranks.rank)
        targets = mask_losses.Targets(
            [
                masks[:, stride // 2 :: stride, stride // 2 :: stride].to(device, number)
                for masks in batch.masks
            ],
            [labels.to(device) for labels in batch.labels],
        )
        counts = distributed.sum_over_ranks(targets.counts(network.queries), ranks)
        pixels = maskformer.normalise(batch.pixels.to(device)).to(number)
        with torch.autocast(device.type, lower, enabled=lower != torch.float32):
            layers = network(pixels)
        sums = dict.fromkeys(("class", "mask", "dice"), torch.zeros((), device=device))
        for layer in layers:
            logits = network.class_logits(layer.embeddings.to(number), words.to(number))
            found = mask_losses.layer_losses(logits, layer.masks.to(number), targets, counts)
            found["class"] = settings.class_weight * found["class"]
            sums = {name: sums[name] + value for name, value in found.items()}
        total: Tensor = sum(sums.values(), torch.zeros((), device=device))
        (total * ranks.world).backward()  # whose mean over the processes is the sum of their shares
        values = torch.stack([total, *sums.values()]).detach().double()
        values = distributed.sum_over_ranks(values, ranks)
        return dict(zip(("loss", *sums), values.tolist(), strict=True))

    def validated() -> dict[str, float]:
        if not ranks.is_first:
            return {}
        set_mode(network, False)
        measured = validate() if validate is not None else {}
        set_mode(network, True, frozen_norms)
        return dict(measured)

    recipe = settings.recipe
    warmup = min(recipe.warmup, settings.steps // 10)
    every = settings.validate_every if validate is not None else 0
    plan = Plan(
        settings.steps, warmup, "poly", clip_norm=0.01, save_every=save_every, validate_every=every
    )
    curve = loop.train(
        Task(
            name="training the proposer",
            modules={"network": network},
            optimizer=optimizer_of(network, recipe),
            plan=plan,
            step=gradients,
            validate=validated if validate is not None else None,
        ),
        checkpoint,
        begun=begun,
        ranks=ranks,
        progress=progress,
    )
    set_mode(network, False)
    return curve


def set_mode(network: nn.Module, training: bool, frozen_norms: bool = False) -> None:
    """Training mode or not; frozen batch norms never are in it."""
    network.train(training)
    for module in network.modules():
        if frozen_norms and isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def validation(network: MaskFormer, words: Tensor, truth: Truth, side: int) -> dict[str, float]:
    """On the pictures held out: the average recall of the targets at 100 proposals, and the mIoU of the
    network's own class scores, each pixel of a target being one of its label."""
    true: dict[str, list[coco.Annotation]] = {}
    found: dict[str, list[coco.Annotation]] = {}
    count = len(truth.names)
    total = torch.zeros(count, count + 1, dtype=torch.int64)
    for row in truth.held_out:
        name, rgb = truth.images[row].file_name, truth.picture(row)
        masks, labels = truth.targets(row)
        soft, embeddings = maskformer.predict(network, rgb, side)
        probabilities = network.class_logits(embeddings, words.float()).softmax(-1)
        quality = maskformer.scores(soft, probabilities[:, -1])
        bounds = Propose(min_area=0.0)
        kept = proposals.bounded(soft.cpu().numpy(), quality.cpu().numpy(), bounds)
        true[name] = _annotations(masks, None)
        found[name] = _annotations(kept.masks(), kept.quality)
        best = torch.einsum("nk,nhw->khw", probabilities[:, :-1], soft).argmax(0)
        truly = np.full(rgb.shape[:2], UNLABELLED, np.int64)
        for mask, label in zip(masks, labels, strict=True):
            truly[mask] = label
        total += metrics.confusion(best.cpu(), torch.from_numpy(truly), count, UNLABELLED)
    measured = recall.measure(true, found)
    scores = {"recall": measured["average_recall"], "miou": metrics.scores(total).miou}
    return {name: float(value) for name, value in scores.items() if value is not None}


def _annotations(masks: Any, scores: Sequence[float] | None) -> list[coco.Annotation]:
    return [
        coco.annotation(
            index + 1, 1, 1, mask, None if scores is None else round(float(scores[index]), 6)
        )
        for index, mask in enumerate(rle.encode_many(masks))
    ]

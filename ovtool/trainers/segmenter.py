"""The training of a segmenter: what shapes it, its steps and its validation.

Cross-entropy over the pixels that have a label (DeepLab's), or for MaskFormer the losses of
`models.mask_losses` with one mask a class, on every decoder layer; what is ignored counts in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from ovtool.batches import label_maps as label_map_batches
from ovtool.batches.label_maps import IGNORED, ExampleOf, Labels
from ovtool.errors import UsageError
from ovtool.methods import class_maps, metrics
from ovtool.models import segmenter
from ovtool.models.segmenter import Network, Queries
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.training import distributed, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Plan, Record, Task

MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """What differs between architectures.

    optimizer: `sgd` (DeepLab's, momentum 0.9) or `adamw`; the rate falls with power 0.9.
    side: of crops, short_side: of pictures in use, in pixels. scales: of a picture's shorter side, over
    the side of the crop.
    """

    optimizer: str
    rate: float
    weight_decay: float
    backbone_multiplier: float
    side: int
    short_side: int
    scales: tuple[float, float]
    warmup: int
    clip_norm: float | None


_DEEPLAB = Recipe("sgd", 1e-2, 1e-4, 1.0, 512, 512, (0.5, 2.0), 0, None)
RECIPES: Mapping[str, Recipe] = {
    "tiny": Recipe("adamw", 1e-3, 1e-2, 1.0, 128, 256, (1.0, 2.0), 100, None),
    "clip": Recipe("adamw", 1e-3, 1e-2, 1.0, 160, 256, (1.0, 2.0), 100, None),
    **dict.fromkeys(segmenter.DEEPLAB, _DEEPLAB),
    "maskformer-tiny": Recipe("adamw", 1e-3, 1e-2, 1.0, 256, 256, (0.5, 2.0), 200, 0.01),
    "maskformer-resnet50": Recipe("adamw", 2e-4, 1e-4, 0.1, 512, 512, (0.5, 2.0), 1500, 0.01),
    "maskformer-swin-base": Recipe("adamw", 6e-5, 1e-2, 1.0, 640, 640, (0.5, 2.0), 1500, 0.01),
}


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside its labels.

    rate, side, short_side, warmup: None is the architecture's. held_out_share: of the pictures.

    Raises UsageError for what cannot be meant.
    """

    architecture: str = "deeplabv3_resnet50"
    steps: int = 20_000
    batch_size: int = 16
    rate: float | None = None
    side: int | None = None
    short_side: int | None = None
    warmup: int | None = None
    seed: int = 0
    precision: str = "auto"
    held_out_share: float = 0.05
    validate_every: int = 2000

    def __post_init__(self) -> None:
        if self.architecture not in segmenter.ARCHITECTURES:
            known = ", ".join(segmenter.ARCHITECTURES)
            raise UsageError(f"unknown architecture '{self.architecture}'; choose from {known}")
        if self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size}: batch norm needs two images or more in a step"
            )

    @property
    def recipe(self) -> Recipe:
        """The architecture's, with what was given in its place."""
        given = {
            "rate": self.rate, "side": self.side, "short_side": self.short_side,
            "warmup": self.warmup,
        }  # fmt: skip
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(RECIPES[self.architecture], **chosen)


def optimizer_of(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's; the backbone at its multiple of the rate; no decay on what is no matrix or kernel."""
    backbone = set() if network.backbone is None else {*network.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((parameter in backbone, parameter.ndim >= 2), []).append(parameter)
    chosen = [
        {
            "params": some,
            "lr": recipe.rate * (recipe.backbone_multiplier if is_backbone else 1.0),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), some in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(chosen, momentum=MOMENTUM)
    return torch.optim.AdamW(chosen)


def fit(
    network: Network,
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

    example_of: what each row of each step shows. frozen_norms: the backbone's batch norms keep their
    statistics, as those of a pretrained one should; the others are normalised by each process's own
    rows, so the number of processes changes the result.

    Raises UsageError where the processes cannot share the batch evenly, and as `loop.train`.
    """
    ranks = ranks or Ranks(0, 1, next(network.parameters()).device)
    own = settings.batch_size // ranks.world
    if settings.batch_size % ranks.world or own < 2:
        raise UsageError(
            f"--batch-size {settings.batch_size} cannot be shared by {ranks.world} processes: give a "
            "multiple of their number, with two images or more for each"
        )
    rows = range(ranks.rank * own, (ranks.rank + 1) * own)
    first = 0 if begun is None else len(begun["curve"])
    batches = label_map_batches.stream(example_of, first, rows, workers)
    device = ranks.device
    number = next(network.parameters()).dtype
    lower = devices.precision(settings.precision, device)
    losses = _query_losses if isinstance(network.body, Queries) else _pixel_losses
    set_mode(network, True, frozen_norms)

    def gradients(step: int) -> dict[str, float]:
        batch = next(batches)
        torch.manual_seed((settings.seed * 1_000_003 + step) * 1009 + ranks.rank)
        pixels = batch.pixels.to(device).permute(0, 3, 1, 2).to(number) / 255
        with torch.autocast(device.type, lower, enabled=lower != torch.float32):
            found = losses(network, pixels, batch.labels.to(device), ranks)
        total = sum(found.values(), torch.zeros((), device=device))
        (total * ranks.world).backward()  # whose mean over the processes is the sum of their shares
        values = torch.stack([total, *found.values()]).detach().double()
        values = distributed.sum_over_ranks(values, ranks)
        names = ("loss",) if len(found) == 1 else ("loss", *found)
        return dict(zip(names, values.tolist(), strict=False))

    def validated() -> dict[str, float]:
        if not ranks.is_first or validate is None:
            return {}
        set_mode(network, False)
        measured = validate()
        set_mode(network, True, frozen_norms)
        return dict(measured)

    recipe = settings.recipe
    plan = Plan(
        settings.steps, min(recipe.warmup, settings.steps // 10), "poly", recipe.clip_norm,
        save_every, settings.validate_every if validate is not None else 0,
    )  # fmt: skip
    curve = loop.train(
        Task(
            name="training the segmenter",
            modules={"network": network},
            optimizer=optimizer_of(network, recipe),
            plan=plan,
            step=gradients,
            validate=None if validate is None else validated,
        ),
        checkpoint,
        begun=begun,
        ranks=ranks,
        progress=progress,
    )
    set_mode(network, False)
    return curve


def set_mode(network: Network, training: bool, frozen_norms: bool = False) -> None:
    """Training mode or not; the batch norms of a backbone whose norms are frozen never are in it."""
    network.train(training)
    if frozen_norms and network.backbone is not None:
        for module in network.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


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
    """MaskFormer's losses, summed over its layers, with one mask for each class of a picture."""
    from ovtool.models import mask_losses

    assert isinstance(network.body, Queries)
    present = [each[each != IGNORED].unique() for each in labels]
    targets = mask_losses.Targets(
        [
            (each == some[:, None, None]).to(pixels.dtype)
            for each, some in zip(labels, present, strict=True)
        ],
        present,
        [each == IGNORED for each in labels],
    )
    counts = distributed.sum_over_ranks(targets.counts(network.body.network.queries), ranks)
    sums: dict[str, Tensor] = {}
    for logits, layer in network.body.layers(network.normalised(pixels)):
        found = mask_losses.layer_losses(
            logits.to(pixels.dtype), layer.masks.to(pixels.dtype), targets, counts
        )
        sums = {name: sums.get(name, 0) + value for name, value in found.items()}
    return sums


@torch.no_grad()
def validation(
    network: Network, labels: Labels, rows: Sequence[int], short_side: int
) -> dict[str, float]:
    """The mIoU of the pictures at some rows, at one scale; nothing where no pixel has a label."""
    count = len(labels.names)
    total = torch.zeros(count, count + 1, dtype=torch.int64)
    for row in rows:
        rgb, true = labels.example(row)
        shown = segmenter.rows(network, rgb, short_side)
        found = class_maps.label_blocks(shown, (rgb.shape[0], rgb.shape[1]), count)
        total += metrics.confusion(found.label, torch.from_numpy(true), count, IGNORED)
    return {"miou": metrics.scores(total).miou} if total.any() else {}

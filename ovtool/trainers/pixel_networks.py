"""What the trainings of networks for pixels share: a proposer's and a segmenter's.

Both begin with a drawn network whose backbone may be pretrained, and both add up losses of which each
process has its share. Settings that the architecture decides are filled here too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ovtool.settings import layers
from ovtool.settings.layers import Origin, known
from ovtool.settings.option import fields
from ovtool.settings.shared import Training
from ovtool.training import distributed
from ovtool.training.distributed import Ranks

_logger = logging.getLogger("ovtool")

Settings = TypeVar("Settings", bound=Training)
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an architecture decides, where the settings leave it open; the rest no setting changes.

    Attributes:
        lr: Peak learning rate; it falls with power 0.9.
        weight_decay: Of matrices and kernels.
        crop_size: Side of the crops, in pixels.
        short_side: Shorter side of images in use, in pixels; None for that of the crops.
        warmup: Steps in which the learning rate rises.
        optimizer: `sgd` (DeepLab's, momentum 0.9) or `adamw`.
        backbone_multiplier: Of the learning rate, for the backbone.
        scales: Of an image's shorter side, over the side of the crop.
        clip_norm: The greatest norm of the gradient; None for no bound.
        fits_images: The side of the crops is no longer than the longest side of all images (`fitting`).
    """

    lr: float
    weight_decay: float = 1e-2
    crop_size: int
    short_side: int | None = None
    warmup: int
    optimizer: Literal["sgd", "adamw"] = "adamw"
    backbone_multiplier: float = 1.0
    scales: tuple[float, float] = (0.5, 2.0)
    clip_norm: float | None = None
    fits_images: bool = False


LEAST_CROP, CROP_STEP = 128, 32  # of crops that fit the images, in pixels
MASKFORMER: Mapping[str, Recipe] = {  # resnet50 and swin-base as the paper's small and large one
    "tiny": Recipe(lr=1e-3, crop_size=256, warmup=200, clip_norm=0.01),
    "resnet50": Recipe(
        lr=2e-4,
        weight_decay=1e-4,
        crop_size=512,
        warmup=1500,
        backbone_multiplier=0.1,
        clip_norm=0.01,
        fits_images=True,
    ),
    "swin-base": Recipe(lr=6e-5, crop_size=640, warmup=1500, clip_norm=0.01, fits_images=True),
    "photo": Recipe(
        lr=5e-4,
        crop_size=384,
        warmup=200,
        backbone_multiplier=0.1,
        clip_norm=0.01,
        fits_images=True,
    ),
}


def fitting(recipe: Recipe, sides: Iterable[int]) -> Recipe:
    """The recipe with crops for small images, which memory and time would be wasted on at the size of a recipe for
    photographs: as long as the longest side, up to a multiple of 32, and 128 pixels at least.

    Args:
        recipe: Of an architecture; others than those that fit images come back as they are.
        sides: The longer side of each image, drawn until one fills the crops.
    """
    longest = 0
    for side in sides if recipe.fits_images else ():
        longest = max(longest, side)
        if longest >= recipe.crop_size:
            return recipe
    if longest == 0:
        return recipe
    crop_size = max(LEAST_CROP, -(-longest // CROP_STEP) * CROP_STEP)
    return replace(recipe, crop_size=min(crop_size, recipe.crop_size))


def smaller(architecture: str) -> str:
    """What makes a step smaller, for the message where memory runs out."""
    return "a smaller --batch-size or --crop-size" + (
        "" if architecture == "tiny" else ", or --arch tiny"
    )


def settled(
    training: Settings, recipe: Recipe, steps: int, images: int
) -> tuple[Settings, dict[str, Origin]]:
    """The settings with nothing left open, and where each value that shapes the result comes from.

    Args:
        training: As they were given.
        recipe: What the architecture decides.
        steps: Of the training, where neither steps nor epochs were given.
        images: To learn from, for the steps of `epochs`.
    """
    if training.epochs is not None:
        steps = max(1, round(training.epochs * images / known(training.batch_size)))
    shaping = {name for name, field in fields(type(training)).items() if field.option.shapes}
    decided = {**vars(recipe), "short_side": recipe.short_side or recipe.crop_size, "steps": steps}
    published = {name: value for name, value in decided.items() if name in shaping}
    training, origins = layers.layered(training, published=published)
    warmup = min(known(training.warmup), known(training.steps) // 10)
    origins = {name: origin for name, origin in origins.items() if name in shaping}
    return replace(training, warmup=warmup), origins


def drawn(build: Callable[[], Network], seed: int) -> Network:
    """A network at random weights, which are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def placed(network: Network, ranks: Ranks) -> Network:
    """The network on the device of each process, with the weights of the first."""
    network = network.to(ranks.device).to(memory_format=torch.channels_last)
    distributed.share(network, ranks)
    return network


def warn_of_random_backbone(
    architecture: str, backbone: str | None, pretrained: str | None, ranks: Ranks
) -> None:
    """Warns where a backbone that has pretrained weights begins without them.

    Args:
        architecture: As it was named.
        backbone: The weights that it begins with; None for random ones.
        pretrained: The weights that it could begin with; None where there are none.
        ranks: Only the first process warns.
    """
    if backbone is None and pretrained is not None and ranks.is_first:
        _logger.warning(
            "the backbone of %s begins at random weights, since %s is not in the cache",
            architecture,
            pretrained,
        )


def parameter_groups(
    parameters: Iterable[tuple[nn.Parameter, bool, bool]],
    training: Training,
    backbone_multiplier: float,
) -> list[dict[str, Any]]:
    """The groups of an optimiser.

    Args:
        parameters: Each with whether it is the backbone's, and whether it decays.
        training: Has the learning rate and the weight decay.
        backbone_multiplier: Of the learning rate, for the backbone.
    """
    lr, weight_decay = known(training.lr), known(training.weight_decay)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter, is_backbone, decays in parameters:
        groups.setdefault((is_backbone, decays), []).append(parameter)
    return [
        {
            "params": own,
            "lr": lr * (backbone_multiplier if is_backbone else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), own in groups.items()
    ]


def batch_norms(network: nn.Module | None) -> list[nn.Module]:
    """The batch norms of a network, which keep their statistics where they are frozen."""
    modules = () if network is None else network.modules()
    return [module for module in modules if isinstance(module, nn.BatchNorm2d)]


def set_mode(network: nn.Module, training: bool, frozen_norms: Iterable[nn.Module] = ()) -> None:
    """Puts a network in training mode or not; frozen batch norms never are in it."""
    network.train(training)
    for norm in frozen_norms:
        norm.eval()


def seed_step(seed: int, step: int, ranks: Ranks) -> None:
    """Seeds what a step draws: a function of the seed, the step and the process."""
    torch.manual_seed((seed * 1_000_003 + step) * 1009 + ranks.rank)


def descend(losses: Mapping[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """Leaves the gradients of a step, and returns its losses over all processes.

    Args:
        losses: The share of this process in each loss, which add up to the whole.
        ranks: This process among them.

    Returns:
        The whole as `loss`, and where there are several its parts by their names.
    """
    total = sum(losses.values(), torch.zeros((), device=ranks.device))
    torch.autograd.backward(
        total * ranks.world
    )  # whose mean over the processes is the sum of their shares
    values = torch.stack([total, *losses.values()]).detach().double()
    values = distributed.sum_over_ranks(values, ranks)
    names: Sequence[str] = ("loss",) if len(losses) == 1 else ("loss", *losses)
    return dict(zip(names, values.tolist(), strict=False))


def validated(
    validate: Callable[[], Mapping[str, float]] | None,
    network: nn.Module,
    frozen_norms: Sequence[nn.Module],
    ranks: Ranks,
) -> Callable[[], dict[str, float]] | None:
    """A validation with the network out of training mode, by the first process alone; None for none."""
    if validate is None:
        return None

    def measured() -> dict[str, float]:
        if not ranks.is_first:
            return {}
        set_mode(network, False)
        measures = dict(validate())
        set_mode(network, True, frozen_norms)
        return measures

    return measured

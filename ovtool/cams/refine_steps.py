"""The steps of `refine` that take one image and its maps and return maps.

A step is `step(image, maps, context)`: image uint8 (H, W, 3), maps float32 (K, h, w) in [0, 1] of
the K classes that are present, on any grid over the image, K from 0 on; it returns maps (K, h', w')
in [0, 1]. `affinity` and the walk on attention return the patch grid of the CLIP, the walk on colour a
quarter of the image's sides, the others the image's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.errors import UsageError
from ovtool.methods import attention_affinity, dense_crf, pixel_adaptive, random_walk
from ovtool.methods.activation_maps import resized
from ovtool.methods.pseudo_masks import Background
from ovtool.settings.refine import Apply

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

STRIDE = 4  # pixels of the image to a place of the walk on colour
WALKS = {"attention": (3, 2), "colour": (5, 8)}  # radius, doublings


@dataclass(frozen=True, eq=False)
class Context:
    """What a step may need.

    Attributes:
        clip: the CLIP that attends, on its device.
        proposals: of the image, bool (N, H, W), N from 0 on.
        options: of the steps.
        background: what the CRF and `sam` set against the maps.
    """

    clip: Clip | None = None
    proposals: Tensor | None = None
    options: Apply = Apply()
    background: Background = field(default_factory=Background)


Step = Callable[[Tensor, Tensor, Context], Tensor]


def affinity(image: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Spreads maps over the patches that attend to each other; see `methods.attention_affinity`."""
    attention, grid = _attention(image, context, "affinity")
    placed = resized(maps.float(), grid).to(attention.device)
    return attention_affinity.refine(placed, attention, context.options.box_threshold).to(maps)


def walk(image: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Lets maps walk to neighbours that attend alike, or look alike; see `methods.random_walk`. The
    greatest value of all maps becomes 1."""
    options = context.options
    own_radius, own_doublings = WALKS[options.walk_on]
    radius = own_radius if options.walk_radius is None else options.walk_radius
    doublings = own_doublings if options.walk_doublings is None else options.walk_doublings
    if options.walk_on == "attention":
        attention, grid = _attention(image, context, "walk")
        sources, inside = random_walk.neighbours(grid, radius)
        affinity_of = random_walk.attention_affinity(attention.cpu(), sources)
    else:
        grid = (max(1, round(image.shape[0] / STRIDE)), max(1, round(image.shape[1] / STRIDE)))
        sources, inside = random_walk.neighbours(grid, radius)
        pixels = image.permute(2, 0, 1).float()[None]
        colours = interpolate(pixels, size=grid, mode="bilinear", antialias=True)[0]
        affinity_of = random_walk.colour_affinity(colours, sources, options.walk_deviation)
    step = random_walk.transition(affinity_of, sources, inside, options.walk_beta)
    walked = random_walk.walk(resized(maps.float(), grid), step, doublings)
    return walked / walked.max().clamp(min=1e-7)


def pamr(image: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Averages each pixel over the neighbours that look like it; see `methods.pixel_adaptive`."""
    colours = image.permute(2, 0, 1).float() / 255.0
    placed = _placed(maps, image)
    refined = pixel_adaptive.pamr(colours, placed, context.options.pamr_iterations)
    return refined.clamp_(0.0, 1.0)


def crf(image: Tensor, maps: Tensor, context: Context) -> Tensor:
    """The classes' probabilities by the dense CRF, whose first label is the background; the maps then
    sum to at most 1, and the background has the rest."""
    options = context.options
    preset = dense_crf.PRESETS[options.crf]
    scores = _scores(_placed(maps, image), context.background)
    if preset.unary == "hard":
        unary = dense_crf.hard_unary(scores.argmax(0), len(scores))
    else:
        unary = dense_crf.soft_unary(scores)
    return dense_crf.refine(unary, image, preset)[1:]


def sam(image: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Each pixel takes the vote of the smallest proposal that covers it: the share of its pixels in
    which each class is the best, background included. Pixels that none covers keep their maps."""
    if context.proposals is None:
        raise UsageError("the step sam needs proposals; give --proposals FILE")
    placed = _placed(maps, image).clone()
    best = _scores(placed, context.background).argmax(0)  # (H, W), 0 the background
    order = context.proposals.flatten(1).sum(1).argsort(descending=True, stable=True)
    for proposal in context.proposals[order]:  # the smallest last
        votes = torch.bincount(best[proposal], minlength=len(maps) + 1).float()
        if votes.sum() > 0:
            placed[:, proposal] = (votes[1:] / votes.sum())[:, None]
    return placed


STEPS: Mapping[str, Step] = {
    "affinity": affinity,
    "walk": walk,
    "pamr": pamr,
    "crf": crf,
    "sam": sam,
}


def run(image: Tensor, maps: Tensor, steps: Sequence[str], context: Context) -> Tensor:
    """All steps but `prompts`, one after the other. Maps of no class come back as they are."""
    for step in steps if len(maps) else ():
        maps = STEPS[step](image, maps, context)
    return maps


def _attention(image: Tensor, context: Context, step: str) -> tuple[Tensor, tuple[int, int]]:
    """The attention between an image's patches, (n, n), and their grid."""
    from ovtool.models import attention, dense_scores, towers

    clip = context.clip
    if clip is None:
        raise UsageError(f"the step {step} reads a CLIP's attention; give --model NAME")
    pixels = dense_scores.prepare(clip, image, context.options.short_side)
    return attention.mean_attention(clip, pixels), towers.grid_size(pixels, clip.patch_size)


def _scores(maps: Tensor, background: Background) -> Tensor:
    """The background's score before the maps': (1 + K, H, W)."""
    return torch.cat([background.score(maps)[None], maps])


def _placed(maps: Tensor, image: Tensor) -> Tensor:
    """Maps (K, h, w) on the pixels of an image, as float32."""
    return resized(maps.float(), (image.shape[0], image.shape[1]))

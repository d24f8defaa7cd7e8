"""The steps of `refine` that take one picture and its maps and return maps.

A step is `step(picture, maps, context)`: picture uint8 (H, W, 3), maps float32 (K, h, w) in [0, 1] of
the K classes that are present, on any grid over the picture, K from 0 on; it returns maps (K, h', w')
in [0, 1]. `affinity` and the walk on attention return the patch grid of the CLIP, the walk on colour a
quarter of the picture's sides, the others the picture's size.
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
from ovtool.methods.pseudo_masks import Background

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

WALK_ON = ("attention", "colour")
STRIDE = 4  # pixels of the picture to a place of the walk on colour
WALKS = {"attention": (3, 2), "colour": (5, 8)}  # radius, doublings


@dataclass(frozen=True)
class StepOptions:
    """What shapes the steps.

    short_side: of the picture when its attention is read, in pixels; None as `segment` shows it.
    box_threshold: of the affinity's boxes, a share of a map's maximum.
    walk_on: one of `WALK_ON`. walk_radius, walk_doublings: of the walk, in places, and 2^doublings
    steps; None is `WALKS`'. walk_beta: the power of its affinities. walk_deviation: of colours, 0..255.
    pamr_iterations: of PAMR. crf: one of `dense_crf.PRESETS`. background: what the CRF and `sam` set
    against the maps.

    Raises UsageError for what cannot be meant.
    """

    short_side: int | None = None
    box_threshold: float = attention_affinity.BOX_THRESHOLD
    walk_on: str = "attention"
    walk_radius: int | None = None
    walk_doublings: int | None = None
    walk_beta: float = random_walk.BETA
    walk_deviation: float = 30.0
    pamr_iterations: int = pixel_adaptive.ITERATIONS
    crf: str = "irn"
    background: Background = field(default_factory=Background)

    def __post_init__(self) -> None:
        for flag, value, known in (
            ("walk-on", self.walk_on, WALK_ON),
            ("crf", self.crf, tuple(dense_crf.PRESETS)),
        ):
            if value not in known:
                raise UsageError(f"unknown --{flag} '{value}'; choose from {', '.join(known)}")


@dataclass(frozen=True, eq=False)
class Context:
    """What a step may need: the CLIP that attends, on its device; the picture's proposals, bool (N, H,
    W), N from 0 on; and the options."""

    clip: Clip | None = None
    proposals: Tensor | None = None
    options: StepOptions = field(default_factory=StepOptions)


Step = Callable[[Tensor, Tensor, Context], Tensor]


def check_order(steps: Sequence[str], options: StepOptions) -> None:
    """Raises UsageError for steps that are unknown or in an order that cannot work, saying which.

    `prompts` makes new maps from nothing but the pictures, so it comes first or not at all. What
    works on patches (`affinity`, the walk on attention) would undo what was done on pixels (`pamr`,
    `crf`, `sam`, the walk on colour).
    """
    known = ("prompts", *STEPS)
    if not steps:
        raise UsageError(f"--steps names no step; choose from {', '.join(known)}")
    on_pixels = ""
    for place, step in enumerate(steps):
        if step not in known:
            raise UsageError(f"unknown step '{step}' in --steps; choose from {', '.join(known)}")
        if step == "prompts" and place > 0:
            raise UsageError(
                f"--steps {','.join(steps)}: prompts makes new maps, which would undo {steps[place - 1]}; "
                "put prompts first, once"
            )
        on_patches = step == "affinity" or (step == "walk" and options.walk_on == "attention")
        if on_patches and on_pixels:
            raise UsageError(
                f"--steps {','.join(steps)}: {step} works on patches and would undo {on_pixels}, which "
                f"works on pixels; put {step} before {on_pixels}"
            )
        if step != "prompts" and not on_patches:
            on_pixels = step


def needs_clip(steps: Sequence[str], options: StepOptions) -> bool:
    """Whether some step reads a CLIP's attention."""
    return "affinity" in steps or ("walk" in steps and options.walk_on == "attention")


def affinity(picture: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Spreads maps over the patches that attend to each other; see `methods.attention_affinity`."""
    attention, grid = _attention(picture, context, "affinity")
    placed = _resized(maps, grid).to(attention.device)
    return attention_affinity.refine(placed, attention, context.options.box_threshold).to(maps)


def walk(picture: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Lets maps walk to neighbours that attend alike, or look alike; see `methods.random_walk`. The
    greatest value of all maps becomes 1."""
    options = context.options
    radius, doublings = WALKS[options.walk_on]
    radius = radius if options.walk_radius is None else options.walk_radius
    doublings = doublings if options.walk_doublings is None else options.walk_doublings
    if options.walk_on == "attention":
        attention, grid = _attention(picture, context, "walk")
        sources, inside = random_walk.neighbours(grid, radius)
        found = random_walk.attention_affinity(attention.cpu(), sources)
    else:
        grid = tuple(max(1, round(side / STRIDE)) for side in picture.shape[:2])
        sources, inside = random_walk.neighbours(grid, radius)
        image = _resized(picture.permute(2, 0, 1).float(), grid, antialias=True)
        found = random_walk.colour_affinity(image, sources, options.walk_deviation)
    step = random_walk.transition(found, sources, inside, options.walk_beta)
    walked = random_walk.walk(_resized(maps, grid), step, doublings)
    return walked / walked.max().clamp(min=1e-7)


def pamr(picture: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Averages each pixel over the neighbours that look like it; see `methods.pixel_adaptive`."""
    image = picture.permute(2, 0, 1).float() / 255.0
    placed = _resized(maps, _size(picture))
    refined = pixel_adaptive.pamr(image, placed, context.options.pamr_iterations)
    return refined.clamp_(0.0, 1.0)


def crf(picture: Tensor, maps: Tensor, context: Context) -> Tensor:
    """The classes' probabilities by the dense CRF, whose first label is the background; the maps then
    sum to at most 1, and the background has the rest."""
    options = context.options
    preset = dense_crf.PRESETS[options.crf]
    scores = _scores(_resized(maps, _size(picture)), options.background)
    if preset.unary == "hard":
        unary = dense_crf.hard_unary(scores.argmax(0), len(scores))
    else:
        unary = dense_crf.soft_unary(scores)
    return dense_crf.refine(unary, picture, preset)[1:]


def sam(picture: Tensor, maps: Tensor, context: Context) -> Tensor:
    """Each pixel takes the vote of the smallest proposal that covers it: the share of its pixels in
    which each class is the best, background included. Pixels that none covers keep their maps."""
    if context.proposals is None:
        raise UsageError("the step sam needs proposals: give --proposals FILE")
    placed = _resized(maps, _size(picture)).clone()
    best = _scores(placed, context.options.background).argmax(0)  # (H, W), 0 the background
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


def run(picture: Tensor, maps: Tensor, steps: Sequence[str], context: Context) -> Tensor:
    """All steps but `prompts`, one after the other. Maps of no class come back as they are."""
    for step in steps if len(maps) else ():
        maps = STEPS[step](picture, maps, context)
    return maps


def _attention(picture: Tensor, context: Context, step: str) -> tuple[Tensor, tuple[int, int]]:
    """The attention between a picture's patches, (n, n), and their grid."""
    from ovtool.models import attention, dense_scores, towers

    clip = context.clip
    if clip is None:
        raise UsageError(f"the step {step} reads a CLIP's attention: give --model NAME")
    pixels = dense_scores.prepare(clip, picture, context.options.short_side)
    return attention.mean_attention(clip, pixels), towers.grid_size(pixels, clip.patch_size)


def _scores(maps: Tensor, background: Background) -> Tensor:
    """The background's score before the maps': (1 + K, H, W)."""
    return torch.cat([background.score(maps)[None], maps])


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def _resized(maps: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Maps (K, h, w) brought to a size, bilinear, as float32."""
    maps = maps.float()
    if maps.shape[1:] == size:
        return maps
    return interpolate(
        maps[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
    )[0]

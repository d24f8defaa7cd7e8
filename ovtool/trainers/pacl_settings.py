"""What shapes the training of a PACL head, beside its model and its captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ovtool.datasets.templates import templates as known_templates
from ovtool.errors import UsageError
from ovtool.methods import dense_clip, patch_alignment
from ovtool.methods.patch_alignment import Pooling

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

BATCH_SIZE, EPOCHS, RATE, DECAY = 4096, 10.0, 5e-4, 0.2
STARTS, PAIRS = ("projection", "random"), ("all", "own")


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside model and captions; Mukhoti et al., CVPR 2023, appendix A.

    steps: None for `epochs`. micro_batch: images whose scores are computed at once, None for what a bound
    of memory allows. patch_scale, pooling: see `patch_alignment.Pooling`. logit_scale: None for that
    of the CLIP; learn_scale: whether it is trained. pairs: `all`, or `own`, in which an image is pooled by
    its own caption alone. nouns: whether they are texts of their own, with weight `noun_weight`. naming: the
    weight of `patch_alignment.naming` among them. templates: the sentences around them, see
    `datasets.templates`. start: one of `STARTS`. last_block: whose tokens are
    read, see `pacl.tokens`. crop_size, window: in pixels, None for what the model
    recommends; a window of 0 shows the whole picture at once. held_out: share of the pictures.

    Raises UsageError for what cannot be meant.
    """

    batch_size: int = BATCH_SIZE
    micro_batch: int | None = None
    epochs: float = EPOCHS
    steps: int | None = None
    rate: float = RATE
    decay: float = DECAY
    warmup: int = 0
    patch_scale: float = patch_alignment.SCALE
    pooling: str = "softmax"
    logit_scale: float | None = None
    learn_scale: bool = False
    pairs: str = "all"
    nouns: bool = False
    noun_weight: float = 1.0
    naming: float = 0.0
    templates: str = "pacl"
    start: str = "projection"
    last_block: str = "clip"
    crop_size: int | None = None
    window: int | None = None
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("start", self.start, STARTS), ("pairs", self.pairs, PAIRS)):
            if value not in known:
                raise UsageError(f"unknown --{name} '{value}'; choose from {', '.join(known)}")
        if self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size}: an image is told from others, so give 2 or more"
            )
        if self.pairs == "own" and self.nouns:
            raise UsageError("--pairs own pools by captions alone: leave --nouns out")
        if self.naming and not self.nouns:
            raise UsageError(
                f"--naming {self.naming:g} compares patches with nouns: give --nouns too"
            )
        Pooling(self.patch_scale, self.pooling)
        dense_clip.last_blocks(self.last_block)
        known_templates(self.templates)

    def settled(self, clip: Clip, images: int | None, world: int) -> Settings:
        """The same for a model, so many pictures (None: unknown) and processes, with nothing left to
        them. Raises UsageError."""
        batch = self.batch_size if images is None else min(self.batch_size, images)
        if images is not None and self.batch_size > images:
            batch -= batch % world
        if batch % world:
            raise UsageError(
                f"--batch-size {batch} cannot be shared by {world} processes: give a multiple of "
                "their number"
            )
        if batch < 2:
            raise UsageError(f"{batch} captioned image to train on: give two or more")
        if self.steps is None and images is None:
            raise UsageError(
                "--steps N is needed for shards that are no local files, whose samples nobody counted"
            )
        steps = self.steps or max(1, round(self.epochs * ((images or 0) // batch)))
        side, window = _view(self, clip)
        return replace(
            self,
            batch_size=batch,
            steps=steps,
            warmup=min(self.warmup, steps // 5),
            logit_scale=self.logit_scale or clip.logit_scale,
            crop_size=side,
            window=window,
        )


def _view(settings: Settings, clip: Clip) -> tuple[int, int]:
    """Side and window in whole patches: those at which the model's patches are read best, else the side
    that it was trained at, whole."""

    def whole(length: int) -> int:
        return max(1, round(length / clip.patch_size)) * clip.patch_size

    recommended = int(clip.dense.get("short_side", 0)) or clip.image_size
    side = whole(settings.crop_size or recommended)
    window = clip.dense.get("window", 0) if settings.window is None else settings.window
    return side, min(whole(int(window)), side) if window else 0


def shown(settings: Settings) -> Mapping[str, Any]:
    """The settings as a file's header has them."""
    return dict(vars(settings))

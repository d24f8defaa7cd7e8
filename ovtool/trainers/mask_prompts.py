"""The trainings of `tune-prompts`: what shapes them, and their steps.

Each step shows the image tower the masked crops of a batch and pulls each to the text of its noun,
against the other nouns of the batch. The text tower and the logit scale stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from ovtool.batches.pairs import HELD_OUT, Batch, Batches, Cutter, Pairs
from ovtool.errors import OvtoolError, UsageError
from ovtool.methods import contrastive, mask_prompts
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress
from ovtool.training import loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Plan, Record, Task

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

TRAIN = ("prompts", "tower", "tower-then-prompts")
LOSSES = ("shared", "paper")
BATCH_SIZE, EPOCHS, WARMUP = 256, 5.0, 100
RATE, TOWER_RATE, TOWER_DECAY = 2e-2, 5e-6, 0.2
BETAS, EPS = (0.9, 0.98), 1e-6
VALIDATED = 256  # held-out crops that are named, at most
VALIDATIONS = 5  # in a training
SAVE_EVERY = 100  # steps
BUCKET = 32  # crops of a batch that go through the tower together


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside model and pairs; Liang et al., CVPR 2023, section 4.1 and A.4.

    train: one of `TRAIN`. depth: of the prompts, None for every block. loss: `shared`, in which
    pairs of one noun share its place in the batch, or `paper`. steps: of each training, None for `epochs`.
    rate, tower_rate: the peak rates of prompts and tower. warmup: at most a fifth of the steps.
    crop_size: in pixels, None for the model's. held_out: share of the images for validation.

    Raises UsageError for what cannot be meant.
    """

    train: str = "prompts"
    depth: int | None = mask_prompts.DEPTH
    loss: str = "shared"
    batch_size: int = BATCH_SIZE
    epochs: float = EPOCHS
    steps: int | None = None
    rate: float = RATE
    tower_rate: float = TOWER_RATE
    warmup: int = WARMUP
    crop_size: int | None = None
    held_out: float = HELD_OUT
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("train", self.train, TRAIN), ("loss", self.loss, LOSSES)):
            if value not in known:
                raise UsageError(f"unknown --{name} '{value}'; choose from {', '.join(known)}")
        if self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size}: a pair is told from others, so give 2 or more"
            )

    def settled(self, clip: Clip, pairs: Pairs) -> Settings:
        """The same for a model and its pairs, with nothing left to them. Raises UsageError."""
        from ovtool.models import region_clip

        blocks = len(clip.model.visual.transformer.resblocks)
        depth = blocks if self.depth is None else self.depth
        if not 1 <= depth <= blocks:
            raise UsageError(
                f"--depth {depth}: {clip.name} has {blocks} blocks, so give 1 to {blocks}, or all"
            )
        region_clip.grid_of(clip, self.crop_size)
        batch = min(self.batch_size, len(pairs.train))
        if batch < 2:
            raise UsageError(
                f"{pairs.source} has {len(pairs.train)} pair to train on: give two or more"
            )
        steps = self.steps or max(1, round(self.epochs * (len(pairs.train) // batch)))
        return replace(
            self,
            depth=depth,
            batch_size=batch,
            steps=steps,
            warmup=min(self.warmup, steps // 5),
            crop_size=self.crop_size or clip.image_size,
        )


@dataclass(eq=False)
class Tuner:
    """The two trainings on one set of pairs."""

    clip: Clip
    pairs: Pairs
    settings: Settings
    dtype: torch.dtype
    workers: int
    progress: Progress

    def __post_init__(self) -> None:
        from ovtool.models import text

        text.warn_unlearned(self.clip, self.pairs.nouns)
        self.text = text.encode_texts(self.clip, self.pairs.nouns)  # the bare nouns, as published
        cutter = Cutter(
            self.pairs.folder,
            self.settings.crop_size or self.clip.image_size,
            self.clip.mean,
            self.clip.std,
        )
        settings = self.settings
        self.batches = Batches(self.pairs.train, cutter, settings.batch_size, settings.seed)
        chosen = self.pairs.held_out
        step = max(1, len(chosen) // VALIDATED)
        self.held_out = cutter.batch(chosen[::step][:VALIDATED])

    def tune_tower(
        self, checkpoint: Checkpoint, begun: Mapping[str, Any] | None
    ) -> tuple[nn.Module, list[Record]]:
        """The image tower, trained on masked crops without prompts, as its file will have it (float16),
        and the curve."""
        visual = copy.deepcopy(self.clip.model.visual).requires_grad_(True)
        matrices = [one for one in visual.parameters() if one.ndim >= 2]
        vectors = [one for one in visual.parameters() if one.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": TOWER_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.tower_rate, betas=BETAS, eps=EPS)
        curve = self._train(
            {"tower": visual},
            optimizer,
            checkpoint,
            begun,
            lambda: (visual, None),
            "tuning the tower",
        )
        visual.requires_grad_(False)
        for tensor in visual.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor))
        return visual, curve

    def tune_prompts(
        self, visual: nn.Module, checkpoint: Checkpoint, begun: Mapping[str, Any] | None
    ) -> tuple[MaskPrompts, list[Record]]:
        """The prompts for a tower that stays as it is, and the curve."""
        from ovtool.models import region_clip

        assert self.settings.depth is not None
        grid = region_clip.grid_of(self.clip, self.settings.crop_size)
        generator = torch.Generator().manual_seed(self.settings.seed)
        width = self.clip.model.visual.class_embedding.shape[0]
        start = mask_prompts.initial(self.settings.depth, grid, width, generator)
        values = nn.Parameter(start.values.to(self.clip.device))
        optimizer = torch.optim.AdamW(
            [values], lr=self.settings.rate, betas=BETAS, eps=EPS, weight_decay=0.0
        )
        curve = self._train(
            {"prompts": nn.ParameterList([values])},
            optimizer,
            checkpoint,
            begun,
            lambda: (visual, MaskPrompts(values, grid)),
            "tuning the prompts",
        )
        return MaskPrompts(values.detach(), grid), curve

    def _train(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        checkpoint: Checkpoint,
        begun: Mapping[str, Any] | None,
        current: Callable[[], tuple[nn.Module, MaskPrompts | None]],
        description: str,
    ) -> list[Record]:
        settings = self.settings
        assert settings.steps is not None
        every = max(1, settings.steps // VALIDATIONS) if self.pairs.held_out else 0
        plan = Plan(settings.steps, settings.warmup, save_every=SAVE_EVERY, validate_every=every)
        loaded = self._loaded(0 if begun is None else len(begun["curve"]))

        def gradients(step: int) -> dict[str, float]:
            batch = next(loaded)
            loss = self._loss(self._embed(batch, *current()), batch.nouns.to(self.clip.device))
            loss.backward()
            return {"loss": float(loss.detach())}

        try:
            return loop.train(
                Task(
                    name=description,
                    modules=modules,
                    optimizer=optimizer,
                    plan=plan,
                    step=gradients,
                    validate=lambda: {"accuracy": self.accuracy(*current()) or 0.0},
                ),
                checkpoint,
                begun=begun,
                progress=self.progress,
            )
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            raise OvtoolError(
                f"out of memory for a batch of {settings.batch_size}: give a smaller --batch-size"
            ) from error

    def _loaded(self, first: int) -> Iterator[Batch]:
        """The batches from a step on, cut ahead by other processes where there are several."""
        steps = range(first, self.settings.steps or 0)
        if self.workers == 0:
            return (self.batches[step] for step in steps)
        loader = DataLoader(
            self.batches, batch_size=None, sampler=list(steps), num_workers=self.workers
        )
        return iter(loader)

    def _embed(self, batch: Batch, visual: nn.Module, prompts: MaskPrompts | None) -> Tensor:
        """The unit embeddings of a batch, float32 (B, D), crops alike in their blank patches together."""
        from ovtool.models import masked_tower

        pixels, masks = batch.pixels.to(self.clip.device), batch.masks.to(self.clip.device)
        foreground = mask_prompts.patch_masks(masks, self.clip.patch_size)
        size = len(pixels) if prompts is None else BUCKET
        order = foreground.sum(1).argsort(descending=True, stable=True)
        with self._autocast():
            features = [
                masked_tower.embed(visual, pixels[chosen], foreground[chosen], prompts)
                for chosen in order.split(size)
            ]
        return normalize(torch.cat(features).float(), dim=-1)[order.argsort()]

    def _loss(self, regions: Tensor, nouns: Tensor) -> Tensor:
        texts, scale = self.text[nouns], self.clip.logit_scale
        if self.settings.loss == "paper":
            return contrastive.info_nce(regions, texts, scale)
        return contrastive.shared_info_nce(regions, texts, nouns, scale)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.clip.device.type, self.dtype)

    @torch.no_grad()
    def accuracy(self, visual: nn.Module, prompts: MaskPrompts | None) -> float | None:
        """The share of the held-out crops whose nearest noun, of all nouns of the pairs, is theirs."""
        nouns = self.held_out.nouns
        if not len(nouns):
            return None
        right = 0
        for start in range(0, len(nouns), 32):
            batch = Batch(*(part[start : start + 32] for part in vars(self.held_out).values()))
            nearest = (self._embed(batch, visual, prompts) @ self.text.T).argmax(1)
            right += int((nearest.cpu() == batch.nouns).sum())
        return round(right / len(nouns), 6)

"""The trainings of mask prompts, and of an image tower that reads masked crops (OVSeg).

Each step shows the image tower the masked crops of a batch and pulls each to the text of its noun,
against the other nouns of the batch. The text tower and the logit scale stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ovtool.batches.loader import Loader
from ovtool.batches.pairs import Batch, Batches, Cutter, Pairs
from ovtool.errors import UsageError
from ovtool.formats import learnable
from ovtool.methods import contrastive, mask_prompts
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.runtime import device as devices
from ovtool.settings import prompts as prompt_settings
from ovtool.settings.layers import known
from ovtool.training import distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Task

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.tower_types import NativeTower

Settings = prompt_settings.MaskPrompts
TOWER_DECAY = 0.2
BETAS, EPS = (0.9, 0.98), 1e-6
VALIDATED = 256  # held-out crops that are named, at most
SAVE_EVERY = 100  # steps
DEPTH = 3  # of the prompts, as published
BUCKET = 32  # crops of a batch that go through the tower together


def settled(settings: Settings, clip: Clip, pairs: Pairs) -> Settings:
    """The settings with nothing left to a model and its pairs.

    Raises:
        UsageError: The tower has fewer blocks, patches do not fit the crop, or the pairs are but one, or of
            one noun.
    """
    from ovtool.models import region_clip

    blocks = len(region_clip.require_mask_prompts(clip).transformer.resblocks)
    depth = _depth(settings, clip)
    if depth > blocks:
        raise UsageError(
            f"--depth {depth}: {clip.name} has {blocks} blocks, so give 1 to {blocks}, or all"
        )
    region_clip.grid_of(clip, settings.crop_size)
    batch = min(known(settings.batch_size), len(pairs.train))
    if batch < 2:
        raise UsageError(
            f"{pairs.source} has {len(pairs.train)} pair to train on; give two or more"
        )
    nouns = (pairs.nouns[pair.noun] for pair in (*pairs.train, *pairs.held_out))
    learnable.check_nouns(nouns, pairs.source)
    decay = None if settings.train == "prompts" else TOWER_DECAY
    published = {"crop_size": clip.image_size, "weight_decay": decay}
    filled, _ = loop.settled(settings, len(pairs.train), batch, SAVE_EVERY, published)
    return replace(filled, depth=depth)


def _depth(settings: Settings, clip: Clip) -> int:
    """At how many places prompts replace tokens."""
    from ovtool.models import region_clip

    blocks = len(region_clip.require_mask_prompts(clip).transformer.resblocks)
    if settings.depth is None:
        return min(DEPTH, blocks)
    if settings.depth == "all":
        return blocks
    return settings.depth


def parameters(clip: Clip, settings: Settings) -> dict[str, int]:
    """How many parameters are trained, by what they are, in the order of the trainings."""
    from ovtool.models import region_clip

    visual = region_clip.require_mask_prompts(clip)
    height, width = region_clip.grid_of(clip, settings.crop_size)
    counts = {}
    if settings.train != "prompts":
        counts["tower"] = sum(parameter.numel() for parameter in visual.parameters())
    if settings.train != "tower":
        tokens = _depth(settings, clip) * height * width
        counts["prompts"] = tokens * int(visual.class_embedding.shape[0])
    return counts


@dataclass(frozen=True, eq=False)
class NamedCrops:
    """The masked crops of pairs, with the texts of their nouns: what both trainings learn from.

    Attributes:
        clip: the model.
        settings: settled.
        dtype: in which the tower computes.
        batches: by step.
        held_out: crops of images that are not trained on.
        texts: of all nouns of the pairs, (N, D) of length 1.
        ranks: this process among those that share each batch.
    """

    clip: Clip
    settings: Settings
    dtype: torch.dtype
    batches: Batches
    held_out: Batch
    texts: Tensor
    ranks: Ranks

    @classmethod
    def of(
        cls, clip: Clip, pairs: Pairs, settings: Settings, dtype: torch.dtype, ranks: Ranks
    ) -> NamedCrops:
        """Those of a file of pairs; one warning names nouns that the model never learned."""
        from ovtool.models import text

        text.warn_unlearned(clip, pairs.nouns)
        texts = text.encode_texts(clip, pairs.nouns)  # the bare nouns, as published
        cutter = Cutter(pairs.folder, known(settings.crop_size), clip.mean, clip.std)
        batches = Batches(pairs.train, cutter, known(settings.batch_size), settings.seed)
        every = max(1, len(pairs.held_out) // VALIDATED)
        held_out = cutter.batch(pairs.held_out[::every][:VALIDATED])
        return cls(clip, settings, dtype, batches, held_out, texts, ranks)

    def embed(self, batch: Batch, visual: NativeTower, prompts: MaskPrompts | None) -> Tensor:
        """The unit embeddings of a batch, float32 (B, D), crops alike in their blank patches together."""
        from ovtool.models import masked_tower

        pixels, masks = batch.pixels.to(self.clip.device), batch.masks.to(self.clip.device)
        foreground = mask_prompts.patch_masks(masks, self.clip.patch_size)
        size = len(pixels) if prompts is None else BUCKET
        order = foreground.sum(1).argsort(descending=True, stable=True)
        with devices.autocast(self.clip.device, self.dtype):
            features = [
                masked_tower.embed(visual, pixels[rows], foreground[rows], prompts)
                for rows in torch.split(order, size)
            ]
        return normalize(torch.cat(features).float(), dim=-1)[order.argsort()]

    def loss(self, regions: Tensor, nouns: Tensor) -> Tensor:
        """The contrastive loss of embeddings (B, D) of crops and the indices (B,) of their nouns."""
        texts, scale = self.texts[nouns], self.clip.logit_scale
        if self.settings.loss == "paper":
            return contrastive.info_nce(regions, texts, scale)
        return contrastive.shared_info_nce(regions, texts, nouns, scale)

    @torch.no_grad()
    def accuracy(self, visual: NativeTower, prompts: MaskPrompts | None) -> dict[str, float]:
        """`accuracy`, the share of the held-out crops whose nearest noun, of all nouns of the pairs, is
        theirs; nothing where none is held out, or with `--validate-every 0`."""
        nouns = self.held_out.nouns
        if not len(nouns) or not self.settings.validate_every:
            return {}
        right = 0
        for start in range(0, len(nouns), BUCKET):
            batch = Batch(*(part[start : start + BUCKET] for part in vars(self.held_out).values()))
            nearest = (self.embed(batch, visual, prompts) @ self.texts.T).argmax(1)
            right += int((nearest.cpu() == batch.nouns).sum())
        return {"accuracy": round(right / len(nouns), 6)}


def trainable_tower(clip: Clip) -> NativeTower:
    """A copy of the image tower that learns."""
    from ovtool.models import region_clip

    return copy.deepcopy(region_clip.require_mask_prompts(clip)).requires_grad_(True)


def tower_task(crops: NamedCrops, visual: NativeTower) -> Task:
    """The training of an image tower on masked crops without prompts."""
    groups = loop.decaying(visual.parameters(), known(crops.settings.weight_decay))
    optimizer = torch.optim.AdamW(groups, lr=crops.settings.tower_lr, betas=BETAS, eps=EPS)
    modules = {"tower": cast(nn.Module, visual)}
    return _task("tuning the tower", crops, modules, optimizer, lambda: (visual, None))


def round_as_stored(visual: NativeTower) -> None:
    """Ends the training of a tower: its numbers are those that its file will hold, float16."""
    visual.requires_grad_(False)
    for tensor in visual.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().to(tensor))


def initial_prompts(clip: Clip, settings: Settings) -> MaskPrompts:
    """Prompts that learn, at their start, on the model's device; settings must be settled."""
    from ovtool.models import region_clip

    grid = region_clip.grid_of(clip, settings.crop_size)
    generator = torch.Generator().manual_seed(settings.seed)
    width = int(region_clip.require_mask_prompts(clip).class_embedding.shape[0])
    start = mask_prompts.initial(_depth(settings, clip), grid, width, generator)
    return MaskPrompts(nn.Parameter(start.values.to(clip.device)), grid)


def prompts_task(crops: NamedCrops, visual: NativeTower, learned: MaskPrompts) -> Task:
    """The training of prompts for a tower that stays as it is."""
    values = learned.values
    assert isinstance(values, nn.Parameter)
    optimizer = torch.optim.AdamW(
        [values], lr=known(crops.settings.lr), betas=BETAS, eps=EPS, weight_decay=0.0
    )
    modules = {"prompts": nn.ParameterList([values])}
    return _task("tuning the prompts", crops, modules, optimizer, lambda: (visual, learned))


def _task(
    name: str,
    crops: NamedCrops,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    current: Callable[[], tuple[NativeTower, MaskPrompts | None]],
) -> Task:
    settings = crops.settings
    batches = Loader(crops.batches, known(settings.steps), settings.loader_workers)
    ranks = crops.ranks
    rows = distributed.own_rows(known(settings.batch_size), ranks)

    def step(number: int) -> dict[str, float]:
        batch = batches(number)
        own = Batch(*(part[rows.start : rows.stop] for part in vars(batch).values()))
        regions = distributed.gather_inside(crops.embed(own, *current()), ranks)
        loss = crops.loss(regions, batch.nouns.to(crops.clip.device))
        (loss * ranks.world).backward()
        return {"loss": float(loss.detach())}

    return Task(
        name=name,
        modules=modules,
        optimizer=optimizer,
        plan=loop.plan_of(settings),
        step=step,
        validate=lambda: crops.accuracy(*current()),
    )

"""The training of a PACL head: what is left to settle, its steps, and the task that the frame runs.

Each step compares every image of a batch with every caption of it (`methods.patch_alignment`), pulling
each image to its own. Both encoders stay as they are. With nouns, each image is also compared with every
noun of the batch's captions, the mean over templates, and pulled to the nouns of its own captions; with naming,
each of its patches is pulled to those nouns too, whichever is nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ovtool.batches.captions import Batch, Listed, ListedBatches, ShardBatches, Sharded
from ovtool.batches.loader import Loader
from ovtool.errors import UsageError
from ovtool.formats.shards import Left
from ovtool.methods import patch_alignment
from ovtool.methods.patch_alignment import Pooling, Reduce, VisionEmbedder
from ovtool.models.dense_scores import whole_patches
from ovtool.runtime import device as devices
from ovtool.settings.layers import Origin, known
from ovtool.settings.option import fields
from ovtool.settings.pacl import Pacl
from ovtool.trainers import pacl_features
from ovtool.trainers.pacl_features import Features
from ovtool.training import distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Task

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

BETAS, EPS = (0.9, 0.98), 1e-6
MOST_SCALE = 100.0  # of a learned logit scale, as CLIP bounds it
SAVE_EVERY = 100  # steps
MEMORY = "a smaller --micro-batch or --batch-size"  # what helps where a device is out of memory


def settled(
    settings: Pacl, clip: Clip, images: int | None, ranks: Ranks
) -> tuple[Pacl, dict[str, Origin]]:
    """The settings with nothing left open, and where the value of each that shapes the result comes from.

    Args:
        settings: as they were given.
        clip: recommends a size and a window, and has a logit scale.
        images: how many there are to train on; None where nobody counted.
        ranks: the processes that share a batch.

    Raises:
        UsageError: the processes cannot share the batch, or there are too few images or no steps.
    """
    batch = known(settings.batch_size)
    if images is not None and batch > images:
        batch = images - images % ranks.world
    if batch < 2:
        raise UsageError(f"{batch} captioned image to train on; give two or more")
    distributed.own_rows(batch, ranks)
    if settings.steps is None and images is None:
        raise UsageError(
            "--steps N is needed for shards that are no local files, whose samples nobody counted"
        )
    filled, origins = loop.settled(
        settings,
        images or 0,
        batch,
        SAVE_EVERY,
        published={"crop_size": clip.image_size, "window": 0},
        recommended={
            "crop_size": int(clip.dense.get("short_side", 0)) or None,
            "window": int(clip.dense["window"]) if "window" in clip.dense else None,
            "logit_scale": clip.logit_scale,
        },
    )
    side = whole_patches(known(filled.crop_size), clip.patch_size)
    window = filled.window and min(whole_patches(filled.window, clip.patch_size), side)
    whole = replace(filled, crop_size=side, window=window)
    shaping = fields(Pacl)
    return whole, {name: origin for name, origin in origins.items() if shaping[name].option.shapes}


def keeps_tokens(clip: Clip, settings: Pacl, images: int, ranks: Ranks) -> bool:
    """Whether `--cache auto` keeps the tokens of so many listed images: where one process sees them more
    than once, and they have at most `pacl_features.CACHE_BYTES`. Settings must be settled."""
    from ovtool.models import pacl

    width, _ = pacl.widths(clip, settings.last_block)
    seen = known(settings.steps) * known(settings.batch_size)
    size = images * pacl_features.tokens_an_image(settings, clip) * width
    size *= pacl_features.kept_dtype(clip).itemsize
    return ranks.world == 1 and seen > images and size <= pacl_features.CACHE_BYTES


class TextGroup(NamedTuple):
    """What each image of a batch is compared with.

    Attributes:
        embedded: N texts, (N, D).
        owned: Which of them belong to which of this process's b images, (b, N), 1 where one does.
        weight: Of their loss.
    """

    embedded: Tensor
    owned: Tensor
    weight: float


@dataclass(frozen=True, eq=False)
class PaclTraining:
    """A head that learns, and what it learns from.

    Attributes:
        features: what the frozen encoders give.
        settings: settled.
        dtype: in which scores are computed.
        ranks: the processes that share a batch.
        embedder: the head.
        log_scale: the logarithm of the logit scale, a scalar.
    """

    features: Features
    settings: Pacl
    dtype: torch.dtype
    ranks: Ranks
    embedder: VisionEmbedder
    log_scale: nn.Parameter

    @property
    def pooling(self) -> Pooling:
        """How patches are weighed for a text."""
        return Pooling(self.settings.patch_scale, self.settings.pooling)

    @property
    def reduce(self) -> Reduce:
        """Sums and greatest values over all processes."""
        return Reduce(
            partial(distributed.sum_over_ranks, ranks=self.ranks),
            partial(distributed.max_over_ranks, ranks=self.ranks),
        )

    def head(self) -> Head:
        """The head as it stands."""
        from ovtool.models import pacl

        last = {"last_block": self.settings.last_block}
        return pacl.Head(self.embedder, self.pooling, float(self.log_scale.detach().exp()), last)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; biases and the logit scale do not decay."""
        learned = [*self.embedder.parameters()]
        if self.settings.learn_scale:
            learned.append(self.log_scale)
        groups = loop.decaying(learned, known(self.settings.weight_decay))
        return torch.optim.AdamW(groups, lr=known(self.settings.lr), betas=BETAS, eps=EPS)

    def step(self, batch: Batch) -> dict[str, float]:
        """Leaves the gradients of a step and returns its losses; see `training.loop`."""
        tokens = self.features.tokens_of(batch)
        own = self.features.texts(batch.captions)  # (b, D)
        captions = TextGroup(
            distributed.gather_rows(own, self.ranks), self._diagonal(len(own)), 1.0
        )
        nouns = self._nouns(batch)
        groups = [captions] if nouns is None else [captions, nouns]
        texts = torch.cat([group.embedded for group in groups])
        scale = self.log_scale.exp()

        def patches_of(rows: slice) -> Tensor:
            embedded: Tensor = self.embedder(tokens[rows].to(self.embedder.skip.weight))
            return embedded

        def scores_of(rows: slice) -> Tensor:
            with devices.autocast(self.features.clip.device, self.dtype):
                patches = patches_of(rows)
                if self.settings.pairs == "own":
                    scores = patch_alignment.own_caption_compatibility(
                        patches, own[rows], texts, self.pooling
                    )
                else:
                    scores = patch_alignment.compatibility(patches, texts, self.pooling)
            return scores.to(self.embedder.skip.weight)

        losses: list[Tensor] = []

        def loss_of(scores: Tensor) -> tuple[Tensor, Tensor]:
            total, gradients = scores.new_zeros(()), []
            parts = torch.split(scores, [len(group.embedded) for group in groups], dim=1)
            for part, group in zip(parts, groups, strict=True):
                logits = scale.detach() * part
                loss, gradient = patch_alignment.loss_and_gradient(logits, group.owned, self.reduce)
                losses.append(loss)
                total = total + group.weight * loss
                gradients.append(group.weight * gradient)
            gradient = torch.cat(gradients, dim=1)
            if self.settings.learn_scale:  # d logits / d log scale = logits
                slope = (gradient * scores).sum() * scale.detach()
                self.log_scale.grad = slope * self.ranks.world
            # the mean over the processes, which the loop takes, is the sum of their shares
            return total, gradient * scale.detach() * self.ranks.world

        with torch.no_grad():
            slices = self._slices(len(tokens), tokens.shape[1], len(texts))
        loss = float(patch_alignment.two_pass(scores_of, slices, loss_of))
        bound = patch_alignment.information_bound(float(losses[0]), len(captions.embedded))
        record = {"loss": loss, "bound": bound}
        if nouns is not None:
            record |= {"captions": float(losses[0]), "nouns": float(losses[1])}
            if self.settings.naming:
                record["naming"] = self._naming(patches_of, slices, nouns)
                record["loss"] += self.settings.naming * record["naming"]
        return record

    def _nouns(self, batch: Batch) -> TextGroup | None:
        """The nouns of all processes' captions; None where there are none, or they are not asked for."""
        if not self.settings.nouns:
            return None
        embedded, owned = self.features.noun_texts(batch.all_captions, self.ranks)
        return TextGroup(embedded, owned, self.settings.noun_weight) if len(embedded) else None

    def _naming(
        self, patches_of: Callable[[slice], Tensor], slices: Sequence[slice], nouns: TextGroup
    ) -> float:
        """Adds the gradients of `patch_alignment.naming` to those of the embedder, slice by slice, and
        returns its mean over all processes' images. The logit scale does not learn from it."""
        owned = nouns.owned
        with_nouns = (owned.sum(1) > 0).sum().to(owned)
        images = self.reduce.total(with_nouns).clamp(min=1)
        scale, share = self.log_scale.detach().exp(), owned.new_zeros(())
        for rows in slices:
            with devices.autocast(self.features.clip.device, self.dtype):
                losses = patch_alignment.naming(
                    patches_of(rows), nouns.embedded, owned[rows], scale
                )
            part = losses.to(owned).sum() / images
            (self.settings.naming * self.ranks.world * part).backward()
            share = share + part.detach()
        return float(self.reduce.total(share))

    def bound_scale(self, _: int) -> None:
        """Holds a learned logit scale below its bound; called after each step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MOST_SCALE))

    def _diagonal(self, rows: int) -> Tensor:
        """Which of all processes' captions belong to which of this one's images: (b, B)."""
        owned = torch.zeros(rows, rows * self.ranks.world)
        place = torch.arange(rows)
        owned[place, self.ranks.rank * rows + place] = 1
        return owned.to(self.embedder.skip.weight)

    def _slices(self, images: int, patches: int, texts: int) -> list[slice]:
        if self.settings.micro_batch is None:
            return list(patch_alignment.chunks(images, patches, texts))
        size = self.settings.micro_batch
        return [slice(start, min(start + size, images)) for start in range(0, images, size)]


def begun(clip: Clip, settings: Pacl, dtype: torch.dtype, ranks: Ranks) -> PaclTraining:
    """A head at its start, the same in every process; settings must be settled."""
    from ovtool.models import nouns, pacl

    width, out = pacl.widths(clip, settings.last_block)
    number = torch.float64 if clip.dtype == torch.float64 else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        embedder = VisionEmbedder(width, out)
    if settings.start == "projection":
        embedder.start_at(pacl.projection(clip, settings.last_block))
    embedder.to(clip.device, number)
    distributed.share(embedder, ranks)
    scale = math.log(known(settings.logit_scale))
    start = torch.tensor(scale, dtype=number, device=clip.device)
    log_scale = nn.Parameter(start, requires_grad=settings.learn_scale)
    features = Features(clip, settings, nouns.load() if settings.nouns else None, number)
    return PaclTraining(features, settings, dtype, ranks, embedder, log_scale)


def loader(
    source: Listed | Sharded, settings: Pacl, ranks: Ranks, tokens_kept: bool, strict: bool = False
) -> Loader[Batch]:
    """The batches of this process; shards are read by one other process at most.

    Args:
        source: the captioned images.
        settings: settled.
        ranks: the processes that share a batch.
        tokens_kept: whether batches name listed images whose tokens are kept.
        strict: whether a broken image of a shard is an error.
    """
    rows = distributed.own_rows(known(settings.batch_size), ranks)
    side, steps, workers = known(settings.crop_size), known(settings.steps), settings.loader_workers
    if isinstance(source, Sharded):
        sharded = ShardBatches(
            source.urls, side, len(rows), ranks.rank, ranks.world, settings.seed, strict
        )
        return Loader(sharded, steps, min(workers, 1))
    listed = ListedBatches(
        source,
        side,
        known(settings.batch_size),
        rows,
        settings.seed,
        crops=not tokens_kept,
        has_pixels=not tokens_kept,
    )
    return Loader(listed, steps, 0 if tokens_kept else workers)


def task(
    training: PaclTraining,
    batches: Callable[[int], Batch],
    validate: Callable[[], Mapping[str, float]] | None = None,
    left: Left | None = None,
) -> Task:
    """The training of a head as the frame runs it.

    Args:
        training: the head at its start.
        batches: gives the batch of a step.
        validate: measures by name, where something is held out.
        left: where what shards lacked is noted.
    """
    settings = training.settings

    def step(number: int) -> dict[str, float]:
        batch = batches(number)
        if batch.left is not None and left is not None:
            left.samples, left.cut = batch.left.samples, batch.left.cut
        return training.step(batch)

    return Task(
        name="training the head",
        modules={
            "embedder": training.embedder,
            "scale": nn.ParameterList([training.log_scale]),
        },
        optimizer=training.optimizer(),
        plan=loop.plan_of(settings),
        step=step,
        validate=validate,
        after_step=training.bound_scale,
        memory=MEMORY,
    )

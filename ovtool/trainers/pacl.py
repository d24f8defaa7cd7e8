"""The training of a PACL head: its steps.

Each step compares every image of a batch with every caption of it (`methods.patch_alignment`), pulling
each image to its own. Both encoders stay as they are. With nouns, each image is also compared with every
noun of the batch's captions, the mean over templates, and pulled to the nouns of its own captions; with naming,
each of its patches is pulled to those nouns too, whichever is nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ovtool.batches.captions import Batch
from ovtool.datasets.templates import templates
from ovtool.methods import patch_alignment
from ovtool.methods.patch_alignment import Pooling, Reduce, VisionEmbedder
from ovtool.trainers.pacl_settings import Settings
from ovtool.training import distributed
from ovtool.training.distributed import Ranks

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.nouns import Pipeline
    from ovtool.models.pacl import Head

BETAS, EPS = (0.9, 0.98), 1e-6
MICRO_BATCH = 64  # pictures that go through the tower together
MOST_SCALE = 100.0  # of a learned logit scale, as CLIP bounds it


@dataclass(eq=False)
class Aligner:
    """A head in training.

    settings: as `settled`. table: text embeddings kept from before; a text that is not in it is encoded
    when it comes. pipeline: finds nouns, None without them.
    """

    clip: Clip
    settings: Settings
    dtype: torch.dtype
    ranks: Ranks
    pipeline: Pipeline | None = None
    table: dict[str, int] = field(default_factory=dict)
    kept_texts: Tensor | None = None
    kept_tokens: Tensor | None = None

    def __post_init__(self) -> None:
        from ovtool.models import pacl

        settings, last_block = self.settings, self.settings.last_block
        width, out = pacl.widths(self.clip, last_block)
        number = torch.float64 if self.clip.dtype == torch.float64 else torch.float32
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.embedder = VisionEmbedder(width, out)
        if settings.start == "projection":
            self.embedder.start_at(pacl.projection(self.clip, last_block))
        self.embedder.to(self.clip.device, number)
        distributed.share(self.embedder, self.ranks)
        assert settings.logit_scale is not None
        start = torch.tensor(math.log(settings.logit_scale), dtype=number, device=self.clip.device)
        self.log_scale = nn.Parameter(start, requires_grad=settings.learn_scale)
        self.pooling = Pooling(settings.patch_scale, settings.pooling)
        self.reduce = Reduce(
            partial(distributed.sum_over_ranks, ranks=self.ranks),
            partial(distributed.max_over_ranks, ranks=self.ranks),
        )
        self._nouns: dict[str, tuple[str, ...]] = {}
        self._forms: dict[str, Tensor] = {}
        self._templates = templates(settings.templates)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint keeps."""
        return {"embedder": self.embedder, "scale": nn.ParameterList([self.log_scale])}

    def head(self) -> Head:
        """The head as it stands."""
        from ovtool.models import pacl

        last = {"last_block": self.settings.last_block}
        return pacl.Head(self.embedder, self.pooling, float(self.log_scale.detach().exp()), last)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; biases and the logit scale do not decay."""
        matrices = [one for one in self.embedder.parameters() if one.ndim >= 2]
        vectors = [one for one in self.embedder.parameters() if one.ndim < 2]
        if self.settings.learn_scale:
            vectors.append(self.log_scale)
        groups = [
            {"params": matrices, "weight_decay": self.settings.decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.rate, betas=BETAS, eps=EPS)

    # --- what the frozen encoders give ---------------------------------------------------------------

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """The tokens of pictures uint8 (b, 3, S, S), of all their windows: (b, T, width)."""
        from ovtool.models import clip as door
        from ovtool.models import pacl

        window = self.settings.window or pixels.shape[2]
        starts = _starts(pixels.shape[2], window, self.clip.patch_size)
        found = []
        for some in pixels.split(MICRO_BATCH):
            shown = door.normalise(self.clip, some.permute(0, 2, 3, 1))
            crops = [shown[:, :, y : y + window, x : x + window] for y in starts for x in starts]
            read = [
                pacl.tokens(self.clip, crop, self.settings.last_block).flatten(1, 2)
                for crop in crops
            ]
            found.append(torch.cat(read, dim=1))
        return torch.cat(found)

    def tokens_a_picture(self) -> int:
        """How many tokens a picture has, over all its windows."""
        assert self.settings.crop_size is not None
        window = self.settings.window or self.settings.crop_size
        count = len(_starts(self.settings.crop_size, window, self.clip.patch_size))
        return (count * window // self.clip.patch_size) ** 2

    def _tokens_of(self, batch: Batch) -> Tensor:
        if batch.pixels is not None:
            return self.tokens(batch.pixels)
        assert self.kept_tokens is not None
        chosen = self.kept_tokens[torch.tensor(batch.index)]
        return chosen.to(self.clip.device, self.clip.dtype)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, (N, D) of length 1: those that were kept, or all encoded together."""
        if self.kept_texts is not None and all(each in self.table for each in texts):
            places = torch.tensor([self.table[each] for each in texts], dtype=torch.int64)
            found = self.kept_texts[places]
        else:
            from ovtool.models import text

            found = text.encode_texts(self.clip, texts, cut=True)
        return found.to(self.embedder.skip.weight)

    def keep_texts(self, texts: Sequence[str]) -> None:
        """Encodes texts once for the whole training."""
        distinct = list(dict.fromkeys(texts))
        self.kept_texts = self.texts(distinct).float().cpu()
        self.table = {each: place for place, each in enumerate(distinct)}

    def nouns(self, captions: Sequence[str]) -> list[tuple[str, ...]]:
        """The lemmas of each caption, each once."""
        from ovtool.models import nouns

        assert self.pipeline is not None
        new = [each for each in dict.fromkeys(captions) if each not in self._nouns]
        for caption, found in zip(new, nouns.find(self.pipeline, new), strict=True):
            self._nouns[caption] = tuple(dict.fromkeys(noun.lemma for noun in found))
        return [self._nouns[caption] for caption in captions]

    # --- a step --------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> dict[str, float]:
        """Leaves the gradients of a step and returns its losses; see `training.loop`."""
        found = self._tokens_of(batch)
        own = self.texts(batch.captions)  # (b, D)
        groups = [(distributed.gather_rows(own, self.ranks), self._diagonal(len(own)), 1.0)]
        if self.pipeline is not None:
            words, owned = self._noun_texts(batch.told)
            if len(words):
                groups.append((words, owned, self.settings.noun_weight))
        texts = torch.cat([group[0] for group in groups])
        scale = self.log_scale.exp()

        def patches_of(chosen: slice) -> Tensor:
            embedded: Tensor = self.embedder(found[chosen].to(self.embedder.skip.weight))
            return embedded

        def scores_of(chosen: slice) -> Tensor:
            with self._autocast():
                patches = patches_of(chosen)
                if self.settings.pairs == "own":
                    scores = patch_alignment.own_caption_compatibility(
                        patches, own[chosen], texts, self.pooling
                    )
                else:
                    scores = patch_alignment.compatibility(patches, texts, self.pooling)
            return scores.to(self.embedder.skip.weight)

        losses: list[Tensor] = []

        def loss_of(scores: Tensor) -> tuple[Tensor, Tensor]:
            total, gradients = scores.new_zeros(()), []
            parts = scores.split([len(group[0]) for group in groups], dim=1)
            for part, (_, owned, weight) in zip(parts, groups, strict=True):
                logits = scale.detach() * part
                loss, gradient = patch_alignment.loss_and_gradient(logits, owned, self.reduce)
                losses.append(loss)
                total = total + weight * loss
                gradients.append(weight * gradient)
            gradient = torch.cat(gradients, dim=1)
            if self.settings.learn_scale:  # d logits / d log scale = logits
                slope = (gradient * scores).sum() * scale.detach()
                self.log_scale.grad = slope * self.ranks.world
            # the mean over the processes, which the loop takes, is the sum of their shares
            return total, gradient * scale.detach() * self.ranks.world

        with torch.no_grad():
            slices = self._slices(len(found), found.shape[1], len(texts))
        loss = float(patch_alignment.two_pass(scores_of, slices, loss_of))
        bound = patch_alignment.information_bound(float(losses[0]), len(groups[0][0]))
        record = {"loss": loss, "bound": bound}
        if len(losses) > 1:
            record |= {"captions": float(losses[0]), "nouns": float(losses[1])}
            if self.settings.naming:
                record["naming"] = self._named(patches_of, slices, words, owned)
                record["loss"] += self.settings.naming * record["naming"]
        return record

    def _named(
        self,
        patches_of: Callable[[slice], Tensor],
        slices: Sequence[slice],
        nouns: Tensor,
        owned: Tensor,
    ) -> float:
        """Adds the gradients of `patch_alignment.naming` to those of the embedder, slice by slice, and
        returns its mean over all processes' images. The logit scale does not learn from it."""
        told = (owned.sum(1) > 0).sum().to(owned)
        images = self.reduce.total(told).clamp(min=1)
        scale, share = self.log_scale.detach().exp(), owned.new_zeros(())
        for chosen in slices:
            with self._autocast():
                found = patch_alignment.naming(patches_of(chosen), nouns, owned[chosen], scale)
            part = found.to(owned).sum() / images
            (self.settings.naming * self.ranks.world * part).backward()  # type: ignore[no-untyped-call]
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

    def _noun_texts(self, told: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The distinct nouns of all captions of all processes' images, as embeddings (K, D), and whose
        they are among this process's images: (b, K)."""
        found = iter(self.nouns([caption for said in told for caption in said]))
        own = [sorted({noun for _ in said for noun in next(found)}) for said in told]
        everyone = distributed.gather_objects(own, self.ranks)
        distinct = sorted({noun for rank in everyone for said in rank for noun in said})
        place = {noun: index for index, noun in enumerate(distinct)}
        owned = torch.zeros(len(own), len(distinct))
        for row, said in enumerate(own):
            owned[row, [place[noun] for noun in said]] = 1
        for noun in distinct:  # each by itself, so that its numbers depend on no other
            if noun not in self._forms:
                forms = self.texts([form.format(noun) for form in self._templates])
                self._forms[noun] = normalize(forms.mean(0), dim=-1)
        words = [self._forms[noun] for noun in distinct]
        empty = self.embedder.skip.weight.new_zeros(0, self.clip.embed_dim)
        return torch.stack(words) if words else empty, owned.to(empty)

    def _slices(self, images: int, patches: int, texts: int) -> list[slice]:
        if self.settings.micro_batch is None:
            return list(patch_alignment.chunks(images, patches, texts))
        size = self.settings.micro_batch
        return [slice(start, min(start + size, images)) for start in range(0, images, size)]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype in (torch.float32, torch.float64):
            return nullcontext()
        return torch.autocast(self.clip.device.type, self.dtype)


def _starts(side: int, window: int, patch_size: int) -> list[int]:
    """Where the windows of a training start along a side: as few as cover it, overlapping evenly, in
    whole patches."""
    count = -(-side // window)
    if count == 1:
        return [0]
    step = (side - window) / (count - 1)
    return [round(step * index / patch_size) * patch_size for index in range(count)]


def all_texts(aligner: Aligner, captions: Sequence[str]) -> list[str]:
    """Every text that a training on these captions will ever compare with."""
    if aligner.pipeline is None:
        return list(captions)
    nouns = dict.fromkeys(noun for said in aligner.nouns(captions) for noun in said)
    forms = templates(aligner.settings.templates)
    return [*captions, *(form.format(noun) for noun in nouns for form in forms)]

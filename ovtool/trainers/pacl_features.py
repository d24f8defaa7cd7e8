"""What the frozen encoders of a CLIP give the training of a PACL head: tokens of images, embeddings of texts.

Both encoders stay as they are, so what is seen more than once may be computed once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.batches.captions import Batch, Listed, ListedBatches
from ovtool.datasets.templates import templates
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.layers import known
from ovtool.settings.pacl import Pacl
from ovtool.training import distributed
from ovtool.training.distributed import Ranks

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.nouns import Pipeline

IMAGES_AT_ONCE = 64  # through the tower
CACHE_BYTES = 4 << 30  # of tokens that `--cache auto` keeps


@dataclass(eq=False)
class Features:
    """The frozen side of a training.

    Attributes:
        clip: the model.
        settings: of the training, settled.
        pipeline: finds the nouns of captions; None without them.
        dtype: of texts, that of the head's weights.
    """

    clip: Clip
    settings: Pacl
    pipeline: Pipeline | None
    dtype: torch.dtype
    _tokens: Tensor | None = None  # of listed images, (N, T, width)
    _texts: Tensor | None = None
    _places: dict[str, int] = field(default_factory=dict)  # of texts in `_texts`
    _nouns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of captions
    _noun_texts: dict[str, Tensor] = field(default_factory=dict)

    # --- images ------------------------------------------------------------------------------------
    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """The tokens of images uint8 (b, 3, S, S), of all their windows: (b, T, width)."""
        from ovtool.models import clip as clips
        from ovtool.models import pacl

        window = self.settings.window or pixels.shape[2]
        starts = window_starts(pixels.shape[2], window, self.clip.patch_size)
        tokens = []
        for some in torch.split(pixels, IMAGES_AT_ONCE):
            placed = clips.normalise(self.clip, some.permute(0, 2, 3, 1))
            crops = [placed[:, :, y : y + window, x : x + window] for y in starts for x in starts]
            of_windows = [
                pacl.tokens(self.clip, crop, self.settings.last_block).flatten(1, 2)
                for crop in crops
            ]
            tokens.append(torch.cat(of_windows, dim=1))
        return torch.cat(tokens)

    def encode_images(self, listed: Listed, progress: Progress = no_progress) -> None:
        """Keeps the tokens of all images of a list on the CPU, each image whole."""
        side = known(self.settings.crop_size)
        images = ListedBatches(listed, side, 1, range(1), self.settings.seed)
        tokens = []
        with progress(listed.count, "encoding images") as advance:
            for start in range(0, listed.count, IMAGES_AT_ONCE):
                places = range(start, min(start + IMAGES_AT_ONCE, listed.count))
                pixels = torch.stack([images.image(index) for index in places])
                tokens.append(self.tokens(pixels).to("cpu", kept_dtype(self.clip)))
                advance(len(places))
        self.keep_tokens(torch.cat(tokens))

    def keep_tokens(self, tokens: Tensor) -> None:
        """Keeps tokens (N, T, width) that were made before, in the order of the images' list."""
        self._tokens = tokens

    def tokens_of(self, batch: Batch) -> Tensor:
        """The tokens of a batch, (b, T, width), kept or made now."""
        if batch.pixels is not None:
            return self.tokens(batch.pixels)
        kept = known(self._tokens)[torch.tensor(batch.index)]
        return kept.to(self.clip.device, self.clip.dtype)

    # --- texts -------------------------------------------------------------------------------------
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, (N, D) of length 1: those that were kept, or all encoded together."""
        if self._texts is not None and all(text in self._places for text in texts):
            places = torch.tensor([self._places[text] for text in texts], dtype=torch.int64)
            return self._texts[places].to(self.clip.device, self.dtype)
        from ovtool.models import text as text_tower

        return text_tower.encode_texts(self.clip, texts, cut=True).to(self.clip.device, self.dtype)

    def encode_captions(self, captions: Sequence[str]) -> None:
        """Keeps every text that a training on these captions will ever compare with."""
        texts = list(captions)
        if self.pipeline is not None:
            nouns = dict.fromkeys(noun for own in self.nouns(captions) for noun in own)
            forms = templates(self.settings.templates)
            texts += [form.format(noun) for noun in nouns for form in forms]
        distinct = list(dict.fromkeys(texts))
        self._texts = self.texts(distinct).float().cpu()
        self._places = {text: place for place, text in enumerate(distinct)}

    def nouns(self, captions: Sequence[str]) -> list[tuple[str, ...]]:
        """The lemmas of each caption, each once."""
        from ovtool.models import nouns

        new = [caption for caption in dict.fromkeys(captions) if caption not in self._nouns]
        for caption, spoken in zip(new, nouns.find(known(self.pipeline), new), strict=True):
            self._nouns[caption] = tuple(dict.fromkeys(noun.lemma for noun in spoken))
        return [self._nouns[caption] for caption in captions]

    def noun_texts(self, captions: Sequence[Sequence[str]], ranks: Ranks) -> tuple[Tensor, Tensor]:
        """The distinct nouns of all captions of all processes' images, as embeddings (K, D), and whose
        they are among this process's images: (b, K).

        Args:
            captions: all captions of each of this process's images.
            ranks: the processes.
        """
        spoken = iter(self.nouns([caption for own in captions for caption in own]))
        own = [sorted({noun for _ in several for noun in next(spoken)}) for several in captions]
        everyone = distributed.gather_objects(own, ranks)
        distinct = sorted({noun for rank in everyone for several in rank for noun in several})
        place = {noun: index for index, noun in enumerate(distinct)}
        owned = torch.zeros(len(own), len(distinct))
        for row, several in enumerate(own):
            owned[row, [place[noun] for noun in several]] = 1
        for noun in distinct:  # each by itself, so that its numbers depend on no other
            if noun not in self._noun_texts:
                forms = templates(self.settings.templates)
                embedded = self.texts([form.format(noun) for form in forms])
                self._noun_texts[noun] = normalize(embedded.mean(0), dim=-1)
        words = [self._noun_texts[noun] for noun in distinct]
        empty = torch.zeros(0, self.clip.embed_dim, dtype=self.dtype, device=self.clip.device)
        return torch.stack(words) if words else empty, owned.to(empty)


def tokens_an_image(settings: Pacl, clip: Clip) -> int:
    """How many tokens an image has, over all its windows, by settled settings."""
    side = known(settings.crop_size)
    window = settings.window or side
    count = len(window_starts(side, window, clip.patch_size))
    return (count * window // clip.patch_size) ** 2


def kept_dtype(clip: Clip) -> torch.dtype:
    """In what tokens are kept: float16 in place of float32, to hold twice as many."""
    return torch.float16 if clip.dtype == torch.float32 else clip.dtype


def window_starts(side: int, window: int, patch_size: int) -> list[int]:
    """Where the windows of a training start along a side: as few as cover it, overlapping evenly, in
    whole patches."""
    count = -(-side // window)
    if count == 1:
        return [0]
    step = (side - window) / (count - 1)
    return [round(step * index / patch_size) * patch_size for index in range(count)]

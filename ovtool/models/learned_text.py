"""Learned text: vectors in the place of words, through the text tower of a CLIP.

A sentence is start of text, "a photo of", K learned vectors, ".", end of text, with no class name in it.
Any causal text tower of open_clip takes it; what follows the end cannot change it, so it is encoded at its
own length, 6 + K for CLIP's tokens.

>>> reader = LearnedText.of(clip, length=30)
>>> embedded = reader(initial("normal", reader, classes, seed=0))  # (C, D)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.errors import UsageError
from ovtool.models import text
from ovtool.models.clip import Clip
from ovtool.models.text import CausalTower

LENGTH = 30  # K, as published
BEFORE, AFTER = "a photo of", "."
INITS = ("uniform", "normal", "words")
NORMAL_STD = 0.02  # about that of CLIP's token embeddings


@dataclass(frozen=True, eq=False)
class LearnedText:
    """A frozen text tower that reads sentences of learned vectors.

    tokens: the ids of the whole sentence, int64 (length,), with 0 where the vectors go. start: the place of
    the first vector. length: K. width: of a vector, the tower's.
    """

    clip: Clip
    tower: CausalTower
    tokens: Tensor
    start: int
    length: int
    width: int

    @classmethod
    def of(cls, clip: Clip, length: int | None = None) -> LearnedText:
        """The reader of a CLIP, for K vectors; None is 30, or as many as fit.

        Raises UsageError for a K that does not fit, and for text towers that read no vectors.
        """
        tower = text.causal_tower(clip.model)
        if tower is None:
            raise UsageError(
                f"background prompts need one of open_clip's own causal text towers, and that of "
                f"{clip.name} is none; use one such as ViT-B-16/openai"
            )
        before, after = _ids(clip, BEFORE)[:-1], _ids(clip, AFTER)[_starts(clip) :]
        room = clip.model.context_length - len(before) - len(after)
        count = min(LENGTH, room) if length is None else length
        if not 1 <= count <= room:
            raise UsageError(
                f"--length {count}: the text tower of {clip.name} has room for 1 to {room} vectors"
            )
        tokens = torch.cat([before, before.new_zeros(count), after])
        return cls(
            clip, tower, tokens, len(before), count, tower.tower.token_embedding.embedding_dim
        )

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors (C, K, width) as sentences: (C, D) float32 of length 1, with gradients to the vectors."""
        tokens = self.tokens.to(vectors.device).expand(len(vectors), -1)
        fixed = self.tower.tower.token_embedding(tokens)
        before, after = fixed[:, : self.start], fixed[:, self.start + self.length :]
        embedded = torch.cat([before, vectors.to(fixed.dtype), after], dim=1)
        dtype = self.tower.tower.transformer.get_cast_dtype()
        return normalize(self.tower.run(embedded.to(dtype), tokens).float(), dim=-1)

    def word_vectors(self, words: Sequence[str]) -> Tensor:
        """The token embeddings of words, one after another, repeated or cut to K: float32 (K, width)."""
        ids = torch.cat([_inner(self.clip, word) for word in words])
        repeated = ids.repeat(-(-self.length // len(ids)))[: self.length]
        rows: Tensor = self.tower.tower.token_embedding(repeated.to(self.clip.device)).float()
        return rows


def initial(
    init: str, reader: LearnedText, classes: int, seed: int, words: Sequence[str] = ()
) -> Tensor:
    """The vectors before training, float32 (classes, K, width), drawn from `seed`.

    init: `uniform` in [0, 1), the published code's; `normal` with deviation 0.02; `words`, the token
        embeddings of `words`, the same for every class. Raises UsageError for another.
    """
    shape = (classes, reader.length, reader.width)
    generator = torch.Generator().manual_seed(seed)
    if init == "uniform":
        return torch.rand(shape, generator=generator)
    if init == "normal":
        return NORMAL_STD * torch.randn(shape, generator=generator)
    if init == "words":
        return reader.word_vectors(words).cpu().expand(shape).clone()
    raise UsageError(f"unknown --init '{init}'; choose from {', '.join(INITS)}")


def _ids(clip: Clip, sentence: str) -> Tensor:
    """The token ids of a sentence up to its end of text, int64 (n,)."""
    tokens = clip.tokenizer([sentence], context_length=clip.model.context_length)
    return tokens[0, : text.used_lengths(clip.model, tokens)[0]]


def _starts(clip: Clip) -> int:
    """How many ids a sentence starts with before its first word: 1, or 0 where there is no start of text."""
    return len(_ids(clip, "")) - 1


def _inner(clip: Clip, word: str) -> Tensor:
    """The token ids of a word alone, without start and end of text."""
    return _ids(clip, word)[_starts(clip) : -1]

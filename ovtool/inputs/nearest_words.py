"""A learned prompt in words: the words of a vocabulary whose texts are nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import normalize

from ovtool.datasets import nouns, vocabularies
from ovtool.inputs import category_texts

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def vocabulary(clip: Clip, words: Path | None) -> list[str]:
    """The words that a prompt is compared with: those of a file, else those that the model is known to
    have learned, else the collage's nouns and the default background words; sorted, each once."""
    if words is not None:
        listed = vocabularies.read_classes_file(words)
        return sorted({synonyms[0] for synonyms in listed.classes})
    if clip.words is not None:
        return sorted(clip.words)
    return sorted({*nouns.class_names(), *vocabularies.DEFAULT_BACKGROUND})


def of(
    clip: Clip, embedded: Tensor, words: Sequence[str], count: int
) -> list[list[tuple[str, float]]]:
    """The words nearest to each of the texts (C, D), best first, each with its cosine."""
    known = category_texts.embed_words(clip, words, category_texts.SENTENCE)
    cosines = normalize(embedded, dim=-1) @ known.T
    best, places = cosines.topk(min(count, len(words)), dim=1)
    return [
        [(words[place], round(cosine, 4)) for cosine, place in zip(*row, strict=True)]
        for row in zip(best.tolist(), places.tolist(), strict=True)
    ]

"""The words of a run in the space of a CLIP."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ovtool.datasets import vocabularies
from ovtool.inputs.words import WordSet

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True, eq=False)
class EmbeddedWords:
    """The words of a run with their text embeddings.

    Attributes:
        words: The words.
        text: Their embeddings, float32 (N, D), of length 1.
        rows: The row of each word.
    """

    words: WordSet
    text: Tensor
    rows: Mapping[str, int]

    def of_image(self, name: str) -> tuple[Tensor, Sequence[int]]:
        """The embeddings of the names of an image's classes, and which class each belongs to."""
        names, owner = self.words.rows(name)
        index = torch.tensor([self.rows[word] for word in names])
        return self.text[index.to(self.text.device)], owner


def of(clip: Clip, words: WordSet, templates: str) -> EmbeddedWords:
    """Embeds every name of the words of a run, and the background; `templates`: the sentences around them."""
    from ovtool.models import text

    names = tuple(dict.fromkeys((*words.names, *words.background)))
    embedded = text.embed_words(clip, names, templates)
    return EmbeddedWords(words, embedded, {name: row for row, name in enumerate(names)})


def embed(
    clip: Clip, words: WordSet, templates: str, max_entropy: float | None = None
) -> EmbeddedWords:
    """Embeds every word of a run against the background that the model recommends, if it does, and warns of words
    that the model has not learned.

    Args:
        clip: The CLIP.
        words: The words.
        templates: The sentences around them.
        max_entropy: The bound of the entropy in nats, which may be out of reach.
    """
    from ovtool.models import text

    own = clip.recommended.get("words", {}).get("background")
    words = words.before(vocabularies.background_words(own, clip.stuff), clip.table)
    embedded = of(clip, words, templates)
    text.warn_unlearned(clip, words.names)
    _warn_entropy(max_entropy, words)
    return embedded


def _warn_entropy(most: float | None, words: WordSet) -> None:
    """One warning where a limit of the entropy can never be passed: that of K classes is ln K at most."""
    listed = words.per_image
    count = len(words.classes) if listed is None else max(map(len, listed.values()), default=1)
    count += bool(words.background)
    if most is not None and math.log(count) <= most:
        _logger.warning(
            "--max-entropy %g leaves out no pixel: among %d classes the entropy is at most ln %d = %.2f",
            most, count, count, math.log(count),
        )  # fmt: skip

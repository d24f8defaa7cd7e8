"""The words of a cam run as text embeddings: classes, and the background that they compete with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.datasets import vocabularies
from ovtool.errors import UsageError
from ovtool.formats import coco
from ovtool.formats.image_labels import Labelled

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

SENTENCE = "a photo of {}."  # SemPLeS's, for matching
SHARP = "a clean origami {}."  # CLIP-ES's, for maps by gradients
PLAIN = "a photo of a {}."  # where a generator begins
# CLIP-ES's list for VOC; it competes in the softmax where the model has no stuff words of its own
BACKGROUND = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea",
    "railway", "railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road",
    "rock", "street", "valley", "bridge", "sign",
)  # fmt: skip


def names(category: coco.Category) -> tuple[str, ...]:
    """The words for a category, its name first; underscores are blanks."""
    spellings = (category.name, *category.synonyms)
    return tuple(dict.fromkeys(word.replace("_", " ") for word in spellings))


def embed(clip: Clip, categories: Sequence[coco.Category], sentence: str = SENTENCE) -> Tensor:
    """The categories as unit vectors (C, D), float32, on the model's device: the mean over the words of
    each. Words that the model never learned are named in one warning."""
    from ovtool.models import text

    words = [names(category) for category in categories]
    flat = [word for synonyms in words for word in synonyms]
    text.warn_unlearned(clip, flat)
    embedded = embed_words(clip, flat, sentence).split([len(synonyms) for synonyms in words])
    return normalize(torch.stack([rows.mean(dim=0) for rows in embedded]), dim=-1)


def background_words(
    clip: Clip, labels: Labelled, background: str | None, alone: bool = False
) -> tuple[str, ...]:
    """The words that compete: those given, nothing for `none`, else the model's own stuff words or
    CLIP-ES's list; never a word of a category.

    Raises UsageError where nothing competes with the one label of an image, unless labels may stand
    `alone`.
    """
    own = {word.casefold() for category in labels.categories for word in names(category)}
    given = vocabularies.background_words(background, clip.stuff or BACKGROUND)
    kept = tuple(word for word in given if word.casefold() not in own)
    single = [image for image in labels.images if len(image.category_ids) == 1]
    if not kept and single and not alone:
        raise UsageError(
            f"{len(single)} images have one label only, such as {single[0].item.name}, and the softmax needs "
            'a word to compete with it; name some, such as --background "wall,sky"'
        )
    return kept


def embed_words(clip: Clip, words: Sequence[str], sentence: str) -> Tensor:
    """Words as unit vectors (N, D), float32, on the model's device."""
    from ovtool.models import text

    return text.encode_texts(clip, [sentence.format(word) for word in words])

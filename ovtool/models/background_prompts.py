"""Files of kind `background-prompts`: what the images of each class show beside it, as learned text.

Two float32 tensors, `vectors` (C, K, width), the learned tokens, and `embeddings` (C, D), the sentences
that they make, of length 1; the header's settings hold the categories and the nearest words of each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, labelled
from ovtool.models import artefacts
from ovtool.models.clip import Clip

KIND = "background-prompts"


def save(
    path: Path,
    clip: Clip,
    categories: Sequence[coco.Category],
    vectors: Tensor,
    embeddings: Tensor,
    settings: Mapping[str, Any],
) -> None:
    """Writes the prompts of `categories`, a row each. Raises InputError."""
    content = {"vectors": vectors.float(), "embeddings": embeddings.float()}
    listed = [coco.category_entry(category) for category in categories]
    artefacts.save(path, KIND, clip, content, {**settings, "categories": listed})


def load(
    path: Path, clip: Clip, categories: Sequence[coco.Category]
) -> tuple[Tensor, dict[str, Any]]:
    """The embeddings of the prompts of `categories`, in their order, float32 (C, D) of length 1 on the
    model's device, and the settings of the file.

    Raises InputError for a file that is broken, MismatchError for one of another kind, another CLIP or
    another list of classes.
    """
    header, content = artefacts.load(path, KIND, clip, "make it again")
    settings = dict(header["settings"])
    theirs = [category.name for category in coco.parse_categories(settings, str(path))]
    ours = [category.name for category in categories]
    if sorted(theirs) != sorted(ours):
        differing = sorted(set(theirs) ^ set(ours))
        raise MismatchError(
            f"{path} holds the prompts of {len(theirs)} classes, and there are {len(ours)} here; they "
            f"differ in {labelled.shortened(differing)}; tune prompts for the same classes"
        )
    embeddings = content.get("embeddings")
    if embeddings is None or embeddings.shape != (len(theirs), clip.embed_dim):
        raise InputError(f"{path} does not hold an embedding a class; make it again")
    rows = embeddings[[theirs.index(name) for name in ours]].float().to(clip.device)
    return normalize(rows, dim=-1), settings

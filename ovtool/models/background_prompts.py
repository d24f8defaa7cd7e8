"""Files of kind `background-prompts`: what the pictures of each class show beside it, as learned text.

Two float32 tensors, `vectors` (C, K, width), the learned tokens, and `embeddings` (C, D), the sentences
that they make, of length 1; the header's settings hold the categories and the nearest words of each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, labelled, tensors
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
    header = {
        "kind": KIND,
        "model": clip.name,
        "fingerprint": clip.fingerprint,
        "settings": {
            **settings,
            "categories": [coco.category_entry(each) for each in categories],
        },
    }
    tensors.save(path, {"vectors": vectors.float(), "embeddings": embeddings.float()}, header)


def load(
    path: Path, clip: Clip, categories: Sequence[coco.Category]
) -> tuple[Tensor, dict[str, Any]]:
    """The embeddings of the prompts of `categories`, in their order, float32 (C, D) of length 1 on the
    model's device, and the settings of the file.

    Raises InputError for a file that is broken, MismatchError for one of another kind, another CLIP or
    another list of classes.
    """
    header, found = tensors.load(path, kind=KIND)
    tensors.check_fingerprint(header, clip.name, clip.fingerprint, path)
    settings = dict(header["settings"])
    theirs = [each.name for each in coco.parse_categories(settings, str(path))]
    ours = [each.name for each in categories]
    if sorted(theirs) != sorted(ours):
        differing = sorted(set(theirs) ^ set(ours))
        raise MismatchError(
            f"{path} holds the prompts of {len(theirs)} classes, and there are {len(ours)} here; they "
            f"differ in {labelled.shortened(differing)}: tune prompts for the same classes"
        )
    embeddings = found.get("embeddings")
    if embeddings is None or embeddings.shape != (len(theirs), clip.embed_dim):
        raise InputError(f"{path} does not hold an embedding a class: make it again")
    if not embeddings.isfinite().all():
        raise InputError(f"{path} holds numbers that are not finite: make it again")
    rows = embeddings[[theirs.index(name) for name in ours]].float().to(clip.device)
    return normalize(rows, dim=-1), settings

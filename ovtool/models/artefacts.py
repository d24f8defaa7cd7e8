"""Files of weights that belong to one CLIP: prompts, heads, generators, proposers, segmenters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import tensors
from ovtool.models.clip import Clip


def save(
    path: Path, kind: str, clip: Clip, content: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Write tensors with a header that names their CLIP. Raises InputError."""
    header = {"kind": kind, "model": clip.name, "fingerprint": clip.fingerprint}
    tensors.save(path, content, {**header, "settings": dict(settings)})


def load(
    path: Path, kind: str, clip: Clip | None, mend: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file.

    Args:
        path: the file.
        kind: what it must be.
        clip: the model that it must belong to, None for any.
        mend: what to do about numbers that are not finite, such as "train the head again".

    Raises:
        InputError: a file that is broken or holds numbers that are not finite.
        MismatchError: a file of another kind or of another CLIP.
    """
    header, content = tensors.load(path, kind)
    if clip is not None:
        tensors.check_fingerprint(header, clip.name, clip.fingerprint, path)
    if not all(bool(value.isfinite().all()) for value in content.values()):
        raise InputError(f"{path} holds numbers that are not finite; {mend}")
    return header, content

"""Files of weights that belong to one CLIP: prompts, heads, generators, proposers, segmenters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        InputError: a file that is broken, lacks settings or holds numbers that are not finite.
        MismatchError: a file of another kind or of another CLIP.
    """
    header, content = tensors.load(path, kind)
    if clip is not None:
        tensors.check_fingerprint(header, clip.name, clip.fingerprint, path)
    tensors.check_settings(header, path)
    if not all(bool(value.isfinite().all()) for value in content.values()):
        raise InputError(f"{path} holds numbers that are not finite; {mend}")
    return header, content


@contextmanager
def reading(path: Path, what: str, mend: str = "make it again") -> Iterator[None]:
    """Says in one line that a file does not hold a whole network, whatever is raised inside: torch, transformers
    and headers each have their own ways.

    Args:
        path: the file.
        what: what it should hold, such as "proposer".
        mend: what to do.

    Raises:
        InputError: something was raised.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path} does not hold a whole {what} ({reason}); {mend}") from None


def check_whole(
    config: Mapping[str, Any], content: Mapping[str, Tensor], describe: Callable[[], nn.Module]
) -> None:
    """Check that a network has the tensors of a file, before it takes time or memory.

    Args:
        config: What describes it; no count of layers in it may be above the number of tensors.
        content: The tensors of the file.
        describe: Builds the network, here without memory for its tensors.

    Raises:
        ValueError: Its tensors have other names or shapes.
    """
    if _most_layers(config) > len(content):
        raise ValueError("its settings describe more layers than it has tensors")
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in describe().state_dict().items()}
    if wanted != {name: value.shape for name, value in content.items()}:
        raise ValueError("its tensors are not those that its settings describe")


def _most_layers(config: Any, key: str = "") -> int:
    """The largest integer under a key that counts layers, however deep."""
    if isinstance(config, dict | list):
        inner = config.items() if isinstance(config, dict) else ((key, value) for value in config)
        return max((_most_layers(value, name) for name, value in inner), default=0)
    counts = "layers" in key or key in ("depths", "num_stages")
    return config if counts and type(config) is int else 0

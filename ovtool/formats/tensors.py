"""safetensors files with one metadata key, ``ovtool``, of canonical JSON.

One key, because safetensors writes several in random order. The header says ``kind``, ``format``
(1), ``model`` and ``fingerprint`` (of the network in whose space vectors or weights live; absent
for masks and labels) and ``settings``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
import safetensors
from numpy.typing import NDArray

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import atomic, schema, strict_json, wrong_kind
from ovtool.formats.json_sections import Entries

if TYPE_CHECKING:  # a header is read without it
    import torch

FORMAT = 1
_KEY = "ovtool"
# as torch names them, in the order in which the library lays them out
_DTYPES = {
    "I64": "int64", "F64": "float64", "F32": "float32", "I32": "int32", "BF16": "bfloat16", "F16": "float16",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_HEADER: schema.Schema = {"model?": str, "fingerprint?": str, "settings": dict}
_CATEGORIES: schema.Schema = [{"id": schema.ID, "name": str}]
_IMAGE: schema.Schema = {
    "id": schema.ID, "file_name": str, "height": schema.SIDE, "width": schema.SIDE, "category_ids": [schema.ID],
}  # fmt: skip
# what readers need of the settings of each kind
SETTINGS: Mapping[str, schema.Schema] = {
    "clip": {"words?": [str], "rows?": [schema.ID], "stuff?": [str], "dense?": dict, "recommended?": dict},
    "mask-prompts": {"grid?": [schema.SIZE]},
    "background-prompts": {"categories": _CATEGORIES},
    "pacl": {"pooling": {"scale?": float, "kind?": str}, "logit_scale": float, "last_block?": str},
    "cams": {
        "images": [_IMAGE], "categories": _CATEGORIES, "method": dict,
        "failures?": [{"file_name": str, "reason": str}],
    },
    "mask-generator": {
        "generator": {
            "backbone?": str, "fine_tuned?": bool, "hidden?": range(1 << 16), "side?": schema.SIZE, "start?": str,
        },
        "categories": _CATEGORIES,
    },
    "proposer": {"config": dict, "embed_dim": schema.SIZE, "names": [str], "short_side": schema.SIZE},
    "segmenter": {"architecture": str, "names": [str], "short_side": schema.SIZE},
    "proposals": {"proposals": str},
}  # fmt: skip

Array: TypeAlias = "torch.Tensor | NDArray[Any]"
_Name = TypeVar("_Name")


@dataclass(frozen=True, eq=False)
class Anew(Mapping[_Name, "torch.Tensor"]):
    """Tensors that are never all in memory: each is read anew whenever it is asked for; `dict` of it holds them."""

    read: Mapping[_Name, Callable[[], torch.Tensor]]

    def __getitem__(self, name: _Name) -> torch.Tensor:
        return self.read[name]()

    def __iter__(self) -> Iterator[_Name]:
        return iter(self.read)

    def __len__(self) -> int:
        return len(self.read)


def check_stdout() -> None:
    """Refuses to write a safetensors file to a terminal. Raises UsageError."""
    if sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(
            "safetensors are bytes, which a terminal cannot show; send standard output to a file or a "
            "pipe, or name a file with -o"
        )


def save(path: Path, tensors: Mapping[str, Array | Entries], header: Mapping[str, Any]) -> None:
    """Writes tensors of any shape, dtype and device, atomically and with the same bytes each time; to
    stdout for ``-``. They are the bytes that `safetensors.torch.save` makes, but no two tensors need be in memory at
    once: each is asked for twice, for the beginning of the file and for its own place.

    ``Entries`` are the pieces of one tensor along its first axis. ``header`` must have a ``kind``; ``format`` is set
    here, ``settings`` is {} if not given.

    Raises:
        InputError: the file cannot be written.
        ValueError: no kind, a header that JSON cannot hold, or a tensor of a type that is not read.
    """
    if not isinstance(header.get("kind"), str):
        raise ValueError("the header of a safetensors file needs a kind")
    text = atomic.canonical_json({"settings": {}, **header, "format": FORMAT})
    shapes = {name: _dtype_and_shape(tensors[name]) for name in tensors}
    order = sorted(shapes, key=lambda name: (list(_DTYPES).index(shapes[name][0]), name))
    listed: dict[str, Any] = {"__metadata__": {_KEY: text}}
    stop = 0
    for name in order:
        dtype, shape, size = shapes[name]
        listed[name] = {"dtype": dtype, "shape": shape, "data_offsets": [stop, stop := stop + size]}
    beginning = atomic.plain_json(listed).encode()
    beginning += b" " * (-len(beginning) % 8)
    atomic.remove_stale(Path(path))
    with atomic.writing(Path(path)) as file:
        file.write(len(beginning).to_bytes(8, "little") + beginning)
        for name in order:
            for piece in _pieces(tensors[name]):
                file.write(_bytes(piece))


def _pieces(tensor: Array | Entries) -> Iterator[torch.Tensor]:
    for piece in tensor if isinstance(tensor, Entries) else [tensor]:
        yield _tensor(piece)


def _dtype_and_shape(tensor: Array | Entries) -> tuple[str, list[int], int]:
    """The type of a tensor as the file names it, its shape, and its size in bytes."""
    seen = [(piece.dtype, list(piece.shape), piece.nbytes) for piece in _pieces(tensor)]
    dtype, shape, _ = seen[0]
    if isinstance(tensor, Entries):
        shape = [sum(own[0] for _, own, _ in seen), *shape[1:]]
    names = [name for name, own in _DTYPES.items() if str(dtype) == f"torch.{own}"]
    if not names:
        raise ValueError(f"tensors of {dtype} are not stored")
    return names[0], shape, sum(size for _, _, size in seen)


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def read_header(path: Path) -> dict[str, Any]:
    """What a file says of itself, without reading its tensors.

    Raises:
        InputError: no such file, truncated, not safetensors, or not one that ovtool wrote.
    """
    return _header(path, _open(path))


def names(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a file as name -> (dtype, shape), without reading them. Raises InputError."""
    handle = _open(path)
    return {
        name: (handle.get_slice(name).get_dtype(), tuple(handle.get_slice(name).get_shape()))
        for name in sorted(handle.keys())
    }


def load(
    path: Path, kind: str | tuple[str, ...] | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors (on the CPU) of a file, which must be of ``kind``, or of one of them.

    Raises:
        InputError: as ``read_header``.
        MismatchError: a file of another kind.
    """
    handle, header = _opened(path, kind, "pt")
    _check_types(path, handle)
    return header, {name: handle.get_tensor(name) for name in sorted(handle.keys())}


def stored(path: Path, kind: str) -> tuple[dict[str, Any], Anew[str]]:
    """Header and tensors of a file of a kind, each tensor read from it whenever it is asked for. Raises as `load`."""
    handle, header = _opened(path, kind, "numpy")
    _check_types(path, handle)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries, stamp = json.loads(file.read(length)), _stamp(file)
    del entries["__metadata__"]
    read = partial(_read, Path(path).absolute(), stamp)
    return header, Anew(
        {
            name: partial(read, entry["dtype"], tuple(entry["shape"]), start + 8 + length)
            for name, entry in sorted(entries.items())
            for start in entry["data_offsets"][:1]
        }
    )


def _stamp(file: BinaryIO) -> tuple[int, int]:
    """What changes with an open file: its size, and the time when it was written."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _read(
    path: Path, stamp: tuple[int, int], dtype: str, shape: tuple[int, ...], start: int
) -> torch.Tensor:
    """A tensor that begins at some byte of a file. Raises InputError where it is another file by now."""
    import torch

    tensor = torch.empty(shape, dtype=getattr(torch, _DTYPES[dtype]))
    try:
        with open(path, "rb") as file:
            is_same = _stamp(file) == stamp
            file.seek(start)
            size = file.readinto(_bytes(tensor))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not is_same or size < tensor.nbytes:
        raise InputError(f"{path} has been changed while it was read; run the command again")
    return tensor


def not_finite(path: Path) -> list[str]:
    """The tensors of a file that hold NaN or infinities. Raises InputError as `load`; BF16 alone needs torch."""
    handle, _ = _opened(path, None, "numpy")
    has_halves = "BF16" in _check_types(path, handle)
    if has_halves:  # which numpy does not know
        handle = _open(path, "pt")
    names = []
    for name in sorted(handle.keys()):
        tensor = handle.get_tensor(name)
        if not np.isfinite(tensor.double().numpy() if has_halves else tensor).all():
            names.append(name)
    return names


def _check_types(path: Path, handle: Any) -> set[str]:
    """The types of the tensors of an open file. Raises InputError for one that is not read."""
    types = set()
    for name in handle.keys():  # noqa: SIM118 (it is no dictionary)
        types.add(dtype := handle.get_slice(name).get_dtype())
        if dtype not in _DTYPES:
            raise InputError(f"{path}: {name} is of type {dtype}; store it as F16 or F32")
    return types


def check_kind(path: Path, kind: str | tuple[str, ...]) -> None:
    """Raises as `load` does for a file that is no safetensors file or of another kind; no tensor is read."""
    _opened(path, kind, "numpy")


def _opened(
    path: Path, kind: str | tuple[str, ...] | None, framework: str
) -> tuple[Any, dict[str, Any]]:
    """An open file, which must be of a kind, and its header."""
    atomic.require_file(Path(path))
    kinds = (kind,) if isinstance(kind, str) else kind
    if kinds is not None and (what := wrong_kind.of_json(Path(path))):
        raise InputError(f"{path} {what}; {wrong_kind.needed(kinds)}")
    handle = _open(path, framework)
    header = _header(path, handle)
    if kinds is not None and header["kind"] not in kinds:
        what = wrong_kind.of_tensors(header["kind"])
        raise MismatchError(f"{path} {what}; {wrong_kind.needed(kinds)}")
    return handle, header


def check_settings(header: Mapping[str, Any], path: Path) -> None:
    """Raise InputError unless the settings of a file are those that readers of its kind need."""
    schema.check(header["settings"], SETTINGS.get(header["kind"], {}), f"{path}: settings")


def fingerprint(tensors: Mapping[str, Array]) -> str:
    """16 hexadecimal digits that tell weights apart: SHA-256 over names, dtypes, shapes and bytes.

    It depends neither on the order of the tensors, nor on their device or memory layout, nor on the
    file that they came from.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = _tensor(tensors[name])
        described = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(atomic.canonical_json(described).encode() + b"\n")
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def check_fingerprint(
    header: Mapping[str, Any], model_name: str, fingerprint: str, path: Path
) -> None:
    """Refuses an artefact that was made with another model than the one at hand.

    Raises:
        MismatchError: the header has another fingerprint, or none; both models are named.
    """
    own = header.get("fingerprint")
    if own != fingerprint:
        theirs = f"{header.get('model') or 'an unnamed model'!s:.80}"
        raise MismatchError(
            f"{path} was made with {theirs} ({own or 'no fingerprint'!s:.20}), but the model here is "
            f"{model_name} ({fingerprint}); use --model {theirs}, or make the file anew"
        )


def _tensor(array: Array) -> torch.Tensor:
    import torch

    if isinstance(array, np.ndarray):
        return torch.from_numpy(np.array(array, order="C"))
    return array.detach().cpu().contiguous()


def _open(path: Path, framework: str = "numpy") -> Any:
    try:
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder, not a safetensors file")
        atomic.require_file(Path(path))
        with open(path, "rb"):  # the library's own message lacks the name
            pass
        return safetensors.safe_open(path, framework=framework)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except safetensors.SafetensorError as error:
        if what := wrong_kind.of_beginning(Path(path)):
            raise InputError(f"{path} {what}") from None
        raise InputError(
            f"{path} is truncated or not a safetensors file ({str(error).splitlines()[0]:.200}); "
            "make or copy it again"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _header(path: Path, handle: Any) -> dict[str, Any]:
    text = (handle.metadata() or {}).get(_KEY)
    if text is None:
        raise InputError(
            f"{path} was not written by ovtool: its metadata has no key ovtool that says what it is"
        )
    try:
        header = strict_json.loads(text)
    except ValueError:
        header = None
    kind = header.get("kind") if isinstance(header, dict) else None
    if not isinstance(header, dict) or not isinstance(kind, str) or len(kind) > 60:
        raise InputError(f"{path}: its metadata key ovtool is damaged; make the file again")
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {header.get('format')!r:.40}, but this version reads {FORMAT}; "
            "upgrade ovtool, or make the file again"
        )
    schema.check(header, _HEADER, f"{path}: its header")
    return header

"""What a command was asked to make, and whether its output is up to date (`--update`).

A request is known by a digest of the command, of all settings that shape the result, of the files that they
name and of the names and sizes of the images. It stands in the provenance of the output, under `asked`. An
output is up to date where it has the digest of the request at hand, and no file that is read is newer. COCO's
bare list of results has no place for the digest, so that there times alone are compared, as make does.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovtool.datasets import registry
from ovtool.errors import InputError, UpToDate, UsageError
from ovtool.formats import atomic, strict_json
from ovtool.formats.image_search import SUFFIXES
from ovtool.formats.images import ImageItem, is_result
from ovtool.settings.option import fields, is_settings
from ovtool.settings.shared import Compute, Run

if TYPE_CHECKING:  # it imports torch
    from ovtool.training.run import Place

_logger = logging.getLogger("ovtool")
_ENDS = 1 << 20  # bytes at both ends of a file that tell it from others of its size
_LONGEST_HEADER = 1 << 30
_PAGE_HEAD = 1000  # bytes of a report, which has the digest before its title


@dataclass(frozen=True)
class Asked:
    """A request, and what its answer depends on.

    Attributes:
        digest: 16 hexadecimal digits: equal requests, equal digest.
        sources: Files, folders and data sets that are read.
        items: Images that are read.
    """

    digest: str
    sources: tuple[_Read, ...]
    items: Sequence[ImageItem]

    @property
    def files(self) -> Iterator[Path]:
        """The files that are read, whose times are compared with that of the output; looked up anew, not held."""
        for source in self.sources:
            yield from source.files()
        yield from (item.path for item in self.items)


def of(
    command: str,
    *settings: object,
    sources: Sequence[str | Path | None] = (),
    folder: str | Path | None = None,
    items: Sequence[ImageItem] = (),
    outputs: Sequence[str | Path] = (),
) -> Asked:
    """The request that settings and inputs make.

    Args:
        command: The name of the command.
        settings: Settings objects, and plain values that shape the result too. Fields that do not shape it
            are left out; a path stands for what lies there.
        sources: The inputs: files, folders and data sets by name; `-` and None are passed over.
        folder: A folder of images, where their names are not known.
        items: The images, where they are.
        outputs: What the command writes, which may lie in a folder that it reads.
    """
    written = {os.path.realpath(path) for path in outputs}
    named = [str(source) for source in sources if source is not None and str(source) != "-"]
    read = [_Read(name, written) for name in (*named, *_paths_in(settings))]
    if folder is not None:
        read.append(_Read(str(folder), written, SUFFIXES))
    described = {
        "command": command,
        "settings": [_plain(value, written) for value in settings],
        "sources": [_Read(name, written).described() for name in named],
        "images": [[item.name, item.id, _size(item.path)] for item in items],
    }
    text = atomic.canonical_json(described).encode()
    for source in read:  # a data set is known, and has the split
        next(source.files(), None)
    return Asked(hashlib.sha256(text).hexdigest()[:16], tuple(read), items)


def begin(
    asked: Asked,
    target: str | Path,
    run: Run,
    beside: Sequence[str | Path | None] = (),
    is_list: bool = False,
) -> Run:
    """How the run goes: with `--update` it replaces an output that is out of date, and goes on with what an
    earlier run left, where that fits.

    Args:
        asked: The request.
        target: The output.
        run: How the run goes, as it was asked for.
        beside: What else is written; without it the output is not up to date. None is passed over.
        is_list: Whether the output is a bare list of results, which keeps no digest.

    Raises:
        UpToDate: There is nothing to do.
        UsageError: What is written is read too.
    """
    path, needed = Path(target), [Path(place) for place in beside if place is not None]
    refuse_inputs((path, *needed), asked.files)
    if not run.update:
        return run
    if is_answered(asked, path, is_list) and all(place.exists() for place in needed):
        if is_list:
            _logger.warning(
                "%s is a list of results, which keeps no settings; only times were compared", path
            )
        raise UpToDate(path)
    return replace(run, overwrite=True, resume=True)


def refuse_inputs(places: Sequence[Path], files: Iterable[Path]) -> None:
    """Raises UsageError where a place to write to is one of the files that are read, by whatever link."""
    there = {atomic.identity(place): place for place in places if place.is_file()}
    there.pop(None, None)
    for file in files if there else ():
        if (place := there.get(atomic.identity(file))) is not None:
            raise UsageError(f"{place} is read by this run; write to another file")


def begin_training(
    place: Place,
    command: str,
    *settings: object,
    sources: Sequence[str | Path | None],
    folder: str | Path | None,
) -> Place:
    """A training that goes on as `begin` says, and whose file keeps the digest of the request.

    Args:
        place: Where it computes and writes.
        command: What is asked for; it, `settings`, `sources` and `folder` are those of `of`.

    Raises:
        UpToDate: There is nothing to do.
        UsageError: What is written is read too.
    """
    outputs = place.outputs
    asked = of(command, *settings, sources=sources, folder=folder, outputs=outputs.places)
    run = begin(asked, outputs.file, place.run, (outputs.curve,))
    return replace(place, run=run, asked=asked.digest)


def is_answered(asked: Asked, target: Path, is_list: bool = False) -> bool:
    """Whether an output answers the request (of a list of results: is a list), and is not older than any file
    that was read for it."""
    try:
        if not target.is_file():
            return False
        if is_list:
            with open(target, "rb") as handle:
                is_same = handle.read(8).lstrip()[:1] == b"["
        else:
            is_same = digest_in(target) == asked.digest
        if not is_same:
            return False
    except OSError:
        return False
    return is_newer(target, asked.files)


def is_newer(target: Path, files: Iterable[Path]) -> bool:
    """Whether an output is there, and not older than any of the files that are there."""
    try:
        written = target.stat().st_mtime_ns
        return all(file.stat().st_mtime_ns <= written for file in files if file.exists())
    except OSError:
        return False


def digest_in(path: Path) -> str | None:
    """The digest in the provenance of a COCO JSON, another JSON, a safetensors file or a report; None without
    one."""
    with open(path, "rb") as handle:
        head = handle.read(8)
        if head[:1] == b"<":
            known = re.search(rb'name="ovtool-asked" content="(\w+)"', handle.read(_PAGE_HEAD))
            return known[1].decode() if known else None
        length = int.from_bytes(head, "little")
        is_json = head.lstrip()[:1] in (b"{", b"[")
        text = head + handle.read() if is_json else handle.read(min(length, _LONGEST_HEADER))
    try:
        content = strict_json.loads(text.decode())
        if is_json:
            provenance = content.get("info", content)["ovtool"]
        else:
            provenance = strict_json.loads(content["__metadata__"]["ovtool"])["settings"]
        digest = provenance.get("asked")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return digest if isinstance(digest, str) else None


@dataclass(frozen=True)
class _Read:
    """Something that is read: a file, a folder, a data set, or a name that belongs to none of these.

    Attributes:
        name: As it is named.
        written: What the command itself writes, as real paths.
        suffixes: Of the files of a folder; all without any.
    """

    name: str
    written: set[str]
    suffixes: tuple[str, ...] = ()

    def described(self) -> object:
        """What tells it from others, whatever its path: sizes, and the ends of a file."""
        path = Path(self.name)
        if path.is_dir():
            return sorted([os.path.relpath(file, path), _size(file)] for file in self.files())
        return _identity(path) if path.is_file() else self.name

    def files(self) -> Iterator[Path]:
        """Its files; of a folder all below it, hidden ones and earlier outputs of the command aside."""
        path = Path(self.name)
        try:
            data = None if self.suffixes else registry.of_source(self.name)
        except InputError:  # which the command says where it reads it
            return
        if data is not None:
            yield from _files_of_data_set(data)
        elif path.is_dir():
            for file in _files_below(path):
                is_read = not self.suffixes or file.suffix.lower() in self.suffixes
                if is_read and not self._is_output(file):
                    yield file
        elif path.exists():
            yield path

    def _is_output(self, file: Path) -> bool:
        """Whether a file is what the command wrote before. An image among images says that it was drawn; among
        label maps it is one of them, since each of them is read. Other files have the digest of a request."""
        if os.path.realpath(file) not in self.written:
            return False
        if file.suffix.lower() in SUFFIXES:
            return bool(self.suffixes) and is_result(file)
        return digest_in(file) is not None


def _files_of_data_set(data: registry.DataSet) -> Iterator[Path]:
    listed = [data.instances, data.semantic, data.captions, data.classes_per_image]
    folders = [data.images, data.objects, *(folder for folder, _ in data.maps)]
    if data.panoptic is not None:
        listed.append(data.panoptic[0])
        folders.append(data.panoptic[1])
    yield from (file for file in listed if file is not None and file.exists())
    yield from (file for folder in folders if folder for file in _files_below(folder))


def _files_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root) / name for name in names if not name.startswith("."))


def _paths_in(settings: Sequence[object]) -> Iterator[str]:
    """The files and folders that settings name."""
    for value in settings:
        if isinstance(value, Compute) and _model(value) is not None:
            yield str(_model(value))
        if is_settings(type(value)):
            shaping = (name for name, field in fields(type(value)).items() if field.option.shapes)
            yield from _paths_in([getattr(value, name) for name in shaping])
        elif isinstance(value, Path) or (isinstance(value, str) and _is_file(value)):
            yield str(value)


def _plain(value: Any, written: set[str]) -> Any:
    """A value as JSON, with the identity of a file in place of its path."""
    if is_settings(type(value)):
        data = {"class": type(value).__name__}
        for name, field in fields(type(value)).items():
            if field.option.shapes:
                data[name] = _plain(getattr(value, name), written)
        if isinstance(value, Compute):
            data["model"] = _plain(_model(value), written)
        return data
    if isinstance(value, Mapping):
        return {str(key): _plain(item, written) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, written) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and _is_file(value)):
        return _Read(str(value), written).described()
    return value


def _model(compute: Compute) -> str | None:
    """The model that is asked for, as a name or a path; None where it is left to the command."""
    return compute.model or os.environ.get("OVTOOL_MODEL") or None


def _is_file(text: str) -> bool:
    try:
        return "\n" not in text and Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, as a sentence may be
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _identity(path: Path) -> list[object]:
    """The size of a file, and the digest of its first and last bytes."""
    size = _size(path)
    with open(path, "rb") as handle:
        digest = hashlib.sha256(handle.read(_ENDS))
        handle.seek(max(size - _ENDS, 0))
        digest.update(handle.read(_ENDS))
    return [size, digest.hexdigest()[:16]]


def stem_of(source: str) -> str:
    """The name of a file without its ending, or of a data set: `voc-train` for voc:train."""
    return Path(source).resolve().stem if Path(source).exists() else source.replace(":", "-")

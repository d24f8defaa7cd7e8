"""Parts: the results of a run over many images, cut into files that are whole or not there.

``OUT.parts/part-00007.jsonl`` has a header line, one record a line, and an end line with their
number and a digest of all lines before; a ``.safetensors`` of the same name holds its tensors, and is written
before it, as the end line has a digest of it too: a part that was changed is damaged. Annotation ids
are given when parts are merged (``formats.merge``), so a part depends on its own images alone; an
image's id is that of its source, or given then too.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import atomic, differences, schema, strict_json, tensors
from ovtool.formats.json_sections import Entries
from ovtool.formats.records import Record as Record
from ovtool.formats.records import check_record as check_record
from ovtool.formats.records import failure_record as failure_record
from ovtool.formats.records import image_ids as image_ids
from ovtool.formats.records import image_record as image_record
from ovtool.formats.records import is_record as is_record
from ovtool.formats.records import with_source_ids as with_source_ids

_logger = logging.getLogger("ovtool")
_NAME = re.compile(r"part-(\d{5,})\.jsonl")
_TENSORS = ".safetensors"
_MEND = "run the command that makes them again with --resume"
_HEADER: schema.Schema = {
    "part": schema.ID, "start": schema.ID, "stop": schema.ID, "items": schema.ID, "digest": str, "settings": dict,
    "preface?": {"info?": {"ovtool?": dict}, "categories": [dict]},
}  # fmt: skip
_END: schema.Schema = {"end": schema.ID, "sum?": str, "tensors?": str, "note?": dict}


@dataclass(frozen=True, slots=True)
class Part:
    """The items ``start`` to ``stop`` (exclusive) of a list of ``items`` (0: not known)."""

    index: int
    start: int
    stop: int
    items: int = 0


def cut(n_items: int, part_size: int) -> list[Part]:
    """Cuts a list into parts of ``part_size``, the last one shorter. Raises UsageError below 1."""
    if part_size < 1:
        raise UsageError(f"--part-size {part_size}: a part holds at least one image")
    starts = range(0, n_items, part_size)
    return [Part(i, s, min(s + part_size, n_items), n_items) for i, s in enumerate(starts)]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of all that shapes the result: equal settings, equal digest."""
    return hashlib.sha256(atomic.canonical_json(dict(settings)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PartStore:
    """A folder of parts of one run.

    ``digest`` is that of ``settings`` and whatever else shapes the result. ``preface`` is what the
    merged file begins with (``merge.preface``), so that a folder can be read with no other source.
    """

    folder: Path
    digest: str
    settings: Mapping[str, Any]
    preface: Mapping[str, Any] | None = None

    def exists(self, part: Part, or_other: bool = False) -> bool:
        """Whether a part is there, whole, and of this run; each of its records is read and checked.

        Args:
            part: the part.
            or_other: a part of another run counts as not there, and is no error.

        Raises:
            MismatchError: it comes from other settings, or from another cut of the list.
        """
        path = self._path(part)
        header, end = _ends(path)
        if header is None:
            return False
        try:
            self._check_run(part, header)
        except MismatchError:
            if or_other:
                return False
            raise
        if end is None or ("tensors" in end and not path.with_suffix(_TENSORS).exists()):
            return False
        try:
            self.tensors(part)
            for record in _records(path, self.digest):
                check_record(record)
        except InputError as error:
            _logger.warning("%s is damaged (%s), and its images are done again", path, error)
            return False
        return True

    def write(
        self,
        part: Part,
        records: Iterable[Record],
        tensors_: Mapping[str, tensors.Array] | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes a part; when this returns it is on the disk, and before that it is not there.

        ``records`` may be drawn lazily, and may fill ``tensors_`` and ``note`` as they come: both
        are read after the last record. ``note`` is kept with the part and is not merged, such as a
        batch size that memory forced down. Raises InputError if it cannot be written.
        """
        path = self._path(part)
        self.clean(part)
        atomic.make_folder(self.folder)
        with atomic.writing(path) as handle:
            lines = hashlib.sha256()
            count = -1  # the header is no record
            for record in itertools.chain([{"ovtool": self._header(part)}], records):
                line = _line(record)
                handle.write(line)
                lines.update(line)
                count += 1
            end: dict[str, Any] = {"end": count, "sum": lines.hexdigest()[:16]}
            if note:
                end["note"] = dict(note)
            if tensors_:
                header = {"kind": "part", "settings": self._header(part)}
                tensors.save(path.with_suffix(_TENSORS), tensors_, header)
                end["tensors"] = _digest_of(path.with_suffix(_TENSORS))
            handle.write(_line(end))

    def clean(self, part: Part) -> None:
        """Removes what a killed run left of a part: temporary files, never the part itself."""
        if self.folder.is_dir():
            atomic.remove_stale(self._path(part))
            atomic.remove_stale(self._path(part).with_suffix(_TENSORS))

    def discard(self, parts: Iterable[Part]) -> int:
        """Removes parts, whole or not, of whatever run; the number that were there."""
        there = 0
        for part in parts:
            self.clean(part)
            path = self._path(part)
            there += path.exists()
            path.unlink(missing_ok=True)  # first: without it the part does not exist
            path.with_suffix(_TENSORS).unlink(missing_ok=True)
        return there

    def read(self, part: Part) -> Iterator[dict[str, Any]]:
        """The records of a part, in order. Raises InputError for one that is damaged or not there,
        and MismatchError for one of another run."""
        return _records(self._path(part), self.digest)

    def tensors(self, part: Part) -> tensors.Anew[str]:
        """The tensors of a part, each read whenever it is asked for. Raises InputError."""
        path = self._path(part)
        _, end = _ends(path)
        if end is not None and "tensors" not in end:
            return tensors.Anew({})
        path = path.with_suffix(_TENSORS)
        if end is None or _digest_of(path) != end["tensors"]:
            raise _damaged(path)
        return tensors.stored(path, "part")[1]

    def remove(self) -> None:
        """Removes all parts and what killed runs left of them; the folder too, if then empty."""
        if not self.folder.is_dir():
            return
        for path in list(self.folder.iterdir()):
            target = re.sub(r"^\.(.*)\.[0-9a-f]+\.tmp$", r"\1", path.name)
            if _NAME.fullmatch(re.sub(r"\.safetensors$", ".jsonl", target)):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _check_run(self, part: Part, header: Mapping[str, Any]) -> None:
        """Raises MismatchError for a part of other settings, or of another cut of the list."""
        path = self._path(part)
        _check_digest(header, self._header(part), path)
        cut_of = (header.get("part"), header.get("start"), header.get("stop"))
        if cut_of != (part.index, part.start, part.stop):
            raise MismatchError(
                f"{path} holds images {cut_of[1]} to {cut_of[2]}, not {part.start} to {part.stop}; "
                f"run without --resume, or remove {self.folder}"
            )

    def _path(self, part: Part) -> Path:
        return self.folder / f"part-{part.index:05d}.jsonl"

    def _header(self, part: Part) -> dict[str, Any]:
        header: dict[str, Any] = {
            "part": part.index, "start": part.start, "stop": part.stop, "items": part.items,
            "digest": self.digest, "settings": dict(self.settings),
        }  # fmt: skip
        if self.preface is not None:
            header["preface"] = dict(self.preface)
        return header


def is_parts_folder(path: Path) -> bool:
    """Whether a path is a folder with parts in it."""
    return path.is_dir() and any(_NAME.fullmatch(entry.name) for entry in path.iterdir())


def listed(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files and headers of the parts of a folder, by their numbers, whether or not they fit together.

    Raises:
        InputError: no part there, or one damaged.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    paths = sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name)),
        key=lambda path: int(path.stem.removeprefix("part-")),
    )
    if not paths:
        mend = ""
        if any(folder.glob("*.png")):
            mend = (
                f"; of label maps `ovtool convert {folder} --to coco --images DIR -o FILE` makes a COCO "
                "JSON, which may stand in its place"
            )
        raise InputError(f"{folder} holds no parts (part-00000.jsonl, ...){mend}")
    known: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        header, end = _ends(path)
        if header is None or end is None:
            raise InputError(f"{path} is damaged: {_MEND}")
        known.append((path, header))
    return known


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the first part of a folder: part, start, stop, items, digest, settings, preface.

    Raises:
        InputError: no part there, one missing between others or at the end, or one damaged.
        MismatchError: parts of different runs.
    """
    return _checked(folder)[0][1]


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of all parts of a folder, in order, never all in memory.

    The folder is checked before the first record, and raises as ``read_header`` does.
    """
    known = _checked(folder)
    digest = str(known[0][1].get("digest"))
    return (record for path, _ in known for record in _records(path, digest))


def document(folder: Path) -> dict[str, Any]:
    """The COCO document that a folder of parts stands for: annotation ids from 1 in order, image ids as
    ``image_ids`` says; the annotations are read anew whenever they are iterated over.

    Raises:
        InputError: no parts, one missing or damaged, or parts that do not say their categories.
        MismatchError: parts of different runs.
    """
    start = read_header(folder).get("preface")
    if not isinstance(start, dict):
        raise InputError(f"{folder}: the parts do not say their categories; merge them instead")
    images: list[dict[str, Any]] = []
    failures: list[Any] = []
    for record in read_folder(folder):
        if "failure" in record:
            failures.append(record["failure"])
        else:
            images.append(record["image"])
    ids = image_ids(images)

    def annotations() -> Iterator[dict[str, Any]]:
        done = (record for record in read_folder(folder) if "failure" not in record)
        entries = (
            (id, entry)
            for id, record in zip(ids, done, strict=True)
            for entry in record["annotations"]
        )
        for number, (id, entry) in enumerate(entries, start=1):
            yield {**entry, "id": number, "image_id": id}

    info = dict(start.get("info") or {})
    info["ovtool"] = {**(info.get("ovtool") or {}), "failures": failures}
    listed = [{**image, "id": id} for image, id in zip(images, ids, strict=True)]
    return {**start, "info": info, "images": listed, "annotations": Entries(annotations)}


def _checked(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files and headers of the parts of a folder, which must fit together."""
    known: list[tuple[Path, dict[str, Any]]] = []
    stop, items = 0, 0
    for index, (path, header) in enumerate(listed(folder)):
        if path != folder / f"part-{index:05d}.jsonl":
            raise InputError(f"{folder}: part-{index:05d}.jsonl is missing: {_MEND}")
        if known:
            _check_digest(header, known[0][1], path)
        if header.get("part") != index or header.get("start") != stop:
            raise MismatchError(f"{path} is from another cut of the images; remove {folder}")
        stop, items = header["stop"], header["items"]
        known.append((path, header))
    if items and stop < items:
        raise InputError(f"{folder}: the parts end at image {stop} of {items}: {_MEND}")
    return known


def _line(value: Any) -> bytes:
    return atomic.canonical_json(value).encode() + b"\n"


def _check_digest(header: Mapping[str, Any], other: Mapping[str, Any], path: Path) -> None:
    """Raises MismatchError where the part of a header is of another run than that of the other one."""
    if header.get("digest") != other.get("digest"):
        digests = f"{header.get('digest')!s:.20}, here {other.get('digest')!s:.20}"
        raise MismatchError(
            f"{path} comes from other settings, images or model "
            f"({differences.listed(header, _object(_line(other))) or digests}); run without --resume, or remove {path.parent}"
        )


def _ends(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Header and end line of a part, each None where it is not there or not whole."""
    try:
        atomic.require_file(path)
        atomic.require_file(path.with_suffix(_TENSORS))
        with open(path, "rb") as handle:
            first = handle.readline()
            size = handle.seek(0, 2)
            reach = min(size, 4096)
            handle.seek(-reach, 2)
            tail = handle.read(reach)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    header = _object(first).get("ovtool")
    last = tail[tail.rstrip(b"\n").rfind(b"\n") + 1 :] if tail.endswith(b"\n") else b""
    end = _object(last)
    return (
        header if schema.fits(header, _HEADER) else None,
        end if schema.fits(end, _END) else None,
    )


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = strict_json.loads(line.decode())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _records(path: Path, digest: str) -> Iterator[dict[str, Any]]:
    header, end = _ends(path)
    if header is None or end is None:
        raise _damaged(path)
    _check_digest(header, {"digest": digest}, path)
    with open(path, "rb") as handle:
        lines = hashlib.sha256(handle.readline())
        for _ in range(end["end"]):
            lines.update(line := handle.readline())
            record = _object(line)
            if not is_record(record):
                raise _damaged(path)
            yield record
        is_whole = end.get("sum") in (None, lines.hexdigest()[:16])
        if not is_whole or "end" not in _object(handle.readline()):
            raise _damaged(path)


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged or not there; run the command again with --resume")


def _digest_of(path: Path) -> str:
    """16 hexadecimal digits of the bytes of a file. Raises InputError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None

"""The checks behind `coco`: JSON itself, ids, references, names and numbers.

Each raises an InputError of one line with the file (``where``), the section, the id and the mend.
"""

import json
import math
import os
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ovtool.errors import InputError, short
from ovtool.formats import json_sections, plain_text, schema, strict_json, wrong_kind
from ovtool.formats.json_sections import Entries

_LONGEST_NAME = 255
_DRIVE = re.compile("[A-Za-z]:/")


def load_json(source: Path | str) -> tuple[str, Any]:
    """The name of a JSON file for messages, and what it holds; ``-`` is stdin.

    Raises:
        InputError: no such file, not UTF-8, not JSON (with line and column), or a value that no file should hold (`strict_json`).
    """
    return _parsed(*_read(source))


def load_long(source: Path | str) -> tuple[str, Any]:
    """As `load_json`, but a list of annotations is never held: it, or a file that is one list, comes as
    `Entries`, which raise InputError when they are drawn.

    Raises:
        InputError: as `load_json`, for all but the annotations.
    """
    name, content = _read(source) if str(source) == "-" else (str(source), Path(source))
    try:
        sections = json_sections.read_long(content, "annotations")
    except ValueError:  # the parser of the whole says where
        sections = None
    if sections is None:
        return _whole(name, content)

    def drawn(entries: Entries) -> Iterator[Any]:
        try:
            yield from entries
        except strict_json.Fault as error:
            raise InputError(f"{name}: {error}") from None
        except (ValueError, OSError):
            _whole(name, content)
            raise InputError(f"{name} changed while it was read; run the command again") from None

    if isinstance(sections, Entries):
        return name, Entries(partial(drawn, sections))
    if isinstance(entries := sections.get("annotations"), Entries):
        sections["annotations"] = Entries(partial(drawn, entries))
    return name, sections


def _whole(name: str, content: Path | bytes) -> tuple[str, Any]:
    return _parsed(name, content) if isinstance(content, bytes) else load_json(content)


def _parsed(name: str, data: bytes) -> tuple[str, Any]:
    try:
        value = strict_json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        _refuse_tensors(name, data)
        if not data.strip():
            raise InputError(f"{name} is empty, not JSON; write it again") from None
        raise InputError(
            f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        _refuse_tensors(name, data)
        raise InputError(f"{name} is not JSON: no UTF-8 text at byte {error.start}") from None
    except strict_json.Fault as error:
        raise InputError(f"{name}: {error}") from None
    except ValueError as error:
        raise InputError(f"{name} is not JSON that can be read: {short(error)}") from None
    return name, value


def section(data: Mapping[str, Any], name: str, where: str) -> Iterator[Mapping[str, Any]]:
    """A section that must be there as a list; each entry is checked to be an object as it is drawn."""
    if name not in data:
        refuse_tools(data, where)
        raise InputError(
            f"{where} has no section {name}: a COCO file holds images, annotations and categories"
        )
    entries = data[name]
    if not isinstance(entries, list | Entries):
        raise InputError(f"{where}: {name} is {short(entries)}, not a list; put it in [ ]")
    return _objects(entries, name, where)


def info_and_licenses(
    data: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The sections `info` and `licenses`, empty where there is none."""
    info, licenses = data.get("info") or {}, data.get("licenses") or []
    if not isinstance(info, dict):
        raise InputError(f"{where}: info is {short(info)}, not an object; make it {{}}")
    if not isinstance(licenses, list) or not all(isinstance(entry, dict) for entry in licenses):
        raise InputError(
            f"{where}: licenses is {short(licenses)}, not a list of objects; make it []"
        )
    return info, licenses


def refuse_tools(data: object, where: str) -> None:
    """Raises InputError for an annotation as another program keeps it."""
    if what := wrong_kind.of_tool(data):
        raise InputError(f"{where} {what}")


def refuse_others(data: Mapping[str, Any], where: str) -> None:
    """Raises InputError for COCO JSON of captions or of panoptic segments in place of masks."""
    if what := wrong_kind.of_annotations(data.get("annotations")):
        raise InputError(f"{where} {what}")


def _objects(entries: Iterable[Any], name: str, where: str) -> Iterator[Mapping[str, Any]]:
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(
                f"{where}: {name}[{index}] is {short(entry)}, not an object; remove it"
            )
        yield entry


def entries_with_ids(
    data: Mapping[str, Any], name: str, where: str
) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """The entries of a section, each with its place for messages and its checked, unique id."""
    seen = _Ids()
    least = 1 if name == "annotations" else 0
    for index, entry in enumerate(section(data, name, where)):
        id = _checked_id(entry.get("id"), index, seen, f"{where}: {name}", least)
        yield f"{where}: {name} id {id}", id, entry


def check_ids(ids: Iterable[Any], name: str, where: str, least: int = 1) -> None:
    """Ids must be integers from ``least``, each once. Annotations count from 1, since COCO tools read 0 as
    no match; images and categories may have 0, as the classes of Cityscapes do."""
    seen = _Ids()
    for index, value in enumerate(ids):
        _checked_id(value, index, seen, f"{where}: {name}", least)


class _Ids:
    """The ids of a section so far; as long as they rise, which they mostly do, 8 bytes each."""

    def __init__(self) -> None:
        self._rising = array("q")
        self._others: dict[int, int] = {}  # id -> its entry

    def add(self, value: int, index: int) -> int | None:
        """Adds the id of the entry `index`; the entry that has it already, or None."""
        if not self._others:
            if (not self._rising or value > self._rising[-1]) and value < 1 << 63:
                self._rising.append(value)
                return None
            self._others = {own: place for place, own in enumerate(self._rising)}
            del self._rising[:]
        before = self._others.setdefault(value, index)
        return None if before == index else before


_NUMBER = "number the entries from 1"
_FIX = f"{_NUMBER}, or let `ovtool check --fix` repair the file"


def _checked_id(value: Any, index: int, seen: _Ids, place: str, least: int) -> int:
    if value is None:
        raise InputError(f"{place}[{index}] has no id; {_NUMBER}")
    if type(value) is not int:
        is_whole = type(value) is float or (isinstance(value, str) and value.strip().isdecimal())
        mend = _FIX if is_whole else _NUMBER
        raise InputError(f"{place}[{index}]: id is {short(value)}, not an integer; {mend}")
    if value < least:
        why = " (COCO tools read 0 as no match)" if least else ""
        mend = _NUMBER if value else _FIX
        raise InputError(f"{place}[{index}]: id is {value}, but ids start at {least}{why}; {mend}")
    if (other := seen.add(value, index)) is not None:
        raise InputError(
            f"{place}: id {value} is there twice (entries {other} and {index}); "
            "give each an id of its own"
        )
    return value


def check_reference(
    value: Any, field: str, known: Mapping[int, Any], name: str, place: str
) -> None:
    """An ``image_id`` or ``category_id`` must be an integer that its section has."""
    if type(value) is not int:
        said = "is missing" if value is None else f"is {short(value)}"
        raise InputError(f"{place}: {field} {said}; give it the integer id of one of {name}")
    if value not in known:
        raise InputError(
            f"{place}: {field} {value} is not in {name}; add it there, or remove this entry"
        )


def check_names(names: Iterable[tuple[int, str]], name: str, field: str, where: str) -> None:
    """Names must differ; each comes with its id."""
    seen: dict[str, int] = {}
    for identifier, value in names:
        if value in seen:
            raise InputError(
                f"{where}: {name} id {identifier}: {field} {short(value)} is that of id "
                f"{seen[value]} as well; give each a {field} of its own"
            )
        seen[value] = identifier


def check_file_name(file_name: str, place: str) -> None:
    """A ``file_name`` must be a relative path with forward slashes that stays below its root."""
    if trouble := _name_trouble(file_name):
        raise InputError(f"{place}: file_name {short(file_name)} {trouble}")


def is_file_name(file_name: str) -> bool:
    """Whether it is a relative path as `check_file_name` wants it."""
    return _name_trouble(file_name) is None


def _name_trouble(file_name: str) -> str | None:
    path = PurePosixPath(file_name)
    if fault := file_name_fault(file_name):
        mend = "write it with forward slashes" if "\\" in file_name else "rename the file"
        return f"{fault}: {mend}"
    elif path.is_absolute():
        return "is absolute; write it relative to the folder of the images"
    elif ".." in path.parts:
        return "leaves the folder of the images; write it without .."
    elif not path.parts or file_name.endswith("/"):
        return "names no file; write the path of the image"
    return None


def file_name_fault(file_name: str) -> str | None:
    """Why no COCO JSON can hold a relative file name, as the end of a sentence, or None.

    Whatever script, space or sign a name is made of, it is held; what is not is a backslash, which
    other systems read as a folder, a drive, a control character, and bytes that are not UTF-8.
    """
    is_on_drive = _DRIVE.match(file_name) or (os.name == "nt" and PureWindowsPath(file_name).drive)
    if "\\" in file_name:
        return "has a backslash, where COCO JSON has forward slashes"
    if is_on_drive:
        return "begins with a drive, where COCO JSON has a path from the folder of the images"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in file_name):
        return (
            "has a control character or a byte that is not UTF-8, which cannot be written as JSON"
        )
    if any(len(part) > _LONGEST_NAME for part in file_name.split("/")):
        return f"has a name of more than {_LONGEST_NAME} letters, which no disk holds"
    return None


def text(entry: Mapping[str, Any], field: str, place: str) -> str:
    """A field that must be a string with something in it."""
    value = entry.get(field)
    if not isinstance(value, str) or not value.strip():
        said = "is missing" if field not in entry else f"is {short(value)}"
        raise InputError(f"{place}: {field} {said}: it must be a text that is not empty")
    return value


def side(entry: Mapping[str, Any], field: str, place: str) -> int:
    """A width or height in pixels, an integer from 1."""
    value = entry.get(field)
    if type(value) is not int or value < 1:
        said = "is missing" if field not in entry else f"is {short(value)}"
        raise InputError(f"{place}: {field} {said}: it must be the integer number of pixels")
    if value not in schema.SIDE:
        raise InputError(
            f"{place}: {field} is {value}, more than any image has; write its true size"
        )
    return value


def number(value: Any, field: str, place: str) -> float:
    """A finite number."""
    if not _is_finite(value):
        raise InputError(f"{place}: {field} is {short(value)}: it must be a finite number")
    return float(value)


def box(value: Any, place: str) -> tuple[float, float, float, float]:
    """A box: four finite numbers x, y, width, height, the last two not below 0."""
    if (
        not isinstance(value, list | tuple)
        or len(value) != 4
        or not all(_is_finite(side) for side in value)
        or value[2] < 0
        or value[3] < 0
    ):
        raise InputError(
            f"{place}: bbox is {short(value)}: it must be [x, y, width, height] in pixels"
        )
    x, y, width, height = (float(side) for side in value)
    return x, y, width, height


def is_near_area(said: float, area: float, box: Sequence[float]) -> bool:
    """Whether a file's area can be that of its mask: polygons have another area than their pixels, by up
    to half a pixel along their outline. A mask with pixels has no area of 0."""
    return (said > 0 or area == 0) and abs(said - area) <= box[2] + box[3] + 1


def is_near_box(said: Sequence[float], box: Sequence[float]) -> bool:
    """Whether a file's box can be the tight one of its mask, edge by edge, within two pixels."""
    edges = [(xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3]) for xywh in (said, box)]
    return all(abs(first - second) <= 2 for first, second in zip(*edges, strict=True))


def wrong_measures(
    entry: Mapping[str, Any], area: float, box_: Sequence[float], place: str
) -> list[str]:
    """What an annotation says of its area and box that its mask, of ``area`` pixels and with the tight box
    ``box_``, does not bear out: a line for each."""
    lines = []
    said, given = entry.get("area"), entry.get("bbox")
    if said is not None and not is_near_area(number(said, "area", place), area, box_):
        lines.append(f"{place}: area is {said}, but the mask has {area:g} pixels; write those")
    if given and not is_near_box(box(given, place), box_):
        lines.append(f"{place}: bbox is {given}, but that of the mask is {list(box_)}; write that")
    return lines


def _read(source: Path | str) -> tuple[str, bytes]:
    if str(source) == "-":
        return "standard input", plain_text.of_stdin()
    try:
        return str(source), Path(source).read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such file: {source}") from None
    except OSError as error:
        reason = "it is a folder; give a file" if Path(source).is_dir() else error.strerror
        raise InputError(f"cannot read {source}: {reason}") from None


def _refuse_tensors(name: str, data: bytes) -> None:
    """Raises InputError for a safetensors file in place of JSON, and for what nothing reads."""
    if what := wrong_kind.of_beginning(data):
        raise InputError(f"{name} {what}")
    if what := wrong_kind.of_bytes(data):
        raise InputError(f"{name} {what}; needed here: JSON")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False

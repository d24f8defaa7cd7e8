"""A large JSON object by its sections: one long list in it, such as a million masks, is never held."""

import json
import mmap
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ovtool.formats import strict_json

Content: TypeAlias = bytes | mmap.mmap
Span: TypeAlias = tuple[int, int]  # the first byte, and the one after the last
_READ_AHEAD = 2**20  # bytes of a file that is looked through which may stay in memory

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_NEXT = re.compile(rb"\s*([,}])")
_LIST = re.compile(rb"\[\s*(\])?")
_NEXT_ENTRY = re.compile(rb"\s*([,\]])\s*")
_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*([{\[])\s*")
_SCALAR = re.compile(_STRING + rb'|[^\s,\]}"]++', re.DOTALL)
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+([{}\[\]])', re.DOTALL)


def _nested(depth: int) -> bytes:
    """The pattern of an object or list with at most so many others in each other."""
    inner = rb'[^"{}\[\]]++|' + _STRING + (rb"|" + _nested(depth - 1) if depth else b"")
    return rb"[{\[](?:" + inner + rb")*+[}\]]"


# a COCO annotation with its polygons is three deep; what is deeper is walked bracket by bracket
_SIMPLE = re.compile(_nested(3), re.DOTALL)
_GROUP = re.compile(_nested(2) + rb"(?:\s*+,\s*+" + _nested(2) + rb"){0,63}", re.DOTALL)


@dataclass(frozen=True, eq=False, repr=False)
class Entries:
    """A list that is read anew, a few entries at a time, whenever it is iterated over."""

    read: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.read()

    def __repr__(self) -> str:
        return "a list"


def read(path: Path, names: Collection[str]) -> dict[str, Any] | None:
    """The values of some keys of the object in a file.

    Returns:
        Key to value, of those that are there; None for a file that is no such object, or cannot be read, about
        which a parser of the whole says more.

    Raises:
        ValueError: one of the values is no JSON that can be read (`strict_json`).
    """
    sections = _mapped(path, partial(_sections, source=path, names=names, long=""))
    return sections if isinstance(sections, dict) else None


def read_long(source: Path | bytes, long: str) -> dict[str, Any] | Entries | None:
    """All that a file holds, or bytes do; the list under the key `long` comes as `Entries`, and so does a file
    that is one list. Returns None and raises as `read` does; entries are looked at when they are drawn."""
    work = partial(_sections, source=source, names=None, long=long)
    sections: dict[str, Any] | Entries | None = (
        work(source) if isinstance(source, bytes) else _mapped(source, work)
    )
    return sections


def glimpse(path: Path, long: str, whole: Collection[str] = ()) -> Any:
    """The outline of the object or list in a file, which is read no farther than to the first entry of the list
    under the key `long`, or of the list: that entry, the values of the keys `whole`, and others as `[]`, `{}` or None.

    Returns None for a file that is neither, that is broken as far as it is read, or that lacks its end.
    """
    try:
        return _mapped(path, partial(_outline, long=long, whole=whole))
    except ValueError:
        return None


def _mapped(path: Path, work: Callable[[mmap.mmap], Any]) -> Any:
    """What `work` makes of the content of a file; None where there is none, or it cannot be read."""
    try:
        with open(path, "rb") as file:
            if not path.stat().st_size:
                return None  # there is nothing to map
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return work(content)
    except (OSError, EOFError):
        return None


def _outline(content: Content, long: str, whole: Collection[str]) -> Any:
    start = _START.match(content)
    end = content[-100:].rstrip()[-1:]
    if start is None or end != {b"[": b"]", b"{": b"}"}[start[1]]:
        return None
    if start[1] == b"[":
        return _first(content, start.start(1))
    outline: dict[str, Any] = {}
    step: re.Match[bytes] | None = _NEXT.match(content, start.end()) or start
    while step is not None and step[0][-1:] != b"}":
        key = _KEY.match(content, step.end())
        if key is None:
            return None
        name = strict_json.loads(key[1].decode())
        if name == long:
            outline[name] = _first(content, key.end())
            return outline
        stop = _end_of_value(content, key.end())
        if stop is None:
            return None
        if name in whole:
            outline[name] = _value(name, content[key.end() : stop])
        else:
            outline[name] = {b"[": [], b"{": {}}.get(content[key.end() : key.end() + 1])
        step = _NEXT.match(content, stop)
    return None if step is None else outline


def _first(content: Content, start: int) -> list[Any] | None:
    """A list without all but its first entry; None for what is no list."""
    opened = _LIST.match(content, start)
    if opened is None or opened[1] is not None:
        return None if opened is None else []
    stop = _end_of_value(content, opened.end())
    return None if stop is None else [_value("", content[opened.end() : stop])]


def _sections(
    content: Content, source: Path | bytes, names: Collection[str] | None, long: str
) -> dict[str, Any] | Entries | None:
    sections: dict[str, Any] = {}
    start = _START.match(content)
    if start is None:
        return None
    if start[1] == b"[":
        listed = _groups(content, start.start(1)) if names is None else None
        is_whole = listed is not None and not content[listed[1] :].strip()
        return _entries(source, "", listed[0]) if listed is not None and is_whole else None
    step: re.Match[bytes] | None = _NEXT.match(content, start.end()) or start
    while step is not None and step[0][-1:] != b"}":
        key = _KEY.match(content, step.end())
        if key is None:
            return None
        name = strict_json.loads(key[1].decode())
        if name == long and (listed := _groups(content, key.end())) is not None:
            sections[name], stop = _entries(source, name, listed[0]), listed[1]
        elif (end := _end_of_value(content, key.end())) is None:
            return None
        else:
            stop = end
            if names is None or name in names:
                sections[name] = _value(name, content[key.end() : stop])
        step = _NEXT.match(content, stop)
    is_whole = step is not None and not content[step.end() :].strip()
    return sections if is_whole else None


def _value(name: str, text: bytes) -> Any:
    """The value of a key; a fault in it is told with the key."""
    return strict_json.loads(f"{{{json.dumps(name)}:{text.decode()}}}")[name]


def _entries(source: Path | bytes, name: str, groups: list[Span]) -> Entries:
    """The entries of the groups of a list."""

    def drawn() -> Iterator[Any]:
        if isinstance(source, bytes):
            for start, stop in groups:
                yield from _value(name, b"[" + source[start:stop] + b"]")
            return
        with open(source, "rb") as file:
            for start, stop in groups:
                file.seek(start)
                yield from _value(name, b"[" + file.read(stop - start) + b"]")

    return Entries(drawn)


def _groups(content: Content, start: int) -> tuple[list[Span], int] | None:
    """Where the entries of a list are, some in each group, and where it ends; None for what is no list, or a
    broken one."""
    groups: list[Span] = []
    forgotten = 0
    step = _LIST.match(content, start)
    while step is not None and step[1] != b"]":
        if isinstance(content, mmap.mmap) and step.end() - forgotten > _READ_AHEAD:
            forgotten = _forget(content, step.end())
        group = _GROUP.match(content, step.end())
        stop = _end_of_value(content, step.end()) if group is None else group.end()
        if stop is None:
            return None
        groups.append((step.end(), stop))
        step = _NEXT_ENTRY.match(content, stop)
    return None if step is None else (groups, step.end(1))


def _forget(content: mmap.mmap, stop: int) -> int:
    """Gives back the memory of what was read of a file, where the system can; returns where that ends."""
    stop -= stop % mmap.ALLOCATIONGRANULARITY
    if hasattr(content, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        content.madvise(mmap.MADV_DONTNEED, 0, stop)
    return stop


def _end_of_value(content: Content, start: int) -> int | None:
    """Where a value ends, None where it does not."""
    if content[start : start + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(content, start)
        return None if scalar is None else scalar.end()
    if simple := _SIMPLE.match(content, start):
        return simple.end()
    depth, place = 0, start
    while True:
        bracket = _TO_BRACKET.match(content, place)
        if bracket is None:
            return None
        depth += 1 if bracket[1] in b"{[" else -1
        place = bracket.end()
        if depth == 0:
            return place

"""Some sections of a large JSON object, without parsing the others: a list of images beside a million masks."""

import mmap
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeAlias

from ovtool.formats import strict_json

Content: TypeAlias = bytes | mmap.mmap

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_NEXT = re.compile(rb"\s*([,}])")
_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_SCALAR = re.compile(_STRING + rb'|[^\s,\]}"]++', re.DOTALL)
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+([{}\[\]])', re.DOTALL)


def read(path: Path, names: Collection[str]) -> dict[str, Any] | None:
    """The values of some keys of the object in a file.

    Returns:
        Key to value, of those that are there; None for a file that is no such object, or cannot be read, about
        which a parser of the whole says more.

    Raises:
        ValueError: one of the values is no JSON that can be read (`strict_json`).
    """
    try:
        with open(path, "rb") as file:
            if not path.stat().st_size:
                return None  # there is nothing to map
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _sections(content, names)
    except (OSError, EOFError):
        return None


def _sections(content: Content, names: Collection[str]) -> dict[str, Any] | None:
    sections: dict[str, Any] = {}
    step = _START.match(content)
    while step is not None and step[0][-1:] != b"}":
        key = _KEY.match(content, step.end())
        stop = None if key is None else _end_of_value(content, key.end())
        if key is None or stop is None:
            return None
        name = strict_json.loads(key[1].decode())
        if name in names:
            sections[name] = strict_json.loads(content[key.end() : stop].decode())
        step = _NEXT.match(content, stop)
    is_whole = step is not None and not content[step.end() :].strip()
    return sections if is_whole else None


def _end_of_value(content: Content, start: int) -> int | None:
    """Where a value ends, None where it does not."""
    if content[start : start + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(content, start)
        return None if scalar is None else scalar.end()
    depth, place = 0, start
    while True:
        bracket = _TO_BRACKET.match(content, place)
        if bracket is None:
            return None
        depth += 1 if bracket[1] in b"{[" else -1
        place = bracket.end()
        if depth == 0:
            return place

"""JSON from files: parsed, and refused where it holds what no reader expects.

Python's parser takes NaN, numbers of any size, halves of characters and any depth, and whatever uses such a
value later fails in its own way. Here each of them is a `Fault`, which says where it stands in the file.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100  # of lists and objects in each other
_MAX_INTEGER = 2**63 - 1
# what a text with a fault has, and others hardly ever: runs of masks are full of digits and of e
_RARE = re.compile(
    r"(?:^|[\[,:\s])-?[0-9](?:[0-9]{16}|[0-9]*(?:\.[0-9]+)?[eE]\+?[0-9]{3})"
    r"|\\u[dD][89a-fA-F]|[\ud800-\udfff]|NaN|Infinity"
)
_HALF = re.compile("[\ud800-\udfff]")


class Fault(ValueError):
    """A value that JSON may not, or should not, hold; the message is one line with its place."""


def loads(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        Fault: NaN or an infinity, an integer beyond 64 bits, or half a character (a lone surrogate).
        ValueError: the text is no JSON (`json.JSONDecodeError`), or is more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    if _RARE.search(text):
        for key, entries in value.items() if isinstance(value, dict) else [("", value)]:
            for entry in entries if isinstance(entries, list) else [entries]:
                for path, fault in _faults(entry, ""):
                    known = isinstance(entry, dict) and type(entry.get("id")) is int
                    place = f"{key} id {entry['id']}:" if known else key
                    place = f"{place} {path.removeprefix('.')}".strip()
                    raise Fault(f"{place or 'a value'} {fault}")
            for _, fault in _faults(key, ""):
                raise Fault(f"a key {fault}")
    return value


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _faults(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The places below a value that hold what they may not, each with the end of a sentence."""
    if isinstance(value, float) and not math.isfinite(value):
        said = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        yield path, f"is {said}, which is not JSON; write a number, or leave the key out"
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        yield path, f"is {str(value)[:12]}..., beyond 64 bits; write a smaller integer"
    elif isinstance(value, str) and (half := _HALF.search(value)):
        yield path, f"holds half a character (\\u{ord(half[0]):04x}); write the text again"
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _faults(key, path)
            yield from _faults(inner, f"{path}.{key}")

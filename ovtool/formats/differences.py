"""Which settings two parts differ in, for the message that they are of different runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST = 4  # settings that a message lists
_NEVER = ("asked",)  # a digest of the others


def listed(header: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The settings in which the headers of two parts differ: `threads (1 and 2), short_side (224 and 448)`.

    Empty where the headers do not say.
    """
    first, second = dict(_settings(header)), dict(_settings(other))
    if not first or not second:
        return ""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    listed = [
        f"{name:.60} ({_short(first.get(name))} and {_short(second.get(name))})"
        for name in names[:_MOST]
    ]
    rest = len(names) - len(listed)
    return ", ".join([*listed, f"{rest} more"] if rest else listed)


def _settings(header: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All that shapes a part, as name and value; what lies inside another has its name before it."""
    preface, settings = _mapping(header, "preface"), _mapping(header, "settings")
    tool = _mapping(_mapping(preface, "info"), "ovtool")
    whole = {
        **{key: value for key, value in tool.items() if key != "settings"},
        **_mapping(tool, "settings"),
        **{key: value for key, value in settings.items() if key not in ("run", "output")},
        **_mapping(settings, "run"),
    }
    if "categories" in preface:
        whole["categories"] = preface["categories"]
    for name, value in _leaves(whole):
        if name not in _NEVER:
            yield name, value


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = values.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them"
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."

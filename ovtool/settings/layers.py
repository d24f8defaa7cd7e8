"""Values in layers, and settings as plain data for digests and the provenance in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from ovtool.errors import UsageError
from ovtool.settings import protocols, recipes
from ovtool.settings.option import fields, is_settings

T = TypeVar("T")
Origin = Literal["default", "recipe", "protocol", "model", "given"]


def layered(
    settings: T,
    *,
    published: Mapping[str, Any] | None = None,
    recommended: Mapping[str, Any] | None = None,
) -> tuple[T, dict[str, Origin]]:
    """Fills what was not given, from the lowest layer to the highest: default, model, recipe, protocol, given.

    Only a field whose default is None can be filled: None means not given. A value of None in a
    layer says nothing. The values of a recipe and a protocol, which were asked for, are in the settings already.

    Args:
        settings: An object of a class of settings.
        published: The defaults of fields that are None by default, such as a paper's settings.
        recommended: Values that the model's own file recommends.

    Returns:
        The settings with nothing left open that a layer knows, and the origin of each field's value.

    Raises:
        UsageError: A layer names no field, or one that it cannot fill; or a value is not allowed.
    """
    layers: tuple[tuple[Origin, Mapping[str, Any]], ...] = (
        ("model", recommended or {}),
        ("default", published or {}),
    )
    known = fields(type(settings))
    for origin, layer in layers:
        for name in layer:
            if name not in known or known[name].default is not None:
                kind = type(settings).__name__
                raise UsageError(f"the {origin} sets '{name}', which it cannot set in {kind}")
    filled: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    recipe = getattr(settings, recipes.FIELD, None)
    protocol = getattr(settings, protocols.FIELD, None)
    measured = protocols.values(protocol, type(settings), recipe)
    asked = recipes.values(recipe, type(settings)) | measured
    for name, field in known.items():
        value = getattr(settings, name)
        origins[name] = "default" if not field.is_required and value == field.default else "given"
        if name in asked and asked[name] == value:
            origins[name] = "protocol" if name in measured else "recipe"
        elif value is None:
            for origin, layer in layers:
                if layer.get(name) is not None:
                    filled[name], origins[name] = layer[name], origin
                    break
    return dataclasses.replace(settings, **filled), origins  # type: ignore[type-var]


def known(value: T | None) -> T:
    """A value that is filled by now, for a type checker.

    Raises:
        TypeError: It is None.
    """
    if value is None:
        raise TypeError("a setting is None that should be filled by now; see layers.layered")
    return value


def provenance(settings: Any, contents: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The fields of a settings object as `as_data` gives them, without the name of its class."""
    data: dict[str, Any] = as_data(settings, contents)
    del data["class"]
    return data


def as_data(value: Any, contents: Mapping[str, str] | None = None) -> Any:
    """Settings as plain JSON data, for a digest or the provenance in a file.

    A settings object becomes a dictionary with its class's name under `class`; fields that do not
    shape the result are left out. A mapping (of parameter to settings) becomes a nested one.

    Args:
        value: A settings object, a mapping, or a plain value.
        contents: Field to the digest of what it names: it takes the place of a path, since the
            content of a file counts and not its place.

    Raises:
        TypeError: A path is left, or a value is no plain data.
    """
    contents = contents or {}
    if is_settings(type(value)):
        data: dict[str, Any] = {"class": type(value).__name__}
        for name, field in fields(type(value)).items():
            is_published = name in (recipes.FIELD, protocols.FIELD)
            if field.option.shapes and not (is_published and getattr(value, name) is None):
                own = contents[name] if name in contents else getattr(value, name)
                data[name] = as_data(own)
        return data
    if isinstance(value, Mapping):
        return {str(key): as_data(item, contents) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(item, contents) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        raise TypeError(f"the path {value} is no plain data; give the digest of its content")
    raise TypeError(f"{value!r} of type {type(value).__name__} is no plain data")

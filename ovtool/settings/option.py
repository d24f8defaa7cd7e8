"""A setting said once: the decorator `@settings`, and what an `Option` says about a field.

    @settings(panel="Method")
    class TwoStage:
        '''Name each proposal by what the CLIP sees of it (OVSeg, section 3).'''

        ensemble: Annotated[float | None, Option("The CLIP's share in a name.", min=0, max=1)] = None

The command line, its reference, the Python interface, the provenance in files and the digest that
guards `--resume` are all made from such classes. This module imports only the standard library.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    overload,
)

from ovtool.errors import UsageError
from ovtool.settings import protocols, recipes
from ovtool.settings.field import Field, Option, union_members

T = TypeVar("T")
_FIELDS = "__settings_fields__"
_PANEL = "__settings_panel__"
_NAME = "__settings_name__"


@overload
def settings(cls: type[T], /) -> type[T]: ...


@overload
def settings(
    *, panel: str | None = None, name: str | None = None
) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(
    cls: type[T] | None = None, /, *, panel: str | None = None, name: str | None = None
) -> type[T] | Callable[[type[T]], type[T]]:
    """Makes a class of settings: a frozen dataclass that takes keywords only and checks its values.

    Every field is `Annotated[TYPE, Option(...)]`, or a named alias of that, and may be of bool, int,
    float, str, Path, Literal, a tuple of them, and a union of them with None, which means not given.
    A class may inherit one other, such as `Training`: it has its fields, under their own heading, and
    may declare one again to give it another default.
    A class may have a field `recipe` or `protocol`: the values of that recipe (`settings.recipes`) and, above them,
    of that protocol (`settings.protocols`) take the place of the defaults of all fields that are not given.
    A class may have a method `check(self) -> None` that raises UsageError for values that do not go
    together. Its docstring's first line says in `--help` what choosing the class means.

    Args:
        cls: The class, where the decorator has no brackets.
        panel: The heading of its options in `--help`; default: Options.
        name: What chooses the class where a command has several; default: its name with hyphens.

    Raises:
        TypeError: A field has no Option, or the class inherits from two classes of settings.
    """
    if cls is None:
        return lambda own: _made(own, panel, name)
    return _made(cls, panel, name)


def _made(cls: type[T], panel: str | None, name: str | None) -> type[T]:
    bases = [base for base in cls.__mro__[1:] if is_settings(base)]
    if len(bases) > 1:
        raise TypeError(f"{cls.__name__} inherits from more than one class of settings")
    inherited = fields(bases[0]) if bases else {}
    options: dict[str, Option] = {}
    plain: dict[str, Any] = {}
    for field, annotation in inspect.get_annotations(cls, eval_str=True).items():
        plain[field], option = split(annotation)
        if not isinstance(option, Option):
            raise TypeError(
                f"{cls.__name__}.{field} has no Option; write Annotated[..., Option(...)]"
            )
        if option.panel is None and field in inherited:
            option = dataclasses.replace(option, panel=inherited[field].option.panel)
        options[field] = option
    cls.__annotations__ = dict(plain)
    for field, known in inherited.items():
        plain.setdefault(field, known.annotation)
        options.setdefault(field, known.option)
    setattr(cls, "__post_init__", _check)  # noqa: B010
    setattr(cls, "__repr__", _repr)  # noqa: B010
    made = dataclass(frozen=True, kw_only=True, repr=False)(cls)
    if recipes.FIELD in options or protocols.FIELD in options:
        _follow_published(made, recipes.FIELD in options)
    read = (
        Field(item.name, plain[item.name], _under(options[item.name], panel), item.default)
        for item in dataclasses.fields(made)  # type: ignore[arg-type]
    )
    setattr(made, _FIELDS, {field.name: field for field in read})
    setattr(made, _PANEL, panel or "Options")
    setattr(made, _NAME, name or _hyphened(cls.__name__))
    return made


def _follow_published(cls: Any, has_recipe: bool) -> None:
    """Makes a class take what its recipe and its protocol say for every field that is not given."""
    plain = cls.__init__

    @functools.wraps(plain)
    def begin(self: Any, **given: Any) -> None:
        name = given.get(recipes.FIELD)
        if has_recipe and name in recipes.RECIPES and not recipes.values(name, cls):
            listed = ", ".join(own for own in recipes.RECIPES if recipes.values(own, cls))
            raise UsageError(
                f"--recipe {name} is none of {name_of(cls)}, which has {listed}; give one of them, or leave "
                f"{name_of(cls)} out"
            )
        measured = protocols.values(given.get(protocols.FIELD), cls, name)
        plain(self, **(recipes.values(name, cls) | measured | given))

    cls.__init__ = begin


def _under(option: Option, panel: str | None) -> Option:
    """An option under the heading of its class, unless it has one of its own."""
    return option if option.panel else dataclasses.replace(option, panel=panel or "Options")


def split(annotation: Any) -> tuple[Any, Any]:
    """A type and the Option, Argument or other mark that `Annotated` ties to it (None without one)."""
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *marks = get_args(annotation)
    return kind, marks[-1]


def _hyphened(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


def _check(self: Any) -> None:
    """Keeps each value as its field wants it, then lets the class check how they go together."""
    for name, field in fields(type(self)).items():
        value = getattr(self, name)
        checked = field.checked(value)
        if checked is not value:
            object.__setattr__(self, name, checked)
    own = getattr(self, "check", None)
    if own is not None:
        own()


def _repr(self: Any) -> str:
    """The class with what differs from its defaults."""
    given = [
        f"{name}={getattr(self, name)!r}"
        for name, field in fields(type(self)).items()
        if field.is_required or getattr(self, name) != field.default
    ]
    return f"{type(self).__name__}({', '.join(given)})"


def is_settings(cls: Any) -> bool:
    """Whether this is a class made by `@settings`."""
    return isinstance(cls, type) and _FIELDS in vars(cls)


def fields(cls: type) -> dict[str, Field]:
    """The fields of a class of settings, name to field, in their order."""
    own: dict[str, Field] = getattr(cls, _FIELDS)
    return own


def panel_of(cls: type) -> str:
    """The heading of the options of a class of settings."""
    return str(getattr(cls, _PANEL))


def name_of(cls: type) -> str:
    """What chooses a class of settings on the command line, such as `two-stage`."""
    return str(getattr(cls, _NAME))


def members(annotation: Any) -> tuple[type, ...]:
    """The classes of settings in a type, which may be a union; empty where there is none."""
    return tuple(kind for kind in union_members(annotation) if is_settings(kind))

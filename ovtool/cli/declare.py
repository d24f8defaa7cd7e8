"""From the signature of a command to its options, and from what was given to its settings.

A command is a typed function, `segment(inputs, words: Words | str, method: Patch | Fused = Fused(),
out: Out = None)`, and each of its parameters is one of these:

- a class of settings: its fields become options, and the command gets the object;
- a union of such classes: the flag of the parameter's name chooses the class (`--method fused`), or
  a field that only one of them requires does (`--segmenter FILE`), or a recipe that only one of them
  has. A field of another class that is given is refused. Other types in a union (`Words | str`) are for Python, and no options;
- either of them as `Annotated[Compute, Only("model", "device")]`: only these fields become options;
- `Annotated[TYPE, Option(...)]`: one option; `Annotated[TYPE, Argument(...)]`: a positional argument.

Only what was given is handed to a class, so that every default exists once: in the class, or in the
object that the command has as its default (`run: Run = Run(part_size=64)`). The settings of a training
inherit `Training`, and declare a field again where its default is their own.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from typer.core import TyperArgument, TyperOption

from ovtool.cli.parameters import (
    DeclaredCommand,
    Display,
    FieldArgument,
    FieldOption,
    verbosity,
)
from ovtool.errors import UsageError
from ovtool.settings import option as settings
from ovtool.settings import protocols, recipes
from ovtool.settings.field import Argument, Field, Option

DEFAULT_PANEL = "Options"
_PUBLISHED = frozenset({recipes.FIELD, protocols.FIELD})


class Only:
    """Marks a parameter of which a command takes only some fields."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields


@dataclass(frozen=True)
class Plain:
    """A parameter that is one option or one positional argument."""

    field: Field
    argument: Argument | None = None

    @property
    def name(self) -> str:
        """The parameter."""
        return self.field.name

    def parameters(self, moved: Mapping[str, str]) -> list[TyperOption | TyperArgument]:
        """Its option or argument."""
        if self.argument is not None:
            return [FieldArgument(self.field, self.argument)]
        panel = self.field.option.panel or DEFAULT_PANEL
        display = Display(panel, default_text(self.field.default))
        return [FieldOption(self.field.name, self.field, display, moved.get(self.field.flag))]

    def value(self, given: Mapping[str, Any]) -> Any:
        """What the command gets."""
        value = given.get(self.field.name)
        if value is not None:
            return value
        if self.field.is_required:
            raise _missing(self.field)
        return self.field.default


@dataclass(frozen=True)
class Group:
    """A parameter that is a class of settings, or a union of them.

    Attributes:
        name: The parameter.
        members: The classes.
        default: The object where nothing is given, or `dataclasses.MISSING`.
        only: The fields that become options; empty for all.
    """

    name: str
    members: tuple[type, ...]
    default: Any = MISSING
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {name for member in self.members for name in settings.fields(member)}
        if unknown := set(self.only) - known:
            raise TypeError(f"{self.name} has no field {', '.join(sorted(unknown))}")

    @property
    def chooser(self) -> str:
        """The flag that chooses a member."""
        return "--" + self.name.replace("_", "-")

    def fields(self, member: type) -> dict[str, Field]:
        """The fields of a member that become options, with the defaults that they have here."""
        own = settings.fields(member)
        names = [name for name in own if not self.only or name in self.only]
        if type(self.default) is not member:
            return {name: own[name] for name in names}
        return {
            name: dataclasses.replace(own[name], default=getattr(self.default, name))
            for name in names
        }

    def parameters(self, moved: Mapping[str, str]) -> list[TyperOption | TyperArgument]:
        """The options of all members, each once, behind the one that chooses the member.

        Raises:
            TypeError: Two members spell one field in different ways.
        """
        owners: dict[str, dict[str, Field]] = {}
        for member in self.members:
            for name, field in self.fields(member).items():
                owners.setdefault(name, {})[settings.name_of(member)] = field
        options: list[TyperOption | TyperArgument] = []
        if len(self.members) > 1:
            options.append(self._choosing())
        for name, spelled in owners.items():
            first = next(iter(spelled.values()))
            for field in spelled.values():
                if (field.option, field.annotation) != (first.option, first.annotation):
                    raise TypeError(f"{first.flag} of {self.name} is declared in two ways")
            panel = first.option.panel or settings.panel_of(self.members[0])
            some = tuple(spelled) if len(spelled) < len(self.members) else ()
            display = Display(panel, _default_of(spelled), some)
            options.append(FieldOption(self._key(name), first, display, moved.get(first.flag)))
        return options

    def _choosing(self) -> FieldOption:
        names = tuple(settings.name_of(member) for member in self.members)
        lines = [
            f"{name}: {_first(member)}" for name, member in zip(names, self.members, strict=True)
        ]
        choice = Field(self.name, Literal[names], Option(" ".join(lines)), None)
        default = "" if self.default is MISSING else settings.name_of(type(self.default))
        return FieldOption(
            self._key(), choice, Display(settings.panel_of(self.members[0]), default)
        )

    def _key(self, field: str = "") -> str:
        """The key of a field's value; a recipe and a protocol are one option of all groups that have it."""
        return field if field in _PUBLISHED else f"{self.name}__{field}"

    def value(self, given: Mapping[str, Any]) -> Any:
        """The object that the command gets.

        Raises:
            UsageError: A field belongs to another member, or one that is required is missing.
        """
        own = {
            name: given[self._key(name)]
            for member in self.members
            for name in self.fields(member)
            if given.get(self._key(name)) is not None
        }
        member = self._member(given.get(self._key()), own)
        fields = self.fields(member)
        for name in own:
            if name not in fields:
                self._refuse(name, member)
        if type(self.default) is member and not _PUBLISHED & own.keys():
            return dataclasses.replace(self.default, **own)  # type: ignore[type-var]
        for name, field in fields.items():
            if field.is_required and name not in own:
                if len(self.members) == 1:
                    raise _missing(field)
                name_of = settings.name_of(member)
                raise UsageError(
                    f"{self.chooser} {name_of} needs {field.flag}; give {field.flag} {field.metavar}"
                )
        return member(**own)

    def _member(self, name_given: str | None, own: Mapping[str, Any]) -> type:
        """The class that is meant: by its name, by a field that only it requires, or by default."""
        if name_given is not None:
            return next(member for member in self.members if settings.name_of(member) == name_given)
        if len(self.members) == 1:
            return self.members[0]
        implied: dict[type, str] = {}
        for name in own:
            needing = [member for member in self.members if self._means(member, name, own[name])]
            if len(needing) == 1:
                implied.setdefault(needing[0], settings.fields(needing[0])[name].flag)
        if len(implied) > 1:
            first, second = list(implied.values())[:2]
            raise UsageError(f"{first} and {second} do not go together; leave one of them out")
        if implied:
            return next(iter(implied))
        if self.default is MISSING:
            names = "|".join(settings.name_of(member) for member in self.members)
            raise UsageError(f"{self.chooser} is missing; give {self.chooser} {names}")
        return type(self.default)

    @staticmethod
    def _means(member: type, name: str, value: Any) -> bool:
        """Whether a value asks for a member: of a field that it requires, or a recipe that it has."""
        if name == recipes.FIELD:
            return bool(recipes.values(value, member))
        field = settings.fields(member).get(name)
        return field is not None and field.is_required

    def _refuse(self, name: str, member: type) -> None:
        having = [member for member in self.members if name in self.fields(member)]
        flag = self.fields(having[0])[name].flag
        names = " or ".join(settings.name_of(member) for member in having)
        raise UsageError(
            f"{flag} belongs to {self.chooser} {names}, not to {settings.name_of(member)}; "
            f"change {self.chooser} or leave {flag} out"
        )


def read(function: Callable[..., object]) -> list[Plain | Group]:
    """The parameters of a command, in order.

    Raises:
        TypeError: A parameter has neither settings nor an Option or an Argument.
    """
    return [
        _read(function, parameter)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
    ]


def _read(function: Callable[..., object], parameter: inspect.Parameter) -> Plain | Group:
    kind, mark = settings.split(parameter.annotation)
    default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
    members = settings.members(kind)
    if members:
        return Group(parameter.name, members, default, mark.fields if mark is not None else ())
    if isinstance(mark, Option):
        return Plain(Field(parameter.name, kind, mark, default))
    if isinstance(mark, Argument):
        return Plain(Field(parameter.name, kind, Option(mark.help, repeat=True), default), mark)
    name = getattr(function, "__name__", "the command")
    raise TypeError(f"{parameter.name} of {name} is no class of settings and has no Option")


def command(
    function: Callable[..., object], name: str, old_names: Mapping[str, str] | None = None
) -> DeclaredCommand:
    """The Typer command of a typed function.

    Args:
        function: The command; its docstring is the help.
        name: As it is called.
        old_names: Flags of earlier versions and those that took their places.

    Raises:
        TypeError: The signature cannot be read, or two of its parameters have one flag.
    """
    parts = read(function)
    by_name: dict[str | None, TyperOption | TyperArgument] = {}
    for made in (made for part in parts for made in part.parameters(old_names or {})):
        by_name.setdefault(made.name, made)  # the recipe of several groups is one option
    parameters = list(by_name.values())
    flags = [flag for made in parameters if isinstance(made, TyperOption) for flag in made.opts]
    if twice := {flag for flag in flags if flags.count(flag) > 1}:
        raise TypeError(f"{name} has two options {', '.join(sorted(twice))}")

    def values(given: Mapping[str, Any]) -> dict[str, Any]:
        return {part.name: part.value(given) for part in parts}

    own = [*parameters, *verbosity()]
    return DeclaredCommand(name, function, values, own, old_names or {})


def _missing(field: Field) -> UsageError:
    return UsageError(f"Missing option '{field.flag}'; give {field.flag} {field.metavar}")


def default_text(value: Any) -> str:
    """A default in words; empty for none, off, and what must be given."""
    if value is None or value is MISSING or value is False or value == ():
        return ""
    if isinstance(value, tuple):
        return ",".join(default_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default_of(spelled: Mapping[str, Field]) -> str:
    """The default of a field that several members have; where they differ, that of each."""
    texts = {owner: default_text(field.default) for owner, field in spelled.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{text} ({owner})" for owner, text in texts.items() if text)


def _first(member: type) -> str:
    return (inspect.getdoc(member) or "").partition("\n")[0]

"""What is said of a field of a settings class, or of a parameter of a command."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ovtool.errors import UsageError
from ovtool.settings import recipes

_SEQUENCES = (tuple, list, Sequence)


@dataclass(frozen=True)
class Option:
    """What a field of a settings class, or a parameter of a command, says as an option.

    Attributes:
        help: One full sentence. Where the default is None it ends with who decides ("Default: ...").
        min: The least number that is allowed; of a tuple, for each of its items.
        max: The greatest number that is allowed.
        panel: The heading in `--help`; None for that of the class.
        flag: The name on the command line; None for the field's name with hyphens.
        short: A second name of one letter, such as `-o`.
        metavar: What stands for the value in `--help`; None for a word made from the type.
        shapes: Whether the value shapes the result, and so belongs to the digest and the provenance.
        repeat: Whether a tuple is given by repeating the flag; otherwise by one list with commas.
        unique: Whether a tuple has at least one item, and none twice.
    """

    help: str
    min: float | None = None
    max: float | None = None
    panel: str | None = None
    flag: str | None = None
    short: str | None = None
    metavar: str | None = None
    shapes: bool = True
    repeat: bool = False
    unique: bool = False


OUTPUT = "Output"  # the panel of what a command writes
RunOption = partial(Option, shapes=False)  # how the work is done, which leaves its result the same
OutputOption = partial(Option, panel=OUTPUT, shapes=False)
FileOption = partial(OutputOption, flag="--output", short="-o", metavar="FILE")  # the output itself


@dataclass(frozen=True)
class Argument:
    """What a positional parameter of a command says: its help, and the word that stands for it."""

    help: str
    metavar: str


@dataclass(frozen=True)
class Field:
    """A field of a settings class, or a parameter of a command, as the command line needs it.

    Attributes:
        name: The name in Python.
        annotation: The type, without the option.
        option: What it says on the command line.
        default: The value where none is given, or `dataclasses.MISSING` where one is required.
    """

    name: str
    annotation: Any
    option: Option
    default: Any = MISSING

    @property
    def flag(self) -> str:
        """The long name on the command line, such as `--min-score`."""
        return self.option.flag or "--" + self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        """Whether a value must be given."""
        return self.default is MISSING

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.types == (bool,)

    @property
    def is_tuple(self) -> bool:
        """Whether the value is a tuple (or any sequence) of any length."""
        return any(get_origin(kind) in _SEQUENCES for kind in union_members(self.annotation))

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that a value, or an item of a tuple, may have, without None and literals."""
        return tuple(kind for kind in self._item_types() if get_origin(kind) is not Literal)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words of a `Literal`; empty where there is none."""
        literals = (kind for kind in self._item_types() if get_origin(kind) is Literal)
        return tuple(str(word) for kind in literals for word in get_args(kind))

    def _item_types(self) -> list[Any]:
        items: list[Any] = []
        for kind in union_members(self.annotation):
            items += union_members(get_args(kind)[0]) if get_origin(kind) in _SEQUENCES else [kind]
        return [kind for kind in items if kind is not type(None)]

    @property
    def metavar(self) -> str:
        """What stands for the value in `--help`, such as `one|pacl` or `FILE`."""
        if self.option.metavar is not None:
            return self.option.metavar
        names = {int: "N", float: "X", Path: "FILE", str: "TEXT"}
        words = [*self.choices, *(names.get(kind, "VALUE") for kind in self.types)]
        return "|".join(words) + (",..." if self.is_tuple and not self.option.repeat else "")

    @property
    def range(self) -> str:
        """The numbers that are allowed, in words; empty where all are."""
        least, most = self.option.min, self.option.max
        if least is not None and most is not None:
            return f"{least:g} to {most:g}"
        if least is not None:
            return f"{least:g} or more"
        return "" if most is None else f"{most:g} or less"

    def parsed(self, texts: Sequence[str]) -> Any:
        """The value that the texts behind a flag stand for; several where the flag was repeated.

        Raises:
            UsageError: It is none of the choices, not of the type, or out of range.
        """
        if not self.is_tuple:
            return self.checked(self._item(texts[-1]))
        if not self.option.repeat:
            texts = [part.strip() for part in texts[-1].split(",")]
        return self.checked(tuple(self._item(text) for text in texts))

    def _item(self, text: str) -> Any:
        if text in self.choices:
            return text
        for kind in self.types:
            try:
                return kind(text)
            except ValueError:
                continue
        raise self._refusal(text)

    def _refusal(self, value: Any) -> UsageError:
        if self.choices and not self.types:
            words = ", ".join(f"'{choice}'" for choice in self.choices)
            others = recipes.commands(str(value)) if self.name == recipes.FIELD else []
            if others:
                return UsageError(
                    f"--recipe {value} belongs to {', '.join(others)}; give {words} here, or leave it out"
                )
            near = difflib.get_close_matches(str(value), self.choices, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "give one of them"
            return UsageError(f"{self.flag} '{value}' is not one of {words}; {hint}")
        return UsageError(f"{self.flag} '{value}' is not allowed; give {self._wanted()}")

    def _wanted(self) -> str:
        names = {
            bool: "True or False",
            int: "a whole number",
            float: "a number",
            Path: "a path",
            str: "a text",
        }
        kinds = [names.get(kind, str(kind)) for kind in self.types]
        words = ["one of " + ", ".join(self.choices)] if self.choices else []
        return " or ".join([*words, *kinds])

    def checked(self, value: Any) -> Any:
        """The value as the class keeps it: a path for a text that names one, a tuple for a list.

        Raises:
            UsageError: It is none of the choices, not of the type, or out of range.
        """
        if value is None and type(None) in union_members(self.annotation):
            return None
        if self.is_tuple:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise UsageError(f"{self.flag} takes a list; give a tuple, not {value!r}")
            items = tuple(self._checked_item(item) for item in value)
            if self.option.unique:
                self._check_unique(items)
            return items
        return self._checked_item(value)

    def _check_unique(self, items: tuple[Any, ...]) -> None:
        if not items:
            raise UsageError(f"{self.flag} is an empty list; give at least one value")
        for item in items:
            if items.count(item) > 1:
                listed = ",".join(_as_text(every) for every in items)
                raise UsageError(
                    f"{self.flag} '{listed}' names {_as_text(item)} twice; name each once"
                )

    def _checked_item(self, value: Any) -> Any:
        if isinstance(value, str) and value in self.choices:
            return value
        if isinstance(value, str) and Path in self.types:
            return Path(value)
        if isinstance(value, Path) and Path not in self.types and str in self.types:
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool) and int not in self.types:
            value = float(value) if float in self.types else value
        if not any(_is_of(value, kind) for kind in self.types):
            raise self._refusal(value)
        least, most = self.option.min, self.option.max
        if isinstance(value, int | float) and not isinstance(value, bool):
            in_range = (least is None or value >= least) and (most is None or value <= most)
            if not in_range:  # NaN is in no range
                raise UsageError(f"{self.flag} {value} is out of range; give {self.range}")
        return value


def _as_text(value: Any) -> str:
    """A value as it stands on the command line."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value has a plain type; True and False are no numbers."""
    if not isinstance(kind, type):
        return True
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)

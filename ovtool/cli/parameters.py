"""What a declared command shows and parses: options, arguments and help, on top of Typer's classes.

Typer converts values with pydantic, whose import takes as long as Typer's own; the classes here
convert through `settings.option.Field` instead, so that `--help` stays fast. Help is drawn in panels
without Rich, which would double the time to start.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from ovtool.cli import output
from ovtool.errors import UpToDate, UsageError
from ovtool.settings.field import Argument, Field

MESSAGES = "Messages and help"
# Typer's descriptor serves its conversion and completion, which the classes here replace.
_NO_DESCRIPTOR = cast(Any, None)


@dataclass(frozen=True)
class Display:
    """How an option stands in `--help` and in the reference.

    Attributes:
        panel: The heading that it stands under.
        default: The default in words; empty where there is none.
        owners: The members of a union that have it, such as `two-stage`; empty where all do.
    """

    panel: str
    default: str = ""
    owners: tuple[str, ...] = ()


class FieldOption(TyperOption):
    """An option made from a field; its value is None where it was not given."""

    def __init__(self, name: str, field: Field, display: Display, moved: str | None = None) -> None:
        """Makes the option.

        Args:
            name: The key of its value among the parameters of the call.
            field: What it is.
            display: How it is shown.
            moved: The flag that now has the meaning which this flag had before.
        """
        if field.is_switch and not field.is_required and field.default:
            raise TypeError(f"{field.flag} is a switch, so it must be off by default")
        self.field, self.display, self._moved = field, display, moved
        short = [field.option.short] if field.option.short else []
        super().__init__(
            param_decls=[name, *short, field.flag],
            type_descriptor=_NO_DESCRIPTOR,
            is_flag=field.is_switch,
            multiple=field.is_tuple and field.option.repeat,
            help=field.option.help,
            metavar=field.metavar,
            autocompletion=_completion(field.choices),
        )

    def process_value(self, ctx: typer.Context, value: Any) -> Any:  # type: ignore[override]
        """The value of the field, or None where the option was not given."""
        if value is None or value == () or isinstance(value, bool):
            return value or None
        try:
            return self.field.parsed([value] if isinstance(value, str) else value)
        except UsageError as error:
            hint = f"; what {self.field.flag} was is now {self._moved}" if self._moved else ""
            ctx.fail(f"{error}{hint}")

    def get_help_record(self, ctx: Any) -> tuple[str, str] | None:
        """The flag with its value, and the help with what bounds it."""
        return self.usage(), _joined(self.field.option.help, self.notes())

    def usage(self) -> str:
        """The flags, and the word for the value."""
        flags = ", ".join(self.opts)
        return flags if self.field.is_switch else f"{flags} {self.field.metavar}"

    def notes(self) -> list[str]:
        """Whom it belongs to, its default, its range, and whether it must be given."""
        notes = [f"for {', '.join(self.display.owners)}"] if self.display.owners else []
        notes += [f"default: {self.display.default}"] if self.display.default else []
        notes += [self.field.range] if self.field.range else []
        notes += ["may be repeated"] if self.field.option.repeat else []
        return notes + (["required"] if self.is_needed else [])

    @property
    def is_needed(self) -> bool:
        """Whether it must be given; one of a single member, with that member."""
        return self.field.is_required and len(self.display.owners) < 2


class FieldArgument(TyperArgument):
    """A positional argument; its value is None where it was not given."""

    def __init__(self, field: Field, argument: Argument) -> None:
        """Makes the argument; one of many values where the field is a tuple, a list or a sequence."""
        self.field, self.argument, self.is_many = field, argument, field.is_tuple
        super().__init__(
            param_decls=[field.name],
            type_descriptor=_NO_DESCRIPTOR,
            nargs=-1 if self.is_many else 1,
            required=field.is_required,
            help=argument.help,
            metavar=argument.metavar,
            autocompletion=_completion(field.choices),
        )

    def process_value(self, ctx: typer.Context, value: Any) -> Any:  # type: ignore[override]
        """The value of the field, or None where the argument was not given."""
        if value is None or value == ():
            if self.required:
                ctx.fail(f"Missing argument '{self.argument.metavar}'")
            return None
        try:
            return self.field.parsed([value] if isinstance(value, str) else value)
        except UsageError as error:
            ctx.fail(str(error))

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """The word for it, in brackets where it may be left out."""
        name = self.argument.metavar if self.required else f"[{self.argument.metavar}]"
        return [name + ("..." if self.is_many else "")]

    def get_help_record(self, ctx: Any) -> tuple[str, str] | None:
        """The word for it, and its help."""
        return self.get_usage_pieces(ctx)[0], self.argument.help


class CountOption(TyperOption):
    """A flag that may be repeated and counts: `-v`, `-q`."""

    def __init__(self, long: str, short: str, help: str) -> None:
        super().__init__(
            param_decls=[long, f"--{long}", short],
            type_descriptor=_NO_DESCRIPTOR,
            count=True,
            default=0,
            help=help,
        )

    def process_value(self, ctx: Any, value: Any) -> int:
        """How often it was given."""
        return value or 0


class Flag(TyperOption):
    """A flag that does something and ends the program, such as `--version`."""

    def __init__(
        self, name: str, help: str, action: Callable[[Any, Any], None], short: str | None = None
    ) -> None:
        super().__init__(
            param_decls=[name.replace("-", "_"), *([short] if short else []), f"--{name}"],
            type_descriptor=cast(Any, None),
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help=help,
            autocompletion=lambda ctx, args, incomplete: [],
        )
        self._action = action

    def process_value(self, ctx: Any, value: Any) -> None:
        """Acts where the flag was given."""
        if value and not ctx.resilient_parsing:
            self._action(ctx, self)


def help_flag() -> Flag:
    """The flag `-h`, `--help`; Typer's own imports pydantic."""
    return Flag("help", "Show this message and exit.", _print_help, "-h")


def _print_help(context: Any, flag: Any) -> None:
    print(context.get_help())
    raise typer.Exit()


def verbosity() -> list[CountOption]:
    """The two options that every command and the program itself take."""
    return [
        CountOption("verbose", "-v", "Say more on stderr; may be repeated."),
        CountOption("quiet", "-q", "Say less on stderr; may be repeated."),
    ]


def _completion(choices: Sequence[str]) -> Callable[[Any, Any, str], list[str]]:
    return lambda ctx, args, incomplete: list(choices)


def _joined(help: str, notes: Sequence[str]) -> str:
    return f"{help}  [{'; '.join(notes)}]" if notes else help


@dataclass(frozen=True)
class Help:
    """What a docstring says to a user: a summary, more paragraphs, and examples that can be pasted."""

    summary: str
    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Help:
        """Reads a docstring: paragraphs, `$ command` for examples, none of `Args:` and what follows."""
        doc = inspect.getdoc(function) or ""
        for section in ("Args:", "Returns:", "Raises:"):
            doc = doc.partition(f"\n{section}\n")[0]
        blocks = [block.strip() for block in doc.split("\n\n") if block.strip()]
        examples = tuple(
            line.removeprefix("$ ")
            for block in blocks
            if block.startswith("$ ")
            for line in block.splitlines()
        )
        texts = [" ".join(block.split()) for block in blocks if not block.startswith("$ ")]
        return cls(texts[0] if texts else "", tuple(texts[1:]), examples)


class DeclaredCommand(TyperCommand):
    """A command whose help has panels, and which answers old names of flags with the new ones."""

    def __init__(
        self,
        name: str,
        function: Callable[..., object],
        values: Callable[[Mapping[str, Any]], dict[str, Any]],
        parameters: Sequence[TyperOption | TyperArgument],
        old_names: Mapping[str, str],
    ) -> None:
        """Makes the command.

        Args:
            name: As it is called.
            function: What it does; its docstring is the help.
            values: The arguments of the function, from what was parsed (None: not given). It raises
                UsageError for what does not go together.
            parameters: Its options and arguments.
            old_names: Flags of earlier versions and those that took their places.
        """
        self.text = Help.of(function)
        super().__init__(
            name,
            params=[*parameters],
            help=self.text.summary,
            rich_markup_mode=None,
        )
        self._help = help_flag()
        self._function, self._values, self._old_names = function, values, old_names

    def get_help_option(self, ctx: Any) -> Flag:
        """The flag that prints the help."""
        return self._help

    def invoke(self, ctx: Any) -> None:
        """Runs the function with what was parsed."""
        from ovtool.cli import cheap_checks  # these two import settings, which no help needs
        from ovtool.inputs import addresses

        output.add_verbosity(ctx.params["verbose"] - ctx.params["quiet"])
        try:
            values = self._values(ctx.params)
        except UsageError as error:
            ctx.fail(str(error))
        try:
            with addresses.on_this_machine(values, output.message) as local:
                cheap_checks.check(local)
                self._function(**local)
        except UpToDate as answer:
            output.message(str(answer))
            if ctx.params.get("json"):
                output.print_json({"output": answer.output, "up_to_date": True})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses flags of earlier versions by naming the new ones."""
        known = {flag for parameter in self.params for flag in parameter.opts}
        for word in args:
            flag = word.partition("=")[0]
            if word == "--":
                break
            if flag in self._old_names and flag not in known and not ctx.resilient_parsing:
                ctx.fail(f"{flag} is now {self._old_names[flag]}; give that instead")
        return super().parse_args(ctx, args)

    def panels(self) -> dict[str, list[FieldOption]]:
        """The options made from fields, by heading, in the order of the signature."""
        panels: dict[str, list[FieldOption]] = {}
        for parameter in self.params:
            if isinstance(parameter, FieldOption):
                panels.setdefault(parameter.display.panel, []).append(parameter)
        return panels

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Writes the summary, the first example, and what else there is to say."""
        examples = [_section("Example", self.text.examples[:1])] if self.text.examples else []
        for index, block in enumerate([self.text.summary, *examples, *self.text.paragraphs]):
            formatter.write_paragraph()
            if examples and index == 1:
                formatter.write(block)
                continue
            with formatter.indentation():
                formatter.write_text(block)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, and the options panel by panel."""
        arguments = [parameter for parameter in self.params if isinstance(parameter, FieldArgument)]
        others = [
            parameter for parameter in self.get_params(ctx) if isinstance(parameter, TyperOption)
        ]
        rest = [parameter for parameter in others if not isinstance(parameter, FieldOption)]
        sections: list[tuple[str, Sequence[TyperOption | TyperArgument]]] = [
            ("Arguments", arguments),
            *self.panels().items(),
            (MESSAGES, rest),
        ]
        for heading, parameters in sections:
            rows = [parameter.get_help_record(ctx) for parameter in parameters]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl([row for row in rows if row is not None])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the other examples."""
        if self.text.examples[1:]:
            formatter.write_paragraph()
            formatter.write(_section("More examples", self.text.examples[1:]))


def _section(heading: str, lines: Sequence[str]) -> str:
    """Lines that are never wrapped, so that they can be pasted."""
    return f"{heading}:\n" + "".join(f"  {line}\n" for line in lines)

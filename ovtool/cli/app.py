"""The `ovtool` program: a table of commands, each of which is imported when it is asked for.

A command is declared by its signature (`cli.declare`). The stage behind it is imported when it runs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from ovtool.cli import output
from ovtool.cli.old_names import OLD_NAMES
from ovtool.cli.parameters import Flag, help_flag, verbosity


class Row(NamedTuple):
    """A command of the table.

    Attributes:
        name: As it is called.
        target: Its function, as `module:function` or itself; or the rows of its sub-commands.
        help: One line.
    """

    name: str
    target: str | Callable[..., object] | tuple[Row, ...]
    help: str


def _row(command: str, help: str) -> Row:
    """The row of a command whose file and function have its name: `probe oracle` is `probe_oracle` of
    `cli/probe_oracle.py`."""
    name = command.replace(" ", "_").replace("-", "_")
    return Row(command.rpartition(" ")[2], f"ovtool.cli.{name}:{name}", help)


COMMANDS: tuple[Row, ...] = (
    _row("segment", "Segment images by words."),
    _row("propose", "Find class-agnostic masks in images."),
    _row("mine-pairs", "Pair the nouns of captions with masks."),
    _row("train-proposer", "Train a network that proposes masks and compares them with words."),
    _row("train-segmenter", "Train a segmentation network on pseudo masks or labels."),
    _row("train-pacl", "Align the patches of a CLIP with words, from captions alone."),
    _row("cam", "Make class activation maps from image-level labels."),
    _row("refine", "Refine class activation maps, and make pseudo masks of them."),
    _row("tune-prompts", "Tune prompts of a CLIP for masked crops or backgrounds."),
    _row("evaluate", "Compare predictions with a ground truth."),
    _row("report", "Write one HTML page to look at results."),
    _row("convert", "Write masks in the formats of other tools, or read theirs."),
    _row("merge", "Join the parts that the shards of a run left."),
    _row("info", "Print what a file is and what made it."),
    _row("check", "Validate files; the exit status is the answer."),
    _row("doctor", "List versions, device, caches and weights, and what is missing."),
    Row(
        "probe",
        (
            _row("probe oracle", "Measure whether masks or names cost more."),
            _row(
                "probe alignment", "Measure how often a patch is closest to the word of its class."
            ),
            _row("probe coherence", "Measure whether patches of one class are alike."),
            _row("probe classify", "Measure how well whole images are classified."),
        ),
        "Diagnose a model as the papers do.",
    ),
    Row(
        "data",
        (
            _row("data list", "List the data sets that are known by name."),
            _row("data make", "Make a data set that needs no download."),
        ),
        "List and make data sets.",
    ),
)


def _print_version(context: Any, flag: Any) -> None:
    import ovtool

    print(f"ovtool {ovtool.__version__}")
    raise typer.Exit()


def _install_completion(context: Any, flag: Any) -> None:
    from typer._completion_classes import completion_init
    from typer.completion import install_callback

    completion_init()
    install_callback(context, flag, True)


def _show_completion(context: Any, flag: Any) -> None:
    from typer._completion_classes import completion_init
    from typer.completion import show_callback

    completion_init()
    show_callback(context, flag, True)


class Group(TyperGroup):
    """A command with sub-commands, which are imported when they are asked for."""

    def __init__(self, rows: Sequence[Row], path: str = "", **attributes: Any) -> None:
        attributes |= {"callback": None}
        super().__init__(**{**attributes, "rich_markup_mode": None, "invoke_without_command": True})
        self._rows = {row.name: row for row in rows}
        self._path = path
        self.commands = cast(Any, dict.fromkeys(self._rows))  # the names, for "Did you mean"
        self._help = help_flag()

    def get_help_option(self, ctx: Any) -> Flag:
        """The flag that prints the help."""
        return self._help

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, made now; None where there is none."""
        row = self._rows.get(cmd_name)
        if row is not None and self.commands[cmd_name] is None:
            self.commands[cmd_name] = cast(Any, made(row, self._path))
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the table of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(row.name, row.help) for row in self._rows.values()])

    def invoke(self, ctx: Any) -> Any:
        """Runs the sub-command; without one the help is an error of usage."""
        if not ctx._protected_args:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().invoke(ctx)


class Program(Group):
    """Segment images by words, and build the models that do it.

    Data goes to stdout and files, everything for people to stderr. Exit status: 0 done, 1 error,
    2 usage, 3 done but some items failed, 130 interrupted, 141 broken pipe.
    """

    rows: Sequence[Row] = COMMANDS

    def __init__(self, **attributes: Any) -> None:
        for own in ("name", "params", "help", "commands"):
            attributes.pop(own, None)
        show = "Show completion for the current shell, to copy it or customize the installation."
        options = [
            Flag("version", "Print the name and the version, and exit.", _print_version),
            *verbosity(),
            Flag(
                "install-completion",
                "Install completion for the current shell.",
                _install_completion,
            ),
            Flag("show-completion", show, _show_completion),
        ]
        text = inspect.getdoc(Program)
        super().__init__(self.rows, name="ovtool", params=options, help=text, **attributes)

    def invoke(self, ctx: Any) -> Any:
        """Sets how much is said, and runs the command."""
        output.set_verbosity(ctx.params["verbose"] - ctx.params["quiet"])
        return super().invoke(ctx)

    def _main_shell_completion(self, *arguments: Any, **named: Any) -> None:
        """Answers a shell that asks for completions."""
        import os

        if "_OVTOOL_COMPLETE" in os.environ:
            from typer._completion_classes import completion_init

            completion_init()
        super()._main_shell_completion(*arguments, **named)


def made(row: Row, path: str = "") -> TyperCommand | Group:
    """The command of a row.

    Args:
        row: The row.
        path: The names of the groups above it, each with a space behind it.
    """
    if isinstance(row.target, tuple):
        return Group(row.target, f"{path}{row.name} ", name=row.name, help=row.help)
    function = imported(row.target) if isinstance(row.target, str) else row.target
    from ovtool.cli import declare  # which `ovtool --help` does not need

    return declare.command(function, row.name, OLD_NAMES.get(path + row.name))


def imported(target: str) -> Callable[..., object]:
    """The function that `module:function` names."""
    module, _, name = target.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function


def program(rows: Sequence[Row]) -> typer.Typer:
    """A program with these commands, in the frame of `ovtool`."""
    shell = typer.Typer(
        cls=type("Program", (Program,), {"rows": rows}),
        callback=lambda: None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    return shell


app = program(COMMANDS)

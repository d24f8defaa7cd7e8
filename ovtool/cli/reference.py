"""The reference of all options, as Markdown, made from what the commands declare.

python -m ovtool.cli.reference > examples/options.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from ovtool.cli.app import COMMANDS, Row, made
from ovtool.cli.parameters import DeclaredCommand, FieldArgument, FieldOption

PREFACE = """# All commands and their options

Every command also takes `-v` (say more on stderr), `-q` (say less) and `-h` (show its help). "For" names
the values of the choosing option, such as `--method`, that an option belongs to; where nothing stands, it
belongs to all. This page is made by `python -m ovtool.cli.reference > examples/options.md`.
"""


def text(rows: Sequence[Row] = COMMANDS) -> str:
    """The whole reference."""
    return PREFACE + "".join(_section(row, command, path) for row, command, path in _leaves(rows))


def _leaves(rows: Sequence[Row], path: str = "") -> Iterator[tuple[Row, DeclaredCommand, str]]:
    """Every command that does something, with the words that call it."""
    for row in rows:
        if isinstance(row.target, tuple):
            yield from _leaves(row.target, f"{path}{row.name} ")
        else:
            yield row, cast(DeclaredCommand, made(row, path)), path + row.name


def _section(row: Row, command: DeclaredCommand, name: str) -> str:
    lines = [f"\n## ovtool {name}\n", row.help, ""]
    if command.text.examples:
        lines += ["```sh", *command.text.examples, "```", ""]
    arguments = [parameter for parameter in command.params if isinstance(parameter, FieldArgument)]
    for argument in arguments:
        lines.append(f"- {_code(argument.get_usage_pieces(None)[0])}: {argument.argument.help}")
    lines += [""] if arguments else []
    for panel, options in command.panels().items():
        lines += [
            f"**{panel}**",
            "",
            "| option | for | default | range | |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(option) for option in options]
        lines.append("")
    return "\n".join(lines)


def _line(option: FieldOption) -> str:
    field, display = option.field, option.display
    default = _code(display.default) if display.default else ""
    if option.is_needed:
        default = "required"
    cells = [_code(option.usage()), ", ".join(display.owners), default, field.range]
    return "| " + " | ".join([*cells, _cell(field.option.help)]) + " |"


def _code(words: str) -> str:
    return f"`{_cell(words)}`"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def main() -> None:
    """Prints the reference."""
    print(text(), end="")


if __name__ == "__main__":
    main()

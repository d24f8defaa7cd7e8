"""The reference of options is what the commands declare."""

from pathlib import Path

from typer.core import TyperOption

from ovtool.cli import reference
from ovtool.cli.app import COMMANDS, made

ROOT = Path(__file__).parents[2]


def test_the_reference_is_up_to_date():
    written = (ROOT / "examples" / "options.md").read_text(encoding="utf-8")
    assert written == reference.text(), "run `python -m ovtool.cli.reference > examples/options.md`"


def test_every_option_of_every_command_is_in_it():
    sections = dict(
        section.split("\n", 1) for section in reference.text().split("\n## ovtool ")[1:]
    )
    for row in COMMANDS:
        rows = [(row, "")]
        if isinstance(row.target, tuple):
            rows = [(below, f"{row.name} ") for below in row.target]
        for leaf, path in rows:
            section = sections[path + leaf.name]
            for parameter in made(leaf, path).params:
                if isinstance(parameter, TyperOption) and parameter.name not in (
                    "verbose",
                    "quiet",
                ):
                    assert parameter.opts[-1] in section, (leaf.name, parameter.opts)


def test_a_bar_in_a_cell_does_not_end_it():
    for line in reference.text().splitlines():
        if line.startswith("| `--method"):
            assert line.replace("\\|", "").count("|") in (3, 6)

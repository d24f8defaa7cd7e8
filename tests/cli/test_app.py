"""The frame of the command line: help, version and verbosity."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ovtool.cli import output
from ovtool.cli.app import COMMANDS, Row, app, program
from ovtool.settings.field import Argument
from ovtool.settings.shared import Limit, Seed

ROOT = Path(__file__).parents[2]


def leaves(rows=COMMANDS, words=()):
    """Every command that does something, as the words that call it."""
    for name, target, _ in rows:
        yield from [(*words, name)] if isinstance(target, str) else leaves(target, (*words, name))


def ovtool(*arguments, **settings):
    command = [sys.executable, "-m", "ovtool", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **settings)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag):
    done = CliRunner().invoke(app, [flag])
    assert done.exit_code == 0
    listed = re.findall(r"^  (\w[\w-]*)  ", done.stdout.split("Commands:")[1], re.MULTILINE)
    assert listed == [name for name, _, _ in COMMANDS]


@pytest.mark.parametrize("command", list(leaves()), ids=" ".join)
def test_every_command_has_its_own_help(command):
    done = CliRunner().invoke(app, [*command, "-h"])
    assert done.exit_code == 0
    text = done.stdout.split("\n\n")[1].strip()
    assert len(text) > 20 and text.split("\n")[0][0].isupper()


def test_bare_call_shows_help_on_stderr_and_is_a_usage_error():
    done = ovtool()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ovtool")


def test_version_is_the_name_and_a_number():
    done = ovtool("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"ovtool \d+\.\d+\.\d+\S*\n", done.stdout)


def program_that(function):
    """A program whose one command `do` is this function, in the frame of the real one."""
    rows = (
        Row("do", function, "Do it."),
        Row("group", (Row("deep", function, "Deep."),), "More."),
    )
    return program(rows)


@pytest.mark.parametrize(
    "words, quiet, level",
    [
        (["do"], False, 30),
        (["do", "-v"], False, 20),
        (["do", "-vv"], False, 10),
        (["do", "-vvvv"], False, 10),
        (["do", "-q"], True, 40),
        (["do", "-qqq"], True, 50),
        (["-v", "do", "-v"], False, 10),
        (["-q", "do", "-v"], False, 30),
        (["-q", "group", "deep"], True, 40),
    ],
)
def test_verbosity_is_counted_before_and_after_the_command(words, quiet, level):
    import logging

    seen = []

    def do() -> None:
        """Look at the level."""
        seen.append((output.is_quiet(), logging.getLogger("ovtool").level))

    assert CliRunner().invoke(program_that(do), words).exit_code == 0
    assert seen == [(quiet, level)]


def test_the_log_goes_to_stderr_with_its_kind():
    import logging

    def do() -> None:
        """Log at three levels."""
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("ovtool.part").log(level, "level %d", level)

    def said(*words):
        return CliRunner().invoke(program_that(do), words).stderr

    assert said("do") == "warning: level 30\nerror: level 40\n"
    assert said("do", "-v") == "level 20\nwarning: level 30\nerror: level 40\n"
    assert said("do", "-q") == "error: level 40\n"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_exit_status_is_what_the_command_exits_with(code):
    def do() -> None:
        """Leave."""
        raise typer.Exit(code)

    assert CliRunner().invoke(program_that(do), ["do"]).exit_code == code


def test_a_return_value_is_no_exit_status():
    def do() -> int:
        """Return a number."""
        return 5

    command = typer.main.get_command(program_that(do))
    assert command.main(["do"], standalone_mode=False) is None


def test_arguments_keep_their_types_in_the_frame():
    seen = []

    def do(
        file: Annotated[Path, Argument("A file.", metavar="FILE")],
        seed: Seed = 0,
        limit: Limit = None,
    ) -> None:
        """Take some."""
        seen.append((file, seed, limit))

    runner = CliRunner()
    assert runner.invoke(program_that(do), ["do", "x", "--seed", "3"]).exit_code == 0
    assert seen == [(Path("x"), 3, None)]
    assert runner.invoke(program_that(do), ["do", "x", "--limit", "0"]).exit_code == 2


def test_table_and_progress_keep_off_stdout_and_out_of_logs(capsys):
    output.set_verbosity(0)
    output.table(("word", "share"), [("cow", "7"), ("a longer word", "12.5")])
    with output.progress(3, "reading") as advance:
        advance()
        advance(2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "word           share",
        "cow                7",
        "a longer word   12.5",
    ]


def test_quiet_hides_tables_and_messages(capsys):
    output.set_verbosity(-1)
    output.table(("a", "b"), [("1", "2")])
    output.message("done")
    output.set_verbosity(0)
    assert capsys.readouterr().err == ""


def test_help_is_fast():
    """`ovtool --help` at most 3 times `import typer` (the medians of 9 runs)."""
    import statistics
    import time

    def seconds(arguments):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - start

    runs = [
        (seconds(["-c", "import typer"]), seconds(["-m", "ovtool", "--help"])) for _ in range(9)
    ]
    base, ours = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"import typer {base * 1000:.0f} ms, ovtool --help {ours * 1000:.0f} ms")
    assert ours <= 3 * base

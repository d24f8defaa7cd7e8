"""From signatures to options: each pitfall of Typer, methods, refusals, old names, help, completion."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ovtool.cli import cheap_checks, declare
from ovtool.cli.declare import Only
from ovtool.cli.parameters import DeclaredCommand
from ovtool.errors import UsageError
from ovtool.settings.field import Argument, Option
from ovtool.settings.option import settings

ROOT = Path(__file__).parents[2]
Side = Annotated[int | None, Option("A side. Default: the model's.", min=8)]
Rate = Annotated[float, Option("A rate.", min=0)]


@settings(panel="Method")
class Plain:
    """Nothing but patches."""

    side: Side = None
    rate: Rate = 0.1
    flip: Annotated[bool, Option("Flip.")] = False


@settings(panel="Method")
class TwoStage:
    """Proposals."""

    rate: Rate = 0.5
    share: Annotated[float | None, Option("A share. Default: 0.7.", min=0, max=1)] = None


@settings(panel="Method", name="own")
class Trained:
    """A network."""

    file: Annotated[Path, Option("The network.")]
    side: Side = None


@settings(panel="Run")
class Run:
    """How."""

    limit: Annotated[int | None, Option("How many. Default: all.", min=1)] = None
    label: Annotated[tuple[str, ...], Option("Labels.", repeat=True)] = ()
    scales: Annotated[tuple[float, ...], Option("Sizes.")] = (1.0,)
    part_size: Annotated[int, Option("A part.")] = 256

    def check(self) -> None:
        """Raises UsageError for a limit above a part."""
        if self.limit is not None and self.limit > self.part_size:
            raise UsageError("--limit is above --part-size; give less")


seen: dict[str, object] = {}


def work(
    names_read: Annotated[tuple[str, ...], Argument("What to read.", metavar="IMAGES")] = (),
    method: Plain | TwoStage | Trained | str = Plain(),
    run: Annotated[Run, Only("limit", "label", "scales", "part_size")] = Run(part_size=100),
    out: Annotated[
        str | None, Option("Where.", flag="--output", short="-o", panel="Output")
    ] = None,
) -> int:
    """Do the work.

    It takes a while.

    $ ovtool work a.png --method two-stage

    $ ovtool work a.png -o "a long name that would be wrapped if anybody wrapped it.json"

    Args:
        names_read: Not for the command line.
    """
    seen.update(names_read=names_read, method=method, run=run, out=out)
    return 5


def call(*words, function=work, **options):
    seen.clear()
    command = declare.command(function, "work", **options)
    assert command.main([*words], prog_name="ovtool work", standalone_mode=False) is None
    return dict(seen)


def refused(*words, function=work, **options):
    import typer

    with pytest.raises(typer.TyperException) as caught:
        call(*words, function=function, **options)
    assert caught.value.exit_code == 2
    return caught.value.format_message()


def help_of(function=work):
    command = declare.command(function, "work")
    return command.get_help(command.make_context("work", [], resilient_parsing=True))


# --- objects -------------------------------------------------------------------------------------


def test_nothing_given_is_the_defaults_of_the_signature():
    assert call() == {"names_read": (), "method": Plain(), "run": Run(part_size=100), "out": None}


def test_only_given_values_are_handed_over():
    given = call("a", "b", "--side", "9", "--limit", "3", "-o", "x", "--flip")
    assert given["names_read"] == ("a", "b") and given["out"] == "x"
    assert given["method"] == Plain(side=9, flip=True)
    assert given["run"] == Run(limit=3, part_size=100)


def test_a_comma_in_an_argument_is_part_of_it():
    assert call("a,b.png")["names_read"] == ("a,b.png",)


def test_tuples_are_tuples_whether_repeated_or_listed():
    run = call("--label", "a,b", "--label", "c", "--scales", "1,0.5")["run"]
    assert run.label == ("a,b", "c") and run.scales == (1.0, 0.5)


def test_a_value_that_equals_the_default_is_given_too():
    said = refused("--method", "own", "--file", "x", "--rate", "0.1")
    assert said.startswith("--rate belongs to --method plain or two-stage, not to own")


# --- methods -------------------------------------------------------------------------------------


def test_a_method_is_chosen_by_its_name_and_has_its_own_defaults():
    assert call("--method", "two-stage")["method"] == TwoStage()
    assert call("--method", "two-stage", "--share", "1")["method"] == TwoStage(share=1.0)


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    """The files that these commands name are not there."""
    monkeypatch.setattr(cheap_checks, "check", lambda values: None)


def test_a_method_is_implied_by_what_only_it_requires():
    assert call("--file", "n", "--side", "9")["method"] == Trained(file=Path("n"), side=9)


def test_the_order_of_flags_does_not_matter():
    assert call("--share", "1", "--method", "two-stage")["method"] == TwoStage(share=1.0)


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["--share", "0.2"],
            "--share belongs to --method two-stage, not to plain; change --method",
        ),
        (
            ["--method", "two-stage", "--side", "9"],
            "--side belongs to --method plain or own, not to",
        ),
        (["--file", "n", "--flip"], "--flip belongs to --method plain, not to own"),
        (["--method", "plain", "--file", "n"], "--file belongs to --method own, not to plain"),
        (["--method", "own"], "--method own needs --file; give --file FILE"),
        (["--method", "none"], "--method 'none' is not one of 'plain', 'two-stage', 'own'"),
        (["--share", "2", "--method", "two-stage"], "--share 2.0 is out of range; give 0 to 1"),
        (["--limit", "many"], "--limit 'many' is not allowed; give a whole number"),
        (["--limit", "200"], "--limit is above --part-size; give less"),
        (["--file"], "Option '--file' requires an argument"),
        (["--sdie", "9"], "No such option: --sdie (Possible options: --file, --share, --side)"),
    ],
)
def test_what_does_not_go_together_is_refused(words, said):
    assert said in refused(*words)


def test_what_is_required_is_asked_for():
    def needs(
        name: Annotated[str, Argument("A name.", metavar="NAME")],
        truth: Annotated[str, Option("The truth.", metavar="GT")],
        method: Plain | TwoStage,
    ) -> None:
        """Need."""

    assert refused(function=needs) == "Missing argument 'NAME'"
    assert refused("x", function=needs) == "Missing option '--truth'; give --truth GT"
    assert "--method is missing" in refused("x", "--truth", "y", function=needs)


# --- signatures that cannot be meant -------------------------------------------------------------


def test_a_parameter_without_an_option_is_an_error():
    def bare(side: int = 3) -> None:
        """Bare."""

    with pytest.raises(TypeError, match="side of bare is no class of settings"):
        declare.command(bare, "bare")


def test_two_parameters_with_one_flag_are_an_error():
    def twice(method: Plain = Plain(), side: Side = None) -> None:
        """Twice."""

    with pytest.raises(TypeError, match="two options --side"):
        declare.command(twice, "twice")


def test_two_members_that_spell_a_field_differently_are_an_error():
    @settings
    class Other:
        side: Annotated[int | None, Option("Another side.")] = None

    def odd(method: Plain | Other = Plain()) -> None:
        """Odd."""

    with pytest.raises(TypeError, match="--side of method is declared in two ways"):
        declare.command(odd, "odd")


def test_only_names_fields_that_exist_and_leaves_out_the_others():
    def some(run: Annotated[Run, Only("limit")] = Run()) -> None:
        """Some."""
        seen["run"] = run

    assert call("--limit", "3", function=some)["run"] == Run(limit=3)
    assert "No such option: --part-size" in refused("--part-size", "3", function=some)

    def wrong(run: Annotated[Run, Only("limti")] = Run()) -> None:
        """Wrong."""

    with pytest.raises(TypeError, match="no field limti"):
        declare.command(wrong, "wrong")


def test_a_switch_that_is_on_by_default_is_an_error():
    def on(fast: Annotated[bool, Option("Fast.")] = True) -> None:
        """On."""

    with pytest.raises(TypeError, match="off by default"):
        declare.command(on, "on")


# --- old names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--start", "x"], ["--start=x"], ["a", "--start", "x"]])
def test_an_old_name_is_answered_with_the_new_one(words):
    said = refused(*words, old_names={"--start": "--begin"})
    assert said == "--start is now --begin; give that instead"


def test_a_file_that_is_called_like_an_old_name_is_a_file():
    assert call("--", "--start", old_names={"--start": "--begin"})["names_read"] == ("--start",)


def test_an_old_name_with_a_new_meaning_says_so_where_its_value_does_not_fit():
    old = {"--limit": "--apply"}
    assert call("--limit", "3", old_names=old)["run"].limit == 3
    assert "what --limit was is now --apply" in refused("--limit", "walk,crf", old_names=old)


# --- help ----------------------------------------------------------------------------------------


def test_help_has_panels_in_the_order_of_the_signature():
    lines = help_of().splitlines()
    panels = [line for line in lines if line and not line.startswith(" ") and line.endswith(":")]
    assert panels == [
        "Example:",
        "Arguments:",
        "Method:",
        "Run:",
        "Output:",
        "Messages and help:",
        "More examples:",
    ]


def test_help_shows_an_example_first_that_can_be_pasted_and_wraps_none():
    text = help_of()
    assert "Example:\n  ovtool work a.png --method two-stage\n\n  It takes a while." in text
    assert '\n  ovtool work a.png -o "a long name that would be wrapped if anybody' in text
    assert "Not for the command line" not in text and "$" not in text


def test_help_shows_defaults_choices_ranges_and_whom_an_option_belongs_to():
    text = " ".join(help_of().split())
    assert "--method plain|two-stage|own plain: Nothing but patches. two-stage: Proposals." in text
    assert "[default: plain]" in text
    assert (
        "--rate X A rate. [for plain, two-stage; default: 0.1 (plain), 0.5 (two-stage); 0 or"
        in text
    )
    assert "--file FILE The network. [for own; required]" in text
    assert "--part-size N A part. [default: 100]" in text  # that of this command
    assert "--scales X,... Sizes. [default: 1]" in text
    assert "-o, --output TEXT Where." in text
    assert "-v, --verbose Say more on stderr; may be repeated." in text  # no default of 0


def test_every_command_counts_its_verbosity():
    from ovtool.cli import output

    output.set_verbosity(0)
    call("-q", "-q")
    assert output.is_quiet()
    output.set_verbosity(0)


def complete(line):
    """What bash is offered behind these words."""
    words = line.split(" ")
    asked = {
        "_OVTOOL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    program = (
        "import sys; sys.argv[0] = 'ovtool'; from ovtool.cli.errors import run; sys.exit(run())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "line, offered",
    [
        ("ovtool seg", ["segment"]),
        ("ovtool probe c", ["coherence", "classify"]),
        ("ovtool segment --over", ["--overlays", "--overwrite"]),
        ("ovtool segment --method t", ["two-stage", "trained"]),
    ],
)
def test_completion_offers_commands_options_and_choices(line, offered):
    assert complete(line) == offered


@pytest.mark.parametrize(
    "words", [["--help"], ["segment", "--help"], ["train-pacl", "-h"], ["sgment"]]
)
def test_help_imports_no_pydantic_and_no_rich(words):
    program = (
        "import sys; from ovtool.cli.errors import run; run(sys.argv[1:]);"
        "print([m for m in ('pydantic', 'rich', 'ovtool.cli.cam') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_literal_default_of_a_command_is_a_choice():
    def pick(kind: Annotated[Literal["a", "b"], Option("A kind.")] = "a") -> None:
        """Pick."""
        seen["kind"] = kind

    assert call(function=pick) == {"kind": "a"}
    assert call("--kind", "b", function=pick) == {"kind": "b"}
    assert isinstance(declare.command(pick, "pick"), DeclaredCommand)

"""The `ovtool` program: a table of commands and the frame around them.

Command modules import only the standard library, typer and each other's options at the top; the
stage behind a command is imported when the command runs.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ovtool.cli import (
    cam,
    check,
    data,
    doctor,
    evaluate,
    info,
    mine_pairs,
    output,
    probe,
    probe_alignment,
    probe_classify,
    probe_coherence,
    propose,
    refine,
    segment,
    train_pacl,
    train_proposer,
    train_segmenter,
    tune_prompts,
)
from ovtool.cli.options import QuietOpt, VerboseOpt

# (name, function, one line of help); in place of a function, rows of sub-commands.
COMMANDS: tuple[tuple[str, Any, str], ...] = (
    ("segment", segment.segment, "Cut pictures up by words."),
    ("propose", propose.propose, "Find masks of whatever is in the pictures."),
    ("mine-pairs", mine_pairs.mine_pairs, "Pair the nouns of captions with masks."),
    (
        "train-proposer",
        train_proposer.train_proposer,
        "Train a network that finds masks and compares them with words.",
    ),
    (
        "train-segmenter",
        train_segmenter.train_segmenter,
        "Train a network on pseudo masks, or on any labels of pixels.",
    ),
    (
        "train-pacl",
        train_pacl.train_pacl,
        "Align a CLIP's patches with words, from captions alone.",
    ),
    ("cam", cam.cam, "Make class activation maps from image-level labels."),
    ("refine", refine.refine, "Refine class activation maps, and make pseudo masks of them."),
    (
        "tune-prompts",
        tune_prompts.tune_prompts,
        "Teach a CLIP prompts, for masked crops or backgrounds.",
    ),
    ("evaluate", evaluate.evaluate, "Measure predictions against a ground truth."),
    ("info", info.info, "Say what a file is and what made it."),
    ("check", check.check, "Validate files; the exit status is the answer."),
    ("doctor", doctor.doctor, "List versions, device, caches and weights, and what is missing."),
    (
        "probe",
        (
            ("oracle", probe.oracle, "Say whether masks or names are the bottleneck."),
            ("alignment", probe_alignment.alignment, "Say which patches say what they show."),
            ("coherence", probe_coherence.coherence, "Say whether patches of a class look alike."),
            ("classify", probe_classify.classify, "Say how well whole images are named."),
        ),
        "The papers' diagnoses of a model.",
    ),
    (
        "data",
        (
            ("list", data.list_, "List the data sets that are known by name."),
            ("make", data.make, "Make a data set that needs no download."),
        ),
        "Data sets by name.",
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import ovtool

        print(ovtool.__version__)
        raise typer.Exit()


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    verbose: VerboseOpt = 0,
    quiet: QuietOpt = 0,
) -> None:
    """Segment images by words, and build the models that do it.

    Data goes to stdout and files, everything for people to stderr. Exit status: 0 done, 1 error,
    2 usage, 3 done but some items failed, 130 interrupted, 141 broken pipe.
    """
    output.set_verbosity(verbose - quiet)
    _help_if_bare(context)


def _help_if_bare(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def with_verbosity(function: Callable[..., object]) -> Callable[..., None]:
    """The same command with `-v` and `-q`, and with no return value (Typer takes one for a status)."""

    @functools.wraps(function)
    def command(*, verbose: int, quiet: int, **options: Any) -> None:
        output.add_verbosity(verbose - quiet)
        function(**options)

    own = inspect.signature(function, eval_str=True).parameters.values()
    named = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(parameter.replace(kind=named) for parameter in own),
            inspect.Parameter("verbose", named, default=0, annotation=VerboseOpt),
            inspect.Parameter("quiet", named, default=0, annotation=QuietOpt),
        ]
    )
    return command


def _new(callback: Callable[..., None], help: str | None, **settings: Any) -> typer.Typer:
    return typer.Typer(
        callback=callback,
        help=help,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def build(commands: tuple[tuple[str, Any, str], ...], program: typer.Typer) -> typer.Typer:
    """Adds the rows of a command table to a program, and returns it."""
    for name, target, line in commands:
        if callable(target):
            program.command(name, short_help=line)(with_verbosity(target))
        else:
            group = build(target, _new(_help_if_bare, line, add_completion=False))
            program.add_typer(group, name=name)
    return program


app = build(COMMANDS, _new(_root, inspect.getdoc(_root)))

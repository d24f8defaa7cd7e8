"""The documents cannot drift: their commands and code run, and what they name is there.

In `README.md` and the guides of `examples/` a block fenced as `sh` is run, and so is one fenced as `python`; one
fenced as `text` is not: an output, or a command that needs a download, several processes or a clone.
All `sh` blocks of a document are one script, at whose end its `python` blocks run as one program, so a
variable that is exported holds in all that follows. The folder holds nothing but `examples/`, there is
no network, and the first command that fails ends the script.
"""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ovtool.cli.app import COMMANDS, app

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
INDEX = ROOT / "examples" / "README.md"
GUIDES = sorted({*INDEX.parent.glob("*.md")} - {INDEX, INDEX.parent / "options.md"})
RUN = [README, *GUIDES]
LONG = {
    "ovseg.md",
    "own-classes.md",
    "pacl.md",
    "scale.md",
    "segment.md",
    "semples.md",
}  # half a minute each
RESULTS = sorted((ROOT / "scripts").rglob("*.md"))
CARDS = sorted((ROOT / "ovtool" / "weights").glob("*.md"))
# What these documents name beside the options of commands: those of torchrun and of scripts, and help.
OTHERS = {
    "--help", "--leave-out", "--minutes", "--nproc-per-node", "--only", "--photographs", "--photos", "--pictures",
    "--without-masks",
    "--dependency", "--parsable", "--wrap",
}  # fmt: skip


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def code(document: Path, language: str) -> str:
    """The blocks of a document in one language, joined."""
    text = document.read_text(encoding="utf-8")
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all documents, so that the same words are embedded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            document, marks=[pytest.mark.slow] * (document.name in LONG), id=name(document)
        )
        for document in RUN
    ],
)
def test_commands_and_code_run(document, tmp_path, cache, forks):
    """As a newcomer would run them, but with no network, and with this tree's ovtool, whose start is quick."""
    run_as_newcomer(document, tmp_path, cache, [str(forks)])


@pytest.mark.slow
def test_the_readme_runs_with_the_program_that_is_installed(tmp_path, cache):
    run_as_newcomer(README, tmp_path, cache)


def run_as_newcomer(document, folder, cache, programs=()):
    """Runs the code of a document in a folder; `programs` are folders that come first on the PATH."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    places = {"PYTHONPATH": str(ROOT), "OVTOOL_CACHE": str(cache)}
    environment = {**os.environ, **places, "HF_HUB_OFFLINE": "1"}
    path = [*programs, str(Path(sys.executable).parent), environment["PATH"]]
    environment["PATH"] = os.pathsep.join(path)
    environment.pop("OVTOOL_MODEL", None)
    script = code(document, "sh") + '\npython -c "$1"\n'
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script, "bash", code(document, "python")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"


def test_every_guide_has_commands_and_a_place_in_the_index():
    assert len(GUIDES) >= 6
    for document in GUIDES:
        assert "ovtool" in code(document, "sh"), name(document)
        assert f"({document.name})" in INDEX.read_text(encoding="utf-8"), name(document)


def test_every_block_says_its_language():
    for document in RUN:
        fences = re.findall(r"^```(.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(fences[::2]) <= {"sh", "python", "text"} and set(fences[1::2]) <= {""}, name(
            document
        )


def commands(rows=COMMANDS, before=()):
    """The words of every command: ("probe", "oracle")."""
    for word, target, _ in rows:
        if isinstance(target, tuple):
            yield from commands(target, (*before, word))
        else:
            yield (*before, word)


def options() -> set[str]:
    """Every flag of every command, and of ovtool itself."""
    program = typer.main.get_command(app)
    flags = {flag for parameter in program.params for flag in parameter.opts}
    for words in commands():
        command = program
        for word in words:
            command = command.get_command(None, word)
        flags |= {flag for parameter in command.params for flag in parameter.opts}
    return flags


DOCUMENTS = [*RUN, INDEX, *RESULTS, *CARDS]


def lines_of_commands(document: Path):
    """The words of every command in blocks `sh` and `text`, with what the document exports; pipes are parted."""
    exported: dict[str, str] = {}
    blocks = f"{code(document, 'sh')}\n{code(document, 'text')}"
    for line in blocks.replace("\\\n", " ").splitlines():
        line = string.Template(line).safe_substitute(exported)
        parts = shlex.shlex(line, posix=True, punctuation_chars=True)
        parts.whitespace_split = True
        words = list(parts)
        if words[:1] == ["export"]:
            exported |= dict(word.split("=", 1) for word in words[1:])
        own: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set("|&;<>()"):
                own.append(word)
            elif own:
                yield own
                own = []


def parse(words):
    """What `ovtool` does with the words of a line before it does any work. Raises what it would answer with."""
    command, left = typer.main.get_command(app), list(words)
    while hasattr(command, "get_command"):
        command = command.get_command(None, left.pop(0))
    command._values(command.make_context(command.name, left).params)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_takes_its_options_and_values(document):
    """Those too that are not run: of results and cards, and of clusters."""
    for words in lines_of_commands(document):
        if "ovtool" in words:
            try:
                parse(words[words.index("ovtool") + 1 :])
            except Exception as error:
                raise AssertionError(f"{shlex.join(words)}: {error}") from error


@pytest.mark.parametrize(
    "line",
    [
        "cam --labels a --method clustering",
        "segment a.jpg --classes b --method patch --ensemble 0.5",
        "tune-prompts a.json --push text",
        "train-segmenter a.json --backbone clip",
        "segment a.jpg --classes b --short-side none",
    ],
)
def test_a_command_that_no_longer_runs_would_be_found(line):
    with pytest.raises(Exception, match=r"-"):
        parse(line.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_options_that_are_named_exist(document):
    """In commands that are not run, and in sentences; commands of scripts are left out."""
    lines = document.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if "scripts/" not in line)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)) - OTHERS
    assert named <= options(), sorted(named - options())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_local_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_readme_names_every_command_and_room():
    text = README.read_text(encoding="utf-8")
    for words in commands():
        assert f"`{' '.join(words)}`" in text, words
    for room in (ROOT / "ovtool").iterdir():
        if (room / "__init__.py").exists():
            assert f"\novtool/{room.name}/ " in text, room.name


def test_every_script_has_a_line():
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "scripts").rglob("*"):
        is_script = script.suffix == ".py" or (script.is_file() and not script.suffix)
        if is_script and not script.name.startswith("same_outputs_"):
            assert script.name in text, script.name


OF_SCRIPTS = """
import argparse, contextlib, io, json, runpy, sys
path = list(sys.path)
parse_args = argparse.ArgumentParser.parse_args

class Parsed(Exception):
    pass

def parsed(parser, *args, **options):
    for action in parser._actions:
        action.required &= is_whole
    parse_args(parser, *args, **options)
    raise Parsed

argparse.ArgumentParser.parse_args = parsed
for words, is_whole in json.load(sys.stdin):
    script = words[0]
    sys.argv[:] = words
    sys.path[:] = [script.rpartition("/")[0], *path]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_path(script, run_name="__main__")
    except Parsed:
        assert words[1:] != ["--help"], words
    except SystemExit as end:
        assert words[1:] == ["--help"] and not end.code, (words, said.getvalue())
        assert "usage" in said.getvalue().lower(), script
    else:
        raise AssertionError(f"{words} read no options")
"""


def lines_of_scripts():
    """The words of every script's line in the documents, and whether the line is whole: those of blocks are, and
    `scripts/...` within a sentence may leave out what must be given."""
    for document in DOCUMENTS:
        sentences = re.findall(
            r"`(scripts/[^` ]+\.py [^`]+)`", document.read_text(encoding="utf-8")
        )
        yield from ((shlex.split(sentence), False) for sentence in sentences)
        for words in lines_of_commands(document):
            words = words[words[:1] == ["python"] :]
            if words and words[0].startswith("scripts/") and words[0].endswith(".py"):
                yield words, True


def read_by_scripts(lines):
    """Has the scripts read their words in one process, since most of them load the same libraries."""
    places = {**os.environ, "PYTHONPATH": str(ROOT)}
    lines = [([str(ROOT / words[0]), *words[1:]], is_whole) for words, is_whole in lines]
    return subprocess.run(
        [sys.executable, "-c", OF_SCRIPTS],
        input=json.dumps(lines),
        env=places,
        capture_output=True,
        text=True,
    )


def test_every_script_has_a_help_and_takes_what_documents_give_it():
    scripts = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "scripts").rglob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
        and not path.name.startswith("same_outputs_")
    ]
    documented = list(lines_of_scripts())
    assert len(scripts) > 10 and len(documented) > 10
    done = read_by_scripts([*(([script, "--help"], True) for script in scripts), *documented])
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_line_that_a_script_does_not_take_would_be_found():
    done = read_by_scripts([(["scripts/measure/costs.py", "--photographs", "x"], False)])
    assert done.returncode == 1 and "unrecognized arguments" in done.stderr


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160

#!/usr/bin/env python3
"""Runs every command once on a small collage with two versions of ovtool, and compares what they make.

    scripts/measure/same_outputs.py OLD NEW [--only NAME] [--keep DIR] [--jobs 2]

OLD and NEW are commits (`HEAD~3`, `main`), folders with a checkout (`.` for the files as they are), or a
folder of results that `--keep` left (`DIR/old`), which are then not made again. A line is printed for each
case: equal, or how tensors, annotations, pixels or numbers differ. What says how a file was made is not
compared. The exit status is 1 where anything differs, or fails on both sides. Run it in the Python
environment that ovtool is installed in; each commit's own files are used all the same.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import same_outputs_compare as compare
from PIL import Image
from same_outputs_cases import CASES, RENAMED, Case

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).resolve().with_name("same_outputs_runner.py")
RESULTS = "results.json"
TIME_LIMIT = 600  # seconds of a command
# an option's own line in `--help`: `-o, --output FILE`, with or without the edge of a panel
LISTED = re.compile(r"^[ │|*]{0,8}(?:-\w, )?(--[a-z][a-z0-9-]*)", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status and the last line that it wrote on stderr."""

    exit_status: int
    message: str


@dataclass(frozen=True)
class Side:
    """One of the two versions.

    Attributes:
        name: `old` or `new`.
        work: The folder that its commands run in, each writing to a folder of its case's name.
        runner: The process that starts them, `same_outputs_runner.py`; None where results were kept.
        kept: Results by case that were made before; empty where the commands are run.
    """

    name: str
    work: Path
    runner: subprocess.Popen[str] | None
    kept: Mapping[str, Result]


def main() -> int:
    """Compares and prints; returns the exit status."""
    arguments = parse_arguments()
    cases = selected(arguments.only)
    with contextlib.ExitStack() as stack:
        keep = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [
            stack.enter_context(opened_side(place, name, keep / name))
            for name, place in (("old", arguments.old), ("new", arguments.new))
        ]
        pool = stack.enter_context(ThreadPoolExecutor(arguments.jobs))
        began = time.monotonic()
        results: dict[str, dict[str, Result]] = {side.name: {} for side in sides}
        different = 0
        for case in cases:
            pair = list(pool.map(functools.partial(run, case), sides))
            for side, result in zip(sides, pair, strict=True):
                results[side.name][case.name] = result
            differences = case_differences(case, sides, pair)
            different += bool(differences)
            print(f"{case.name:<28} {summary(differences)}", flush=True)
        for side in sides:
            if side.runner is not None:
                write_results(side.work, results[side.name])
    seconds = time.monotonic() - began
    print(f"{len(cases)} cases, {len(cases) - different} equal, {different} not; {seconds:.0f} s")
    return 1 if different else 0


def parse_arguments() -> argparse.Namespace:
    """The command line of the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", metavar="OLD", help="a commit, a checkout, or kept results")
    parser.add_argument("new", metavar="NEW", help="a commit, a checkout, or kept results")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="run the cases whose names begin so, and those whose files they read; may be repeated",
    )
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep in DIR what is made")
    parser.add_argument(
        "--jobs", type=int, choices=(1, 2), default=1, help="2 runs both sides at the same time"
    )
    return parser.parse_args()


def selected(beginnings: Sequence[str] | None) -> list[Case]:
    """The cases whose names begin with any of `beginnings` (None for all), and all that they need."""
    by_name = {case.name: case for case in CASES}
    names = {name for name in by_name if name.startswith(tuple(beginnings or [""]))}
    if not names:
        sys.exit(f"no case begins with {beginnings}; the cases are {', '.join(by_name)}")
    while more := {need for name in names for need in by_name[name].needs} - names:
        names |= more
    return [case for case in CASES if case.name in names]


@contextlib.contextmanager
def opened_side(place: str, name: str, work: Path) -> Iterator[Side]:
    """A version that can be run or was; a commit is checked out into a folder that is removed in the end.

    Args:
        place: A commit, a checkout, or a folder of kept results.
        name: `old` or `new`.
        work: The folder for what it makes.
    """
    folder = Path(place).resolve()
    if (folder / RESULTS).is_file():
        stored = json.loads((folder / RESULTS).read_text())
        yield Side(name, folder, None, {key: Result(**value) for key, value in stored.items()})
        return
    if work.exists() and any(work.iterdir()):
        sys.exit(f"{work} is not empty; remove it, or give another folder with --keep")
    write_inputs(work / "inputs")
    with checked_out(place) as checkout, started(checkout, work.resolve()) as runner:
        yield Side(name, work.resolve(), runner, {})


@contextlib.contextmanager
def checked_out(place: str) -> Iterator[Path]:
    """A folder with the files of a commit, while it is needed; a folder that holds `ovtool/` as it is."""
    folder = Path(place).resolve()
    if (folder / "ovtool" / "__init__.py").is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch).resolve() / "checkout"
        git("worktree", "add", "--detach", "--quiet", str(checkout), place)
        try:
            yield checkout
        finally:
            git("worktree", "remove", "--force", str(checkout))


def git(*words: str) -> None:
    """Runs git on the repository of this script; ends the program where that fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {' '.join(words)} fails: {done.stderr.strip()}")


@contextlib.contextmanager
def started(checkout: Path, work: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs commands of a checkout on one thread of the CPU, without a network."""
    own = ("OVTOOL_", "HF_", "XDG_", "OMP_", "MKL_", "TORCH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    cache = work / "cache"
    environment = kept | {
        "PYTHONPATH": str(checkout),
        "OVTOOL_MODEL": "tiny",
        "OVTOOL_CACHE": str(cache / "ovtool"),
        "XDG_CACHE_HOME": str(cache),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "HF_HOME": str(cache / "huggingface"),
        "TORCH_HOME": str(cache / "torch"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "200",
    }
    where = [sys.executable, "-c", "import ovtool; print(ovtool.__file__)"]
    done = subprocess.run(where, cwd=work, env=environment, capture_output=True, text=True)
    if not done.stdout.startswith(f"{checkout}{os.sep}"):
        sys.exit(f"ovtool is imported from {done.stdout}, not from {checkout}; {done.stderr}")
    pipe = subprocess.PIPE
    runner = [sys.executable, str(RUNNER)]
    with subprocess.Popen(
        runner, cwd=work, env=environment, stdin=pipe, stdout=pipe, text=True
    ) as process:
        yield process  # which ends when its stdin is closed


def write_inputs(folder: Path) -> None:
    """Makes the files that no command makes: words, labels, maps, and images of which one is damaged."""
    random = np.random.default_rng(0)
    (folder / "maps").mkdir(parents=True)
    (folder / "damaged").mkdir()
    (folder / "words.txt").write_text("hippo\nrooster;cock\nduck\ncheese\ndrum\nwater\nsky\n")
    labels = ("duck,hippo", "drum,cheese", "cheese", "violin")
    lines = [f'00000{number}.jpg,"{names}"\n' for number, names in enumerate(labels, start=1)]
    (folder / "labels.csv").write_text("".join(lines))
    for number in range(1, len(labels) + 1):
        np.save(folder / "maps" / f"00000{number}.npy", random.random((5, 6, 6), np.float32))
    coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
    coarse.resize((80, 64)).save(folder / "damaged" / "a.png")
    (folder / "damaged" / "b.png").write_bytes((folder / "damaged" / "a.png").read_bytes()[:200])


def run(case: Case, side: Side) -> Result:
    """Runs a case on a side, unless it was run before; stdout goes to `answer.json` where it is compared."""
    if side.runner is None:
        return side.kept.get(case.name, Result(-1, "this case is not in the kept results"))
    folder, said = side.work / case.name, side.work / "stderr"
    folder.mkdir()
    answer = folder / "answer.json" if case.answer else Path(os.devnull)
    status = execute(side.runner, spelled(case, known_flags(side, case.command)), answer, said)
    lines = said.read_text(errors="replace").strip().splitlines()
    return Result(status, lines[-1] if lines else "")


def execute(runner: subprocess.Popen[str], words: Sequence[str], stdout: Path, stderr: Path) -> int:
    """Lets a runner run a command, and returns its exit status; below 0 it is the signal that ended it."""
    assert runner.stdin is not None and runner.stdout is not None
    request = {"words": words, "stdout": str(stdout), "stderr": str(stderr), "seconds": TIME_LIMIT}
    runner.stdin.write(json.dumps(request) + "\n")
    runner.stdin.flush()
    if not (line := runner.stdout.readline()):
        sys.exit("the process that runs the commands has ended; its error stands above")
    return int(line)


@functools.cache
def flags_of_help(runner: subprocess.Popen[str], work: Path, command: str) -> frozenset[str]:
    """The flags that `--help` of a command lists; none for a command that does not exist."""
    text = work / "help"
    execute(runner, [*command.split(), "--help"], text, Path(os.devnull))
    return frozenset(LISTED.findall(text.read_text()))


def known_flags(side: Side, command: str) -> frozenset[str]:
    """The flags that a side knows for a command."""
    return frozenset() if side.runner is None else flags_of_help(side.runner, side.work, command)


def spelled(case: Case, known: frozenset[str]) -> list[str]:
    """The arguments of a case, with older flags where a side knows these and not the new ones."""
    older = {entry.new: entry.old for entry in RENAMED if entry.command in ("", case.command)}
    return [
        older[word] if word in older and word not in known and older[word] in known else word
        for word in case.words
    ]


def case_differences(case: Case, sides: Sequence[Side], results: Sequence[Result]) -> list[str]:
    """What differs between the two sides of a case; none where they are equal and as expected."""
    old, new = results
    if old.exit_status != new.exit_status:
        return [
            f"exit status {old.exit_status} in old ({old.message}), "
            f"{new.exit_status} in new ({new.message})"
        ]
    if case.exit_status not in (None, old.exit_status):
        return [f"exit status {old.exit_status} on both sides, in new with: {new.message}"]
    old_folder, new_folder = (side.work / case.name for side in sides)
    return compare.folder_differences(old_folder, new_folder, case.plots)


def summary(differences: Sequence[str]) -> str:
    """A line of what differs."""
    if not differences:
        return "equal"
    more = f" (and {len(differences) - 1} more)" if differences[1:] else ""
    return f"DIFFERENT  {differences[0]}{more}"


def write_results(work: Path, results: Mapping[str, Result]) -> None:
    """Keeps how the commands ended, so that the folder can be compared again later."""
    stored = {name: asdict(result) for name, result in results.items()}
    (work / RESULTS).write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

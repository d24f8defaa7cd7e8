#!/usr/bin/env python3
"""Speed and memory, each beside a named reference that is measured in the same run.

    scripts/measure/benchmark.py [NAME ...]            print rows
    scripts/measure/benchmark.py --write [NAME ...]    put them into README.md and benchmark.json
    scripts/measure/benchmark.py --curves              draw how costs grow, curves.png
    scripts/measure/benchmark.py --quick               compare ratios with those of benchmark.json

Without names, all rows. Ways are run in turn, and the figures are medians. Where other programs take more than 15 % of
the processors, a row is measured again, and after the third time it is not written and not judged. `--quick` compares
processor times of one thread, and ends within three minutes: rows that it does not reach are left out.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks import alignment, commands, curves, language, pixels, refinement, towers
from benchmarks.measuring import (
    QUIET,
    Others,
    Setup,
    limits_of_machine,
    machine,
    one_thread,
    others_now,
)  # fmt: skip
from benchmarks.table import HEAD, Row, between, fallen, line, machine_of, markdown, ratios

HERE = Path(__file__).parent
README, JSON = HERE / "README.md", HERE / "benchmark.json"
TURNS = 3  # at most, of a row whose turns were disturbed
QUICK_SECONDS = 150  # after which `--quick` ends


@dataclass(frozen=True)
class Benchmark:
    """Some rows.

    Attributes:
        measure: makes them.
        is_quick: whether `--quick` compares them.
    """

    measure: Callable[[Setup], list[Row]]
    is_quick: bool = False


BENCHMARKS: dict[str, Benchmark] = {
    "startup": Benchmark(commands.startup, is_quick=True),
    "segment": Benchmark(commands.segment, is_quick=True),
    "mining": Benchmark(commands.mining),
    "regions": Benchmark(towers.regions, is_quick=True),
    "cutting": Benchmark(
        pixels.cutting
    ),  # the reference takes twice as long where the system gives no large pages
    "rle": Benchmark(pixels.run_lengths, is_quick=True),
    "windows": Benchmark(pixels.windows),
    "superpixels": Benchmark(pixels.superpixels, is_quick=True),
    "crf": Benchmark(refinement.crf, is_quick=True),
    "pamr": Benchmark(refinement.pamr, is_quick=True),
    "walk": Benchmark(refinement.walk),
    "confusion": Benchmark(pixels.confusion, is_quick=True),
    "evaluating": Benchmark(commands.evaluating),
    "gradcam": Benchmark(refinement.gradcam, is_quick=True),
    "nouns": Benchmark(language.nouns, is_quick=True),
    "align": Benchmark(alignment.speed, is_quick=True),
    "align-memory": Benchmark(alignment.memory),
    "text": Benchmark(language.embeddings, is_quick=True),
    "collage": Benchmark(commands.collage),
    "memory": Benchmark(commands.memory),
}


@dataclass(frozen=True)
class Measured:
    """Rows, and whether other programs disturbed all turns of them."""

    rows: list[Row]
    is_disturbed: bool


def measured(
    name: str,
    setup: Setup,
    is_good: Callable[[list[Row], bool], bool] = lambda rows, is_disturbed: not is_disturbed,
) -> Measured:
    """The rows of a benchmark, measured again where they are not good.

    Args:
        name: of the benchmark.
        setup: how to measure.
        is_good: what says so of rows, and of whether other programs disturbed them.
    """
    if setup.quick and torch.get_num_threads() > 1:
        with one_thread():
            return measured(name, setup, is_good)
    rows: list[Row] = []
    is_disturbed = False
    for _ in range(TURNS):
        others = Others()
        with tempfile.TemporaryDirectory() as scratch:
            own = Setup(Path(scratch), setup.quick, setup.limits)
            try:
                rows = BENCHMARKS[name].measure(own)
            except ImportError as error:
                say(f"{name} is left out: {error}")
                return Measured([], False)
        share = others.share()
        is_disturbed = share > QUIET
        if is_disturbed:
            say(f"{name}: other programs took {100 * share:.0f} % of the processors")
        if is_good(rows, is_disturbed):
            break
    return Measured(rows, is_disturbed)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, TimeoutError comes when so much time has passed."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def show(rows: Iterable[Row]) -> None:
    """Prints lines of the table."""
    for row in rows:
        print(line(row), flush=True)


def write(names: list[str], setup: Setup) -> int:
    """Measures rows, and puts those that nobody disturbed into the table and into JSON."""
    kept = json.loads(JSON.read_text()) if JSON.is_file() else {"rows": {}, "quick": {}}
    quick = Setup(setup.folder, True, setup.limits)
    left = []
    print(HEAD, end="")
    # the quick rows first, in a process as fresh as that of `--quick`: what a process keeps of freed memory
    # changes what the next program of it costs
    shorts = {name: measured(name, quick) for name in names if BENCHMARKS[name].is_quick}
    for name in names:
        whole = measured(name, setup)
        show(whole.rows)
        short = shorts.get(name, Measured([], False))
        if whole.is_disturbed or short.is_disturbed:
            left.append(name)
            continue
        kept["rows"][name] = [row.as_data() for row in whole.rows]
        kept["quick"] |= {row.key: float(f"{row.ratio:.3g}") for row in short.rows}
        kept["machine"], kept["load average"] = machine(), os.getloadavg()[0]
        kept["rows"] = {name: kept["rows"][name] for name in BENCHMARKS if name in kept["rows"]}
        JSON.write_text(json.dumps(kept, indent=1) + "\n")
        _into_readme(kept)
    if left:
        say(f"the machine was busy: {', '.join(left)} not written; measure again when it is idle")
    return int(bool(left))


def _into_readme(kept: dict[str, object]) -> None:
    """The table of the rows that are kept, between the markers of the README."""
    by_name: dict[str, list[dict[str, object]]] = kept["rows"]  # type: ignore[assignment]
    rows = [Row.of_data(entry) for entries in by_name.values() for entry in entries]
    README.write_text(between(README.read_text(), f"{kept['machine']}.\n\n{markdown(rows)}"))


def compare(names: list[str], setup: Setup) -> int:
    """Measures the quick rows, and compares them with those of the table, where that is of such a machine: 1
    where one fell by a third."""
    wanted = ratios(JSON) if JSON.is_file() else {}
    if wanted and (there := machine_of(JSON)) != machine().partition(";")[0]:
        say(f"nothing is judged: the table is of another machine, {there}")
        wanted = {}
    lower: list[Row] = []
    disturbed: list[Row] = []
    left = [name for name in names if BENCHMARKS[name].is_quick]
    print(HEAD, end="")
    try:
        with time_limit(QUICK_SECONDS):
            while left:
                done = measured(left[0], setup, lambda rows, _: not fallen(rows, wanted))
                show(done.rows)
                below = fallen(done.rows, wanted)
                (disturbed if done.is_disturbed else lower).extend(below)
                left.pop(0)
    except TimeoutError:
        say(f"left out, the time is up: {', '.join(left)}")
    for row in disturbed:
        say(
            f"not judged, the machine is busy: {row.what}: {row.ratio:.2f}, in the table {wanted[row.key]}"
        )
    for row in lower:
        say(
            f"fell by more than a third: {row.what}: {row.ratio:.2f}, in the table {wanted[row.key]}"
        )
    return int(bool(lower))


def main() -> int:
    """Runs the program, and returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--quick", action="store_true", help="compare with benchmark.json")
    does.add_argument("--write", action="store_true", help="write README.md and benchmark.json")
    does.add_argument("--curves", action="store_true", help="draw curves.png")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    names = args.names or list(BENCHMARKS)
    share = others_now()
    say(
        f"load average {os.getloadavg()[0]:.2f}, {100 * share:.0f} % of the processors taken by others"
    )
    if share > QUIET and (args.write or args.curves):
        say("the machine is busy: nothing is written; measure again when it is idle")
        return 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        setup = Setup(Path(scratch), args.quick, limits_of_machine())
        say(str(setup.limits))
        if args.curves:
            curves.draw(setup, HERE / "curves.png")
            status = 0
        elif args.quick:
            status = compare(names, setup)
        elif args.write:
            status = write(names, setup)
        else:
            print(HEAD, end="")
            for name in names:
                show(measured(name, setup).rows)
            status = 0
    say(f"{time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f}")
    return status


if __name__ == "__main__":
    sys.exit(main())

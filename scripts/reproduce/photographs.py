"""What the three scripts share with `--photos`: commands that a reader can paste, and claims with their intervals.

PHOTOS is a folder with `coco/images/{train,val}`, `coco/annotations/{semantic,instances,classes}_{train,val}.json` of
COCO's names, and `flickr/images` with `flickr/captions.json`. A command names files below PHOTOS, WORK and TWIN by
these variables; it runs in this process, and its answer is kept in WORK/answers by its text.

A claim is a difference with its 95 % interval (the bootstrap over photographs; both sides on the same ones). It
holds where the interval lies above 0, does not hold where it lies below, and is not shown where it holds 0.
"""

import argparse
import contextlib
import hashlib
import io
import json
import shlex
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRUTH = "$PHOTOS/coco/annotations/semantic_{0}.json"
IMAGES = "$PHOTOS/coco/images/{0}"
WORDS = "--classes-per-image $PHOTOS/coco/annotations/classes_{0}.json"
PROBED = f"--coco {TRUTH} --images {IMAGES} {WORDS}".format("val")
CAPTIONS = "--captions $PHOTOS/flickr/captions.json --images $PHOTOS/flickr/images"
NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Difference:
    """How much higher one figure is than another, with the ends of its interval, and the two; all fractions."""

    before: float
    after: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of the claim that `after` is higher."""
        if self.low > 0:
            return "holds"
        return "does not hold" if self.high < 0 else NOT_SHOWN

    def cells(self, factor: float = 100) -> str:
        """The two figures and the difference, per cent unless `factor` says otherwise, as cells of a table."""
        before, after, low, high = (
            factor * value for value in (self.before, self.after, self.low, self.high)
        )
        return f"{before:.1f} | {after:.1f} | {after - before:+.1f} [{low:.1f}, {high:.1f}]"


Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Claim:
    """A row of the table.

    Attributes:
        text: the claim.
        measure: what is compared, such as `mIoU, masked and unmasked crops`.
        data: what it is measured on, and the number of photographs.
        makes: the commands that make what is measured.
        lines: the commands that measure it.
        difference: of the answers of `lines`.
    """

    text: str
    measure: str
    data: str
    makes: Sequence[str]
    lines: Sequence[str]
    difference: Callable[[Answers], Difference]


@dataclass(frozen=True)
class Photographs:
    """The folders, the model, and the answers of commands that have run.

    Attributes:
        work: where everything that is made lies.
        photos: the photographs.
        twin: the weights of the model, a file or a bundled name.
        only_known: run nothing; what is not known raises `KeyError`.
    """

    work: Path
    photos: Path
    twin: str
    only_known: bool = False

    def answer(self, line: str) -> Any:
        """The JSON that a command prints with `--json`; each command runs once.

        Raises:
            KeyError: it has not run, and `only_known`.
        """
        kept = self.work / "answers" / f"{hashlib.sha256(line.encode()).hexdigest()[:16]}.json"
        if not kept.is_file():
            if self.only_known:
                raise KeyError(line)
            printed = self._run([*self._words(line), "--json"])
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(printed)
        return json.loads(kept.read_text())

    def make(self, *lines: str) -> None:
        """Runs commands that make a file, each unless it is there and as new as what it is made of (`--update`)."""
        for line in lines:
            words = self._words(line)
            out = Path(words[words.index("-o") + 1])
            if not self.only_known or not out.exists():
                self.answer(f"{line} --update")

    def _words(self, line: str) -> list[str]:
        places = {"PHOTOS": self.photos, "WORK": self.work, "TWIN": self.twin}
        return shlex.split(string.Template(line).substitute(places))

    def _run(self, words: Sequence[str]) -> str:
        """What a command prints; it runs in this process, which has loaded torch already."""
        from ovtool.cli import errors

        print("ovtool " + shlex.join(words), file=sys.stderr, flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = errors.run(words)
        if status:
            raise SystemExit(f"ovtool {words[0]} ended with status {status}")
        return printed.getvalue()


def between_rows(answer: Mapping[str, Any], name: str, measure: str) -> Difference:
    """A row of a probe's table against the first row; measure: of `probe oracle`, or a group of `alignment`."""
    first, *others = answer["rows"]
    (row,) = (row for row in others if row["name"] == name)
    ends = row["difference"][measure]
    before, after = (own.get(measure, own.get("accuracy")) for own in (first, row))
    if isinstance(before, dict):
        before, after = before[measure], after[measure]
    return Difference(before, after, ends["low"], ends["high"])


def reverse(difference: Difference) -> Difference:
    """The difference of the same two the other way round."""
    return Difference(difference.after, difference.before, -difference.high, -difference.low)


def between_files(answer: Mapping[str, Any]) -> Difference:
    """mIoU of two predictions, of an answer of `evaluate`."""
    ends = answer["difference"]["miou"]
    return Difference(answer["miou"], answer["other"]["miou"], ends["low"], ends["high"])


def table(bench: Photographs, claims: Sequence[Claim]) -> Iterator[str]:
    """The claims as Markdown: a table, and under it the commands by the number of their rows, each once."""
    yield "| | claim | measured | data, n | before | after | difference [95 %] | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    for number, claim in enumerate(claims, start=1):
        cells, verdict = "| | ", NOT_SHOWN
        try:
            bench.make(*claim.makes)
            difference = claim.difference([bench.answer(line) for line in claim.lines])
            cells, verdict = difference.cells(), difference.verdict
        except KeyError as line:  # with only_known
            print(f"not run: {line}", file=sys.stderr)
        yield f"| {number} | {claim.text} | {claim.measure} | {claim.data} | {cells} | {verdict} |"
    yield "\n```sh"
    seen = set[str]()
    for number, claim in enumerate(claims, start=1):
        yield f"# {number}"
        for line in (*claim.makes, *claim.lines):
            if line not in seen:
                yield f"ovtool {line}"
            seen.add(line)
    yield "```"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the three scripts that belong to photographs."""
    parser.add_argument("--photos", type=Path, help="the claims on these photographs instead")
    parser.add_argument("--twin", type=Path, help="the CLIP that saw no mask, a file")
    parser.add_argument("--known-photos", action="store_true", help="run no command again")


def print_table(
    args: argparse.Namespace,
    claims: Callable[[], Sequence[Claim]],
    more: Callable[[Photographs], Iterator[str]] = lambda bench: iter(()),
) -> bool:
    """Prints the claims on photographs, and the lines of `more`, where `--photos` is given; whether it is."""
    if args.photos is None:
        return False
    twin = "photo" if args.twin is None else str(args.twin.resolve())
    bench = Photographs(args.work.resolve(), args.photos.resolve(), twin, args.known_photos)
    for line in (*table(bench, claims()), *more(bench)):
        print(line, flush=True)
    return True

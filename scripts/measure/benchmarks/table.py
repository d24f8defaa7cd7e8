"""The rows of `benchmark.py`: as a table in Markdown, as JSON, and beside those of an earlier run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
LEAST = 2 / 3  # of the ratio of the table that a ratio may fall to
HEAD = (
    "| path | ours | reference | times as good | goal | limit | GPU |\n"
    "|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Row:
    """A line of the table: a cost, and that of the reference.

    Attributes:
        key: names the row in JSON.
        what: is measured.
        ours: our cost, in `unit`.
        reference: what is compared with.
        theirs: its cost, in `unit`.
        goal: the ratio that is wanted, None where the row only reports.
        limit: how far we are from what the machine can do; empty where it is not said.
        unit: of both costs, `s` or `GB`.
    """

    key: str
    what: str
    ours: float
    reference: str
    theirs: float
    goal: float | None = None
    limit: str = ""
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """How many times as good as the reference: its cost over ours."""
        return self.theirs / self.ours

    def cells(self) -> list[str]:
        """The cells of the line; the column of a GPU is empty where none was at hand."""
        goal = "" if self.goal is None else f"{self.goal:.3g}"
        ratio = f"{self.ratio:.3g}" if self.ratio < 100 else f"{self.ratio:.0f}"
        if self.goal is not None and self.ratio >= self.goal:
            ratio = f"**{ratio}**"
        theirs = f"{self.reference}: {amount(self.theirs, self.unit)}"
        return [self.what, amount(self.ours, self.unit), theirs, ratio, goal, self.limit, ""]

    def as_data(self) -> dict[str, Any]:
        """As JSON holds it."""
        numbers = {"ours": self.ours, "theirs": self.theirs, "ratio": self.ratio}
        rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
        return {
            "key": self.key, "what": self.what, "reference": self.reference, "unit": self.unit, **rounded,
            "goal": self.goal, "limit": self.limit,
        }  # fmt: skip

    @staticmethod
    def of_data(data: Mapping[str, Any]) -> "Row":
        """The row that `as_data` made data of."""
        return Row(**{name: value for name, value in data.items() if name != "ratio"})


def amount(value: float, unit: str) -> str:
    """A cost as people write it."""
    if unit == "GB":
        return f"{value:.2f} GB" if value >= 0.1 else f"{1000 * value:.1f} MB"
    for scale, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * scale >= 1:
            return f"{value * scale:.3g} {name}"
    return f"{value * 1e9:.0f} ns"


def line(row: Row) -> str:
    """A row in Markdown."""
    return f"| {' | '.join(row.cells())} |"


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    return HEAD + "".join(f"{line(row)}\n" for row in rows)


def between(text: str, table: str) -> str:
    """A document with the table in the place of what stands between the two markers.

    Raises:
        ValueError: the document does not have both.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{table}{END}", text)


def ratios(path: Path) -> dict[str, float]:
    """The ratios of a JSON file that `--quick` compares with, by key."""
    return {key: float(value) for key, value in json.loads(path.read_text())["quick"].items()}


def machine_of(path: Path) -> str:
    """The processor and the cores that a JSON file was measured on."""
    return str(json.loads(path.read_text())["machine"]).partition(";")[0]


def fallen(rows: Sequence[Row], wanted: Mapping[str, float]) -> list[Row]:
    """The rows whose ratio is below two thirds of what it was in the table."""
    return [row for row in rows if row.key in wanted and row.ratio < LEAST * wanted[row.key]]

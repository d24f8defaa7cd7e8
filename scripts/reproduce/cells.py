"""Figures that a script measures once: each by its name, in a file of the folder that the script works in."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Figures = dict[str, float]


@dataclass
class Cells:
    """The folder that everything lies in, and the figures that are known, kept in its cells.json."""

    work: Path
    only_known: bool = field(default=False, kw_only=True)
    cells: dict[str, Figures] = field(init=False)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.known = self.work / "cells.json"
        self.cells = json.loads(self.known.read_text()) if self.known.exists() else {}

    def cell(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """Figures by their name, measured where they are not known; none there with `only_known`."""
        if name not in self.cells and self.only_known:
            return {}
        if name not in self.cells:
            began = time.perf_counter()
            measured = measure()
            if self.known.exists():  # what another run with the same folder has measured
                self.cells |= json.loads(self.known.read_text())
            self.cells[name] = {**measured, "seconds": round(time.perf_counter() - began, 1)}
            self.known.write_text(json.dumps(self.cells, indent=1) + "\n")
            print(f"<!-- {name}: {json.dumps(self.cells[name])} -->", flush=True)
        return self.cells[name]


def mean_and_seeds(values: Sequence[float], factor: float = 100) -> str:
    """The mean, per cent unless `factor` says otherwise, and every seed where there are several."""
    mean = f"{factor * statistics.mean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({', '.join(f'{factor * value:.1f}' for value in values)})"


def with_interval(value: float, low: float, high: float) -> str:
    """A difference in per cent with its interval."""
    return f"{100 * value:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"

"""Curves and bars as PNG files: losses over steps, ROC curves, measures over layers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovtool.formats import atomic


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Draws named curves, each a pair (x, y) of equally long sequences, in one image of 960 x 600.

    The same curves give the same bytes with the same version of matplotlib. Raises InputError where
    the file cannot be written.
    """
    figure, axes = _figure()
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name, marker="o" if len(x) <= 20 else None, markersize=3)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    _save(path, figure)


def bars(
    path: Path, groups: Mapping[str, Mapping[str, float]], *, title: str, y_label: str
) -> None:
    """Draws groups of named bars, group to name to height, in one image of 960 x 600; a name has the
    same colour in every group. Raises InputError where the file cannot be written."""
    figure, axes = _figure()
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        found = [(x, group[name]) for x, group in enumerate(groups.values()) if name in group]
        left = [x - 0.4 + (place + 0.5) * width for x, _ in found]
        drawn = axes.bar(left, [height for _, height in found], width, label=name)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.set(title=title, ylabel=y_label)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    _save(path, figure)


def _figure() -> tuple[Any, Any]:
    """An empty image and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    return figure, figure.subplots()


def _save(path: Path, figure: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(Path(path), buffer.getvalue())


def losses(path: Path, curve: Sequence[Mapping[str, float]], title: str) -> None:
    """The loss curve of a training (`training.loop`): every measure of its records over the steps."""
    names = dict.fromkeys(name for record in curve for name in record if name != "step")
    curves = {}
    for name in names:
        found = [(record["step"], record[name]) for record in curve if name in record]
        curves[name] = ([step for step, _ in found], [value for _, value in found])
    lines(path, curves, title=title, x_label="step", y_label="loss")

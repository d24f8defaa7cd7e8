"""Curves as PNG files: losses over steps, ROC curves, measures over layers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovtool.formats import atomic


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Draws named curves, each a pair (x, y) of equally long sequences, in one picture of 960 x 600.

    The same curves give the same bytes with the same version of matplotlib. Raises InputError where
    the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name, marker="o" if len(x) <= 20 else None, markersize=3)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
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

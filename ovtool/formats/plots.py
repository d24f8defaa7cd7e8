"""Curves and bars as PNG files: losses over steps, ROC curves, measures over layers."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovtool.formats import atomic, images

_SHARES = frozenset({"accuracy", "recall", "iou", "miou", "precision", "share"})


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Draws named curves, each a pair (x, y) of equally long sequences, in one image of 960 x 600. An axis
    of whole numbers has whole marks.

    The same curves give the same bytes with the same version of matplotlib. Raises InputError where
    the file cannot be written.
    """
    figure, (axes,) = _figure()
    for name, (x, y) in curves.items():
        _draw(axes, name, x, y)
    _finish(axes, list(curves), y_label)
    axes.set(title=title, xlabel=x_label)
    _save(path, figure)


def bars(
    path: Path, groups: Mapping[str, Mapping[str, float]], *, title: str, y_label: str
) -> None:
    """Draws groups of named bars, group to name to height, in one image of 960 x 600; a name has the
    same colour in every group. Raises InputError where the file cannot be written."""
    figure, (axes,) = _figure()
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        points = [(x, group[name]) for x, group in enumerate(groups.values()) if name in group]
        left = [x - 0.4 + (place + 0.5) * width for x, _ in points]
        drawn = axes.bar(left, [height for _, height in points], width, label=name)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.set(title=title, ylabel=y_label)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    _save(path, figure)


def _figure(rows: int = 1) -> tuple[Any, Sequence[Any]]:
    """An empty image and its axes, one above the other, with one x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    return figure, list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])


def _draw(axes: Any, name: str, x: Sequence[float], y: Sequence[float]) -> None:
    """One curve, with a dot for each value if these are few."""
    axes.plot(x, y, label=name, marker="o" if len(x) <= 20 else None, markersize=3)


def _mark_whole_numbers(axes: Any) -> None:
    """Marks whole numbers alone on the x axis, if all values of all curves there are whole."""
    from matplotlib.ticker import MaxNLocator

    if all(float(x).is_integer() for line in axes.lines for x in line.get_xdata()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _finish(axes: Any, names: Sequence[str], y_label: str) -> None:
    """The grid, the label, and a legend of the curves; a single one is named beside the axis if the label
    does not say it already."""
    _mark_whole_numbers(axes)
    axes.grid(alpha=0.3)
    axes.set_ylabel(y_label)
    if len(names) > 1 or (names and names[0] != y_label):
        axes.legend()


def _save(path: Path, figure: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata=dict([images.RESULT]))
    atomic.write_bytes(Path(path), buffer.getvalue())


def losses(path: Path, curve: Sequence[Mapping[str, float]], title: str) -> None:
    """The curve of a training (`training.loop`) over its steps: losses above, and below them, on axes of
    their own from 0 to 1, accuracies and what else is a share (`is_share`). Raises InputError."""
    _save(path, loss_figure(curve, title))


def loss_figure(curve: Sequence[Mapping[str, float]], title: str) -> Any:
    """The matplotlib figure that `losses` writes."""
    names = list(dict.fromkeys(name for record in curve for name in record if name != "step"))
    shares = [name for name in names if is_share(name)]
    bounds = [name for name in names if name == "bound"]  # of train-pacl: the higher the better
    losses = [name for name in names if name not in (*shares, *bounds)]
    groups = {"loss": losses, "information at least (nats)": bounds, "share": shares}
    groups = {label: group for label, group in groups.items() if group} or {"loss": []}
    figure, rows = _figure(len(groups))
    for axes, (label, group) in zip(rows, groups.items(), strict=True):
        for name in group:
            points = [(record["step"], record[name]) for record in curve if name in record]
            _draw(axes, name, [step for step, _ in points], [value for _, value in points])
        _finish(axes, group, y_label=label)
        if label == "share":
            axes.set_ylim(0, 1)
    rows[0].set_title(title)
    rows[-1].set_xlabel("step")
    return figure


def is_share(name: str) -> bool:
    """Whether a measure of a training is a share of 1, the higher the better, by its name: an accuracy, a
    recall, a (mean) IoU."""
    return any(word in _SHARES for word in name.casefold().replace("-", "_").split("_"))

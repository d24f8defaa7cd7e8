"""`report`: one HTML file to look at what other commands made.

Regions and activation maps are drawn over their images, side by side, with the truth first where one is
given. Then each image has its IoU: the mean over the classes of the truth in that image, with the
rules of `stages.evaluate`. Images that the truth alone has are left out, and counted. Without a truth
the first two files of pixel classes are compared: the disagreement of an image is the share of pixels
on which they name different classes, or only one names any. An image that a file lacks has no measure of it, and
counts in none of its means; how many there are is said.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, labelled, lock, report_page
from ovtool.formats.file_matching import image_stem
from ovtool.formats.report_page import Content, Figure, Heat, Regions, Table
from ovtool.inputs import asked as requests
from ovtool.inputs import predictions, report_files
from ovtool.inputs.report_files import Layer, Opened
from ovtool.measures.measured import number
from ovtool.methods import metrics
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.report import Page
from ovtool.settings.shared import Run

_logger = logging.getLogger("ovtool")
MAX_BYTES = 60_000_000  # above it browsers take long to open a file


@dataclass(frozen=True)
class Written:
    """A report: its file, the bytes of it, the images in it, and those that could not be read."""

    out: Path
    size: int
    images: int
    failures: Sequence[Mapping[str, str]]


def run(
    files: Sequence[str | Path],
    page: Page = Page(),
    *,
    ground_truth: str | Path | None = None,
    images: Path | None = None,
    out: str | Path = "report.html",
    limit: int | None = None,
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Written:
    """Writes a report of files; see the head of this file.

    Args:
        files: COCO masks, folders of label maps or of parts, class activation maps; and, without images,
            trainings and the measures of `evaluate`, of which those of images are shown with the images. `-` is stdin.
        page: how it looks.
        ground_truth: what the files are measured by: COCO masks, label maps, or a data set.
        images: the folder that the names of the images start from. None: the data set's own, or the current folder.
        out: the file.
        limit: the number of images after which the report ends.
        run: `overwrite` replaces the file, `update` only where it is out of date; `dry_run` opens the files, and
            writes nothing.
        progress: opens a bar.

    Raises:
        UsageError: no file, or two are stdin.
        InputError: a file is broken or has nothing to see, an image is not there, or nothing could be read.
        OutputExistsError: the file to write exists.
        UpToDate: with `run.update` there is nothing to do.
    """
    sources = [str(file) for file in files]
    if not sources:
        raise UsageError("no files; give segments, proposals, pairs, maps or trainings")
    if sources.count("-") > 1:
        raise UsageError("only one of the files can be read from stdin")
    target = Path(out)
    if run.update and "-" in (*sources, str(out)):
        raise UsageError("--update compares the times of files; name one in place of -")
    atomic.check_output(target, run.replaces)
    asked = requests.of("report", page, limit, sources=(*sources, ground_truth), folder=images)
    requests.begin(asked, target, run)
    with lock.held(None if run.dry_run else target):
        truth = None if ground_truth is None else str(ground_truth)
        opened = report_files.opened(
            sources, None if truth is None else predictions.truth_file(truth, instances=False)
        )
        made, failures = report_page.Figures(), []
        comparison = _Comparison(opened.layers, truth is not None)
        if opened.layers:
            folder = images or (predictions.images_folder(truth) if truth else None) or Path()
            items = labelled.images_of(opened.layers[0].labels, folder)
            place = {word: k for k, word in enumerate(_words(opened))}
            matched = report_files.matched(opened.layers)
            if truth is not None and len(opened.layers) > 1:
                matched = _with_results(matched, truth)
            matched = matched[:limit]
            if run.dry_run:
                return Written(target, 0, len(matched), ())
            with progress(len(matched), "drawing") as advance:
                for name, own in matched:
                    try:
                        rgb = items[name].rgb()
                        measures = {
                            **comparison.of(own),
                            **opened.of_images.get(image_stem(name), {}),
                        }
                        figure = Figure(name, rgb, _layers(opened, own, place, rgb), measures)
                    except InputError as error:
                        failures.append({"file_name": name, "reason": str(error)})
                    else:
                        made.add(report_page.packed(figure, page.side))
                    advance()
            if not made:
                raise InputError(
                    f"not one image could be drawn; the first: {failures[0]['reason']}"
                )
            for line in comparison.notes():
                _logger.warning("%s", line)
        if run.dry_run:
            return Written(target, 0, 0, ())
        content = Content(
            page.title or ", ".join(opened.made_by),
            [layer.name for layer in opened.layers],
            _words(opened),
            [*comparison.tables(), *opened.tables],
            opened.curves,
            opened.made_by,
            asked.digest,
        )
        atomic.check_output(target, run.replaces)  # another run may have written it meanwhile
        size = report_page.write(target, content, made)
        if size > MAX_BYTES:
            _logger.warning(
                "%s has %d MB, which browsers open slowly; a smaller --side or a --limit makes it lighter",
                target,
                round(size / 1e6),
            )
        return Written(target, size, len(made), failures)


def _with_results(
    matched: Sequence[tuple[str, list[str | None]]], truth: str
) -> list[tuple[str, list[str | None]]]:
    """The images of the truth that another file holds too. One line says how many are left out."""
    drawn = [(name, own) for name, own in matched if any(other is not None for other in own[1:])]
    if len(drawn) < len(matched):
        _logger.warning(
            "%d of the %d images of %s are in no other file, and are left out",
            len(matched) - len(drawn), len(matched), truth,
        )  # fmt: skip
    return drawn


def _words(opened: Opened) -> list[str]:
    """The words of all layers, each once, in order."""
    return list(dict.fromkeys(word for layer in opened.layers for word in layer.words))


def _layers(
    opened: Opened, own: Sequence[str | None], place: Mapping[str, int], rgb: NDArray[np.uint8]
) -> list[Regions | Heat | None]:
    """What each file holds of an image. Raises InputError where its size is another."""
    made = [
        None if name is None else layer.of(name, place)
        for layer, name in zip(opened.layers, own, strict=True)
    ]
    for layer, part in zip(opened.layers, made, strict=True):
        if isinstance(part, Regions) and part.labels.shape != rgb.shape[:2]:
            (height, width), (h, w) = rgb.shape[:2], part.labels.shape
            raise InputError(
                f"{own[0]} has {width} x {height} pixels, but {w} x {h} in {layer.name}; give the images "
                "that it was made of"
            )
    return made


class _Comparison:
    """The layers of pixel classes measured by the truth, or, without one, the second by the first."""

    def __init__(self, layers: Sequence[Layer], has_truth: bool) -> None:
        self._layers, self._has_truth = layers, has_truth
        places = [k for k, layer in enumerate(layers) if layer.is_of_classes]
        self._reference = places[0] if places else 0
        compared = places[1:] if has_truth else places[1:2]
        self._classes = {
            k: Classes(layers[self._reference].labels, layers[k].labels, not has_truth, ())
            for k in compared
        }
        self._confusion: dict[int, NDArray[np.int64]] = {}
        self._disagreement = 0.0  # the sum over images
        self._images: Counter[int] = Counter()  # that are measured, of each layer
        self._lacking: Counter[int] = Counter()  # that are not, since one of the two lacks them

    def of(self, own: Sequence[str | None]) -> dict[str, float | None]:
        """The measures of an image, by its name in each layer; None of a layer that lacks it."""
        true_name = own[self._reference]
        if not self._classes or (self._has_truth and true_name is None):
            return {}
        true = None
        if true_name is not None:
            true = self._layers[self._reference].labels.decode(true_name)
        measures: dict[str, float | None] = {}
        for k, classes in self._classes.items():
            name, title = own[k], self._title(k)
            measures[title] = None
            if name is None or true is None or true_name is None:
                self._lacking[self._reference if true is None else k] += 1
                continue
            predicted = classes.prediction(self._layers[k].labels.decode(name), name)
            counted = classes.truth(true, true_name, None)
            confusion = metrics.confusion(predicted, counted, len(classes.names), UNLABELLED)
            self._confusion[k] = self._confusion.get(k, 0) + confusion
            self._images[k] += 1
            scores = metrics.scores(confusion)
            if self._has_truth:
                measures[title] = number(scores.miou_truth)
            else:
                measures[title] = 1 - scores.pixel_accuracy
                self._disagreement += 1 - scores.pixel_accuracy
        return measures

    def _title(self, k: int) -> str:
        """The measure of a layer."""
        if not self._has_truth:
            return "disagreement"
        return "IoU" + (f" of {self._layers[k].name}" if len(self._classes) > 1 else "")

    def notes(self) -> list[str]:
        """How many images a layer lacks, a line for each."""
        return [
            f"{self._layers[k].name} lacks {count} of the images that are drawn; they count in no "
            + ("measure of it" if self._has_truth else "disagreement")
            for k, count in self._lacking.items()
        ]

    def tables(self) -> list[Table]:
        """The classes of each layer over all images, where there is a truth; else the mean disagreement."""
        if not self._has_truth:
            return [self._disagreements(k) for k in self._confusion]
        return [
            Table(
                f"Classes of {self._layers[k].name}, over the images of this page"
                + (f" without the {self._lacking[k]} that it lacks" if self._lacking[k] else ""),
                ("class", "IoU %", "accuracy %"),
                _rows(self._classes[k].names, confusion),
            )
            for k, confusion in self._confusion.items()
        ]

    def _disagreements(self, k: int) -> Table:
        names = self._layers[self._reference].name, self._layers[k].name
        rows: list[tuple[str, float | str]] = [
            (
                f"mean over the {self._images[k]} images that both hold",
                self._disagreement / self._images[k],
            )
        ]
        rows += [
            (f"images that {self._layers[place].name} lacks, left out", str(count))
            for place, count in self._lacking.items()
        ]
        return Table(
            f"Disagreement of {names[0]} and {names[1]}", ("images", "disagreement %"), rows
        )


def _rows(
    names: Sequence[str], confusion: NDArray[np.int64]
) -> list[tuple[str, float | None, float | None]]:
    """Each class that the truth holds: its name, IoU and accuracy; and their means."""
    scores = metrics.scores(confusion)
    held = np.flatnonzero(confusion.sum(axis=1)).tolist()
    rows = [(names[k], number(scores.iou[k]), number(scores.accuracy[k])) for k in held]
    return [
        ("mean", number(scores.miou_truth), number(scores.mean_accuracy)),
        *rows,
    ]

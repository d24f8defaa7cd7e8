"""`evaluate`: a prediction measured by a ground truth.

For recall of masks see `methods.recall`. For mIoU this is counted, in this order:

1. Images are matched by file name; where one side is a folder of label maps, by the name without
   its ending. If not one name agrees, a name that ends the other's path counts (`a.jpg` for
   `images/test/a.jpg`), if that is unambiguous. Images that only the prediction has are left out.
2. Classes are matched by name, then by synonym, whatever the ids, case and spaces. Predicted names
   that the truth does not know stay, as errors.
3. Where masks overlap, the higher score lies on top (`formats.labelled` has the whole rule).
4. Pixels that the truth leaves unlabelled, or labels with one of `ignore_label`, are not counted.
   With `with_background` unlabelled pixels are the class `background` in truth and prediction.
5. With `classes_per_image`, pixels whose true class is not among the words listed for their image
   are not counted there: nobody could have found it. The prediction is taken as it is.
6. All else goes into one confusion matrix over all images (`methods.metrics`). Pixels without a
   prediction are misses of their true class.

Intervals are of the bootstrap over images (`methods.bootstrap`). Two predictions of one truth are compared
on the same images and the same samples.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ovtool
from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, file_matching
from ovtool.inputs import asked as requests
from ovtool.inputs import predictions
from ovtool.inputs.predictions import LabelledPair
from ovtool.methods import bootstrap, metrics, recall
from ovtool.methods.bootstrap import ImageCounts, Measure
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.evaluate import MeanIou, Recall
from ovtool.settings.option import name_of
from ovtool.settings.shared import Run, Source

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Measured:
    """One prediction.

    result: what JSON holds of it, without intervals.
    measure: the measures that get intervals, as the bootstrap takes them.
    images: the true names of the images that count, in the order of `measure`.
    """

    result: dict[str, Any]
    measure: Measure
    images: tuple[str, ...]


def run(
    prediction: str | Path,
    ground_truth: str | Path | None = None,
    metric: MeanIou | Recall = MeanIou(),
    *,
    other: str | Path | None = None,
    out: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures a prediction, or two; see the head of this file for what is counted.

    Args:
        prediction: a COCO JSON (or a bare results list, whose ids are those of the truth), a folder of
            parts, or a folder of label maps. `-` is stdin.
        ground_truth: the same, without bare lists; or a data set, `NAME[:SPLIT]` or a folder of
            `data make`, with one split, whose masks are taken. None where `source` names a COCO JSON.
        metric: what is measured.
        other: a second prediction of the same truth, to be compared with the first.
        out: a file to write the result to, as JSON; it is only returned for None and `-`.
        source: the truth as the probes take it, a COCO JSON; the folder of its images is not read.
        run: `overwrite` replaces that file, `update` only where it is out of date; `dry_run` opens the files,
            and returns `images`, how many would be measured.
        progress: opens a bar.

    Returns:
        The result as JSON holds it, all measures as fractions in [0, 1], None where there is nothing to
        divide by. For `Recall` the measures of `methods.recall`. For `MeanIou`: `miou`, over the classes
        that the truth holds, `miou_union`, over those that truth or prediction holds (where a class that is
        predicted and nowhere true counts as 0), `pixel_accuracy`, `mean_accuracy`,
        `frequency_weighted_iou`, `pixels` and `pixels_not_counted`, and `classes` (those that truth or
        prediction holds, each with `name`, `iou`, `accuracy`, `truth_pixels`, `predicted_pixels`,
        `hits`). For both counts; `intervals`, name to `low` and `high`, of `miou` and `miou_union` or of
        `average_recall`; and in `ovtool` what made it. With `other` the same of it in `other`, and in
        `difference` how much higher the other is: name to `value`, `low` and `high`.

    Raises:
        UsageError: no truth or two, a label to ignore that the truth does not hold, two files that are stdin,
            or an update of what is no file.
        MismatchError: classes match two of the truth's.
        InputError: files are broken, images are missing or differ in size, nothing is counted, or the two
            predictions are of other images.
        OutputExistsError: the file to write exists.
        UpToDate: with `run.update` there is nothing to do.
    """
    named = _truth_given(ground_truth, source)
    files = [str(file) for file in (prediction, other, named) if file is not None]
    if files.count("-") > 1:
        raise UsageError("only one of the files can be read from stdin")
    target = None if out is None or str(out) == "-" else Path(out)
    if run.update and (target is None or "-" in files):
        raise UsageError("--update compares the times of files; name files, and one with -o")
    if target is not None:
        atomic.check_output(target, run.replaces)
        asked = requests.of("evaluate", metric, sources=files, folder=source.images)
        requests.begin(asked, target, run)
    truth = predictions.truth_file(files[-1], isinstance(metric, Recall))
    if run.dry_run:
        images = [_planned(file, truth, metric) for file in files[:-1]]
        return {
            "metric": name_of(type(metric)),
            "images": images[0],
            "output": out,
            "dry_run": True,
        }
    measured = [_measured(file, truth, metric, progress) for file in files[:-1]]
    first, last = measured[0], measured[-1]
    results = [
        {**side.result, **_intervals("intervals", side.measure, side, metric.bootstrap)}
        for side in measured
    ]
    result = {"metric": name_of(type(metric)), **results[0]}
    if other is not None:
        if first.images != last.images:
            raise InputError(
                f"{files[0]} and {files[1]} are predictions of other images of {truth}; predict the "
                "same ones, or give --missing empty to count those that lack as wrong"
            )
        between = bootstrap.difference(first.measure, last.measure)
        result["other"] = results[1]
        result |= _intervals("difference", between, first, metric.bootstrap)
    result["ovtool"] = _provenance(files, metric)
    if target is not None:
        result["ovtool"]["asked"] = asked.digest
        atomic.write_text(target, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _truth_given(ground_truth: str | Path | None, source: Source) -> str:
    """The truth, which is named in one of two ways. Raises UsageError, InputError."""
    if (ground_truth is None) == (source.coco is None):
        raise UsageError("give the truth as --ground-truth GT, or as --coco FILE --images DIR")
    if source.images is not None:
        if source.coco is None:
            raise UsageError("--images is the folder of --coco FILE; leave it out")
        file_matching.folder_of(source.images, source.coco)
    return str(source.coco or ground_truth)


def _planned(prediction: str, ground_truth: str, metric: MeanIou | Recall) -> int:
    """How many images would be measured. Raises as the measuring does for files that do not go together."""
    if isinstance(metric, Recall):
        return len(predictions.open_masks(prediction, ground_truth, metric.missing).truth)
    pair = predictions.open_labelled(prediction, ground_truth, metric.missing)
    _classes(pair, metric)
    return len(pair.names) + len(pair.empty)


def _classes(pair: LabelledPair, metric: MeanIou) -> Classes:
    classes = Classes(pair.truth, pair.predicted, metric.with_background, metric.ignore_label)
    classes.check_in_common()
    return classes


def _measured(
    prediction: str, ground_truth: str, metric: MeanIou | Recall, progress: Progress
) -> Measured:
    if isinstance(metric, Recall):
        return _recall(prediction, ground_truth, metric, progress)
    return _mean_iou(prediction, ground_truth, metric, progress)


def _intervals(key: str, measure: Measure, measured: Measured, samples: int) -> dict[str, Any]:
    """The intervals under a key, or nothing without samples; those of a difference have its value too."""
    if not samples:
        return {}
    intervals = bootstrap.intervals(measure, len(measured.images), samples)
    with_value = key != "intervals"
    return {key: {name: i.as_data(with_value=with_value) for name, i in intervals.items()}}


def _mean_iou(prediction: str, ground_truth: str, metric: MeanIou, progress: Progress) -> Measured:
    """The measures of label maps."""
    pair = predictions.open_labelled(prediction, ground_truth, metric.missing)
    lists = metric.classes_per_image
    words = None if lists is None else pair.words(lists)
    classes = _classes(pair, metric)
    images = sorted([*pair.names.values(), *pair.empty])
    with progress(len(images), "evaluating") as advance:
        counted = _count(pair, classes, words, advance)
    for line in classes.notes():
        _logger.warning("%s", line)
    if not counted.confusion.any():
        raise InputError(f"{ground_truth}: not one of its pixels is counted; nothing to measure")
    rows = np.stack([counted.of_image[name] for name in images])  # (N, 3, K)
    result = {
        **_measures(counted.confusion, classes.names),
        "pixels_not_counted": counted.left_out,
        "images": len(images),
        "images_missing": len(pair.absent),
        "images_without_truth": len(pair.predicted.names) - len(pair.names),
    }
    counts = ImageCounts(rows[:, 0], rows[:, 1], rows[:, 2])
    return Measured(result, bootstrap.mean_ious(counts), tuple(images))


@dataclass
class _Counts:
    """All images: their summed confusion matrix int64 (K, K + 1), what the bootstrap keeps of each (3, K),
    by its true name, and how many pixels were not counted."""

    confusion: NDArray[np.int64]
    of_image: dict[str, NDArray[np.int64]]
    left_out: int = 0


def _count(
    pair: LabelledPair,
    classes: Classes,
    words: Mapping[str, Sequence[str]] | None,
    advance: Callable[..., None],
) -> _Counts:
    """The counts of all images; those of `empty` count as unlabelled."""
    truth, num_classes = pair.truth, len(classes.names)
    counts = _Counts(np.zeros((num_classes, num_classes + 1), np.int64), {})

    def add(name: str, labels: NDArray[np.int32] | None) -> None:
        true = truth.decode(name)
        if labels is None:
            labels = np.full_like(true, UNLABELLED)
        if labels.shape != true.shape:
            sizes = " and ".join(f"{w} x {h}" for h, w in (labels.shape, true.shape))
            raise InputError(
                f"{name}: prediction and truth differ in size ({sizes} pixels); "
                f"predict on images of the size that {truth.source} has"
            )
        counted = classes.truth(true, name, None if words is None else words[name])
        predicted = classes.prediction(labels, name)
        confusion = metrics.confusion(predicted, counted, num_classes, UNLABELLED)
        counts.confusion += confusion
        counts.of_image[name] = bootstrap.image_counts(confusion)
        counts.left_out += int((counted == UNLABELLED).sum())
        advance()

    for predicted_name, name in pair.names.items():
        add(name, pair.predicted.decode(predicted_name))
    for name in pair.empty:
        add(name, None)
    return counts


def _number(value: float) -> float | None:
    """As JSON can hold it: None for NaN."""
    return None if value != value else float(value)


def _measures(confusion: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """All measures; classes that are nowhere are left out."""
    scores = metrics.scores(confusion)
    hits = confusion.diagonal().tolist()
    true = confusion.sum(axis=1).tolist()
    predicted = confusion[:, : len(names)].sum(axis=0).tolist()
    return {
        "miou": _number(scores.miou_truth),
        "miou_union": _number(scores.miou_union),
        "pixel_accuracy": _number(scores.pixel_accuracy),
        "mean_accuracy": _number(scores.mean_accuracy),
        "frequency_weighted_iou": _number(scores.frequency_weighted_iou),
        "classes": [
            {
                "name": name,
                "iou": _number(scores.iou[k]),
                "accuracy": _number(scores.accuracy[k]),
                "truth_pixels": true[k],
                "predicted_pixels": predicted[k],
                "hits": hits[k],
            }
            for k, name in enumerate(names)
            if true[k] or predicted[k]
        ],
        "classes_in_truth": sum(t > 0 for t in true),
        "classes_in_neither": sum(not (t or p) for t, p in zip(true, predicted, strict=True)),
        "pixels": sum(true),
    }


def _recall(prediction: str, ground_truth: str, metric: Recall, progress: Progress) -> Measured:
    """The measures of proposals."""
    pair = predictions.open_masks(prediction, ground_truth, metric.missing)
    masks = sum(not mask.extra.get("iscrowd") for own in pair.truth.values() for mask in own)
    if not masks:
        raise InputError(f"{ground_truth}: no mask to find in the images that count")
    with progress(None, "measuring recall"):
        recalled = recall.measure(pair.truth, pair.proposed)
    proposals = sum(len(pair.proposed.get(name, ())) for name in pair.truth)
    result = {
        **recalled.measures,
        "truth_masks": masks,
        "proposals": proposals,
        "proposals_per_image": proposals / len(pair.truth),
        "images": len(pair.truth),
        "images_missing": pair.absent,
        "images_without_truth": pair.extra,
    }
    measure = bootstrap.ratio("average_recall", recalled.hits, recalled.masks)
    return Measured(result, measure, tuple(pair.truth))


def _provenance(files: Sequence[str], metric: MeanIou | Recall) -> dict[str, Any]:
    """What made the result; files by their names, without their folders."""
    lists = getattr(metric, "classes_per_image", None)
    settings = layers.as_data(metric, {} if lists is None else {"classes_per_image": lists.name})
    settings["metric"] = name_of(type(metric))
    del settings["class"]
    roles = (
        ("prediction", "ground_truth")
        if len(files) == 2
        else ("prediction", "other", "ground_truth")
    )
    return {
        "version": ovtool.__version__,
        "command": "evaluate",
        "settings": {**dict(zip(roles, map(_file_name, files), strict=True)), **settings},
    }


def _file_name(source: str) -> str:
    return source if source == "-" else Path(source).resolve().name

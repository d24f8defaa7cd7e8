"""`evaluate`: a prediction measured by a ground truth.

For recall of masks see `methods.recall`. For mIoU this is counted, in this order:

1. Images are matched by file name; where one side is a folder of label maps, by the name without
   its ending. If not one name agrees, a name that ends the other's path counts (`a.jpg` for
   `images/test/a.jpg`), if that is unambiguous. Images that only the prediction has are left out.
2. Classes are matched by name, then by synonym, whatever the ids, case and spaces. Predicted names
   that the truth does not know stay, as errors.
3. Where masks overlap, the later annotation of the file lies on top.
4. Pixels that the truth leaves unlabelled, or labels with one of `ignore_label`, are not counted.
   With `with_background` unlabelled pixels are the class `background` in truth and prediction.
5. With `classes_per_image`, pixels whose true class is not among the words listed for their image
   are not counted there: nobody could have found it. The prediction is taken as it is.
6. All else goes into one confusion matrix over all images (`methods.metrics`). Pixels without a
   prediction are misses of their true class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ovtool
from ovtool.datasets.matching import UNLABELLED, Classes
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic
from ovtool.inputs import predictions
from ovtool.inputs.predictions import LabelledPair
from ovtool.methods import metrics, recall
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.evaluate import MeanIou, Recall
from ovtool.settings.option import name_of
from ovtool.settings.shared import Run


def run(
    prediction: str | Path,
    ground_truth: str | Path,
    metric: MeanIou | Recall = MeanIou(),
    *,
    out: str | Path | None = None,
    run: Run = Run(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures a prediction; see the head of this file for what is counted.

    Args:
        prediction: a COCO JSON (or a bare results list, whose ids are those of the truth), a folder of
            parts, or a folder of label maps. `-` is stdin.
        ground_truth: the same, without bare lists.
        metric: what is measured.
        out: a file to write the result to, as JSON; it is only returned for None and `-`.
        run: `overwrite` replaces that file.
        progress: opens a bar.

    Returns:
        The result as JSON holds it, all measures as fractions in [0, 1], None where there is nothing to
        divide by. For `Recall` what `methods.recall.measure` gives. For `MeanIou`: `miou`,
        `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iou`, and `classes` (those that truth or
        prediction holds, each with `name`, `iou`, `accuracy`, `truth_pixels`, `predicted_pixels`,
        `hits`). For both counts, and in `ovtool` what made it.

    Raises:
        UsageError: a label to ignore that the truth does not hold, or both files are stdin.
        MismatchError: classes match two of the truth's.
        InputError: files are broken, images are missing or differ in size, or nothing is counted.
        OutputExistsError: the file to write exists.
    """
    predicted, truth = str(prediction), str(ground_truth)
    if predicted == truth == "-":
        raise UsageError("prediction and ground truth cannot both be read from stdin")
    target = None if out is None or str(out) == "-" else Path(out)
    if target is not None:
        atomic.check_output(target, run.overwrite)
    if isinstance(metric, Recall):
        measured = _recall(predicted, truth, metric, progress)
    else:
        measured = _mean_iou(predicted, truth, metric, progress)
    result = {
        "metric": name_of(type(metric)),
        **measured,
        "ovtool": _provenance(predicted, truth, metric),
    }
    if target is not None:
        atomic.write_text(target, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _mean_iou(
    prediction: str, ground_truth: str, metric: MeanIou, progress: Progress
) -> dict[str, Any]:
    """The measures of label maps."""
    pair = predictions.open_labelled(prediction, ground_truth, metric.missing)
    lists = metric.classes_per_image
    words = None if lists is None else pair.words(lists)
    classes = Classes(pair.truth, pair.predicted, metric.with_background, metric.ignore_label)
    images = len(pair.names) + len(pair.empty)
    with progress(images, "evaluating") as advance:
        confusion = _count(pair, classes, words, advance)
    if not confusion.any():
        raise InputError(f"{ground_truth}: not one of its pixels is counted; nothing to measure")
    return {
        **_measures(confusion, classes.names),
        "images": images,
        "images_missing": len(pair.absent),
        "images_without_truth": len(pair.predicted.names) - len(pair.names),
    }


def _count(
    pair: LabelledPair,
    classes: Classes,
    words: Mapping[str, Sequence[str]] | None,
    advance: Callable[..., None],
) -> torch.Tensor:
    """The confusion matrix int64 (K, K + 1) of all images; those of `empty` count as unlabelled."""
    truth, num_classes = pair.truth, len(classes.names)
    total = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)

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
        j, i = torch.from_numpy(classes.prediction(labels, name)), torch.from_numpy(counted)
        total.add_(metrics.confusion(j, i, num_classes, UNLABELLED))
        advance()

    for predicted_name, name in pair.names.items():
        add(name, pair.predicted.decode(predicted_name))
    for name in pair.empty:
        add(name, None)
    return total


def _measures(confusion: torch.Tensor, names: Sequence[str]) -> dict[str, Any]:
    """All measures as JSON can hold them: None for NaN, classes that are nowhere left out."""

    def number(value: float) -> float | None:
        return None if value != value else float(value)

    found = metrics.scores(confusion)
    hits = confusion.diagonal().tolist()
    true = confusion.sum(dim=1).tolist()
    predicted = confusion[:, : len(names)].sum(dim=0).tolist()
    return {
        "miou": number(found.miou),
        "pixel_accuracy": number(found.pixel_accuracy),
        "mean_accuracy": number(found.mean_accuracy),
        "frequency_weighted_iou": number(found.frequency_weighted_iou),
        "classes": [
            {
                "name": name,
                "iou": number(float(found.iou[k])),
                "accuracy": number(float(found.accuracy[k])),
                "truth_pixels": true[k],
                "predicted_pixels": predicted[k],
                "hits": hits[k],
            }
            for k, name in enumerate(names)
            if true[k] or predicted[k]
        ],
        "classes_in_neither": sum(not (t or p) for t, p in zip(true, predicted, strict=True)),
        "pixels": sum(true),
    }


def _recall(
    prediction: str, ground_truth: str, metric: Recall, progress: Progress
) -> dict[str, Any]:
    """The measures of proposals."""
    pair = predictions.open_masks(prediction, ground_truth, metric.missing)
    masks = sum(not mask.extra.get("iscrowd") for own in pair.truth.values() for mask in own)
    if not masks:
        raise InputError(f"{ground_truth}: no mask to find in the images that count")
    with progress(None, "measuring recall"):
        measured = recall.measure(pair.truth, pair.proposed)
    counted = sum(len(pair.proposed.get(name, ())) for name in pair.truth)
    return {
        **measured,
        "truth_masks": masks,
        "proposals": counted,
        "proposals_per_image": counted / len(pair.truth),
        "images": len(pair.truth),
        "images_missing": pair.absent,
        "images_without_truth": pair.extra,
    }


def _provenance(prediction: str, ground_truth: str, metric: MeanIou | Recall) -> dict[str, Any]:
    """What made the result; files by their names, without their folders."""
    lists = getattr(metric, "classes_per_image", None)
    settings = layers.as_data(metric, {} if lists is None else {"classes_per_image": lists.name})
    settings["metric"] = name_of(type(metric))
    del settings["class"]
    files = {"prediction": _file_name(prediction), "ground_truth": _file_name(ground_truth)}
    return {
        "version": ovtool.__version__,
        "command": "evaluate",
        "settings": {**files, **settings},
    }


def _file_name(source: str) -> str:
    return source if source == "-" else Path(source).resolve().name

"""`evaluate`: predicted label maps against true ones (recall of masks: `methods.recall`).

What is counted, in this order:

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

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ovtool
from ovtool.datasets.matching import UNLABELLED, Classes, image_stem, match_images
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, labelled
from ovtool.formats.labelled import LabelledImages
from ovtool.methods import metrics, recall
from ovtool.runtime.progress import Progress, no_progress

METRICS = ("miou", "recall")


def run(
    prediction: str,
    ground_truth: str,
    *,
    metric: str = "miou",
    with_background: bool = False,
    ignore_label: Sequence[str] = (),
    classes_per_image: Path | None = None,
    missing: str = "refuse",
    out: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures a prediction; see the head of this file for what is counted.

    Args:
        prediction, ground_truth: a COCO JSON (for the prediction also a bare results list, whose
            ids are those of the truth), a folder of parts, or a folder of label maps. `-` is stdin.
        metric: one of METRICS.
        ignore_label: names of true classes, or values of the true label maps, not to be counted.
        classes_per_image: a JSON file, file name to list of words.
        missing: what to do with images of the truth that the prediction lacks: `refuse`, count them
            as `empty`, or `skip` them.
        out: a file to write the result to, as JSON.

    Returns:
        For `recall` see `methods.recall.measure`. Else the result as JSON holds it, all measures as fractions in [0, 1]: `miou`, `pixel_accuracy`,
        `mean_accuracy`, `frequency_weighted_iou`, `classes` (those that truth or prediction holds,
        each with `name`, `iou`, `accuracy`, `truth_pixels`, `predicted_pixels`, `hits`), counts,
        and in `ovtool` what made it. None stands where there is nothing to divide by.

    Raises:
        UsageError: an unknown metric, or an `ignore_label` that the truth does not hold.
        MismatchError: classes that match two of the truth's.
        InputError: files that are broken, images that are missing or differ in size, and a truth of
            which no pixel is counted.
    """
    if metric not in METRICS:
        raise UsageError(f"unknown metric '{metric}'; choose from {', '.join(METRICS)}")
    if metric == "recall":
        if with_background or ignore_label or classes_per_image is not None:
            raise UsageError(
                "--metric recall knows no classes: leave out --with-background, --ignore-label and "
                "--classes-per-image"
            )
        return _recall(
            prediction,
            ground_truth,
            missing=missing,
            out=out,
            overwrite=overwrite,
            progress=progress,
        )
    if prediction == ground_truth == "-":
        raise UsageError("prediction and ground truth cannot both be read from stdin")
    if out is not None:
        atomic.check_output(out, overwrite)
    settings = {
        "prediction": prediction,
        "ground_truth": ground_truth,
        "metric": metric,
        "with_background": with_background,
        "ignore_label": list(ignore_label),
        "classes_per_image": None if classes_per_image is None else str(classes_per_image),
        "missing": missing,
    }
    truth = labelled.open_source(ground_truth)
    predicted = labelled.open_source(prediction, truth)
    pairs = match_images(truth, predicted)  # predicted name -> true name
    absent = _absent(truth, predicted, set(pairs.values()), missing)
    empty = absent if missing == "empty" else []
    words = None if classes_per_image is None else _words(classes_per_image, pairs, empty)
    classes = Classes(truth, predicted, with_background, ignore_label)
    with progress(len(pairs) + len(empty), "evaluating") as advance:
        confusion = _count(truth, predicted, pairs, empty, classes, words, advance)
    if not confusion.any():
        raise InputError(f"{ground_truth}: not one of its pixels is counted; nothing to measure")
    result = {
        "metric": metric,
        **_measures(confusion, classes.names),
        "images": len(pairs) + len(empty),
        "images_missing": len(absent),
        "images_without_truth": len(predicted.names) - len(pairs),
        "ovtool": {"version": ovtool.__version__, "command": "evaluate", "settings": settings},
    }
    if out is not None:
        atomic.write_text(out, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _count(
    truth: LabelledImages,
    predicted: LabelledImages,
    pairs: Mapping[str, str],
    empty: Sequence[str],
    classes: Classes,
    words: Mapping[str, Sequence[str]] | None,
    advance: Callable[..., None],
) -> torch.Tensor:
    """The confusion matrix (K, K + 1) of all images; those of `empty` count as unlabelled."""
    num_classes = len(classes.names)
    total = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)

    def add(name: str, found: NDArray[np.int32] | None) -> None:
        true = truth.decode(name)
        if found is None:
            found = np.full_like(true, UNLABELLED)
        if found.shape != true.shape:
            sizes = " and ".join(f"{w} x {h}" for h, w in (found.shape, true.shape))
            raise InputError(
                f"{name}: prediction and truth differ in size ({sizes} pixels); "
                f"predict on pictures of the size that {truth.source} has"
            )
        counted = classes.truth(true, name, None if words is None else words[name])
        j, i = torch.from_numpy(classes.prediction(found, name)), torch.from_numpy(counted)
        total.add_(metrics.confusion(j, i, num_classes, UNLABELLED))
        advance()

    for found_name, name in pairs.items():
        add(name, predicted.decode(found_name))
    for name in empty:
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


def _absent(
    truth: LabelledImages, predicted: LabelledImages, present: set[str], missing: str
) -> list[str]:
    """The true images with no prediction. Raises InputError unless `missing` allows them."""
    absent = [name for name in truth.names if name not in present]
    if absent and missing == "refuse":
        raise InputError(
            f"{predicted.source} lacks {len(absent)} of the {len(truth.names)} images of "
            f"{truth.source} (the first is '{absent[0]}'); predict them, or give --missing empty "
            "to count them as wrong or --missing skip to leave them out"
        )
    return absent


def _words(path: Path, pairs: Mapping[str, str], empty: Sequence[str]) -> dict[str, list[str]]:
    """True image name to the words (and their synonyms) that its prediction could choose from.

    Raises:
        InputError: no JSON object of lists of words, or images of which it says nothing.
    """
    table = labelled.read_classes_per_image(path)
    by_stem = {image_stem(name): words for name, words in table.items()}
    known: dict[str, list[str]] = {}
    unknown: list[str] = []
    for predicted, name in [*pairs.items(), *zip(empty, empty, strict=True)]:
        keys = (name, predicted)
        words = next((table[key] for key in keys if key in table), by_stem.get(image_stem(name)))
        if words is None:
            unknown.append(name)
        else:
            known[name] = [synonym for word in words for synonym in word.split("|")]
    if unknown:
        raise InputError(
            f"{path} has no words for {len(unknown)} images (the first is '{unknown[0]}'); "
            "list words for every image"
        )
    return known


def _recall(
    prediction: str,
    ground_truth: str,
    *,
    missing: str = "refuse",
    out: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures the proposals of one COCO JSON (or folder of parts) by the masks of another; returns what
    `methods.recall.measure` gives, with counts, as JSON holds it.

    Raises UsageError, InputError: files that are broken, images that are missing or differ in size,
    a truth without masks.
    """
    if prediction == ground_truth == "-":
        raise UsageError("prediction and ground truth cannot both be read from stdin")
    if out is not None:
        atomic.check_output(out, overwrite)
    truth = coco.read(ground_truth)
    found = coco.read(prediction, truth=truth)
    sizes = {image.file_name: (image.width, image.height) for image in found.images}
    absent = [image.file_name for image in truth.images if image.file_name not in sizes]
    if absent and missing == "refuse":
        raise InputError(
            f"{prediction} lacks {len(absent)} of the {len(truth.images)} images of {ground_truth} "
            f"(the first is '{absent[0]}'); propose for them, or give --missing empty to count them "
            "as not found or --missing skip to leave them out"
        )
    for image in truth.images:
        width, height = sizes.get(image.file_name, (image.width, image.height))
        if (width, height) != (image.width, image.height):
            raise InputError(
                f"{image.file_name}: prediction and truth differ in size ({width} x {height} and "
                f"{image.width} x {image.height} pixels); propose on pictures of the truth's size"
            )
    true, proposed = _by_image(truth), _by_image(found)
    if missing == "skip":
        true = {name: masks for name, masks in true.items() if name in proposed}
    masks = sum(not mask.extra.get("iscrowd") for each in true.values() for mask in each)
    if not masks:
        raise InputError(f"{ground_truth}: no mask to find in the images that count")
    with progress(None, "measuring recall"):
        measured = recall.measure(true, proposed)
    counted = sum(len(proposed.get(name, ())) for name in true)
    result = {
        "metric": "recall",
        **measured,
        "truth_masks": masks,
        "proposals": counted,
        "proposals_per_image": counted / len(true),
        "images": len(true),
        "images_missing": len(absent),
        "images_without_truth": len(set(proposed) - {image.file_name for image in truth.images}),
        "ovtool": {
            "version": ovtool.__version__,
            "command": "evaluate",
            "settings": {
                "prediction": prediction,
                "ground_truth": ground_truth,
                "metric": "recall",
                "missing": missing,
            },
        },
    }
    if out is not None:
        atomic.write_text(out, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return result


def _by_image(dataset: coco.Dataset) -> dict[str, list[coco.Annotation]]:
    names = {image.id: image.file_name for image in dataset.images}
    found: dict[str, list[coco.Annotation]] = {name: [] for name in names.values()}
    for annotation in dataset.annotations:
        found[names[annotation.image_id]].append(annotation)
    return found

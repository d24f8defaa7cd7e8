"""`evaluate --metric recall`: how many true masks have a proposal like them, whatever their classes.

pycocotools counts (Hosang et al., TPAMI 2016; COCO's AR): the best proposals of each image are
assigned to its true masks one to one at each IoU from .50 to .95 in steps of .05, and the share of
true masks that got one is averaged over those. Crowds of the truth are left out. Images are matched
by file name.
"""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ovtool
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco
from ovtool.stages.progress import Progress, no_progress

LIMITS = (1, 10, 100)  # the numbers of proposals of an image that are looked at
_SIZES = ("all", "small", "medium", "large")  # COCO's: below 32 x 32, below 96 x 96, above

Masks = Mapping[str, Sequence[coco.Annotation]]  # file name -> the masks of the image


def measure(truth: Masks, proposals: Masks) -> dict[str, float | None]:
    """The recall of the images of `truth`; one that `proposals` lacks has found nothing.

    Returns fractions in [0, 1], None where there is no mask of that size: `average_recall` at 100
    proposals, `average_recall_10`, `average_recall_small`, `_medium` and `_large`, and `recall_50`,
    at 100 proposals and IoU 0.5. A proposal without a score counts as 1; of equals the first is best.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = list(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # the library speaks
        true, found = COCO(), COCO()
        true.dataset = _as_coco([truth[name] for name in names], with_scores=False)
        found.dataset = _as_coco([proposals.get(name, ()) for name in names], with_scores=True)
        true.createIndex()
        found.createIndex()
        counted = COCOeval(true, found, "segm")
        counted.params.useCats = 0
        counted.params.maxDets = list(LIMITS)
        counted.evaluate()
        counted.accumulate()
    recall = counted.eval["recall"][:, 0]  # (IoU, size, limit), -1 where there is no truth

    def mean(size: str, limit: int, thresholds: slice = slice(None)) -> float | None:
        values = recall[thresholds, _SIZES.index(size), LIMITS.index(limit)]
        return None if (values < 0).any() else float(np.mean(values))

    return {
        "average_recall": mean("all", 100),
        "average_recall_10": mean("all", 10),
        "recall_50": mean("all", 100, slice(0, 1)),
        **{f"average_recall_{size}": mean(size, 100) for size in _SIZES[1:]},
    }


def run(
    prediction: str,
    ground_truth: str,
    *,
    missing: str = "refuse",
    out: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures the proposals of one COCO JSON (or folder of parts) by the masks of another.

    missing: what to do with images of the truth that the proposals lack: `refuse`, count them as
    `empty`, or `skip` them.

    Returns what `measure` gives, with counts, as JSON holds it.

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
        measured = measure(true, proposed)
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


def _as_coco(images: Sequence[Sequence[coco.Annotation]], with_scores: bool) -> dict[str, Any]:
    """Masks of images, numbered from 1, as pycocotools keeps them."""
    annotations: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    for image_id, masks in enumerate(images, start=1):
        height, width = masks[0].segmentation["size"] if masks else (1, 1)
        listed.append({"id": image_id, "height": height, "width": width})
        for mask in masks:
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 1,
                "segmentation": dict(mask.segmentation),
                "area": mask.area,
                "iscrowd": int(mask.extra.get("iscrowd", 0)),
            }
            if with_scores:
                entry |= {"score": 1.0 if mask.score is None else mask.score, "iscrowd": 0}
            annotations.append(entry)
    return {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }

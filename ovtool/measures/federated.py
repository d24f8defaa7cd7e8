"""LVIS's rule of average precision (Gupta et al., CVPR 2019, section 3.4; lvis-api, eval.py).

Nobody looked for all 1,203 classes in every image. The truth says of each image which classes it shows, and which it
surely lacks (`neg_category_ids`): a prediction of any other class is left out. Of some classes not every mask is drawn
(`not_exhaustive_category_ids`): a prediction of these that fits no true mask is left out too, as pycocotools leaves
out what lies on a crowd. Of each image the 300 best predictions count, whatever their classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ovtool.formats import coco, rle
from ovtool.inputs.predictions import MasksByName

LIMIT = 300  # predictions of an image
FREQUENCIES = {"r": "ap_rare", "c": "ap_common", "f": "ap_frequent"}


def is_federated(truth: coco.Dataset) -> bool:
    """Whether a truth says which classes its images surely lack."""
    return any("neg_category_ids" in image.extra for image in truth.images)


def judged(
    truth: MasksByName, predicted: MasksByName, dataset: coco.Dataset, numbers: Mapping[int, int]
) -> tuple[MasksByName, MasksByName]:
    """The masks that pycocotools is to match: the truth with a crowd on the whole image for each class that is not
    drawn in full, and the predictions that can be right or wrong.

    Args:
        truth: The true masks, with the numbers of their classes.
        predicted: The predicted ones, with the same numbers.
        dataset: The truth as it was read.
        numbers: The number of each of its category ids.
    """
    images = {image.id: image for image in dataset.images}
    names = {id: name for name, id in predicted.ids.items()}

    def classes(image: coco.Image, field: str) -> set[int]:
        return {numbers[id] for id in image.extra.get(field) or () if id in numbers}

    def true(id: int) -> list[coco.Annotation]:
        masks, image = truth.of_image(id), images[id]
        for number in sorted(classes(image, "not_exhaustive_category_ids")):
            whole = rle.encode(np.ones((image.height, image.width), bool))
            crowd = coco.annotation(0, id, number, whole, None)
            masks = [*masks, replace(crowd, extra={"iscrowd": 1})]
        return masks

    def possible(id: int) -> list[coco.Annotation]:
        own = truth.ids.get(names[id])
        if own is None:
            return []
        known = classes(images[own], "neg_category_ids")
        known |= {mask.category_id for mask in truth.of_image(own)}
        best = sorted(predicted.of_image(id), key=lambda m: m.score or 0.0, reverse=True)[:LIMIT]
        return [mask for mask in best if mask.category_id in known]

    return MasksByName(truth.ids, true), MasksByName(predicted.ids, possible)


def of_frequencies(
    categories: Sequence[coco.Category], precision: Sequence[float]
) -> dict[str, float | None]:
    """The mean AP of rare, common and frequent classes, of those that the truth holds."""
    result: dict[str, float | None] = {}
    for letter, key in FREQUENCIES.items():
        own = [precision[k] for k, c in enumerate(categories) if c.extra.get("frequency") == letter]
        there = [value for value in own if not np.isnan(value)]
        result[key] = float(np.mean(there)) if there else None
    return result

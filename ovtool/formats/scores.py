"""What the JSON of `evaluate` holds: the measures of each metric, by their keys and by their names in the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Names = tuple[tuple[str, str], ...]  # what people call a measure, and its key


@dataclass(frozen=True)
class Measures:
    """What a metric measures.

    Attributes:
        measures: Of the whole.
        of_class: Of each class; empty for a metric without classes.
        count: What is counted of each class.
        of_image: Of each image; the first one orders them.
    """

    measures: Names
    of_class: Names = ()
    count: tuple[str, str] = ("pixels", "truth_pixels")
    of_image: Names = ()


_PIXELS: Names = (
    ("mIoU, classes of the truth", "miou"),
    ("mIoU, classes of truth or prediction", "miou_union"),
    ("mIoU, seen classes", "miou_seen"),
    ("mIoU, novel classes", "miou_novel"),
    ("hIoU, harmonic mean of the two", "hiou"),
    ("mean accuracy", "mean_accuracy"),
    ("frequency-weighted IoU", "frequency_weighted_iou"),
    ("pixel accuracy", "pixel_accuracy"),
)
_IOU: Names = (("IoU", "iou"), ("accuracy", "accuracy"))
_IMAGE_IOU: Names = (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"))
_QUALITIES: Names = (("PQ", "pq"), ("SQ", "sq"), ("RQ", "rq"))
OF_METRIC: Mapping[str, Measures] = {
    "miou": Measures(_PIXELS, _IOU, of_image=_IMAGE_IOU),
    "boundary-iou": Measures(
        tuple((f"boundary {name}", f"boundary_{key}") for name, key in _PIXELS[:5]),
        (("boundary IoU", "boundary_iou"),),
        ("pixels near contours", "truth_pixels"),
        (("boundary mIoU", "boundary_miou"),),
    ),
    "panoptic": Measures(
        tuple(
            (f"{name}{of}", f"{key}{ending}")
            for of, ending in (("", ""), (", things", "_things"), (", stuff", "_stuff"))
            for name, key in _QUALITIES
        ),
        _QUALITIES,
        ("segments", "segments"),
        (("PQ", "pq"),),
    ),
    "ap": Measures(
        (
            ("AP, IoU .50:.95", "ap"),
            ("AP, IoU .50", "ap_50"),
            ("AP, IoU .75", "ap_75"),
            ("AP, small masks", "ap_small"),
            ("AP, medium masks", "ap_medium"),
            ("AP, large masks", "ap_large"),
            ("AP, rare classes", "ap_rare"),
            ("AP, common classes", "ap_common"),
            ("AP, frequent classes", "ap_frequent"),
            ("AR, 1 mask of a class", "ar_1"),
            ("AR, 10 masks of a class", "ar_10"),
            ("AR, 100 masks of a class", "ar_100"),
            ("AR, 300 masks of an image", "ar_300"),
            ("AR, small masks", "ar_small"),
            ("AR, medium masks", "ar_medium"),
            ("AR, large masks", "ar_large"),
        ),
        (("AP", "ap"),),
        ("masks", "truth_masks"),
    ),
    "recall": Measures(
        (
            ("average recall, 100 proposals, IoU .50:.95", "average_recall"),
            ("  small masks", "average_recall_small"),
            ("  medium masks", "average_recall_medium"),
            ("  large masks", "average_recall_large"),
            ("average recall, 10 proposals, IoU .50:.95", "average_recall_10"),
            ("recall, 100 proposals, IoU .50", "recall_50"),
        ),
        of_image=(("average recall", "average_recall"),),
    ),
    "seeds": Measures(
        (
            *_PIXELS[:2],
            ("mIoU, at the best threshold for all", "best_miou"),
            *_PIXELS[5:],
        ),
        _IOU,
        of_image=_IMAGE_IOU,
    ),
}

"""What is measured of a prediction."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.settings.field import Option
from ovtool.settings.option import settings
from ovtool.settings.words import ClassesPerImage, Protocol

Missing = Annotated[
    Literal["refuse", "empty", "skip"],
    Option(
        "What to do with images of the truth that have no prediction; empty counts them as all wrong."
    ),
]
Bootstrap = Annotated[
    int,
    Option(
        "Samples of the bootstrap over images that gives the 95 % intervals; 0 gives none.", min=0
    ),
]


PerImage = Annotated[
    bool,
    Option("Measure each image too: the table shows the lowest, the JSON all."),
]
IgnoreLabel = Annotated[
    tuple[str, ...],
    Option(
        "A class of the truth, or a value of its label maps, that is not counted.",
        metavar="LABEL",
        repeat=True,
    ),
]


@settings(panel="Measure", name="miou")
class MeanIou:
    """The classes of pixels: mean IoU, the IoU of each class, and accuracies."""

    with_background: Annotated[
        bool, Option("Count pixels of no mask as the class background, in both files.")
    ] = False
    ignore_label: IgnoreLabel = ()
    classes_per_image: ClassesPerImage = None
    novel: Annotated[
        str | None,
        Option(
            "Classes that are novel, as words or a file with a class a line: the mean IoU of these, of the "
            "seen ones, and their harmonic mean (hIoU).",
            metavar="WORDS",
        ),
    ] = None
    protocol: Protocol = None
    missing: Missing = "refuse"
    per_image: PerImage = False
    bootstrap: Bootstrap = 1000


@settings(panel="Measure", name="boundary-iou")
class BoundaryIou(MeanIou):
    """The edges of classes: the mean IoU of the pixels near their contours."""

    boundary_width: Annotated[
        float,
        Option("How near to a contour, as a share of the image's diagonal.", min=1e-6, max=1),
    ] = 0.02


@settings(panel="Measure", name="panoptic")
class Panoptic:
    """Things one by one and stuff by its area: panoptic quality."""

    missing: Missing = "refuse"
    per_image: PerImage = False
    bootstrap: Bootstrap = 1000


@settings(panel="Measure", name="ap")
class AveragePrecision:
    """Masks with classes and scores: average precision and average recall as of COCO, or as of LVIS."""

    missing: Missing = "refuse"
    bootstrap: Bootstrap = 1000


@settings(panel="Measure")
class Recall:
    """The share of true masks that were proposed, whatever their classes."""

    missing: Missing = "refuse"
    per_image: PerImage = False
    bootstrap: Bootstrap = 1000


@settings(panel="Measure", name="seeds")
class Seeds:
    """Activation maps as seeds: mean IoU at a threshold that other images chose."""

    ignore_label: IgnoreLabel = ()
    protocol: Protocol = None
    missing: Missing = "refuse"
    per_image: PerImage = False
    bootstrap: Bootstrap = 1000


Metric = MeanIou | BoundaryIou | Panoptic | AveragePrecision | Recall | Seeds

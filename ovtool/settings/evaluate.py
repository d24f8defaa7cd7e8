"""What is measured of a prediction."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.settings.field import Option
from ovtool.settings.option import settings
from ovtool.settings.words import ClassesPerImage

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


@settings(panel="Measure", name="miou")
class MeanIou:
    """The classes of pixels: mean IoU, the IoU of each class, and accuracies."""

    with_background: Annotated[
        bool, Option("Count pixels of no mask as the class background, in both files.")
    ] = False
    ignore_label: Annotated[
        tuple[str, ...],
        Option(
            "A class of the truth, or a value of its label maps, that is not counted.",
            metavar="LABEL",
            repeat=True,
        ),
    ] = ()
    classes_per_image: ClassesPerImage = None
    missing: Missing = "refuse"
    bootstrap: Bootstrap = 1000


@settings(panel="Measure")
class Recall:
    """The share of true masks that were proposed, whatever their classes."""

    missing: Missing = "refuse"
    bootstrap: Bootstrap = 1000

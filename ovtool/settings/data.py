"""A data set that is made."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.settings.field import Option, RunOption
from ovtool.settings.option import settings
from ovtool.settings.shared import Seed


@settings(panel="Scenes")
class Scenes:
    """Which scenes are made. Their bytes depend on all of these but the number of workers."""

    split: Annotated[
        str | None, Option("The split: train, val, test or demo. Default: demo.", metavar="SPLIT")
    ] = None
    count: Annotated[int, Option("The number of images.", min=1)] = 200
    seed: Seed = 7
    size: Annotated[int, Option("Side of the square images, in pixels.", min=32, max=2048)] = 256
    preset: Annotated[
        Literal["cooccur", "single"] | None,
        Option(
            "Other rules for the scenes. cooccur: each of 20 nouns is on a ground of its own in 90 % of its scenes in "
            "train, and in 50 % elsewhere. single: one large object in each image. Default: the standard rules."
        ),
    ] = None
    workers: Annotated[int, RunOption("Processes that share the work.", min=1)] = 2

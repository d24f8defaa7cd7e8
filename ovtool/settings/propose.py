"""Class-agnostic masks: where they come from, and which of them are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option, OutputOption
from ovtool.settings.option import settings
from ovtool.settings.shared import Proposer

SaveEmbeddings = Annotated[
    Path | None,
    OutputOption(
        "Save the embeddings of the masks here, of a proposer that train-proposer made.",
        metavar="FILE",
    ),
]

RegionFeatures = Annotated[
    Literal["crops", "tokens", "both"] | None,
    Option(
        "crops: a masked crop of each region. tokens: one pass over the image, a class token for each region. "
        "both: the mean of the two. Default: what the model recommends, else crops, as published."
    ),
]


@settings(panel="Masks")
class Propose:
    """Which masks of an image are proposed, and which of them are kept."""

    proposer: Proposer = None
    max_proposals: Annotated[int, Option("The most masks of an image.", min=1)] = 100
    min_area: Annotated[
        float | None,
        Option(
            "The least share of the image in a mask. Default: 0.001, or 0.0003 of merging.",
            min=0,
            max=1,
            metavar="SHARE",
        ),
    ] = None
    nms: Annotated[
        float | None,
        Option(
            "The greatest IoU of two masks that are both kept; 1 keeps all. Default: 0.85, or 0.75 of merging.",
            min=0,
            max=1,
            metavar="IOU",
        ),
    ] = None


def check_regions(proposer: str | None, proposals: Path | None) -> None:
    """Raises UsageError for a proposer and a file together."""
    if proposer is not None and proposals is not None:
        raise UsageError(
            "--proposals are masks from a file, and --proposer makes them; give one of the two"
        )

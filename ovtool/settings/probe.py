"""What the probes measure of a model."""

from __future__ import annotations

from typing import Annotated

from ovtool.errors import UsageError
from ovtool.settings.field import Argument, Option
from ovtool.settings.option import settings
from ovtool.settings.propose import check_regions
from ovtool.settings.segment import LastBlock, check_windows
from ovtool.settings.shared import (
    CropSize,
    PaclHead,
    Prompts,
    Proposals,
    Proposer,
    Seed,
    ShortSide,
    Stride,
    Templates,
    Window,
)
from ovtool.settings.words import ClassesPerImage

DataSet = Annotated[
    str | None,
    Argument(
        "A data set with masks: collage:test, or its folder. Instead of it, --coco FILE --images DIR.",
        metavar="DATASET",
    ),
]


@settings(panel="Method")
class Oracle:
    """True masks are named by the CLIP, and proposals by the truth."""

    classes_per_image: ClassesPerImage = None
    prompts: Prompts = None
    crop_size: CropSize = None
    proposer: Proposer = None
    proposals: Proposals = None
    templates: Templates = "one"

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        check_regions(self.proposer, self.proposals)


@settings(panel="Method")
class Alignment:
    """Each patch is compared with the words."""

    classes_per_image: ClassesPerImage = None
    pacl: PaclHead = None
    last_block: LastBlock = None
    short_side: ShortSide = None
    window: Window = None
    stride: Stride = None
    templates: Templates = "one"
    count_mixed: Annotated[
        bool, Option("Count patches without a majority too, by their most frequent class.")
    ] = False

    def check(self) -> None:
        """Raises UsageError for windows that leave gaps."""
        check_windows(self.window, self.stride)


@settings(panel="Method")
class Coherence:
    """Patches are compared with each other."""

    pacl: PaclHead = None
    layers: Annotated[
        str,
        Option(
            "Blocks of the image tower, the first being 1: all, last, or a list such as 8,10.",
            metavar="LIST",
        ),
    ] = "all"
    backbone: Annotated[
        str | None,
        Option(
            "Measure on the same patches each stage of a network that is no CLIP: photo, the stem of the bundled "
            "model, or one of timm.",
            metavar="photo|timm:NAME",
        ),
    ] = None
    sample: Annotated[
        int, Option("Pairs of patches that are drawn within images, and across.", min=2)
    ] = 20_000
    short_side: ShortSide = None
    window: Window = None
    stride: Stride = None
    seed: Seed = 0

    def check(self) -> None:
        """Raises UsageError for windows that leave gaps, and for blocks that cannot be read."""
        check_windows(self.window, self.stride)
        self.blocks(None)

    def blocks(self, depth: int | None) -> list[int]:
        """The blocks of a tower of this depth that are compared, from 1.

        Args:
            depth: The number of its blocks; None where it is not known yet, so that only the spelling
                is checked.

        Raises:
            UsageError: A block that the tower does not have.
        """
        if self.layers == "all":
            return list(range(1, (depth or 0) + 1))
        if self.layers == "last":
            return [depth or 1]
        numbers = [int(part) if part.strip().isdecimal() else 0 for part in self.layers.split(",")]
        if not all(1 <= number <= (depth or number) for number in numbers):
            last = "the last" if depth is None else f"{depth}"
            raise UsageError(
                f"--layers '{self.layers}' is not allowed; give all, last, or blocks of 1 to {last}, such as 1,3"
            )
        return list(dict.fromkeys(numbers))


@settings(panel="Method")
class Classify:
    """Whole images are compared with the words."""

    classes_per_image: ClassesPerImage = None
    pacl: PaclHead = None
    templates: Templates = "one"

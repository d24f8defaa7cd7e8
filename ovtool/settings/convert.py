"""How masks are brought into another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.settings.field import Option
from ovtool.settings.option import settings

Format = Literal[
    "coco", "coco-results", "coco-panoptic", "yolo-seg", "label-maps", "cvat", "voc-submission", "webdataset"
]  # fmt: skip


@settings(panel="Conversion")
class Conversion:
    """What is read beside the masks, and what becomes of them."""

    colours: Annotated[
        Path | None,
        Option(
            "A table of colours, R G B NAME a line, a colour without a name being no class: of label maps in "
            "RGB that are read, or else of those that are written.",
        ),
    ] = None
    instances: Annotated[
        Path | Literal["parts"] | None,
        Option(
            "Make one mask an instance: parts, of pixels that touch, or a COCO JSON of proposals, of which "
            "those that lie in a mask divide it. Default: masks stay as they are.",
        ),
    ] = None

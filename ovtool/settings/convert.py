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
            "The colours of label maps in RGB, which are read, or else written: a text file with a line R G B NAME for "
            "each class. A colour without a name is no class.",
        ),
    ] = None
    instances: Annotated[
        Path | Literal["parts"] | None,
        Option(
            "Divide masks into instances. parts: one for each group of pixels that touch. FILE: a COCO JSON of "
            "proposals; those that lie in a mask divide it. Default: masks stay as they are.",
        ),
    ] = None

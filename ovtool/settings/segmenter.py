"""What shapes a segmenter of its own classes, learned from pseudo masks or any labels of pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option
from ovtool.settings.option import settings
from ovtool.settings.shared import (
    ArchitectureDecay,
    ArchitectureRate,
    ArchitectureWarmup,
    Exif,
    SaveEvery,
    Training,
    TrainingBatch,
    ValidateEvery,
)

Architecture = Literal[
    "tiny", "clip", "photo", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101",
    "maskformer-tiny", "maskformer-resnet50", "maskformer-swin-base", "maskformer-photo",
]  # fmt: skip


@settings(panel="Method")
class SegmenterTraining(Training):
    """A segmenter of the classes that pseudo masks, true masks or label maps name."""

    steps: Annotated[
        int | None,
        Option("Steps of the training. Default: 20,000, unless --epochs is given.", min=1),
    ] = None
    batch_size: TrainingBatch = 16
    lr: ArchitectureRate = None
    weight_decay: ArchitectureDecay = None
    warmup: ArchitectureWarmup = None
    validate_every: ValidateEvery = 2000
    save_every: SaveEvery = 500
    architecture: Annotated[
        Architecture,
        Option(
            "The network. deeplabv3_*: torchvision's. maskformer-*: one mask for each class. tiny: a "
            "small network for a CPU. photo: one on the stem of the bundled model photo. clip: a decoder on the frozen patches of --model.",
            flag="--arch",
        ),
    ] = "deeplabv3_resnet50"
    crop_size: Annotated[
        int | None,
        Option(
            "Side of the crops, in pixels. Default: the architecture's; of small images their longest side, but for "
            "tiny, clip and maskformer-tiny.",
            min=32,
        ),
    ] = None
    short_side: Annotated[
        int | None,
        Option("Shorter side of images in use, in pixels. Default: the architecture's.", min=32),
    ] = None
    exif: Exif = "upright"
    with_background: Annotated[
        bool, Option("Pixels of no mask are the class background, and not in doubt.")
    ] = False

    def check(self) -> None:
        """Raises UsageError for a batch that batch norm cannot normalise."""
        if self.batch_size is not None and self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size}: batch norm needs two images or more in a step"
            )

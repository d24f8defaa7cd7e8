"""What shapes a proposer: a MaskFormer whose proposals are compared with words (OVSeg, CVPR 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.settings.field import Option
from ovtool.settings.option import settings
from ovtool.settings.shared import (
    ArchitectureDecay,
    ArchitectureRate,
    ArchitectureWarmup,
    Exif,
    SaveEvery,
    Templates,
    Training,
    TrainingBatch,
    ValidateEvery,
)


@settings(panel="Method")
class ProposerTraining(Training):
    """A MaskFormer whose proposals are compared with words, learned from masks that have names."""

    steps: Annotated[
        int | None,
        Option("Steps of the training. Default: 120,000, unless --epochs is given.", min=1),
    ] = None
    batch_size: TrainingBatch = 32
    lr: ArchitectureRate = None
    weight_decay: ArchitectureDecay = None
    warmup: ArchitectureWarmup = None
    validate_every: ValidateEvery = 5000
    save_every: SaveEvery = 500
    architecture: Annotated[
        Literal["tiny", "resnet50", "swin-base", "photo"],
        Option(
            "The network. tiny: 4 million parameters, for a CPU. photo: as small, on the stem of the bundled "
            "model photo. resnet50, swin-base: MaskFormer's.",
            flag="--arch",
        ),
    ] = "resnet50"
    targets: Annotated[
        Literal["categories", "instances"],
        Option("What is learned: one mask for each category of an image, or every mask."),
    ] = "categories"
    exif: Exif = "upright"
    queries: Annotated[int, Option("Proposals of an image.", min=1)] = 100
    crop_size: Annotated[
        int | None,
        Option(
            "Side of the crops, and shorter side of images in use, in pixels. Default: the "
            "architecture's; of small images their longest side, but for tiny.",
            min=32,
        ),
    ] = None
    templates: Templates = "vild"
    class_weight: Annotated[
        float,
        Option(
            "Weight of the words' loss beside the masks'; 0.1 is better from random weights.", min=0
        ),
    ] = 1.0

"""What shapes prompts of a CLIP: for masked crops (OVSeg), or for backgrounds (SemPLeS)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option, RunOption
from ovtool.settings.option import settings
from ovtool.settings.shared import (
    PUBLISHED_WAY,
    CropSize,
    Epochs,
    HeldOut,
    LearningRate,
    Training,
    TrainingBatch,
    Warmup,
    WeightDecay,
)

Recipe = Annotated[
    Literal["ovseg", "semples"] | None,
    Option(
        f"{PUBLISHED_WAY} For mask: ovseg, the tower and then prompts. For background: semples.",
        panel="Recipe",
    ),
]


@settings(panel="Method", name="mask")
class MaskPrompts(Training):
    """Tokens in place of the patches outside a mask, or an image tower that reads masked crops (OVSeg).

    Liang et al., CVPR 2023, section 4.1 and A.4. The weight decay is that of the image tower; prompts
    have none.
    """

    recipe: Recipe = None
    epochs: Epochs = 5.0
    batch_size: TrainingBatch = 256
    lr: LearningRate = 2e-2
    warmup: Warmup = 100
    train: Annotated[
        Literal["prompts", "tower", "tower-then-prompts"],
        Option("What is trained; tower is the whole image tower."),
    ] = "prompts"
    depth: Annotated[
        int | Literal["all"] | None,
        Option(
            "Where prompts replace tokens: before the first block, and after N - 1 more. Default: 3, or all "
            "where there are fewer blocks.",
            min=1,
            metavar="N|all",
        ),
    ] = None
    loss: Annotated[
        Literal["shared", "paper"],
        Option(
            "shared: a noun counts once in a batch, whatever its pairs. paper: once for each of them."
        ),
    ] = "shared"
    tower_lr: Annotated[
        float, Option("Peak learning rate of the image tower.", min=0, panel="Training")
    ] = 5e-6
    crop_size: CropSize = None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        if self.batch_size is not None and self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size} leaves no other pair to compare with; give 2 or more"
            )
        if self.train == "prompts" and self.weight_decay is not None:
            raise UsageError(
                "--weight-decay is that of the image tower; give --train tower or tower-then-prompts"
            )


@settings(panel="Method", name="background")
class BackgroundPrompts(Training):
    """Sentences of learned vectors that say what images of a class show beside it (SemPLeS, from cams)."""

    recipe: Recipe = None
    epochs: Epochs = 60.0
    batch_size: TrainingBatch = 128
    lr: LearningRate = 0.025
    weight_decay: WeightDecay = 0.03
    warmup: Warmup = 0
    held_out: HeldOut = 0.0
    generator: Annotated[
        Path | None,
        Option(
            "Take the masks from this mask generator of cam, crop by crop. Default: those of the maps."
        ),
    ] = None
    push: Annotated[
        Literal["text", "foreground", "none"],
        Option("From what a prompt is pushed: the class's text, or images of the class alone."),
    ] = "text"
    push_weight: Annotated[float, Option("Weight of the push, lambda_T.", min=0)] = 0.02
    length: Annotated[
        int | None,
        Option("Vectors of a prompt. Default: 30, or as many as fit.", min=1),
    ] = None
    init: Annotated[
        Literal["uniform", "normal", "words"],
        Option(
            "Where the vectors start: uniform in [0, 1), the published code's; normal with deviation "
            "0.02; the words of backgrounds."
        ),
    ] = "uniform"
    similarity: Annotated[
        Literal["raw", "shifted"] | None,
        Option(
            "How cosines become losses: raw as published, or shifted, which has a gradient below 0 too. "
            "Default: raw, unless that would leave more than one in twenty without a gradient."
        ),
    ] = None
    words: Annotated[
        Path | None,
        RunOption(
            "The words, one a line, of which the nearest to each prompt are printed. Default: what the "
            "model learned, else the nouns of the collage and words of backgrounds."
        ),
    ] = None
    crop_scale: Annotated[
        float,
        Option(
            "Least share of an image in a random crop; 1 takes whole images, whose embeddings are kept.",
            min=0.01,
            max=1,
        ),
    ] = 0.08

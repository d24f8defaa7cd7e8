"""What shapes a head that aligns patches with text (Mukhoti et al., CVPR 2023, appendix A)."""

from __future__ import annotations

from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option
from ovtool.settings.option import settings
from ovtool.settings.shared import (
    PUBLISHED_WAY,
    Epochs,
    LearningRate,
    Templates,
    Training,
    TrainingBatch,
    Warmup,
    WeightDecay,
)


@settings(panel="Method")
class Pacl(Training):
    """Patch aligned contrastive learning: a head on frozen patches, trained on captions alone."""

    recipe: Annotated[
        Literal["pacl"] | None,
        Option(
            f"{PUBLISHED_WAY} pacl: captions and their nouns in seven sentences, patches weighed by plain "
            "cosines, a head that begins at random.",
            panel="Recipe",
        ),
    ] = None
    epochs: Epochs = 10.0
    batch_size: TrainingBatch = 4096
    lr: LearningRate = 5e-4
    weight_decay: WeightDecay = 0.2
    warmup: Warmup = 0
    micro_batch: Annotated[
        int | None,
        Option(
            "Images compared with all texts at once, which bounds the memory and changes nothing else. "
            "Default: as many as 32 MiB of scores hold.",
            min=1,
        ),
    ] = None
    patch_scale: Annotated[
        float,
        Option(
            "Multiplies cosines in the softmax over patches; the paper shows none, which is 1.",
            min=0,
        ),
    ] = 10.0
    pooling: Annotated[
        Literal["softmax", "sparse"],
        Option("How patches are weighed for a text; sparse drops the lesser ones, as SPARC."),
    ] = "softmax"
    logit_scale: Annotated[
        float | None, Option("Multiplies scores in the loss. Default: the CLIP's own.", min=0.01)
    ] = None
    learn_scale: Annotated[bool, Option("Train the logit scale too, up to 100.")] = False
    pairs: Annotated[
        Literal["all", "own"],
        Option(
            "all: each text weighs the patches of each image. own: an image's own caption does."
        ),
    ] = "all"
    nouns: Annotated[
        bool,
        Option(
            "Take the nouns of captions as texts of their own too, in templates, as in the paper."
        ),
    ] = False
    noun_weight: Annotated[float, Option("The weight of the loss of nouns.", min=0)] = 1.0
    naming: Annotated[
        float,
        Option(
            "The weight of a loss that each patch shows one of the nouns of its image's captions. The "
            "paper has none, which is 0.",
            min=0,
        ),
    ] = 0.0
    templates: Templates = "pacl"
    start: Annotated[
        Literal["projection", "random"],
        Option("How the head begins: as the CLIP's own projection, or at random, as in the paper."),
    ] = "projection"
    last_block: Annotated[
        str,
        Option(
            "The tokens that the head reads: clip, which is the paper's, maskclip, sclip, clearclip or "
            "naclip; several, joined by +, side by side.",
            metavar="NAME",
        ),
    ] = "clip"
    crop_size: Annotated[
        int | None,
        Option(
            "Side of the square that an image is brought to. Default: what the model recommends, else "
            "the one that it was trained at.",
            min=8,
        ),
    ] = None
    window: Annotated[
        int | None,
        Option(
            "Side of the windows that an image is shown in, in pixels; 0 shows the whole image at once. Default: what "
            "the model recommends, else 0.",
            min=0,
        ),
    ] = None
    cache: Annotated[
        Literal["auto", "on", "off"],
        Option(
            "Keep the tokens of listed images, which are then never cropped; auto does where one process "
            "sees them more than once and they have at most 4 GiB."
        ),
    ] = "auto"

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        if self.batch_size is not None and self.batch_size < 2:
            raise UsageError(
                f"--batch-size {self.batch_size} leaves no other image to compare with; give 2 or more"
            )
        if self.pairs == "own" and self.nouns:
            raise UsageError("--pairs own pools by captions alone; leave --nouns out")
        if self.naming and not self.nouns:
            raise UsageError(
                f"--naming {self.naming:g} compares patches with nouns; give --nouns too"
            )

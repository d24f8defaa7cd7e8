"""Ways to make class activation maps from image-level labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings import recipes
from ovtool.settings.field import Option, OutputOption, RunOption
from ovtool.settings.option import fields, settings
from ovtool.settings.shared import (
    PUBLISHED_WAY,
    Flip,
    HeldOut,
    LearningRate,
    Scales,
    Training,
    TrainingBatch,
    Warmup,
    WeightDecay,
)

# Fields that several methods have.
SemplesRecipe = Annotated[
    Literal["semples"] | None,
    Option(
        f"{PUBLISHED_WAY} semples: 60 epochs in batches of 64 at 6.4e-5, weights of VOC. The defaults differ "
        "because the published generator begins at WeakTr's weights, and the one here at a CLIP's patches.",
        panel="Recipe",
    ),
]
CamShortSide = Annotated[
    int | None,
    Option(
        "Shorter side of an image as the network sees it, in pixels. Default: twice the CLIP's own; in "
        "matching what the CLIP's weights recommend, if anything; 224 for a classifier.",
        min=8,
    ),
]
BackgroundWords = Annotated[
    str | None,
    Option(
        "Words that compete with the classes in gradcam, or where matching begins, or none. Default: the "
        "model's stuff words, else CLIP-ES's list.",
        metavar="WORDS",
    ),
]
MatchingSteps = Annotated[
    int | None,
    Option(
        "Steps of the training, in place of --epochs; 0 leaves a mask generator as it begins.",
        min=0,
    ),
]
MatchingEpochs = Annotated[
    float | None,
    Option(
        "How often each image is seen, where --steps is not given; 0 leaves a mask generator as it begins.",
        min=0,
    ),
]
CropScale = Annotated[
    float | None,
    Option(
        "Least share of an image in a random crop of the training. Default: 0.5; 1, the whole image, for a "
        "mask generator whose backbone is frozen.",
        min=0.05,
        max=1,
    ),
]
BackgroundWeight = Annotated[
    float | None,
    Option(
        "Weight of the background in the matching loss (lambda_b). Default: what the model recommends, "
        "else the published 2.4.",
        min=0,
    ),
]
LabelSteps = Annotated[
    int | None,
    Option(
        "Steps on the labels alone, before masks are matched; with --steps 0 they are the whole training. "
        "Default: 200 for a generator that begins at random, else 0.",
        min=0,
    ),
]
Similarity = Annotated[
    Literal["raw", "shifted"] | None,
    Option(
        "How a cosine becomes a similarity. raw: as it is, as in the paper. shifted: (1 + cosine) / 2. "
        "Default: raw, unless too many cosines are below 0."
    ),
]


# Fields of `Training` that the trainings of maps have no use for: there is no measure without pixel truth.
UNUSED = ("held_out", "validate_every")


def _refuse_held_out(method: Training) -> None:
    if method.held_out or method.validate_every:
        raise UsageError(
            "the trainings of maps hold no images out; leave --held-out and --validate-every out"
        )


@settings(panel="Method", name="classifier")
class ClassifierMaps(Training):
    """The class maps of a network of timm that is trained here on the labels (Zhou et al., 2016)."""

    steps: MatchingSteps = None
    epochs: MatchingEpochs = 10.0
    batch_size: TrainingBatch = 16
    lr: LearningRate = 1e-3
    weight_decay: WeightDecay = 1e-2
    held_out: HeldOut = 0.0
    arch: Annotated[
        str,
        Option(
            "The network of the classifier: one of timm, or photo, the stem of the bundled model.",
            metavar="photo|timm:NAME",
        ),
    ] = "timm:resnet18"
    crop_scale: CropScale = None
    short_side: CamShortSide = None
    scales: Scales = (1.0,)
    flip: Flip = False

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        if self.steps == 0 or (self.steps is None and self.epochs == 0):
            flag = "--steps" if self.steps == 0 else "--epochs"
            raise UsageError(f"{flag} 0 leaves a classifier at random weights; give more than 0")
        _refuse_held_out(self)


@settings(panel="Method")
class Gradcam:
    """The gradients of a CLIP, without any training (CLIP-ES, section 3). This is the default."""

    background: BackgroundWords = None
    sentence: Annotated[
        str | None,
        Option(
            "The sentence around the words, with {} for them. Default: what the model recommends, else "
            "CLIP-ES's 'a clean origami {}.'",
        ),
    ] = None
    short_side: CamShortSide = None
    scales: Scales = (1.0,)
    flip: Flip = False


@settings(panel="Method", name="matching")
class LabelMatching(Training):
    """A mask generator that is trained here by segment-label matching (SemPLeS, section 3.2)."""

    recipe: SemplesRecipe = None
    steps: MatchingSteps = None
    epochs: MatchingEpochs = 10.0
    batch_size: TrainingBatch = 16
    lr: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.03
    warmup: Warmup = 0
    held_out: HeldOut = 0.0
    generator: Annotated[
        str | None,
        Option(
            "The backbone of the mask generator, clip, photo or timm:NAME; or a file of --save-generator, which is "
            "not trained again. Default: clip.",
            metavar="NAME",
        ),
    ] = None
    fine_tune: Annotated[bool, Option("Train the generator's timm backbone too.")] = False
    hidden: Annotated[
        int, Option("Channels of the hidden layer of the generator's head; 0 is none.", min=0)
    ] = 256
    begin: Annotated[
        Literal["rivals", "text", "random"] | None,
        Option(
            "Where the maps of the generator begin. rivals: the cosine of each patch with the class less that "
            "with the best background word. text: less the mean of them. Default: rivals for clip, else "
            "random."
        ),
    ] = None
    background: BackgroundWords = None
    background_weight: BackgroundWeight = None
    similarity: Similarity = None
    label_steps: LabelSteps = None
    crop_scale: CropScale = None
    save_generator: Annotated[
        Path | None, OutputOption("Keep the trained generator here.", metavar="FILE")
    ] = None
    short_side: CamShortSide = None
    scales: Scales = (1.0,)
    flip: Flip = False

    @property
    def generator_file(self) -> Path | None:
        """The file of a generator that was trained before, if one is named."""
        is_file = self.generator is not None and self.generator.endswith(".safetensors")
        return Path(str(self.generator)) if is_file else None

    @property
    def trains(self) -> bool:
        """Whether there is a step on labels or masks, and not the maps taken as the generator begins."""
        length = self.steps if self.steps is not None else self.epochs
        return self.generator_file is None and (length != 0 or bool(self.label_steps))

    @property
    def least_share(self) -> float:
        """The least share of an image that a crop of the training shows."""
        if self.crop_scale is not None:
            return self.crop_scale
        return 0.5 if self.fine_tune else 1.0

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        _refuse_held_out(self)
        if self.generator_file is None:
            return
        recipe_first = sorted(fields(type(self)).items(), key=lambda item: item[0] != recipes.FIELD)
        for name, field in recipe_first:
            if name not in _OF_USE and getattr(self, name) != field.default:
                raise UsageError(
                    f"{field.flag} belongs to the training of a generator, and {self.generator} is trained "
                    f"already; leave {field.flag} out"
                )


_OF_USE = ("generator", "short_side", "scales", "flip", "seed")  # after the training


@settings(panel="Method", name="pacl")
class PaclMaps:
    """The patch weights of a PACL head, each class's own."""

    pacl: Annotated[Path, Option("The head, a file of train-pacl.", metavar="FILE")]
    short_side: CamShortSide = None
    scales: Scales = (1.0,)
    flip: Flip = False


@settings(panel="Method", name="maps")
class GivenMaps:
    """The maps of any other program, read from files."""

    from_maps: Annotated[
        Path,
        RunOption(
            "The folder of the maps, a file for each image: .safetensors, .npy or .npz.",
            metavar="DIR",
        ),
    ]


CamMethod = ClassifierMaps | Gradcam | LabelMatching | PaclMaps | GivenMaps


@settings(panel="Method")
class Spread:
    """Maps that are spread along the attention between the patches of a CLIP (CLIP-ES, section 3.3)."""

    affinity: Annotated[bool, Option("Spread the maps along the CLIP's attention.")] = False
    box_threshold: Annotated[
        float | None,
        Option(
            "Share of a map's maximum above which --affinity draws boxes. Default: 0.4.",
            min=0,
            max=1,
        ),
    ] = None
    affinity_side: Annotated[
        int | None,
        Option(
            "Shorter side of an image when --affinity reads the attention, in pixels. Default: "
            "--short-side, else twice the CLIP's own.",
            min=8,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        for flag, value in (
            ("--box-threshold", self.box_threshold),
            ("--affinity-side", self.affinity_side),
        ):
            if value is not None and not self.affinity:
                raise UsageError(f"{flag} belongs to --affinity; give --affinity too")

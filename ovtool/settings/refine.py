"""What `refine` does to class activation maps, and how pseudo masks are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.cam import (
    BackgroundWeight,
    LabelMatching,
    LabelSteps,
    MatchingEpochs,
    MatchingSteps,
    SemplesRecipe,
    Similarity,
)
from ovtool.settings.field import Option, OutputOption, RunOption
from ovtool.settings.option import fields, settings
from ovtool.settings.shared import (
    Crf,
    HeldOut,
    LearningRate,
    ShortSide,
    Training,
    TrainingBatch,
    Warmup,
    WeightDecay,
)

_TAKES_NUMBER, _PLAIN = ("power", "constant"), ("otsu", "rest")


@settings(panel="Steps")
class Apply:
    """The steps that maps go through, one after the other."""

    recipe: SemplesRecipe = None
    apply: Annotated[
        tuple[Literal["prompts", "affinity", "walk", "pamr", "crf", "sam"], ...],
        Option(
            "The steps, in this order. Default: none, which makes pseudo masks of the maps as they are.",
            metavar="STEP,...",
        ),
    ] = ()
    crf: Annotated[Crf, Option("The dense CRF, as the code of this paper has it.")] = "irn"
    walk_on: Annotated[
        Literal["attention", "colour"],
        Option("Which neighbours a map walks to: those that attend alike, or that look alike."),
    ] = "attention"
    walk_radius: Annotated[
        int | None,
        Option(
            "How far a neighbour of the walk is, in places. Default: 3 on attention, 5 on colour.",
            min=1,
        ),
    ] = None
    walk_doublings: Annotated[
        int | None,
        Option(
            "The walk has 2 to this power steps. Default: 2 on attention, 8 on colour.",
            min=0,
            max=20,
        ),
    ] = None
    walk_beta: Annotated[float, Option("The power of the walk's affinities.", min=0)] = 10.0
    walk_deviation: Annotated[
        float,
        Option("Deviation of colours that the walk takes as alike, of 0 to 255.", min=0.001),
    ] = 30.0
    box_threshold: Annotated[
        float, Option("Share of a map's maximum where affinity draws boxes.", min=0, max=1)
    ] = 0.4
    pamr_iterations: Annotated[int, Option("Iterations of pamr.", min=0)] = 10
    proposals: Annotated[
        Path | None, RunOption("The class-agnostic masks of the step sam, as COCO JSON.")
    ] = None
    short_side: ShortSide = None

    def check(self) -> None:
        """Raises UsageError for an order that cannot work, and for fields that do not go together.

        `prompts` makes new maps from nothing but the images, so it comes first or not at all. What works
        on patches (`affinity`, the walk on attention) would undo what was done on pixels (`pamr`, `crf`,
        `sam`, the walk on colour).
        """
        listed, on_pixels = ",".join(self.apply), ""
        for place, step in enumerate(self.apply):
            if step == "prompts" and place > 0:
                raise UsageError(
                    f"--apply {listed} cannot work: prompts makes new maps, which would undo "
                    f"{self.apply[place - 1]}; put prompts first, once"
                )
            if self._is_on_patches(step) and on_pixels:
                raise UsageError(
                    f"--apply {listed} cannot work: {step} works on patches and would undo {on_pixels}, "
                    f"which works on pixels; put {step} before {on_pixels}"
                )
            if step != "prompts" and not self._is_on_patches(step):
                on_pixels = step
        if "sam" in self.apply and self.proposals is None:
            raise UsageError("the step sam needs proposals; give --proposals FILE")
        if self.proposals is not None and "sam" not in self.apply:
            raise UsageError(
                "--proposals is read by the step sam; add sam to --apply, or leave it out"
            )

    def _is_on_patches(self, step: str) -> bool:
        return step == "affinity" or (step == "walk" and self.walk_on == "attention")

    @property
    def reads_attention(self) -> bool:
        """Whether some step reads a CLIP's attention."""
        return any(self._is_on_patches(step) for step in self.apply)

    @property
    def on_images(self) -> tuple[str, ...]:
        """The steps that take one image and its maps after the other: all but `prompts`."""
        return tuple(step for step in self.apply if step != "prompts")


@settings(panel="Step prompts")
class PromptStep(Training):
    """The step prompts: a mask generator learns what background prompts know (SemPLeS, section 3.3)."""

    recipe: SemplesRecipe = None
    epochs: MatchingEpochs = 10.0
    steps: MatchingSteps = None
    batch_size: TrainingBatch = 16
    lr: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.03
    warmup: Warmup = 0
    held_out: HeldOut = 0.0
    background_prompts: Annotated[
        Path | None,
        Option("The prompts, a file of tune-prompts --kind background.", metavar="FILE"),
    ] = None
    generator: Annotated[
        Path | None,
        Option(
            "A mask generator of cam --save-generator, which begins again. Default: a new one on the "
            "CLIP's patches.",
            metavar="FILE",
        ),
    ] = None
    refine_weight: Annotated[
        float | None,
        Option(
            "Weight of the loss of the background prompts (lambda_r). Default: what the model recommends, "
            "else the published 0.05.",
            min=0,
        ),
    ] = None
    background_weight: BackgroundWeight = None
    similarity: Similarity = None
    label_steps: LabelSteps = None
    fit: Annotated[
        Literal["auto", "yes", "no"],
        Option(
            "Fit the generator to the maps before it learns; auto does for maps that no generator made."
        ),
    ] = "auto"
    fit_epochs: Annotated[
        float, Option("How often fitting the generator to the maps sees each image.", min=0.01)
    ] = 5.0
    save_generator: Annotated[
        Path | None, OutputOption("Keep the trained generator here.", metavar="FILE")
    ] = None

    def matching(self) -> LabelMatching:
        """The training of the generator, by matching as `cam` has it."""
        shared = {name: getattr(self, name) for name in fields(Training)}
        return LabelMatching(
            **shared,
            background_weight=self.background_weight,
            similarity=self.similarity,
            label_steps=self.label_steps,
        )

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        self.matching()


RefineFormat = Annotated[
    Literal["coco", "safetensors"] | None,
    OutputOption(
        "What is written: coco for pseudo masks, safetensors for maps. Default: by the ending of -o, else "
        "coco."
    ),
]


@settings(panel="Pseudo masks")
class PseudoMasks:
    """How maps become pseudo masks, and the images that are drawn of them."""

    background_score: Annotated[
        str | None,
        Option(
            "How the background is scored. otsu: the constant that parts the maps of an image in two. "
            "constant:T. power:A is (1 - max) to that power. rest: 1 less the maps. Default: rest after crf, "
            "else otsu.",
            metavar="RULE",
        ),
    ] = None
    confidence: Annotated[
        float | None,
        Option(
            "Pixels whose best score has less than this share of all are left out of all masks. Default: 0.95 "
            "after crf, else 0.",
            min=0,
            max=1,
        ),
    ] = None
    label_maps: Annotated[
        Path | None, OutputOption("Write label maps as PNG here.", metavar="DIR")
    ] = None
    overlays: Annotated[
        Path | None, OutputOption("Draw the pseudo masks over the images here.", metavar="DIR")
    ] = None

    def check(self) -> None:
        """Raises UsageError for a rule that is none."""
        if self.background_score is not None:
            background_rule(self.background_score)


def background_rule(spec: str) -> tuple[str, float]:
    """The kind and the number of a rule: otsu, rest, power:A or constant:T.

    Raises:
        UsageError: It is none of them.
    """
    kind, _, number = spec.partition(":")
    takes_number = kind in _TAKES_NUMBER
    try:
        value = float(number) if takes_number else 1.0
    except ValueError:
        value = -1.0
    is_wrong = kind not in (*_TAKES_NUMBER, *_PLAIN) or (number and not takes_number)
    if is_wrong or not 0 <= value < 1000 or (kind == "constant" and value > 1):
        raise UsageError(
            f"--background-score {spec} is no rule; give otsu, rest, power:A (such as power:1) or "
            "constant:T with T from 0 to 1"
        )
    return kind, value

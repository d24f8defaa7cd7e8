"""Pairs of a noun and the mask that it means (OVSeg, section 3.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option, OutputOption, RunOption
from ovtool.settings.option import settings
from ovtool.settings.propose import RegionFeatures, check_regions
from ovtool.settings.shared import (
    PUBLISHED_WAY,
    CropSize,
    Proposals,
    Proposer,
    Seed,
    TemplateSet,
)

Recipe = Annotated[
    Literal["ovseg"] | None,
    Option(
        f"{PUBLISHED_WAY} ovseg: the mask of highest cosine, and no noun left out.",
        panel="Recipe",
    ),
]
Crops = Annotated[
    Path | None,
    OutputOption(
        "Write the masked crops of the pairs here: a folder, or x.tar (WebDataset).",
        metavar="PLACE",
    ),
]


@settings(panel="Nouns")
class Nouns:
    """Which words of the captions count as nouns."""

    recipe: Recipe = None
    captions_per_image: Annotated[
        Literal["1", "5", "all"], Option("Captions of an image, drawn by --seed.")
    ] = "1"
    seed: Seed = 0
    pos: Annotated[
        tuple[Literal["NOUN", "PROPN"], ...],
        Option("NOUN for common nouns, PROPN for proper ones.", metavar="TAGS"),
    ] = ("NOUN",)
    chunks: Annotated[
        bool,
        Option(
            "Take noun phrases: the parser's, or adjectives and nouns where the pipeline has none."
        ),
    ] = False
    stop: Annotated[
        Path | None,
        Option(
            "Words to leave out, one a line. Default: words that name no region, such as photo, view, "
            "front, side, group, day.",
        ),
    ] = None
    no_stop: Annotated[bool, Option("Leave out no word, as in the paper.")] = False
    spacy_model: Annotated[
        str | None,
        RunOption(
            "An installed spaCy pipeline, such as en_core_web_sm. Default: the bundled tagger.",
            metavar="NAME",
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError for no part of speech, and for words to leave out together with none."""
        if not self.pos:
            raise UsageError("--pos names no part of speech; give NOUN, PROPN or both")
        if self.stop is not None and self.no_stop and self.recipe is None:
            raise UsageError(
                "--stop names words to leave out, and --no-stop leaves out none; give one of the two"
            )


@settings(panel="Matching")
class Matching:
    """How a noun takes its mask."""

    recipe: Recipe = None
    proposer: Proposer = None
    proposals: Proposals = None
    region_features: RegionFeatures = None
    crop_size: CropSize = None
    templates: Annotated[
        TemplateSet | None,
        Option(
            "The sentences around the nouns: 1, 7, 14 or 80. Default: what the model recommends, else one."
        ),
    ] = None
    matching: Annotated[
        Literal["cosine", "softmax"] | None,
        Option(
            "cosine: the mask of highest cosine. softmax: of highest probability over the nouns of the "
            "image. Default: what the model recommends, else cosine, as published."
        ),
    ] = None
    quality_weight: Annotated[
        float | None,
        Option(
            "Exponent of a proposal's quality, by which its score is multiplied. Default: what the model recommends, "
            "else 0, as published.",
            min=0,
        ),
    ] = None
    min_similarity: Annotated[
        float | None,
        Option(
            "Below this cosine a noun gets no mask. Default: every noun has one, as in the paper.",
            min=-1,
            max=1,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        check_regions(self.proposer, self.proposals)
        if self.region_features == "tokens" and self.crop_size is not None:
            raise UsageError("--crop-size belongs to --region-features crops")

"""The ways to give pixels their words, and what is drawn of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import OUTPUT, Option, RunOption
from ovtool.settings.option import settings
from ovtool.settings.propose import RegionFeatures
from ovtool.settings.shared import (
    PUBLISHED_WAY,
    Crf,
    CropSize,
    Flip,
    LogitScale,
    MaxProposals,
    PaclHead,
    Prompts,
    Proposals,
    Proposer,
    ShortSide,
    Stride,
    Templates,
    Window,
)
from ovtool.settings.words import Protocol

Recipe = Annotated[
    Literal["ovseg", "pacl", "naclip", "sclip", "clearclip", "maskclip"] | None,
    Option(
        f"{PUBLISHED_WAY} For two-stage: ovseg. For patch: pacl, with the head of --pacl or of the model; and "
        "without a head naclip (without PAMR), sclip, clearclip and maskclip (as later papers run it).",
        panel="Recipe",
    ),
]
LastBlock = Annotated[
    Literal["clip", "maskclip", "sclip", "clearclip", "naclip"] | None,
    Option(
        "The attention of the image tower's last block. Default: what the weights recommend, else "
        "naclip; clip on timm towers."
    ),
]
PatchStride = Annotated[
    int | None,
    Option(
        "Step between patches in pixels, a divisor of their size: 4 of patches of 16 gives finer masks "
        "for 16 times the work. Default: their size.",
        min=1,
        metavar="PIXELS",
    ),
]
Scales = Annotated[
    tuple[float, ...] | None,
    Option(
        "Show each image at several sizes, as shares of the short side, such as 0.75,1,1.25. Default: what "
        "the weights recommend, else 1.",
        min=0.1,
        max=10,
        metavar="LIST",
        unique=True,
    ),
]
ImagePrior = Annotated[
    float | None,
    Option(
        "Added to the score of a word in every pixel, in nats, times the probability of the word for the whole "
        "image. Default: what the weights recommend, else 0.",
        min=0,
        metavar="NATS",
    ),
]
EdgeCrf = Annotated[
    Crf | Literal["none"] | None,
    Option(
        "Let masks follow edges by a dense CRF of this preset, or none. Default: what the weights "
        "recommend, else none."
    ),
]
MinScore = Annotated[
    float, Option("Pixels whose best word has a lower probability get no word.", min=0, max=1)
]
MaxEntropy = Annotated[
    float | None,
    Option(
        "Pixels in which the probabilities of the words have a higher entropy get no word; with K words it is at most "
        "ln K. Default: no bound.",
        min=0,
        metavar="NATS",
    ),
]


@settings(panel="Method")
class Dense:
    """Words are compared with the patches of an image; the base of two methods."""

    protocol: Protocol = None
    last_block: LastBlock = None
    short_side: ShortSide = None
    window: Window = None
    stride: Stride = None
    logit_scale: LogitScale = None
    pacl: PaclHead = None
    patch_stride: PatchStride = None
    scales: Scales = None
    flip: Flip = False
    image_prior: ImagePrior = None
    crf: EdgeCrf = None
    templates: Templates = "one"
    min_score: MinScore = 0.0
    max_entropy: MaxEntropy = None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        check_windows(self.window, self.stride)
        if self.pacl not in (None, "none") and self.last_block is not None:
            raise UsageError(
                "--pacl reads the last block that it was trained on; leave out --last-block, or give "
                "--pacl none"
            )


@settings(panel="Method")
class Patch(Dense):
    """Each patch takes the word that is closest to it."""

    recipe: Recipe = None


@settings(panel="Method")
class Fused(Dense):
    """The scores of patches are pooled in class-agnostic regions."""

    proposer: Proposer = None
    proposals: Proposals = None
    segments: Annotated[
        tuple[float, ...] | None,
        Option(
            "Take the mean score of each segment in place of proposals: scales of Felzenszwalb's superpixels, "
            "such as 60,100,200, over which scores are averaged; 0 is none. Default: what the weights "
            "recommend, else 0.",
            min=0,
            metavar="LIST",
            unique=True,
        ),
    ] = None

    @property
    def names_masks(self) -> bool:
        """Whether it is said where class-agnostic masks come from."""
        return self.proposer is not None or self.proposals is not None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        super().check()
        if self.segments and any(self.segments):
            if 0 in self.segments:
                raise UsageError("--segments 0 means none; leave the 0 or the other scales out")
            if self.names_masks:
                flag = "--proposer" if self.proposals is None else "--proposals"
                raise UsageError(f"--segments take the place of {flag}; leave one of them out")


@settings(panel="Method")
class TwoStage:
    """Each proposal is named by what the CLIP sees of it (OVSeg)."""

    recipe: Recipe = None
    protocol: Protocol = None
    proposer: Proposer = None
    proposals: Proposals = None
    max_proposals: MaxProposals = None
    embeddings: Annotated[
        Path | None, Option("Embeddings of the --proposals, as propose saved them.")
    ] = None
    prompts: Prompts = None
    ensemble: Annotated[
        float | None,
        Option(
            "The CLIP's share (lambda) in the name of a proposal that has an embedding. Default: what the model "
            "recommends, else the published 0.7.",
            min=0,
            max=1,
        ),
    ] = None
    region_features: RegionFeatures = None
    background_tokens: Annotated[
        Literal["keep", "drop"] | None,
        Option(
            "drop leaves out the patches of a crop that show nothing of the mask, and with them the prompts. "
            "Default: keep."
        ),
    ] = None
    crop_size: CropSize = None
    short_side: ShortSide = None
    logit_scale: LogitScale = None
    templates: Templates = "one"
    min_score: MinScore = 0.0
    max_entropy: MaxEntropy = None

    def check(self) -> None:
        """Raises UsageError for fields that do not go together."""
        if self.embeddings is not None and self.proposals is None:
            raise UsageError("--embeddings go with the masks of --proposals; give that file too")
        if self.region_features == "tokens":
            if self.crop_size is not None:
                raise UsageError("--crop-size belongs to --region-features crops")
            if self.background_tokens == "drop":
                raise UsageError("--background-tokens belongs to --region-features crops")
            if self.prompts not in (None, "none"):
                raise UsageError(
                    "--prompts stand for the blank patches of masked crops; give "
                    "--region-features crops"
                )
        elif self.region_features != "both" and self.short_side is not None:
            raise UsageError(
                "--short-side is for --region-features tokens and both; leave it out with "
                "--method two-stage"
            )


@settings(panel="Method")
class Trained:
    """A network of train-segmenter gives its own classes; --classes chooses among them."""

    segmenter: Annotated[Path, Option("The network, a file of train-segmenter.")]
    short_side: ShortSide = None
    scales: Scales = None
    flip: Flip = False
    crf: EdgeCrf = None
    min_score: MinScore = 0.0


Method = Patch | Fused | TwoStage | Trained


@settings(panel=OUTPUT)
class Drawn:
    """What is drawn of each image, in folders."""

    label_maps: Annotated[
        Path | None, RunOption("Write label maps here, as PNG.", metavar="DIR")
    ] = None
    overlays: Annotated[
        Path | None, RunOption("Write the images with their masks here.", metavar="DIR")
    ] = None
    heatmaps: Annotated[
        Path | None, RunOption("Write the score of each word here, as PNG.", metavar="DIR")
    ] = None
    cut_outs: Annotated[
        Path | None,
        RunOption(
            "Write what each word covers here, cut out of the image, as PNG with alpha.",
            metavar="DIR",
        ),
    ] = None


def check_windows(window: int | None, stride: int | None) -> None:
    """Raises UsageError for windows that leave gaps."""
    if stride is not None and not window:
        raise UsageError("--stride is the step of --window; give that too")
    if window is not None and stride is not None and stride > window:
        raise UsageError(
            f"--stride {stride} is more than --window {window}: pixels would be missed"
        )

"""Options said once: aliases for the signatures of the commands. No flag means two things.

Every flag, the commands that take it (a sub-command is joined by a hyphen), and what it says:

    --model              segment                     the CLIP: tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME, a path
    --device             segment                     where to compute
    --precision          segment                     the number type of the networks
    --batch-size         segment                     images or crops at once
    --limit              segment, propose            stop after so many images
    --resume             segment, propose            go on with a run that was cut off
    --part-size          segment, propose            images in one part of a run
    --strict             segment, propose            stop at the first image that fails
    --overwrite          segment, propose, evaluate, data-make  replace an output that exists
    --dry-run            segment, propose, data-make  say what would be done
    --output             segment, propose, evaluate  where the result goes
    --json               segment, propose, evaluate, data-list, data-make, info, check, doctor  one JSON document on stdout
    --coco               segment, propose            images from a COCO JSON
    --images             segment, propose, data-make  the folder of its file names; of data make, how many
    --classes            segment                     the words
    --classes-file       segment                     the words, one class a line
    --vocabulary         segment                     the words of a known data set
    --classes-per-image  segment, evaluate           the words of each image
    --background         segment                     words that compete and are dropped
    --templates          segment                     the sentences around the words
    --method             segment                     how pixels get their words
    --last-block         segment                     the attention of the image tower's last block
    --short-side         segment                     side at which the model sees pictures
    --window             segment                     side of the sliding windows
    --stride             segment                     step of the sliding windows
    --logit-scale        segment                     sharpness of the softmax over words
    --min-score          segment                     probability below which a pixel gets no word
    --proposer           segment, propose            where class-agnostic masks come from
    --proposals          segment                     masks from a file
    --max-proposals      propose                     the most masks of an image
    --min-area           propose                     the least share of the picture in a mask
    --label-maps         segment                     folder for label maps
    --overlays           segment                     folder for pictures with the masks drawn in
    --heatmaps           segment                     folder for a picture of each word's score
    --ground-truth       evaluate                    the truth
    --metric             evaluate                    what is measured
    --with-background    evaluate                    pixels of no mask are a class
    --ignore-label       evaluate                    classes of the truth that are not counted
    --missing            evaluate                    images of the truth with no prediction
    --split              data-make                   the part of a data set
    --seed               data-make                   the start of every random choice
    --size               data-make                   side of the pictures
    --preset             data-make                   another law of scenes
    --workers            data-make                   processes that share the work
    --verbose            all                         more on stderr
    --quiet              all                         less on stderr
    --help               all                         the options of a command
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

# --- every command ---------------------------------------------------------------------------
VerboseOpt = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Say more on stderr; may be repeated.",
    ),
]
QuietOpt = Annotated[
    int,
    typer.Option(
        "--quiet", "-q", count=True, show_default=False, help="Say less on stderr; may be repeated."
    ),
]

# --- model and machine -------------------------------------------------------------------------
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="CLIP: tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME or a path. Without it: OVTOOL_MODEL, "
        "else ViT-B-16/openai if it can be had, else tiny.",
    ),
]
DeviceOpt = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps. Default: the best."),
]
PrecisionOpt = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option("--precision", help="Number type of the networks; auto follows the device."),
]
BatchSizeOpt = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Images or crops at once; halved when memory runs out."
    ),
]

# --- runs over many images -----------------------------------------------------------------------
LimitOpt = Annotated[
    int | None, typer.Option("--limit", min=1, help="Stop after this many images.")
]
ResumeOpt = Annotated[
    bool, typer.Option("--resume", help="Keep the whole parts of a run that was cut off.")
]
PartSizeOpt = Annotated[
    int, typer.Option("--part-size", min=1, help="Images in a part, the unit of --resume.")
]
StrictOpt = Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read, done and written, and stop.")
]

# --- inputs and outputs ----------------------------------------------------------------------------
InputsArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGES]...",
        show_default=False,
        help="Image files, folders (with all below them), - for a list on stdin, or one data set: "
        "collage:demo.",
    ),
]
CocoOpt = Annotated[
    Path | None,
    typer.Option("--coco", metavar="FILE", help="Take the images of a COCO JSON; - is stdin."),
]
ImagesOpt = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="The folder that a COCO JSON's names start from."),
]
OutputOpt = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where the result goes; - is stdout."),
]
OverwriteOpt = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

# --- words --------------------------------------------------------------------------------------------
ClassesOpt = Annotated[
    str | None,
    typer.Option(
        "--classes", metavar="WORDS", help='The words: "person|man,tv"; | between synonyms.'
    ),
]
ClassesFileOpt = Annotated[
    Path | None,
    typer.Option(
        "--classes-file", metavar="FILE", help="The words: a class a line, ; between synonyms."
    ),
]
VocabularyOpt = Annotated[
    Literal["voc20", "coco80", "coco171", "ade150"] | None,
    typer.Option("--vocabulary", help="The words of a known data set."),
]
ClassesPerImageOpt = Annotated[
    Path | None,
    typer.Option(
        "--classes-per-image",
        metavar="FILE",
        help="The words of each image: JSON, file name to list of words.",
    ),
]
BackgroundOpt = Annotated[
    str | None,
    typer.Option(
        "--background",
        metavar="WORDS",
        help="Words that compete and are dropped, or none. Default with --classes: a stuff list.",
    ),
]
TemplatesOpt = Annotated[
    Literal["one", "pacl", "vild", "openai"],
    typer.Option("--templates", help="The sentences around the words: 1, 7, 14 or 80."),
]

# --- segmenting -----------------------------------------------------------------------------------------
MethodOpt = Annotated[
    Literal["patch", "fused"],
    typer.Option(
        "--method",
        help="patch: the best word of each patch. fused: patch scores pooled in regions.",
    ),
]
ProposerOpt = Annotated[
    Literal["regions"],
    typer.Option("--proposer", help="Where class-agnostic masks come from: merged superpixels."),
]
LastBlockOpt = Annotated[
    Literal["clip", "maskclip", "sclip", "clearclip", "naclip"] | None,
    typer.Option(
        "--last-block",
        help="The attention of the image tower's last block. Default: what the weights recommend, else naclip; clip on timm towers.",
    ),
]
ShortSideOpt = Annotated[
    int | None,
    typer.Option(
        "--short-side",
        min=8,
        help="Shorter side of a picture when the model sees it. Default: what the weights recommend, else 1.5 times the model's own.",
    ),
]
WindowOpt = Annotated[
    int | None,
    typer.Option(
        "--window",
        min=0,
        help="Side of the sliding windows, in pixels of the resized picture; 0 shows it whole. "
        "Default: what the weights recommend, else 0.",
    ),
]
StrideOpt = Annotated[
    int | None, typer.Option("--stride", min=1, help="Step of the sliding windows, in pixels.")
]
LogitScaleOpt = Annotated[
    float | None,
    typer.Option("--logit-scale", min=0, help="Sharpness of the softmax. Default: the model's."),
]
MinScoreOpt = Annotated[
    float,
    typer.Option("--min-score", min=0, max=1, help="Below this probability a pixel gets no word."),
]
ProposalsOpt = Annotated[
    Path | None,
    typer.Option("--proposals", metavar="FILE", help="Class-agnostic masks: a COCO JSON."),
]
LabelMapsOpt = Annotated[
    Path | None, typer.Option("--label-maps", metavar="DIR", help="Write label maps here, as PNG.")
]
OverlaysOpt = Annotated[
    Path | None,
    typer.Option("--overlays", metavar="DIR", help="Write the pictures with their masks here."),
]
HeatmapsOpt = Annotated[
    Path | None,
    typer.Option("--heatmaps", metavar="DIR", help="Write each word's score here, as PNG."),
]

# --- measuring --------------------------------------------------------------------------------------------
GroundTruthOpt = Annotated[
    str,
    typer.Option(
        "--ground-truth",
        metavar="GT",
        help="COCO JSON, parts folder, or folder of label maps with classes.txt.",
    ),
]
MetricOpt = Annotated[Literal["miou"], typer.Option("--metric", help="What is measured.")]
WithBackgroundOpt = Annotated[
    bool,
    typer.Option(
        "--with-background", help="Pixels of no mask are the class background, in both files."
    ),
]
IgnoreLabelOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-label",
        metavar="LABEL",
        help="A class of the truth, or a value of its label maps, that is not counted; "
        "may be repeated.",
    ),
]
MissingOpt = Annotated[
    Literal["refuse", "empty", "skip"],
    typer.Option("--missing", help="Images of the truth with no prediction."),
]

# --- data sets ----------------------------------------------------------------------------------------------
SplitOpt = Annotated[
    str | None,
    typer.Option("--split", metavar="SPLIT", help="train, val, test or demo. Default: demo."),
]
ImageCountOpt = Annotated[
    int, typer.Option("--images", metavar="N", min=1, help="How many images to make.")
]
SeedOpt = Annotated[int, typer.Option("--seed", min=0, help="The start of every random choice.")]
SizeOpt = Annotated[
    int,
    typer.Option("--size", min=32, max=2048, help="Side of the square pictures, in pixels."),
]
PresetOpt = Annotated[
    Literal["cooccur", "single"] | None,
    typer.Option(
        "--preset",
        help="Another law of scenes: cooccur ties 20 nouns to their grounds, at a rate of 0.9 in "
        "train and 0.5 elsewhere; single is one large object a picture.",
    ),
]
WorkersOpt = Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")]

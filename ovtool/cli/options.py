"""Options said once: aliases for the signatures of the commands. No flag means two things.

Every flag, the commands that take it (a sub-command is joined by a hyphen), and what it says:

    --model              segment, mine-pairs, propose, train-proposer, tune-prompts, probe-oracle  the CLIP: tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME, a path
    --device             segment, mine-pairs, propose, train-proposer, tune-prompts, probe-oracle  where to compute
    --precision          segment, mine-pairs, train-proposer, tune-prompts, probe-oracle  the number type of the networks
    --batch-size         segment, mine-pairs, train-proposer, tune-prompts, probe-oracle  images or crops at once
    --limit              segment, propose, mine-pairs, probe-oracle  stop after so many images
    --resume             segment, propose, mine-pairs, train-proposer, tune-prompts  go on with a run that was cut off
    --part-size          segment, propose, mine-pairs  images in one part of a run
    --strict             segment, propose, mine-pairs  stop at the first image that fails
    --overwrite          segment, propose, evaluate, data-make, mine-pairs, train-proposer, tune-prompts  replace an output that exists
    --dry-run            segment, propose, data-make, mine-pairs, tune-prompts  say what would be done
    --output             segment, propose, evaluate, mine-pairs, train-proposer, tune-prompts  where the result goes
    --json               segment, propose, evaluate, data-list, data-make, info, check, doctor, mine-pairs, train-proposer, tune-prompts, probe-oracle  one JSON document on stdout
    --coco               segment, propose, probe-oracle  images from a COCO JSON
    --images             segment, propose, data-make, mine-pairs, train-proposer, tune-prompts, probe-oracle  the folder of its file names; of data make, how many
    --classes            segment                     the words
    --classes-file       segment                     the words, one class a line
    --vocabulary         segment                     the words of a known data set
    --classes-per-image  segment, evaluate, probe-oracle  the words of each image
    --background         segment                     words that compete and are dropped
    --templates          segment, mine-pairs, train-proposer, probe-oracle  the sentences around the words
    --method             segment                     how pixels get their words
    --last-block         segment                     the attention of the image tower's last block
    --short-side         segment                     side at which the model sees pictures
    --window             segment                     side of the sliding windows
    --stride             segment                     step of the sliding windows
    --logit-scale        segment                     sharpness of the softmax over words
    --min-score          segment                     probability below which a pixel gets no word
    --proposer           segment, propose, mine-pairs, probe-oracle  where class-agnostic masks come from
    --proposals          segment, mine-pairs, probe-oracle  masks from a file
    --max-proposals      propose                     the most masks of an image
    --min-area           propose                     the least share of the picture in a mask
    --nms                propose                     IoU above which of two masks the worse is dropped
    --embeddings         propose, segment  file of the masks' embeddings
    --arch               train-proposer              the network
    --targets            train-proposer              what the network shall find
    --queries            train-proposer              how many proposals a picture has
    --steps              train-proposer, tune-prompts  steps of a training
    --rate               train-proposer, tune-prompts  peak learning rate
    --warmup             train-proposer, tune-prompts  steps in which the rate rises
    --crop-size          train-proposer, tune-prompts, segment, probe-oracle  side of the crops that a network sees
    --held-out           train-proposer, tune-prompts  share of the images for validation
    --validate-every     train-proposer              steps between validations
    --save-every         train-proposer              steps between checkpoints
    --kind               tune-prompts                what the prompts stand for
    --train              tune-prompts                what is trained: prompts, the image tower, or both in turn
    --depth              tune-prompts                at how many places prompts replace tokens
    --loss               tune-prompts                what pairs of one noun count as
    --epochs             tune-prompts                how often each pair is seen
    --tower-rate         tune-prompts                peak learning rate of the image tower
    --prompts            segment, probe-oracle       mask prompts from a file
    --ensemble           segment                     the CLIP's share in the name of a proposal
    --region-features    segment                     how a region is shown to the CLIP
    --label-maps         segment                     folder for label maps
    --overlays           segment                     folder for pictures with the masks drawn in
    --heatmaps           segment                     folder for a picture of each word's score
    --captions           mine-pairs                  captioned images: a data set or a file
    --captions-per-image  mine-pairs                 how many captions of each image
    --pos                mine-pairs                  common nouns, proper nouns or both
    --chunks             mine-pairs                  noun phrases in place of nouns
    --stop               mine-pairs                  words to leave out
    --no-stop            mine-pairs                  leave out none
    --spacy-model        mine-pairs                  the pipeline that finds nouns
    --matching           mine-pairs                  how a noun takes its mask
    --quality-weight     mine-pairs                  how much the quality of masks counts
    --min-similarity     mine-pairs                  cosine below which a noun gets no mask
    --crops              mine-pairs                  folder or tar for masked crops
    --ground-truth       evaluate                    the truth
    --metric             evaluate                    what is measured
    --with-background    evaluate                    pixels of no mask are a class
    --ignore-label       evaluate                    classes of the truth that are not counted
    --missing            evaluate                    images of the truth with no prediction
    --split              data-make                   the part of a data set
    --seed               data-make, mine-pairs, train-proposer, tune-prompts  the start of every random choice
    --size               data-make                   side of the pictures
    --preset             data-make                   another law of scenes
    --workers            data-make, train-proposer, tune-prompts  processes that share the work
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
    Literal["patch", "fused", "two-stage"],
    typer.Option(
        "--method",
        help="patch: the best word of each patch. fused: patch scores pooled in regions. two-stage: "
        "masks named one by one.",
    ),
]
ProposerOpt = Annotated[
    str | None,
    typer.Option(
        "--proposer",
        metavar="NAME",
        help="Where class-agnostic masks come from: regions, maskformer[:ID], sam[:ID], or a file of "
        "train-proposer. Default: maskformer on a large model if it is cached, else regions.",
    ),
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
PromptsOpt = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Mask prompts (and a tuned tower) of tune-prompts, or none. Default: those that come with "
        "the model, if any.",
    ),
]
CropSizeOpt = Annotated[
    int | None,
    typer.Option("--crop-size", min=8, help="Side of the masked crops. Default: the model's."),
]
EnsembleOpt = Annotated[
    float | None,
    typer.Option(
        "--ensemble",
        min=0,
        max=1,
        help="lambda: the CLIP's share in the name of a proposal that has an embedding. Default: 0.7.",
    ),
]
RegionFeaturesOpt = Annotated[
    Literal["crops", "tokens"] | None,
    typer.Option(
        "--region-features",
        help="crops: a masked crop of each region. tokens: one pass over the picture, a class token for "
        "each region. Default: crops.",
    ),
]
EmbeddingsOpt = Annotated[
    Path | None,
    typer.Option(
        "--embeddings", metavar="FILE", help="Embeddings of the --proposals, as propose wrote them."
    ),
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

# --- pairs ------------------------------------------------------------------------------------------------
CaptionsOpt = Annotated[
    str,
    typer.Option(
        "--captions",
        metavar="SPEC",
        help="A data set (coco means coco:train2017 here), or a COCO captions JSON with --images DIR.",
    ),
]
CaptionsPerImageOpt = Annotated[
    Literal["1", "5", "all"],
    typer.Option("--captions-per-image", help="Captions of an image, chosen by --seed."),
]
PosOpt = Annotated[
    str, typer.Option("--pos", metavar="TAGS", help="NOUN for common nouns, PROPN for proper ones.")
]
ChunksOpt = Annotated[
    bool,
    typer.Option(
        "--chunks", help="Noun phrases: the parser's, or adjectives and nouns where there is none."
    ),
]
StopOpt = Annotated[
    Path | None,
    typer.Option(
        "--stop",
        metavar="FILE",
        help="Words to leave out, one a line. Default: words that name no region, such as photo, "
        "view, front, side, group, day.",
    ),
]
NoStopOpt = Annotated[
    bool, typer.Option("--no-stop", help="Leave out no word: the paper's behaviour.")
]
SpacyModelOpt = Annotated[
    str | None,
    typer.Option(
        "--spacy-model",
        metavar="NAME",
        help="An installed spaCy pipeline, such as en_core_web_sm. Default: the bundled tagger.",
    ),
]
MatchingOpt = Annotated[
    Literal["cosine", "softmax"],
    typer.Option(
        "--matching",
        help="cosine: the mask of highest cosine, the paper's. softmax: of highest probability "
        "over the nouns of the image.",
    ),
]
QualityWeightOpt = Annotated[
    float,
    typer.Option(
        "--quality-weight",
        min=0,
        help="Power of a proposal's quality as a prior of masks; 0 is the paper's.",
    ),
]
MinSimilarityOpt = Annotated[
    float | None,
    typer.Option("--min-similarity", min=-1, max=1, help="Below this cosine a noun gets no mask."),
]
CropsOpt = Annotated[
    Path | None,
    typer.Option(
        "--crops",
        metavar="PLACE",
        help="Write the masked crops here: a folder, or x.tar (WebDataset).",
    ),
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
MetricOpt = Annotated[
    Literal["miou", "recall"],
    typer.Option(
        "--metric",
        help="What is measured: classes of pixels, or how many true masks were proposed.",
    ),
]
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

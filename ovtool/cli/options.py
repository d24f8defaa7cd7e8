"""Options of the commands that are not declared by settings yet: aliases for their signatures.

Every flag, the commands that take it, and what it says:

    --model              train-proposer, tune-prompts, train-segmenter, cam, refine  the CLIP: tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME, a path
    --device             train-proposer, tune-prompts, train-segmenter, cam, refine  where to compute
    --precision          train-proposer, tune-prompts, train-segmenter  the number type of the networks
    --batch-size         train-proposer, tune-prompts, train-segmenter, cam, refine  images or crops at once
    --limit              cam  stop after so many images
    --resume             train-proposer, tune-prompts, train-segmenter, cam, refine  go on with a run that was cut off
    --part-size          cam, refine  images in one part of a run
    --strict             cam, refine  stop at the first image that fails
    --overwrite          train-proposer, tune-prompts, train-segmenter, cam, refine  replace an output that exists
    --dry-run            tune-prompts, cam, refine  say what would be done
    --output             train-proposer, tune-prompts, train-segmenter, cam, refine  where the result goes
    --json               train-proposer, tune-prompts, train-segmenter, cam, refine  one JSON document on stdout
    --images             train-proposer, tune-prompts, train-segmenter, cam, refine  the folder of its file names; of data make, how many
    --classes            cam  the words
    --background         cam  words that compete and are dropped
    --templates          train-proposer  the sentences around the words
    --method             cam  how pixels get their words
    --short-side         train-segmenter, cam  side at which the model sees pictures
    --pacl               cam  the head that aligns patches with text
    --scales             cam  several sizes at which a picture is shown
    --flip               cam  the mirror image is shown too
    --proposals          refine  masks from a file
    --arch               train-proposer, train-segmenter, cam  the network
    --targets            train-proposer  what the network shall find
    --queries            train-proposer  how many proposals a picture has
    --class-weight       train-proposer  weight of the words' loss
    --steps              train-proposer, tune-prompts, train-segmenter, cam, refine  steps of a training; of refine, what is done
    --rate               train-proposer, tune-prompts, train-segmenter, cam, refine  peak learning rate
    --warmup             train-proposer, tune-prompts, train-segmenter  steps in which the rate rises
    --crop-size          train-proposer, tune-prompts, train-segmenter  side of the crops that a network sees
    --held-out           train-proposer, tune-prompts, train-segmenter  share of the images for validation
    --validate-every     train-proposer, train-segmenter  steps between validations
    --save-every         train-proposer, train-segmenter  steps between checkpoints
    --validation         train-segmenter  labels to measure on in place of those held out
    --validation-images  train-segmenter  the folder of their images
    --kind               tune-prompts  what the prompts stand for
    --generator          tune-prompts, cam, refine  the mask generator: its backbone, or its file
    --push               tune-prompts  from what background prompts are pushed
    --push-weight        tune-prompts  how much that counts
    --length             tune-prompts  vectors of a background prompt
    --init               tune-prompts  where its vectors start
    --similarity         tune-prompts, cam, refine  how cosines become losses
    --words              tune-prompts  words that prompts are compared with
    --train              tune-prompts  what is trained: prompts, the image tower, or both in turn
    --depth              tune-prompts  at how many places prompts replace tokens
    --loss               tune-prompts  what pairs of one noun count as
    --epochs             tune-prompts, cam, refine  how often each pair is seen
    --tower-rate         tune-prompts  peak learning rate of the image tower
    --start              cam  what the head, the generator, begins as
    --crf                refine  the preset of a dense CRF
    --label-maps         refine  folder for label maps
    --overlays           refine  folder for pictures with the masks drawn in
    --labels             cam  which classes each image shows
    --from-maps          cam  a folder of given maps
    --affinity           cam  spread maps along the CLIP's attention
    --box-threshold      cam  of a map's maximum, for the affinity's boxes
    --sentence           cam  the sentence around the words
    --fine-tune          cam  train the backbone too
    --hidden             cam  channels of the head's hidden layer
    --save-generator     cam, refine  where the mask generator goes
    --background-prompts  refine  a file of background prompts
    --background-weight  cam, refine  the weight of the background in matching
    --background-prompts refine  a file of background prompts
    --refine-weight      refine  how much background prompts count
    --walk-on            refine  which neighbours maps walk to
    --background-score   refine  how pseudo masks score the background
    --confidence         refine  share of scores below which a pixel is in doubt
    --select             cam  which step is kept
    --label-steps        cam  steps on the labels alone, before matching
    --crop-scale         cam, tune-prompts  least share of a picture in a random crop
    --with-background    train-segmenter  pixels of no mask are a class
    --seed               train-proposer, tune-prompts, train-segmenter, cam, refine  the start of every random choice
    --workers            train-proposer, tune-prompts, train-segmenter  processes that share the work
    --verbose            all  more on stderr
    --quiet              all  less on stderr
    --help               all  the options of a command
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
TemplatesOpt = Annotated[
    Literal["one", "pacl", "vild", "openai"],
    typer.Option("--templates", help="The sentences around the words: 1, 7, 14 or 80."),
]

# --- segmenting -----------------------------------------------------------------------------------------
ProposalsOpt = Annotated[
    Path | None,
    typer.Option("--proposals", metavar="FILE", help="Class-agnostic masks: a COCO JSON."),
]
CropSizeOpt = Annotated[
    int | None,
    typer.Option("--crop-size", min=8, help="Side of the masked crops. Default: the model's."),
]
LabelMapsOpt = Annotated[
    Path | None, typer.Option("--label-maps", metavar="DIR", help="Write label maps here, as PNG.")
]
OverlaysOpt = Annotated[
    Path | None,
    typer.Option("--overlays", metavar="DIR", help="Write the pictures with their masks here."),
]

# --- maps and masks from image-level labels ---------------------------------------------------------------
GeneratorOpt = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help="The mask generator that ovtool cam --save-generator wrote; masks come from it.",
    ),
]
SimilarityOpt = Annotated[
    Literal["raw", "shifted"] | None,
    typer.Option(
        "--similarity",
        help="raw: the cosine, clamped to (0, 1), the paper's. shifted: (1 + cosine) / 2, which has a "
        "gradient everywhere. Default: raw, unless the model's cosines reach 0.",
    ),
]

# --- data sets ----------------------------------------------------------------------------------------------
SeedOpt = Annotated[int, typer.Option("--seed", min=0, help="The start of every random choice.")]

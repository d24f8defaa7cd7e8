"""Options said once: aliases for the signatures of the commands. No flag means two things.

Every flag, the commands that take it (a sub-command is joined by a hyphen), and what it says:

    --model              segment, mine-pairs, propose, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify, cam, refine  the CLIP: tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME, a path
    --device             segment, mine-pairs, propose, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify, cam, refine  where to compute
    --precision          segment, mine-pairs, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify  the number type of the networks
    --batch-size         segment, mine-pairs, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, cam, refine  images or crops at once
    --limit              segment, propose, mine-pairs, probe-oracle, probe-alignment, probe-coherence, probe-classify, cam  stop after so many images
    --resume             segment, propose, mine-pairs, train-proposer, tune-prompts, train-segmenter, train-pacl, cam, refine  go on with a run that was cut off
    --part-size          segment, propose, mine-pairs, cam, refine  images in one part of a run
    --strict             segment, propose, mine-pairs, cam, refine  stop at the first image that fails
    --overwrite          segment, propose, evaluate, data-make, mine-pairs, train-proposer, tune-prompts, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify, cam, refine  replace an output that exists
    --dry-run            segment, propose, data-make, mine-pairs, tune-prompts, train-pacl, cam, refine  say what would be done
    --output             segment, propose, evaluate, mine-pairs, train-proposer, tune-prompts, train-segmenter, train-pacl, cam, refine  where the result goes
    --json               segment, propose, evaluate, data-list, data-make, info, check, doctor, mine-pairs, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify, cam, refine  one JSON document on stdout
    --coco               segment, propose, probe-oracle, probe-alignment, probe-coherence, probe-classify  images from a COCO JSON
    --images             segment, propose, data-make, mine-pairs, train-proposer, tune-prompts, probe-oracle, train-segmenter, train-pacl, probe-alignment, probe-coherence, probe-classify, cam, refine  the folder of its file names; of data make, how many
    --classes            segment, cam                     the words
    --classes-file       segment                     the words, one class a line
    --vocabulary         segment                     the words of a known data set
    --classes-per-image  segment, evaluate, probe-oracle, probe-alignment, probe-classify  the words of each image
    --background         segment, cam                     words that compete and are dropped
    --templates          segment, mine-pairs, train-proposer, probe-oracle, probe-alignment, probe-classify, train-pacl  the sentences around the words
    --method             segment, cam                     how pixels get their words
    --last-block         segment, train-pacl, probe-alignment  the attention of the image tower's last block
    --short-side         segment, train-segmenter, probe-alignment, probe-coherence, cam  side at which the model sees pictures
    --window             segment, train-pacl, probe-alignment, probe-coherence  side of the sliding windows
    --stride             segment, probe-alignment, probe-coherence  step of the sliding windows
    --logit-scale        segment, train-pacl                     sharpness of the softmax over words
    --pacl               segment, probe-alignment, probe-coherence, probe-classify, cam  the head that aligns patches with text
    --patch-stride       segment                     step between the patches that are read
    --scales             segment, cam                     several sizes at which a picture is shown
    --flip               segment, cam                     the mirror image is shown too
    --max-entropy        segment                     entropy above which a pixel gets no word
    --count-mixed        probe-alignment             patches without a majority count too
    --layers             probe-coherence             the blocks whose patches are compared
    --pairs              probe-coherence, train-pacl  how many pairs of patches; which pairs of images and captions
    --picture            probe-alignment, probe-coherence, probe-classify  a PNG of the result
    --min-score          segment                     probability below which a pixel gets no word
    --proposer           segment, propose, mine-pairs, probe-oracle  where class-agnostic masks come from
    --proposals          segment, mine-pairs, probe-oracle, refine  masks from a file
    --max-proposals      propose                     the most masks of an image
    --min-area           propose                     the least share of the picture in a mask
    --nms                propose                     IoU above which of two masks the worse is dropped
    --embeddings         propose, segment  file of the masks' embeddings
    --arch               train-proposer, train-segmenter, cam              the network
    --targets            train-proposer              what the network shall find
    --queries            train-proposer              how many proposals a picture has
    --class-weight       train-proposer              weight of the words' loss
    --steps              train-proposer, tune-prompts, train-segmenter, train-pacl, cam, refine  steps of a training; of refine, what is done
    --rate               train-proposer, tune-prompts, train-segmenter, train-pacl, cam, refine  peak learning rate
    --warmup             train-proposer, tune-prompts, train-segmenter, train-pacl  steps in which the rate rises
    --crop-size          train-proposer, tune-prompts, segment, probe-oracle, train-segmenter, train-pacl  side of the crops that a network sees
    --held-out           train-proposer, tune-prompts, train-segmenter, train-pacl  share of the images for validation
    --validate-every     train-proposer, train-segmenter              steps between validations
    --save-every         train-proposer, train-segmenter              steps between checkpoints
    --validation         train-segmenter             labels to measure on in place of those held out
    --validation-images  train-segmenter             the folder of their images
    --kind               tune-prompts                what the prompts stand for
    --generator          tune-prompts, cam, refine                the mask generator: its backbone, or its file
    --push               tune-prompts                from what background prompts are pushed
    --push-weight        tune-prompts                how much that counts
    --length             tune-prompts                vectors of a background prompt
    --init               tune-prompts                where its vectors start
    --similarity         tune-prompts, cam, refine                how cosines become losses
    --words              tune-prompts                words that prompts are compared with
    --train              tune-prompts                what is trained: prompts, the image tower, or both in turn
    --depth              tune-prompts                at how many places prompts replace tokens
    --loss               tune-prompts                what pairs of one noun count as
    --epochs             tune-prompts, train-pacl, cam, refine                how often each pair is seen
    --tower-rate         tune-prompts                peak learning rate of the image tower
    --micro-batch        train-pacl                  images compared with all texts at once
    --decay              train-pacl                  weight decay
    --patch-scale        train-pacl                  sharpness of the softmax over patches
    --pooling            train-pacl                  how patches are weighed for a text
    --learn-scale        train-pacl                  whether the logit scale is trained
    --nouns              train-pacl                  whether nouns of captions are texts of their own
    --noun-weight        train-pacl                  the weight of their loss
    --naming             train-pacl                  the weight of a loss that each patch shows one of them
    --start              train-pacl, cam             what the head, the generator, begins as
    --cache              train-pacl                  whether the tokens of images are kept
    --prompts            segment, probe-oracle       mask prompts from a file
    --ensemble           segment                     the CLIP's share in the name of a proposal
    --region-features    segment                     how a region is shown to the CLIP
    --background-tokens  segment                     whether a crop's blank patches are left out
    --segmenter          segment                     a network of train-segmenter
    --crf                segment, refine                     the preset of a dense CRF
    --label-maps         segment, refine                     folder for label maps
    --overlays           segment, refine                     folder for pictures with the masks drawn in
    --heatmaps           segment                     folder for a picture of each word's score
    --captions           mine-pairs, train-pacl                  captioned images: a data set or a file
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
    --labels             cam                         which classes each image shows
    --from-maps          cam                         a folder of given maps
    --affinity           cam                         spread maps along the CLIP's attention
    --box-threshold      cam                         of a map's maximum, for the affinity's boxes
    --sentence           cam                         the sentence around the words
    --fine-tune          cam                         train the backbone too
    --hidden             cam                         channels of the head's hidden layer
    --save-generator     cam, refine                         where the mask generator goes
    --background-weight  cam, refine                         the weight of the background in matching
    --background-prompts  refine                     a file of background prompts
    --refine-weight      refine                      how much background prompts count
    --walk-on            refine                      which neighbours maps walk to
    --background-score   refine                      how pseudo masks score the background
    --confidence         refine                      share of scores below which a pixel is in doubt
    --select             cam                         which step is kept
    --label-steps        cam                         steps on the labels alone, before matching
    --crop-scale         cam, tune-prompts           least share of a picture in a random crop
    --ground-truth       evaluate                    the truth
    --metric             evaluate                    what is measured
    --with-background    evaluate, train-segmenter                    pixels of no mask are a class
    --ignore-label       evaluate                    classes of the truth that are not counted
    --missing            evaluate                    images of the truth with no prediction
    --split              data-make                   the part of a data set
    --seed               data-make, mine-pairs, train-proposer, tune-prompts, train-segmenter, train-pacl, probe-coherence, cam, refine  the start of every random choice
    --size               data-make                   side of the pictures
    --preset             data-make                   another law of scenes
    --workers            data-make, train-proposer, tune-prompts, train-segmenter, train-pacl  processes that share the work
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
        help="Where class-agnostic masks come from: regions, tiny, maskformer[:ID], sam[:ID], or a file of "
        "train-proposer. Default: tiny on tiny, on others maskformer if it is cached, else regions; of "
        "fused: regions.",
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
MaxEntropyOpt = Annotated[
    float | None,
    typer.Option(
        "--max-entropy",
        metavar="NATS",
        min=0,
        help="Above this entropy of its words' probabilities a pixel gets no word. Of K words it is "
        "ln K at most.",
    ),
]
PaclOpt = Annotated[
    str | None,
    typer.Option(
        "--pacl",
        metavar="FILE",
        help="A head of train-pacl that aligns patches with text, or none. Default: with "
        "--method patch the one that comes with the model, if any and if no --last-block is given.",
    ),
]
PatchStrideOpt = Annotated[
    int | None,
    typer.Option(
        "--patch-stride",
        min=1,
        metavar="PIXELS",
        help="Step between patches, a divisor of their size: 4 of patches of 16 gives finer masks for "
        "16 times the work. Default: their size.",
    ),
]
ScalesOpt = Annotated[
    str | None,
    typer.Option(
        "--scales",
        metavar="LIST",
        help='Show each picture at several sizes, as shares of the short side: "0.75,1,1.25". '
        "Default: 1.",
    ),
]
FlipOpt = Annotated[bool, typer.Option("--flip", help="Show each picture's mirror image too.")]
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
    Literal["crops", "tokens", "both"] | None,
    typer.Option(
        "--region-features",
        help="crops: a masked crop of each region. tokens: one pass over the picture, a class token for "
        "each region. both: the mean of the two. Default: crops.",
    ),
]
BackgroundTokensOpt = Annotated[
    Literal["keep", "drop"] | None,
    typer.Option(
        "--background-tokens",
        help="drop: leave out a crop's patches that show nothing of the mask, prompts with them. "
        "Default: keep.",
    ),
]
EmbeddingsOpt = Annotated[
    Path | None,
    typer.Option(
        "--embeddings", metavar="FILE", help="Embeddings of the --proposals, as propose wrote them."
    ),
]
SegmenterOpt = Annotated[
    Path | None,
    typer.Option(
        "--segmenter",
        metavar="FILE",
        help="A network of train-segmenter in place of a CLIP: words are its own classes, and --classes "
        "chooses among them.",
    ),
]
CrfOpt = Annotated[
    str | None,
    typer.Option(
        "--crf",
        metavar="PRESET",
        help="Let masks follow edges by a dense CRF: pydensecrf, irn, weaktr, weaktr-segmenter, clip-es, "
        "weclip or fma.",
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

ProbedArg = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATASET]",
        show_default=False,
        help="A data set with masks: collage:test. Instead of it, --coco FILE --images DIR.",
    ),
]
CountMixedOpt = Annotated[
    bool,
    typer.Option(
        "--count-mixed", help="Count patches without a majority too, by their first class."
    ),
]
LayersOpt = Annotated[
    str,
    typer.Option(
        "--layers",
        metavar="LIST",
        help='Blocks of the image tower, the first being 1: all, last, or a list such as "8,10".',
    ),
]
PairsOpt = Annotated[
    int,
    typer.Option("--pairs", min=2, metavar="N", help="Pairs of patches within images, and across."),
]
PictureOpt = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw the result here, as PNG."),
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

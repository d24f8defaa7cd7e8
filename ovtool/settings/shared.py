"""Settings that many commands share. No flag means two things.

A command that takes only some fields of a class says so: `Annotated[Compute, Only("model")]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings import devices
from ovtool.settings.field import Argument, FileOption, Option, OutputOption, RunOption
from ovtool.settings.option import settings

PARTS = "Parts"

# --- parameters of commands ------------------------------------------------------------------------
Inputs = Annotated[
    Sequence[str],
    Argument(
        "Image files, folders (with all below them), - for a list on stdin, or one data set: "
        "collage:demo.",
        metavar="IMAGES",
    ),
]
Captions = Annotated[
    str,
    Option(
        "A data set (coco means coco:train2017 here), or with --images DIR a COCO captions JSON or a table "
        "(CSV, TSV) of image and caption. mine-pairs takes a data set without captions too, for the names of its classes.",
        metavar="SPEC",
        panel="Images",
    ),
]
ImagesFolder = Annotated[
    Path | None,
    Option("The folder that the file names start from.", metavar="DIR", panel="Images"),
]
Exif = Annotated[
    Literal["upright", "stored"],
    Option(
        "The images that masks belong to: upright, turned as their EXIF orientation says, or the pixels "
        "as they are stored."
    ),
]
Limit = Annotated[int | None, Option("Stop after this many images.", min=1, panel="Images")]
Out = Annotated[
    str | None,
    FileOption(
        "Where the result goes; - is stdout. Default: a name made from the input, in the current folder."
    ),
]
TrainedOut = Annotated[
    str | None,
    FileOption(
        "Where the result goes, with a curve of the losses beside it. Default: a name made from the "
        "input, in the current folder."
    ),
]
Format = Annotated[
    Literal["coco", "results"],
    OutputOption(
        "coco is a data set of five sections; results the bare list that pycocotools takes (loadRes), which "
        "keeps no settings, so that --update compares its time alone."
    ),
]
Json = Annotated[bool, OutputOption("Print one JSON document on stdout.")]
Plot = Annotated[Path | None, OutputOption("Draw the result here, as PNG.", metavar="FILE")]

# --- fields that several classes have ----------------------------------------------------------------
Resume = Annotated[bool, RunOption("Continue an interrupted run from what it left.")]
Overwrite = Annotated[bool, RunOption("Replace an output that exists.")]
Update = Annotated[
    bool,
    RunOption(
        "Do nothing if the output was made with these settings and no input is newer. Otherwise make it again, from "
        "what an interrupted run with the same settings left, if there is one."
    ),
]
DryRun = Annotated[bool, RunOption("Print what would be read, done and written, and stop.")]
Seed = Annotated[int, Option("The seed of all random numbers.", min=0)]
BatchSize = Annotated[
    int | None,
    Option(
        "Images or crops at once; halved when memory runs out. Default: what the method takes.",
        min=1,
    ),
]
TemplateSet = Literal["one", "pacl", "vild", "openai"]
Templates = Annotated[TemplateSet, Option("The sentences around the words: 1, 7, 14 or 80.")]
ShortSide = Annotated[
    int | None,
    Option(
        "Shorter side of an image as the model sees it, in pixels. Default: what the weights "
        "recommend, else 1.5 times the model's own; of a trained segmenter, its own.",
        min=8,
    ),
]
Window = Annotated[
    int | None,
    Option(
        "Side of the sliding windows, in pixels of the resized image; 0 shows the whole image at once. "
        "Default: what the weights recommend, else 0.",
        min=0,
    ),
]
Stride = Annotated[
    int | None,
    Option("Step of the sliding windows, in pixels. Default: half the window.", min=1),
]
CropSize = Annotated[
    int | None,
    Option("Side of the crops that the model sees, in pixels. Default: the model's.", min=8),
]
LogitScale = Annotated[
    float | None,
    Option("Multiplies cosines before the softmax over words. Default: the model's.", min=0),
]
Prompts = Annotated[
    Path | Literal["none"] | None,
    Option(
        "Mask prompts (and a tuned tower) of tune-prompts, or none. Default: those that come with the "
        "model, if any.",
    ),
]
PaclHead = Annotated[
    Path | Literal["none"] | None,
    Option(
        "A head of train-pacl that aligns patches with text, or none. Default: for patch the one that "
        "comes with the model, if any, unless --last-block is given.",
    ),
]
Proposer = Annotated[
    str | None,
    Option(
        "Where class-agnostic masks come from: regions, merging, tiny, maskformer[:ID], sam[:ID], or a file of "
        "train-proposer. Default: regions for fused, else tiny on the model tiny, and on others "
        "maskformer if it is cached, else merging on photo (regions for two-stage) and regions on the rest.",
        metavar="NAME",
    ),
]
MaxProposals = Annotated[
    int | None,
    Option(
        "The most masks of an image that --proposer makes. Default: what the model recommends, else 100.",
        min=1,
    ),
]
Proposals = Annotated[
    Path | None, Option("Class-agnostic masks in place of --proposer, as COCO JSON.")
]
Scales = Annotated[
    tuple[float, ...],
    Option(
        "Show each image at several sizes, as shares of the short side, such as 0.75,1,1.25.",
        min=0.1,
        max=10,
        metavar="LIST",
        unique=True,
    ),
]
Flip = Annotated[bool, Option("Show the mirror image of each image too.")]
PUBLISHED_WAY = (
    "The published way, in place of the defaults and of what the model recommends; options that are given "
    "count more."
)
Crf = Literal["pydensecrf", "irn", "weaktr", "weaktr-segmenter", "clip-es", "weclip", "fma"]

# Fields of a training. None is the method's own, which a command says by its default object.
Steps = Annotated[
    int | None,
    Option("Steps of the training, in place of --epochs.", min=1),
]
Epochs = Annotated[
    float | None, Option("How often each image is seen, where --steps is not given.", min=0.01)
]
TrainingBatch = Annotated[
    int | None, Option("Images of a training step, over all processes.", min=1)
]
LearningRate = Annotated[float | None, Option("Peak learning rate.", min=0)]
WeightDecay = Annotated[float | None, Option("Weight decay of the optimiser.", min=0)]
Warmup = Annotated[
    int | None,
    Option("Steps in which the learning rate rises, at most a fifth of all steps.", min=0),
]
# of trainings in which the architecture decides
ArchitectureRate = Annotated[
    float | None, Option("Peak learning rate. Default: the architecture's.", min=0)
]
ArchitectureDecay = Annotated[
    float | None, Option("Weight decay of the optimiser. Default: the architecture's.", min=0)
]
ArchitectureWarmup = Annotated[
    int | None,
    Option(
        "Steps in which the learning rate rises, at most a tenth of all steps. Default: the architecture's.",
        min=0,
    ),
]
HeldOut = Annotated[
    float, Option("Share of the images that is kept for validation.", min=0, max=0.9)
]
ValidateEvery = Annotated[int | None, Option("Steps between validations; 0 is never.", min=0)]
SaveEvery = Annotated[int | None, RunOption("Steps between checkpoints.", min=1)]
LoaderWorkers = Annotated[
    int, RunOption("Processes that read images; 0 is this one itself.", min=0)
]


# --- classes -----------------------------------------------------------------------------------------


@settings(panel="Images")
class Source:
    """Which images a run takes, beside those that are named as arguments."""

    coco: Annotated[
        Path | None, RunOption("Take the images of a COCO JSON; - is stdin.", metavar="FILE")
    ] = None
    images: Annotated[
        Path | None, RunOption("The folder that the file names start from.", metavar="DIR")
    ] = None
    limit: Limit = None
    exif: Exif = "upright"


# the fields of `Run` that a command over images takes, where it has no batch size
PARTS_OF_RUN = (
    "part_size", "resume", "overwrite", "update", "strict", "dry_run",
    "workers", "shard", "engine", "ray_address",
)  # fmt: skip


@settings(panel="Run")
class Run:
    """How a run over many images goes."""

    batch_size: BatchSize = None
    part_size: Annotated[int, RunOption("Images in a part, the unit of --resume.", min=1)] = 256
    resume: Resume = False
    overwrite: Overwrite = False
    update: Update = False
    strict: Annotated[
        bool,
        RunOption(
            "Stop at the first image that fails. Otherwise it is left out and listed; the exit status is "
            "then 3, but 0 after a training, whose output is whole without it."
        ),
    ] = False
    dry_run: DryRun = False
    workers: Annotated[
        int,
        RunOption(
            "Processes that share the parts; on several GPUs each takes the next one.",
            min=1,
            panel=PARTS,
        ),
    ] = 1
    shard: Annotated[
        str | None,
        RunOption(
            "Do only the parts of one shard of several, such as 3/16, and leave them for ovtool merge; slurm "
            "reads which one from a job array.",
            metavar="I/N|slurm",
            panel=PARTS,
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        RunOption(
            "What runs the parts: this machine, or a cluster of Ray, with --workers actors.",
            panel=PARTS,
        ),
    ] = "local"
    ray_address: Annotated[
        str | None,
        RunOption(
            "The cluster of --engine ray, such as auto or ray://HOST:10001. Default: one that runs here, else "
            "one that is started for this run.",
            metavar="ADDRESS",
            panel=PARTS,
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError for a shard that is none, and an address without Ray."""
        numbers = re.fullmatch(
            r"([0-9]{1,9})/([0-9]{1,9})", "1/1" if self.shard is None else self.shard
        )
        is_shard = numbers is not None and 1 <= int(numbers[1]) <= int(numbers[2])
        if self.shard != "slurm" and not is_shard:
            raise UsageError(
                f"--shard '{self.shard}' is no shard; give its number and how many there are, such as 3/16, or "
                "slurm"
            )
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError(
                "--ray-address belongs to --engine ray; give that too, or leave it out"
            )

    @property
    def replaces(self) -> bool:
        """Whether an output that exists may be replaced."""
        return self.overwrite or self.update

    def may_replace(self, out: Path | str) -> bool:
        """Whether the output of a training may be replaced: also where one goes on that was cut off after it
        had written the output, and so left its checkpoint."""
        return self.replaces or (self.resume and Path(f"{out}.checkpoint").exists())


@settings(panel="Model and device")
class Compute:
    """Which CLIP, and where and how its work is computed."""

    model: Annotated[
        str | None,
        RunOption(
            "The CLIP: photo, tiny, ARCH/PRETRAINED, hf-hub:ORG/NAME or a path. Default: OVTOOL_MODEL, else that "
            "of the data set (collage: tiny), else ViT-B-16/openai if it can be had, else photo.",
            metavar="NAME",
        ),
    ] = None
    device: Annotated[
        str | None,
        RunOption("Where to compute: cpu, cuda, cuda:1, mps. Default: the best.", metavar="NAME"),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Option("Number type of the networks; auto follows the device."),
    ] = "auto"
    threads: Annotated[
        int | None, RunOption("Threads that compute on the CPU. Default: one for each core.", min=1)
    ] = None

    def check(self) -> None:
        """Raises UsageError for a name of no device."""
        devices.check("auto" if self.device is None else self.device)


@settings(panel="Training")
class Training:
    """How long and how fast a network is trained, and what is kept on the way.

    The settings of every training inherit this class (`Pacl(steps=200)`), and declare a field again
    where its default is their own. None is left to the training: its help says who decides.
    """

    steps: Steps = None
    epochs: Epochs = None
    batch_size: TrainingBatch = None
    lr: LearningRate = None
    weight_decay: WeightDecay = None
    warmup: Warmup = None
    held_out: HeldOut = 0.05
    validate_every: Annotated[
        int | None,
        Option("Steps between validations; 0 is never. Default: a fifth of all steps.", min=0),
    ] = None
    save_every: Annotated[
        int | None,
        RunOption(
            "Steps between checkpoints. Default: 50 for mask generators and background prompts, else 100.",
            min=1,
        ),
    ] = None
    seed: Seed = 0
    loader_workers: LoaderWorkers = 0

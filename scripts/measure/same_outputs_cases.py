"""What `same_outputs.py` runs: every command on a small collage, and how flags were spelled before.

The lines are written in the newest spelling of the flags. `RENAMED` leads back to the older one, for a
commit whose `--help` does not list the newest.
"""

import shlex
from dataclasses import dataclass
from string import Template

# What stands for `$name` in the lines below; `$out` is the folder of the case itself. Whatever begins with the
# name of another case is what that case wrote.
PLACES = {
    "images": "data-make/images/demo",
    "instances": "data-make/annotations/instances_demo.json",
    "semantic": "data-make/annotations/semantic_demo.json",
    "captions": "data-make/annotations/captions_demo.json",
    "lists": "data-make/annotations/classes_demo.json",
    "labels": "data-make/label_maps/demo",
    "words": "'hippo,rooster|cock,duck,cheese,drum,violin'",
}


@dataclass(frozen=True)
class Case:
    """A command that is run on both sides.

    Attributes:
        name: Of the case, and of the folder that it writes in.
        line: What follows `ovtool`, as in a shell.
        exit_status: The exit status that is expected, or None for any, as long as both sides agree.
        answer: Whether the JSON on stdout is compared too.
        plots: Files of which only the existence is compared, since the words in a plot may change.
    """

    name: str
    line: str
    exit_status: int | None = 0
    answer: bool = False
    plots: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The arguments, with folders put in."""
        return shlex.split(Template(self.line).substitute(PLACES, out=self.name))

    @property
    def command(self) -> str:
        """The command: `cam`, `probe oracle`."""
        words = self.words
        return " ".join(words[: 2 if words[0] in ("data", "probe") else 1])

    @property
    def needs(self) -> set[str]:
        """The names of the cases whose files this one reads."""
        return {word.split("/")[0] for word in self.words if "/" in word} - {self.name, "inputs"}


@dataclass(frozen=True)
class Renamed:
    """A flag with a new name, in one command or, where `command` is empty, in all."""

    command: str
    new: str
    old: str


RENAMED = (
    Renamed("data make", "--count", "--images"),
    Renamed("propose", "--save-embeddings", "--embeddings"),
    Renamed("cam", "--begin", "--start"),
    Renamed("refine", "--apply", "--steps"),
    Renamed("probe coherence", "--sample", "--pairs"),
    Renamed("", "--loader-workers", "--workers"),
    Renamed("", "--lr", "--rate"),
    Renamed("", "--tower-lr", "--tower-rate"),
    Renamed("", "--weight-decay", "--decay"),
    Renamed("", "--plot", "--picture"),
)

DATA = (
    Case("data-make", "data make collage $out --count 4 --size 96 --seed 7 --workers 1"),
    Case(
        "data-make-cooccur",
        "data make collage $out --count 2 --size 64 --seed 3 --workers 1 --preset cooccur",
    ),
    Case("data-list", "data list"),
)

MASKS = (
    Case("propose-regions", "propose $images --proposer regions -o $out/p.json"),
    Case(
        "propose-few",
        "propose --coco $instances --images $images --proposer regions --max-proposals 9 "
        "--min-area 0.02 --nms 0.5 -o $out/p.json",
    ),
    Case(
        "propose-tiny",
        "propose $images --proposer tiny --model tiny --max-proposals 12 "
        "--save-embeddings $out/e.safetensors -o $out/p.json",
    ),
    Case(
        "mine-pairs",
        "mine-pairs --captions $captions --images $images --proposals propose-regions/p.json "
        "-o $out/pairs.json",
    ),
    Case(
        "mine-pairs-all",
        "mine-pairs --captions $captions --images $images --proposals propose-tiny/p.json "
        "--captions-per-image all --chunks --no-stop --templates vild --matching softmax "
        "--quality-weight 1 --min-similarity 0.1 --crops $out/crops -o $out/pairs.json",
    ),
)

TRAININGS = (
    Case(
        "tune-prompts",
        "tune-prompts mine-pairs/pairs.json --images $images --depth 2 --steps 3 --batch-size 4 "
        "--lr 0.01 --warmup 1 --held-out 0.25 --loader-workers 0 -o $out/p.safetensors",
        plots=("p.png",),
    ),
    Case(
        "tune-prompts-tower",
        "tune-prompts $semantic --images $images --train tower-then-prompts --loss paper --steps 2 "
        "--batch-size 4 --lr 0.01 --tower-lr 0.0001 --crop-size 64 --held-out 0 "
        "-o $out/p.safetensors",
        plots=("p.png",),
    ),
    Case(
        "train-pacl",
        "train-pacl --captions $captions --images $images --nouns --naming 0.5 --last-block naclip+clip "
        "--steps 3 --batch-size 4 --lr 0.001 --weight-decay 0.1 --held-out 0 --loader-workers 0 "
        "-o $out/head.safetensors",
        plots=("head.png",),
    ),
    Case(
        "train-pacl-plain",
        "train-pacl --captions $captions --images $images --pairs own --pooling sparse --start random "
        "--learn-scale --cache off --micro-batch 2 --crop-size 64 --epochs 2 --batch-size 2 "
        "--held-out 0.25 -o $out/head.safetensors",
        plots=("head.png",),
    ),
    Case(
        "train-proposer",
        "train-proposer $semantic --images $images --arch tiny --queries 6 --steps 2 --batch-size 2 "
        "--lr 0.0002 --crop-size 64 --warmup 1 --held-out 0.25 --validate-every 2 --loader-workers 0 "
        "-o $out/p.safetensors",
        plots=("p.png",),
    ),
    Case(
        "train-proposer-instances",
        "train-proposer $instances --images $images --arch tiny --queries 6 --targets instances "
        "--templates one --class-weight 0.1 --steps 1 --batch-size 2 --crop-size 64 --held-out 0 "
        "-o $out/p.safetensors",
        plots=("p.png",),
    ),
    Case(
        "train-segmenter",
        "train-segmenter $semantic --images $images --arch tiny --steps 2 --batch-size 2 --lr 0.001 "
        "--crop-size 64 --short-side 96 --held-out 0.25 --validate-every 2 --loader-workers 0 "
        "-o $out/s.safetensors",
        plots=("s.png",),
    ),
    Case(
        "train-segmenter-clip",
        "train-segmenter $labels --images $images --arch clip --with-background --steps 2 "
        "--batch-size 2 --validation $semantic --validation-images $images -o $out/s.safetensors",
        plots=("s.png",),
    ),
    Case(
        "train-segmenter-maskformer",
        "train-segmenter $semantic --images $images --arch maskformer-tiny --steps 1 --batch-size 2 "
        "--crop-size 64 --short-side 64 --held-out 0 -o $out/s.safetensors",
        plots=("s.png",),
    ),
)

MAPS = (
    Case("cam-gradcam", "cam --labels $instances --images $images -o $out/c.safetensors"),
    Case(
        "cam-columns",
        "cam --labels inputs/labels.csv --images $images --classes 'duck,hippo,drum,cheese,violin' "
        "--method gradcam --affinity --box-threshold 0.5 --scales 1,1.5 --flip --background none "
        "--sentence 'a photo of a {}.' --short-side 128 --limit 2 -o $out/c.safetensors",
    ),
    Case(
        "cam-classifier",
        "cam --labels $instances --images $images --method classifier --arch timm:test_resnet "
        "--steps 2 --batch-size 2 --lr 0.01 --short-side 96 -o $out/c.safetensors",
        plots=("c.png",),
    ),
    Case(
        "cam-matching",
        "cam --labels $instances --images $images --method matching --steps 2 --batch-size 2 "
        "--hidden 8 --save-generator $out/g.safetensors -o $out/c.safetensors",
        plots=("c.png", "g.png"),
    ),
    Case(
        "cam-matching-text",
        "cam --labels $instances --images $images --method matching --begin text --hidden 0 "
        "--background 'water,sand' --background-weight 1 --similarity shifted "
        "--label-steps 1 --crop-scale 0.6 --steps 2 --batch-size 2 --lr 0.01 --flip --scales 1,0.8 "
        "--short-side 96 -o $out/c.safetensors",
        plots=("c.png",),
    ),
    Case(
        "cam-generator",
        "cam --labels $instances --images $images --method matching "
        "--generator cam-matching/g.safetensors -o $out/c.safetensors",
        plots=("c.png",),
    ),
    Case(
        "cam-pacl",
        "cam --labels $instances --images $images --method pacl --pacl train-pacl/head.safetensors "
        "-o $out/c.safetensors",
    ),
    Case(
        "cam-from-maps",
        "cam --labels inputs/labels.csv --images $images --classes 'duck,hippo,drum,cheese,violin' "
        "--from-maps inputs/maps -o $out/c.safetensors",
    ),
    Case(
        "tune-background",
        "tune-prompts cam-gradcam/c.safetensors --kind background --images $images --crop-scale 1 "
        "--steps 2 --length 3 --batch-size 2 -o $out/b.safetensors",
        plots=("b.png",),
    ),
    Case(
        "tune-background-push",
        "tune-prompts cam-matching/c.safetensors --kind background --images $images "
        "--generator cam-matching/g.safetensors --push foreground --push-weight 0.5 --init words "
        "--similarity shifted --words inputs/words.txt --crop-scale 0.5 --steps 2 --batch-size 2 "
        "--lr 0.01 -o $out/b.safetensors",
        plots=("b.png",),
    ),
    Case(
        "refine-nothing",
        "refine cam-gradcam/c.safetensors --images $images --background-score power:4 "
        "--confidence 0.5 --label-maps $out/labels --overlays $out/overlays -o $out/pseudo.json",
    ),
    Case(
        "refine-affinity-crf",
        "refine cam-gradcam/c.safetensors --images $images --apply affinity,crf -o $out/pseudo.json",
    ),
    Case(
        "refine-walk-pamr",
        "refine cam-gradcam/c.safetensors --images $images --apply walk,pamr -o $out/r.safetensors",
    ),
    Case(
        "refine-sam",
        "refine cam-gradcam/c.safetensors --images $images --apply walk,sam --walk-on colour "
        "--proposals propose-regions/p.json --background-score constant:0.3 -o $out/pseudo.json",
    ),
    Case(
        "refine-prompts",
        "refine cam-matching/c.safetensors --images $images --apply prompts,crf --crf clip-es "
        "--background-prompts tune-background/b.safetensors --generator cam-matching/g.safetensors "
        "--save-generator $out/g.safetensors --epochs 1 --batch-size 2 --lr 0.01 "
        "--refine-weight 1 --background-weight 1 -o $out/pseudo.json",
        plots=("g.png", "pseudo.png"),
    ),
    Case(
        "refine-prompts-fit",
        "refine cam-gradcam/c.safetensors --images $images --apply prompts --epochs 1 --batch-size 2 "
        "--background-prompts tune-background/b.safetensors --similarity raw -o $out/r.safetensors",
        plots=("r.png",),
    ),
)

SEGMENTS = (
    Case(
        "segment-fused",
        "segment $images --model tiny --classes $words --label-maps $out/labels "
        "--overlays $out/overlays --heatmaps $out/heat -o $out/s.json",
    ),
    Case(
        "segment-fused-proposals",
        "segment --coco $instances --images $images --classes-file inputs/words.txt --method fused "
        "--proposals propose-tiny/p.json --background 'water,sand' --short-side 128 "
        "--limit 2 --part-size 1 -o $out/s.json",
    ),
    Case(
        "segment-patch",
        "segment $images --classes-per-image $lists --method patch --label-maps $out/labels "
        "--heatmaps $out/heat --min-score 0.1 -o $out/s.json",
    ),
    Case(
        "segment-patch-fine",
        "segment $images --vocabulary voc20 --method patch --pacl none --last-block naclip "
        "--patch-stride 8 --scales 0.75,1 --flip --max-entropy 2.9 --templates pacl --limit 1 "
        "-o $out/s.json",
    ),
    Case(
        "segment-patch-windows",
        "segment $images --classes $words --background none --method patch --last-block clearclip "
        "--short-side 96 --window 64 --stride 32 --logit-scale 40 --batch-size 3 -o $out/s.json",
    ),
    Case(
        "segment-pacl",
        "segment $images --classes $words --method patch --pacl train-pacl/head.safetensors "
        "--heatmaps $out/heat -o $out/s.json",
    ),
    Case(
        "segment-two-stage",
        "segment $images --classes $words --method two-stage --limit 2 --label-maps $out/labels "
        "-o $out/s.json",
    ),
    Case(
        "segment-two-stage-both",
        "segment $images --classes-per-image $lists --method two-stage --proposals propose-tiny/p.json "
        "--embeddings propose-tiny/e.safetensors --prompts none --region-features both "
        "--background-tokens drop --crop-size 64 --ensemble 0.5 -o $out/s.json",
    ),
    Case(
        "segment-two-stage-prompts",
        "segment $images --classes $words --method two-stage --proposals propose-few/p.json "
        "--prompts tune-prompts/p.safetensors -o $out/s.json",
    ),
    Case(
        "segment-two-stage-tower",
        "segment $images --classes $words --method two-stage --proposals propose-few/p.json "
        "--prompts tune-prompts-tower/p.safetensors --region-features both -o $out/s.json",
    ),
    Case(
        "segment-two-stage-trained",
        "segment $images --classes $words --method two-stage --proposer train-proposer/p.safetensors "
        "--limit 1 -o $out/s.json",
    ),
    Case(
        "segment-trained",
        "segment $images --segmenter train-segmenter/s.safetensors --label-maps $out/labels "
        "--heatmaps $out/heat -o $out/s.json",
    ),
    Case(
        "segment-trained-clip",
        "segment $images --segmenter train-segmenter-clip/s.safetensors --classes 'hippo,water,sky' "
        "--scales 0.75,1 --flip --crf pydensecrf --overlays $out/overlays -o $out/s.json",
    ),
    Case(
        "segment-trained-maskformer",
        "segment $images --segmenter train-segmenter-maskformer/s.safetensors -o $out/s.json",
    ),
    Case(
        "segment-damaged",
        "segment inputs/damaged --classes $words -o $out/s.json",
        exit_status=3,
    ),
    Case(
        "propose-trained",
        "propose $images --proposer train-proposer/p.safetensors --min-area 0 --nms 1 "
        "--save-embeddings $out/e.safetensors -o $out/p.json",
    ),
)

ANSWERS = (
    Case(
        "evaluate-miou",
        "evaluate segment-patch/s.json --ground-truth $semantic --classes-per-image $lists --json",
        answer=True,
    ),
    Case(
        "evaluate-label-maps",
        "evaluate segment-fused/labels --ground-truth $semantic --with-background --ignore-label water "
        "--json -o $out/scores.json",
    ),
    Case(
        "evaluate-recall",
        "evaluate propose-tiny/p.json --ground-truth $instances --metric recall --json",
        answer=True,
    ),
    Case(
        "probe-oracle",
        "probe oracle --coco $semantic --images $images --classes-per-image $lists "
        "--proposals propose-few/p.json --json",
        answer=True,
    ),
    Case(
        "probe-alignment",
        "probe alignment --coco $semantic --images $images --count-mixed --plot $out/plot.png --json",
        answer=True,
        plots=("plot.png",),
    ),
    Case(
        "probe-coherence",
        "probe coherence --coco $semantic --images $images --layers 1,6 --sample 500 "
        "--pacl train-pacl/head.safetensors --plot $out/plot.png --json",
        answer=True,
        plots=("plot.png",),
    ),
    Case(
        "probe-classify",
        "probe classify --coco $semantic --images $images --classes-per-image $lists --json",
        answer=True,
    ),
    Case("info-json", "info segment-fused/s.json"),
    Case("info-tensors", "info cam-matching/g.safetensors"),
    Case(
        "check",
        "check segment-fused/s.json refine-nothing/pseudo.json cam-gradcam/c.safetensors "
        "segment-fused/labels tune-prompts/p.safetensors",
    ),
    Case("check-damaged", "check inputs/damaged/b.png", exit_status=1),
    Case("unknown-command", "segmentt", exit_status=2),
    Case("doctor", "doctor", exit_status=None),
)

CASES = (*DATA, *MASKS, *TRAININGS, *MAPS, *SEGMENTS, *ANSWERS)

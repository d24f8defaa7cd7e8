"""The claims of SemPLeS on photographs: `semples.py WORK --photos PHOTOS --twin FILE`.

The twin of `photo` saw no mask. Maps, prompts and pseudo masks are made of the 100 photographs of coco/train with
their image-level labels, and scored by the masks of the same photographs, which no model has seen; segmenters are
scored on coco/val. Weights and rates are the published ones; steps are few, so that all runs on two cores.
"""

from collections.abc import Iterator, Sequence

from photographs import IMAGES, Claim, Photographs, between_files

LABELS = "$PHOTOS/coco/annotations/instances_{0}.json"
TRAIN, VAL = "coco/train, 98 with a label", "coco/val, 50"
CAM = f"cam --labels {LABELS} --images {IMAGES}".format("train")
OF_CLIP = f"{CAM} --model $TWIN --short-side 480"
MATCHING = "--steps 12 --batch-size 4"
ON_STEM = "--method matching --generator photo --hidden 0 --label-steps 300"  # WeakTr's head, one convolution
GENERATOR = "$WORK/matched.generator.safetensors"
MAPS = {
    "gradcam": f"{OF_CLIP} --method gradcam",
    "classifier": f"{CAM} --method classifier --arch photo --epochs 4 --batch-size 4",
    "begun": f"{OF_CLIP} --method matching --steps 0",
    "matched": f"{OF_CLIP} --method matching {MATCHING} --save-generator {GENERATOR}",
    "stem": f"{OF_CLIP} {ON_STEM} --steps 0 --batch-size 4",
    "stem-matched": f"{OF_CLIP} {ON_STEM} {MATCHING}",
}
# `merging` ranks its masks by what it has learned from the masks of these photographs; `regions` has learned nothing
PROPOSALS = f"propose {IMAGES.format('train')} --proposer regions -o $WORK/train.proposals.json"
VOTED = (
    f"refine $WORK/gradcam.safetensors --images {IMAGES.format('train')} --apply sam "
    "--proposals $WORK/train.proposals.json -o $WORK/voted.safetensors"
)
PUSHES = {"text": "--push text", "foreground": "--push foreground --push-weight 0.5"}
SEGMENTER = (
    f"--images {IMAGES.format('train')} --arch clip --model $TWIN --steps 60 --batch-size 4 --crop-size 320 "
    "--validate-every 0 --held-out 0"
)
CHAIN = "gradcam"  # whose masks go on to the CRF and the segmenter: maps without any training


def prompts(push: str) -> str:
    """The command that learns background prompts."""
    return (
        f"tune-prompts $WORK/gradcam.safetensors --kind background {PUSHES[push]} --images {IMAGES.format('train')} "
        f"--crop-scale 1 --steps 200 --batch-size 64 --model $TWIN -o $WORK/background-{push}.safetensors"
    )


def maps(name: str) -> list[str]:
    """The commands that make maps."""
    if name in MAPS:
        return [f"{MAPS[name]} -o $WORK/{name}.safetensors"]
    if name == "voted":
        return [*maps("gradcam"), PROPOSALS, VOTED]
    push = name.removeprefix("refined-")
    refined = (
        f"refine $WORK/matched.safetensors --images {IMAGES.format('train')} --apply prompts "
        f"--background-prompts $WORK/background-{push}.safetensors --generator {GENERATOR} {MATCHING} --model $TWIN "
        f"-o $WORK/{name}.safetensors"
    )
    return [*maps("gradcam"), *maps("matched"), prompts(push), refined]


def masks(name: str, crf: bool = False) -> list[str]:
    """The commands that make masks of maps; every pixel has a class, as for measuring."""
    step, suffix = ("--apply crf ", "-crf") if crf else ("", "")
    images = IMAGES.format("train")
    return [
        *maps(name),
        f"refine $WORK/{name}.safetensors --images {images} {step}--confidence 0 -o $WORK/{name}{suffix}.json",
    ]


def compared(text: str, before: tuple[str, bool], after: tuple[str, bool]) -> Claim:
    """A claim on the masks of coco/train, each a name of maps and whether the CRF refined them."""
    names = [name + ("-crf" if crf else "") for name, crf in (before, after)]
    line = f"evaluate $WORK/{names[0]}.json $WORK/{names[1]}.json --ground-truth {LABELS.format('train')}"
    return Claim(
        text,
        f"mIoU with background: {names[0]}, {names[1]}",
        TRAIN,
        list(dict.fromkeys([*masks(*before), *masks(*after)])),
        [f"{line} --with-background --missing skip"],
        lambda a: between_files(a[0]),
    )


def segmenters() -> Claim:
    """The claim on what is trained on pseudo masks, beside the same trained on true ones."""
    makes = [
        *masks(CHAIN, crf=True),
        f"train-segmenter $WORK/{CHAIN}-crf.json {SEGMENTER} -o $WORK/pseudo.segmenter.safetensors",
        f"train-segmenter {LABELS.format('train')} --with-background {SEGMENTER} -o $WORK/true.segmenter.safetensors",
    ]
    makes += [
        f"segment {IMAGES.format('val')} --segmenter $WORK/{name}.segmenter.safetensors --model $TWIN -o $WORK/{name}.segments.json"
        for name in ("pseudo", "true")
    ]
    line = f"evaluate $WORK/pseudo.segments.json $WORK/true.segments.json --ground-truth {LABELS.format('val')}"
    return Claim(
        "true masks still teach a segmenter more",
        "mIoU with background: pseudo, true masks",
        VAL,
        makes,
        [f"{line} --with-background"],
        lambda a: between_files(a[0]),
    )


def claims() -> Sequence[Claim]:
    """The rows of the table."""
    return [
        compared(
            "a CLIP's gradients beat a classifier of 100 steps",
            ("classifier", False),
            ("gradcam", False),
        ),
        compared(
            "matching masks and labels improves the maps", ("begun", False), ("matched", False)
        ),
        compared(
            "background prompts pushed from the text refine them",
            ("matched", False),
            ("refined-text", False),
        ),
        compared(
            "background prompts pushed from the foreground refine them",
            ("matched", False),
            ("refined-foreground", False),
        ),
        compared(
            "a CLIP's gradients beat a classifier on the frozen stem",
            ("stem", False),
            ("gradcam", False),
        ),
        compared(
            "matching improves the maps of that classifier",
            ("stem", False),
            ("stem-matched", False),
        ),
        compared(
            "votes of proposals improve the maps of the gradients",
            ("gradcam", False),
            ("voted", False),
        ),
        compared("a dense CRF sharpens them", (CHAIN, False), (CHAIN, True)),
        segmenters(),
    ]


def nearest(bench: Photographs) -> Iterator[str]:
    """The words nearest to the prompt of each class."""
    yield "\n| class | nearest words: pushed from the text | pushed from the foreground |\n|---|---|---|"
    try:
        bench.make(*maps("gradcam"))
        answers = [bench.answer(f"{prompts(push)} --update") for push in PUSHES]
    except KeyError:
        return
    words = [answer["nearest"] for answer in answers]
    for name in words[0]:
        cells = [", ".join(word for word, _ in own[name][:5]) for own in words]
        yield f"| {name} | {' | '.join(cells)} |"

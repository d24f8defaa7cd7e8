"""The claims of OVSeg on photographs: `ovseg.py WORK --photos PHOTOS`.

The CLIP is `photo`, which learned from the masks of coco/train: every figure is of coco/val, on which nothing is
chosen. Pairs are mined from captioned photographs, which it never saw.
"""

from collections.abc import Sequence

from photographs import (
    CAPTIONS,
    IMAGES,
    PROBED,
    TRUTH,
    WORDS,
    Claim,
    between_files,
    between_rows,
    reverse,
)

# rows of `probe oracle`
PROMPTED = "true masks named by CLIP, masked crops with prompts"
UNMASKED = "true masks named by CLIP, unmasked crops"
PROPOSED = "proposals named by truth"
MINED = 100  # captioned photographs
VAL = "coco/val, 50"
CROPS = "--crop-size 224"  # a quarter of the work of the model's own 448
PAIRS = (
    f"propose $PHOTOS/flickr/images --limit {MINED} --proposer merging --max-proposals 40 --model photo -o $WORK/flickr.proposals.json",
    f"mine-pairs {CAPTIONS} --limit {MINED} --captions-per-image all --proposals $WORK/flickr.proposals.json {CROPS} "
    "--model photo --part-size 50 -o $WORK/flickr.pairs.json",
)
BATCH = {"prompts": 32, "tower": 16, "tower-then-prompts": 16}  # 32 crops with a tower are 6 GB
TUNED = {  # the published rates; a tower's is 5e-6 for 17,000 steps, which would not move it in 25
    "prompts": "--train prompts --steps 40",
    "tower": "--train tower --steps 25 --tower-lr 3e-5",
    "tower-then-prompts": "--train tower-then-prompts --steps 25 --tower-lr 3e-5",
}
PROPOSALS = f"propose {IMAGES.format('val')} --proposer merging --max-proposals 40 --model photo -o $WORK/val.proposals.json"
ORACLE = f"probe oracle {PROBED} {CROPS} --proposals $WORK/val.proposals.json --model photo"


def tuned(kind: str) -> str:
    """The command that tunes prompts, a tower, or both."""
    return (
        f"tune-prompts $WORK/flickr.pairs.json {TUNED[kind]} --images $PHOTOS/flickr/images {CROPS} "
        f"--batch-size {BATCH[kind]} --warmup 3 --model photo -o $WORK/{kind}.safetensors"
    )


def segmented(kind: str) -> str:
    """The command that names the proposals of coco/val, with what was tuned, or `none`."""
    prompts = "none" if kind == "none" else f"$WORK/{kind}.safetensors"
    return (
        f"segment {IMAGES.format('val')} {WORDS.format('val')} --method two-stage --prompts {prompts} {CROPS} "
        f"--proposals $WORK/val.proposals.json --model photo -o $WORK/{kind}.segments.json"
    )


def compared(before: str, after: str) -> str:
    """The command that compares two of them."""
    files = f"$WORK/{before}.segments.json $WORK/{after}.segments.json"
    return f"evaluate {files} --ground-truth {TRUTH.format('val')} {WORDS.format('val')}"


MEASURES = {"miou": "mIoU of true masks", "accuracy": "true masks named right"}


def named(text: str, kind: str, measure: str = "accuracy") -> Claim:
    """A claim on true masks that are named with what was tuned, and without."""
    line = f"{ORACLE} --prompts $WORK/{kind}.safetensors"
    makes = [*PAIRS, PROPOSALS, tuned(kind)]
    return Claim(
        text,
        f"{MEASURES[measure]}: before tuning and after ({kind})",
        VAL,
        makes,
        [line],
        lambda a: between_rows(a[0], PROMPTED, measure),
    )


def two_stage(text: str, before: str, after: str) -> Claim:
    """A claim on the mIoU of two stages."""
    makes = [*PAIRS, PROPOSALS, *(tuned(kind) for kind in (before, after) if kind != "none")]
    makes += [segmented(before), segmented(after)]
    measure = f"mIoU of two stages: {before}, {after}"
    return Claim(
        text, measure, VAL, makes, [compared(before, after)], lambda a: between_files(a[0])
    )


def claims() -> Sequence[Claim]:
    """The rows of the table."""
    bare = f"{ORACLE} --prompts none"

    def unmasked(measure: str) -> Claim:
        return Claim(
            "masked crops are named better than unmasked ones",
            f"{MEASURES[measure]}: unmasked, masked",
            VAL,
            [PROPOSALS],
            [bare],
            lambda a: reverse(between_rows(a[0], UNMASKED, measure)),
        )

    return [
        Claim(
            "names are the bottleneck, not masks",
            "mIoU: true masks named by the CLIP, proposals named by the truth",
            VAL,
            [PROPOSALS],
            [bare],
            lambda a: between_rows(a[0], PROPOSED, "miou"),
        ),
        unmasked("miou"),
        unmasked("accuracy"),
        named("prompts from mined pairs help without touching the CLIP", "prompts", "miou"),
        named("prompts from mined pairs help without touching the CLIP", "prompts"),
        named("a tower tuned on mined pairs helps", "tower", "miou"),
        named("a tower tuned on mined pairs helps", "tower"),
        named("tower, then prompts helps", "tower-then-prompts"),
        two_stage("two stages gain by prompts", "none", "prompts"),
        two_stage("two stages gain by a tuned tower", "none", "tower"),
        two_stage("two stages gain by both", "none", "tower-then-prompts"),
        two_stage("both are better than the tower alone", "tower", "tower-then-prompts"),
    ]

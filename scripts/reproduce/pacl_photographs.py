"""The claims of PACL on photographs: `pacl.py WORK --photos PHOTOS --twin FILE`.

The twin of `photo` saw no mask, as the paper has it. Heads are trained on 1,000 captioned photographs alone, with the
published rate, and with nouns in seven templates beside the captions, as in the paper's appendix A.2.2.
"""

from collections.abc import Iterator, Sequence

from photographs import (
    CAPTIONS,
    IMAGES,
    PROBED,
    TRUTH,
    WORDS,
    Claim,
    Photographs,
    between_files,
    between_rows,
)

VAL = "coco/val, 50"
TRAINING = (
    f"train-pacl {CAPTIONS} --model $TWIN --crop-size 224 --batch-size 128 --steps 60 --held-out 0"
)
HEADS = {  # what each differs in
    "head": "--nouns",
    "scale-1": "--nouns --patch-scale 1",
    "own": "--pairs own",
    "captions": "",
}
COHERENCE = (
    f"probe coherence --coco {TRUTH} --images {IMAGES} --pacl none ".format("val")
    + "--backbone photo --model $TWIN"
)


def trained(name: str) -> str:
    """The command that trains a head."""
    return f"{TRAINING} {HEADS[name]} -o $WORK/{name}.safetensors".replace("  ", " ")


def segmented(name: str) -> str:
    """The command that names the patches of coco/val by a head, or by the last block for `none`."""
    head = "none" if name == "none" else f"$WORK/{name}.safetensors"
    return (
        f"segment {IMAGES.format('val')} {WORDS.format('val')} --method patch --pacl {head} --model $TWIN "
        f"-o $WORK/{name}.segments.json"
    )


def mean_iou(text: str, before: str, after: str) -> Claim:
    """A claim on mIoU."""
    makes = [trained(name) for name in (before, after) if name != "none"]
    makes += [segmented(before), segmented(after)]
    line = f"evaluate $WORK/{before}.segments.json $WORK/{after}.segments.json --ground-truth {TRUTH} {WORDS}"
    return Claim(
        text,
        f"mIoU: {before}, {after}",
        VAL,
        makes,
        [line.format("val")],
        lambda a: between_files(a[0]),
    )


def aligned(group: str) -> Claim:
    """The claim on patches."""
    line = f"probe alignment {PROBED} --pacl $WORK/head.safetensors --model $TWIN"
    return Claim(
        "a head aligns the patches with text",
        f"patches named right, {group}: last block, head",
        VAL,
        [trained("head")],
        [line],
        lambda a: between_rows(a[0], "PACL head", group),
    )


def claims() -> Sequence[Claim]:
    """The rows of the table."""
    return [
        *(aligned(group) for group in ("all", "things", "stuff")),
        mean_iou("segmentation follows", "none", "head"),
        mean_iou("every pair counts, not an image's own caption alone", "own", "captions"),
        mean_iou("cosines need a scale of 10 in the softmax over patches", "scale-1", "head"),
        mean_iou("nouns beside the captions help", "captions", "head"),
    ]


def coherence(bench: Photographs) -> Iterator[str]:
    """The areas under the ROC curves: the tower's blocks, and each stage of the stem."""
    yield f"\n```sh\novtool {COHERENCE}\n```\n"
    yield "| patches of (ROC AUC, coco/val, 50) | one photograph | two photographs |\n|---|---|---|"
    try:
        rows = bench.answer(COHERENCE)["rows"]
    except KeyError:
        return
    for row in rows:
        cells = [
            f"{100 * row[kind]['auc']:.1f} [{100 * row[kind]['low']:.1f}, {100 * row[kind]['high']:.1f}]"
            for kind in ("within", "across")
        ]
        yield f"| {row['name']} | {' | '.join(cells)} |"

#!/usr/bin/env python3
"""Measures whether a PACL head, mask prompts and a trained proposer for `photo` gain, on photographs that it never saw.

    scripts/measure/photo_parts.py WORK --photographs FOLDER --wordnet FOLDER

FOLDER is that of `photos.py`, with `flickr` beside `coco`. Half of the photographs of coco/train, drawn by a seed, are
held out, and a model is made from the others as `scripts/bundle/train_photo.py` makes `photo`; head and prompts learn
from captioned photographs, the proposer from the masks of that other half. Everything stays in WORK, and what is there
is not made again. Prints a table of differences with 95 % intervals (the bootstrap over the 50 photographs that are
held out), and the commands.
"""

import argparse
import json
import random
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / name) for name in ("bundle", "reproduce")]
import photo_data  # noqa: E402
import photo_stem  # noqa: E402
import photo_text  # noqa: E402
import photo_tower  # noqa: E402
import photo_wordnet  # noqa: E402
import photo_words  # noqa: E402
import train_photo  # noqa: E402
from photographs import (  # noqa: E402
    CAPTIONS,
    IMAGES,
    PROBED,
    TRUTH,
    WORDS,
    Claim,
    Difference,
    Photographs,
    between_files,
    between_rows,
    table,
)

NAME, HELD_OUT, SEED = "photo_half", 50, 14
DATA = f"half of coco/train, {HELD_OUT}"
PROMPTED = "true masks named by CLIP, masked crops with prompts"
CROPS = "--crop-size 224 --model $TWIN"
FLICKR, MASKS = "$WORK/flickr.proposals.json", "$PHOTOS/instances_others.json"
OTHERS = IMAGES.format("others")
HEAD = f"train-pacl {CAPTIONS} --model $TWIN --crop-size 224 --batch-size 128 --steps 60 --held-out 0 --nouns -o $WORK/head.safetensors"
PROMPTS = (
    f"propose $PHOTOS/flickr/images --limit 100 --proposer merging --max-proposals 40 --model photo -o {FLICKR}",
    f"mine-pairs {CAPTIONS} --limit 100 --captions-per-image all --proposals {FLICKR} {CROPS} -o $WORK/pairs.json",
    f"tune-prompts $WORK/pairs.json --train prompts --steps 40 --images $PHOTOS/flickr/images --batch-size 32 --warmup 3 {CROPS} "
    "-o $WORK/prompts.safetensors",
)
PROPOSER = (
    f"train-proposer {MASKS} --images {OTHERS} --arch photo --targets instances --steps 100 --batch-size 4 --crop-size 320 "
    "--held-out 0 --validate-every 0 --model $TWIN -o $WORK/proposer.safetensors"
)


def segmented(head: str) -> str:
    """The command that names the patches of the photographs that are held out."""
    where = "none" if head == "none" else f"$WORK/{head}.safetensors"
    return f"segment {IMAGES} {WORDS} --method patch --pacl {where} --model $TWIN -o $WORK/{head}.segments.json".format(
        "val"
    )


def proposed(proposer: str, name: str) -> str:
    """The command that proposes masks for them."""
    return (
        f"propose {IMAGES.format('val')} --proposer {proposer} --model $TWIN -o $WORK/{name}.json"
    )


def recall(answer: dict) -> Difference:  # type: ignore[type-arg]
    """Average recall at 100 masks, of an answer of `evaluate --metric recall`."""
    ends = answer["difference"]["average_recall"]
    return Difference(
        answer["average_recall"], answer["other"]["average_recall"], ends["low"], ends["high"]
    )


def claims() -> list[Claim]:
    """The rows of the table."""
    oracle = f"probe oracle {PROBED} {CROPS} --proposer regions --max-proposals 20 --prompts $WORK/prompts.safetensors"
    files = f"evaluate $WORK/none.segments.json $WORK/head.segments.json --ground-truth {TRUTH} {WORDS}".format(
        "val"
    )
    regions, own = proposed("regions", "regions"), proposed("$WORK/proposer.safetensors", "own")
    recalled = "evaluate $WORK/regions.json $WORK/own.json --metric recall --ground-truth $PHOTOS/coco/annotations/instances_val.json"
    return [
        Claim("a PACL head", "mIoU of patches", DATA, [HEAD, segmented("none"), segmented("head")], [files],
              lambda a: between_files(a[0])),
        *(
            Claim("mask prompts", f"{what} of true masks", DATA, PROMPTS, [oracle],
                  lambda a, what=what: between_rows(a[0], PROMPTED, what))  # type: ignore[misc]
            for what in ("miou", "accuracy")
        ),
        Claim("a trained proposer", "average recall at 100: regions, trained", DATA, [PROPOSER, regions, own], [recalled],
              lambda a: recall(a[0])),
    ]  # fmt: skip


def hold_out(photographs: Path, folder: Path) -> list[str]:
    """Writes the folder PHOTOS of the commands: the photographs held out as `val`, the others beside; those names."""
    files = sorted(path.name for path in (photographs / "coco/images/train").glob("*.jpg"))
    held = set(random.Random(SEED).sample(files, HELD_OUT))
    for split, names in (("val", held), ("others", set(files) - held)):
        images = folder / "coco/images" / split
        images.mkdir(parents=True)
        for name in names:
            (images / name).symlink_to(photographs / "coco/images/train" / name)
    annotations = photographs / "coco/annotations"
    (folder / "coco/annotations").mkdir()
    for kind in ("semantic", "instances", "classes"):
        whole = json.loads((annotations / f"{kind}_train.json").read_text())
        (folder / f"coco/annotations/{kind}_val.json").write_text(json.dumps(_part(whole, held)))
        (folder / f"{kind}_others.json").write_text(json.dumps(_part(whole, set(files) - held)))
    (folder / "flickr").symlink_to(photographs / "flickr")
    return sorted(held)


def _part(whole: dict, names: set[str]) -> dict:  # type: ignore[type-arg]
    """What a COCO JSON, or the words by file name, say of some images."""
    if "images" not in whole:
        return {name: words for name, words in whole.items() if name in names}
    images = [image for image in whole["images"] if image["file_name"] in names]
    ids = {image["id"] for image in images}
    masks = [mask for mask in whole["annotations"] if mask["image_id"] in ids]
    return {**whole, "images": images, "annotations": masks}


def make_model(work: Path, photographs: Path, wordnet: Path, held: list[str]) -> None:
    """The model that saw the other photographs alone."""
    stem, words = photo_stem.load(work), photo_words.rows(photo_wordnet.read(wordnet))
    seen = [p for p in photo_data.photographs(photographs, "train") if p.path.name not in held]
    train_photo.fill(stem, seen, work / "cache")
    cache, recipe = work / "cache", photo_tower.Recipe(seed=0, masks=1.0, captions=0.0)
    others = train_photo.read_many_classes(photographs, stem, cache, recipe.seed)
    made = train_photo.image_tower(stem, words, seen, others, None, cache, recipe)
    tokenizer = work / f"{NAME}.tokenizer.json"
    photo_text.make_tokenizer(words, tokenizer)
    model = train_photo.whole_model(made, words, tokenizer, 900)
    train_photo.write(model, words, work, NAME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    options = parser.parse_args()
    work, photographs = options.work.resolve(), options.photographs.resolve()
    folder, model = work / "half", work / f"{NAME}.safetensors"
    if not folder.exists():
        hold_out(photographs, folder)
    if not model.exists():
        held = sorted(path.name for path in (folder / "coco/images/val").iterdir())
        make_model(work, photographs, options.wordnet, held)
    for line in table(Photographs(work, folder, str(model)), claims()):
        print(line, flush=True)


if __name__ == "__main__":
    main()

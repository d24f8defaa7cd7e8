#!/usr/bin/env python3
"""Makes `photo`, the bundled CLIP for photographs: image tower, table of words and text tower.

    scripts/bundle/train_photo.py --photographs FOLDER --wordnet FOLDER --out FOLDER [--without-masks | --leave-out 35]

FOLDER of photographs: `coco/images/train`, `coco/annotations/{semantic,classes}_train.json` and `imagenet/images`, a
photograph of each class; for the twin without masks, which learns from captions in place of the latter,
`flickr/images` and `flickr/captions.json`. The stem comes from a
package index (`photo_stem`), the words from WordNet's folder (`photo_words`). What the stem sees is cached in
`OUT/cache`, and each part that is made stands in `OUT` as a file, so that a run which was cut short goes on from there.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import photo_data
import photo_stem
import photo_student
import photo_text
import photo_tower
import photo_wordnet
import photo_words
import torch
from photo_data import NAMES, Captioned, Cells, Photograph
from photo_tower import Made
from photo_words import Row

from ovtool.formats import tensors
from ovtool.models import build, photo

CONFIGURATION: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 256,
        "vision_cfg": {
            "image_size": 448, "patch_size": 16, "width": 256, "head_width": 64, "layers": 1, "mlp_ratio": 0.25,
            "hidden": 256, "context": list(photo_data.CONTEXT),
            "stem": {"widths": [16, 24, 48, 88, 120, 208, 352], "depths": [1, 3, 3, 4, 4, 5, 1]},
        },
        "text_cfg": {
            "context_length": 32, "vocab_size": photo_text.VOCABULARY, "width": 256, "heads": 4, "layers": 1,
            "mlp_ratio": 2.0,
        },
    },
    "preprocess_cfg": {"mean": [photo_stem.MEAN] * 3, "std": [photo_stem.STD] * 3},
}  # fmt: skip
DENSE = {"last_block": "clip", "short_side": 480}
STUFF_FROM = 80  # COCO's things come first
# a name with classes and fewer cells is its classes: masks would teach it those few
ENOUGH_CELLS = 30
TEACHERS = 3


def image_tower(
    stem: photo_stem.Stem,
    table: Sequence[Row],
    photographs: Sequence[Photograph],
    others: Cells | None,
    captioned: Captioned | None,
    cache: Path,
    recipe: photo_tower.Recipe,
    views: Sequence[tuple[int, bool]] = photo_data.VIEWS,
    teachers: int = TEACHERS,
) -> Made:
    """Trains the image tower and the table on photographs whose features are cached.

    With more than one teacher, several are trained from different beginnings, and what is made learns their mean.
    """
    basis = photo_tower.basis_of(stem.rows, CONFIGURATION["model_cfg"]["embed_dim"])
    cells = photo_data.sampled_cells(
        photographs, cache, views, recipe.seed, by_masks=recipe.masks > 0
    )
    has_masks = (cells.shares.sum(0) > ENOUGH_CELLS) & (recipe.masks > 0)

    def begun(seed: int) -> Made:
        torch.manual_seed(seed)
        tower = photo.from_config(shape(table)).visual
        assert isinstance(tower, photo.HybridVisionTransformer)
        words = photo_tower.Words(table, stem.rows, basis, has_masks)
        photo_tower.begin(tower, cells, basis)
        return Made(tower, words)

    trained = []
    for number in range(teachers):
        own = replace(recipe, seed=teachers * recipe.seed + number)
        made = begun(own.seed)
        classifier = stem.rows, stem.bias
        photo_tower.train_head(made.tower, made.words, cells, others, captioned, classifier, own)
        trained.append(made)
    if teachers > 1:
        made = begun(teachers * (recipe.seed + 1))
        assert others is not None
        student = replace(photo_student.RECIPE, seed=recipe.seed)
        photo_student.distil(made.tower, made.words, trained, cells, others, student)
    photo_tower.pool_things(made.tower, made.words.names().detach(), STUFF_FROM)
    made.tower.stem.load_state_dict(stem.network.state_dict())
    return made


def whole_model(made: Made, table: Sequence[Row], tokenizer: Path, steps: int) -> photo.Photo:
    """The model with its text tower, which is distilled onto the table."""
    torch.manual_seed(1)
    model = photo.from_config(shape(table))
    model.visual.load_state_dict(made.tower.state_dict())
    with torch.no_grad():
        model.word_table.copy_(made.words.table())
        model.logit_scale.copy_(made.words.scale)
    photo_text.train(model, table, tokenizer, steps, seed=1)
    return model


def shape(table: Sequence[Row]) -> dict[str, Any]:
    model: dict[str, Any] = CONFIGURATION["model_cfg"]
    return {**model, "text_cfg": {**model["text_cfg"], "table": len(table)}}


def left_out(table: Sequence[Row], count: int) -> list[int]:
    """Some of the names of things that have classes, drawn once and for all."""
    things = [index for index, row in enumerate(table[:STUFF_FROM]) if row.classes]
    return sorted(random.Random(0).sample(things, count))


def write(model: photo.Photo, table: Sequence[Row], folder: Path, name: str) -> None:
    """Writes NAME.safetensors, in half precision, and NAME.json."""
    config = {**CONFIGURATION, "model_cfg": shape(table)}
    (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    halved = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(halved)
    pairs = [(word, index) for index, row in enumerate(table) for word in row.words]
    header = {
        "kind": "clip",
        "model": name,
        "fingerprint": build.fingerprint(model),
        "settings": {
            "words": [word for word, _ in pairs],
            "rows": [index for _, index in pairs],
            "stuff": photo_words.coco_names()[STUFF_FROM:],
            "dense": DENSE,
        },
    }
    tensors.save(folder / f"{name}.safetensors", halved, header)


def fill(stem: photo_stem.Stem, photographs: Sequence[Photograph], cache: Path) -> None:
    """Caches what the stem sees of all views."""
    for side, is_mirrored in photo_data.VIEWS:
        paths = [photograph.path for photograph in photographs]
        for path in photo_stem.fill(stem, cache, paths, side, is_mirrored):
            print(f"{path.name} at {side}", flush=True)


def read_many_classes(folder: Path, stem: photo_stem.Stem, cache: Path, seed: int) -> Cells:
    """Caches what the stem sees of a photograph of each class, and draws cells of them."""
    paths = photo_data.many_classes(folder)
    for path in photo_stem.fill(stem, cache, paths, photo_data.MANY_CLASSES_SIDE):
        print(f"{path.name} at {photo_data.MANY_CLASSES_SIDE}", flush=True)
    return photo_data.unlabelled_cells(paths, cache, seed)


def read_captions(
    folder: Path, stem: photo_stem.Stem, table: Sequence[Row], cache: Path, seed: int
) -> Captioned:
    """Caches what the stem sees of captioned photographs, and draws cells of them."""
    texts = photo_data.captions(folder)
    for path in photo_stem.fill(stem, cache, texts, photo_data.CAPTIONED_SIDE):
        print(f"{path.name} at {photo_data.CAPTIONED_SIDE}", flush=True)
    return photo_data.captioned_cells(texts, table, cache, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the cache and of the files"
    )
    parser.add_argument("--name", default="photo", help="of the files of the model")
    parser.add_argument("--without-masks", action="store_true", help="the twin that sees no mask")
    parser.add_argument("--text-steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--leave-out", type=int, default=0, help="names of things whose masks are not used"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = photo_stem.load(options.out)
    table = photo_words.rows(photo_wordnet.read(options.wordnet))
    hidden = left_out(table, options.leave_out)
    photographs = [
        photo_data.without(photograph, hidden)
        for photograph in photo_data.photographs(options.photographs, "train")
    ]
    cache = options.out / "cache"
    fill(stem, photographs, cache)
    others, captioned = None, None
    if options.without_masks:
        captioned = read_captions(options.photographs, stem, table, cache, options.seed)
    else:
        others = read_many_classes(options.photographs, stem, cache, options.seed)
    kept = options.out / f"{options.name}_tower_{options.seed}.pt"
    if kept.is_file():
        made = Made(**torch.load(kept, weights_only=False))
    else:
        masks, captions = (0.0, 1.0) if options.without_masks else (1.0, 0.0)
        recipe = photo_tower.Recipe(seed=options.seed, masks=masks, captions=captions)
        teachers = 1 if options.without_masks else TEACHERS
        made = image_tower(
            stem, table, photographs, others, captioned, cache, recipe, teachers=teachers
        )
        torch.save({"tower": made.tower, "words": made.words}, kept)
    tokenizer = options.out / f"{options.name}.tokenizer.json"
    photo_text.make_tokenizer(table, tokenizer)
    model = whole_model(made, table, tokenizer, options.text_steps)
    write(model, table, options.out, options.name)
    if hidden:
        names = "".join(f"{NAMES[index]}\n" for index in hidden)
        (options.out / f"{options.name}.left_out.txt").write_text(names, encoding="utf-8")


if __name__ == "__main__":
    main()

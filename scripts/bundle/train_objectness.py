#!/usr/bin/env python3
"""Makes `photo_objectness.safetensors`, which ranks the regions of `ovtool propose --proposer merging`.

    scripts/bundle/train_objectness.py --photographs FOLDER --wordnet FOLDER --out FOLDER [--folds 4]

FOLDER of photographs: that of `train_photo.py`. The stem comes from a package index (`photo_stem`). What `photo` says of the
photographs that it learned from is surer than what it says of others, so that four image towers are made, each from three
quarters of the photographs, and describe the others. Towers and candidates are kept in `OUT`, so that a run which was cut
short goes on from there. `--folds` writes `OUT/folds.json` instead, the proposals for each photograph of a network that did
not learn from it, so that they can be measured:

    ovtool propose FOLDER/coco/images/train --proposer regions -o regions.json
    ovtool evaluate regions.json OUT/folds.json --ground-truth FOLDER/coco/annotations/instances_train.json --metric recall
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import photo_data
import photo_stem
import photo_tower
import photo_wordnet
import photo_words
import torch
import train_photo
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits

from ovtool.formats import coco, rle
from ovtool.methods.regions import Regions
from ovtool.models import clip as door
from ovtool.models import objectness, photo
from ovtool.models.objectness import Objectness, Sight
from ovtool.proposers import merging
from ovtool.proposers.merging import Candidates
from ovtool.proposers.proposals import min_area
from ovtool.settings.propose import Propose

BEGUN = "begun.pt"
MIN_AREA = 0.0003  # of the candidates that the network learns from
TOWERS = 4  # each describes the photographs that it did not learn from
VIEWS = ((336, False), (336, True), (480, False))  # of the photographs that they learn from
OF_CLASSES = 2  # they learn from every second photograph of ImageNet
STATISTICS = 5  # the statistics of what the stem sees are those of every fifth photograph
NOTHING = (
    0.1  # below this IoU with all masks a candidate is as good as any other that shows no object
)


@dataclass(frozen=True)
class Recipe:
    """How the network is trained: steps, photographs in each, candidates of each, its width, rate, decay, and the seed."""

    steps: int = 600
    photographs: int = 8
    candidates: int = 128
    hidden: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Photograph:
    """A photograph and the true masks in it.

    Attributes:
        path: of its file.
        masks: its annotations, crowds among them.
    """

    path: Path
    masks: tuple[coco.Annotation, ...]


@dataclass(frozen=True)
class Example:
    """The candidates of a photograph, and the greatest IoU of each with a true mask, float32 (N,)."""

    candidates: Candidates
    ious: NDArray[np.float32]


def photographs(folder: Path, split: str) -> list[Photograph]:
    """The photographs of `coco/{images,annotations}`, in the order of their names."""
    dataset = coco.read(folder / "coco" / "annotations" / f"instances_{split}.json")
    masks: dict[int, list[coco.Annotation]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        masks[annotation.image_id].append(annotation)
    images = sorted(dataset.images, key=lambda image: image.file_name)
    place = folder / "coco" / "images" / split
    return [Photograph(place / image.file_name, tuple(masks[image.id])) for image in images]


def rgb_of(photograph: Photograph) -> NDArray[np.uint8]:
    """Its pixels, uint8 (H, W, 3)."""
    with Image.open(photograph.path) as image:
        return np.array(image.convert("RGB"))


@torch.no_grad()
def begin(
    folder: Path, stem: photo_stem.Stem, sample: Sequence[Photograph], network: Objectness
) -> None:
    """Sets what describes the looks of an image: directions of the stem's own classifier, and statistics."""
    if (folder / BEGUN).is_file():
        network.load_state_dict(torch.load(folder / BEGUN, weights_only=True))
        return
    network.basis.copy_(photo_tower.basis_of(stem.rows, objectness.MEANING))
    textures, meanings = [], []
    for photograph in sample:
        pixels = objectness.pixels_of(torch.from_numpy(rgb_of(photograph)))
        third = stem.network.third_stage(pixels)
        textures.append(third[0].flatten(1).T)
        meanings.append(stem.network.after_third(third)[0][0].flatten(1).T @ network.basis.T)
    texture = torch.cat(textures)
    network.texture_mean.copy_(texture.mean(0))
    network.texture_deviation.copy_(texture.std(0))
    network.meaning_mean.copy_(torch.cat(meanings).mean(0))
    torch.save(network.state_dict(), folder / BEGUN)


def sights(folder: Path, photographs: Path, wordnet: Path, stem: photo_stem.Stem) -> list[Sight]:
    """What each tower sees, in half precision as `photo` is shipped."""
    table = photo_words.rows(photo_wordnet.read(wordnet))
    given, cache = photo_data.photographs(photographs, "train"), folder / "cache"
    result = []
    for fold in range(TOWERS):
        model = photo.from_config(train_photo.shape(table))
        place = folder / f"tower_{fold}.pt"
        if not place.is_file():
            own = [path for number, path in enumerate(given) if number % TOWERS != fold]
            made = _tower(own, photographs, table, stem, cache)
            torch.save((made.tower.state_dict(), made.words.table(), made.words.scale.data), place)
        state, rows, scale = torch.load(place, weights_only=True)
        model.visual.load_state_dict(state)
        model.word_table.data, model.logit_scale.data = rows, scale
        model.half().float()
        result.append(objectness.sight(model.eval().requires_grad_(False)))
    return result


def _tower(
    own: Sequence[photo_data.Photograph],
    photographs: Path,
    table: Sequence[photo_words.Row],
    stem: photo_stem.Stem,
    cache: Path,
) -> photo_tower.Made:
    for side, is_mirrored in VIEWS:
        for _ in photo_stem.fill(stem, cache, [part.path for part in own], side, is_mirrored):
            pass
    paths = photo_data.many_classes(photographs)[::OF_CLASSES]
    for _ in photo_stem.fill(stem, cache, paths, photo_data.MANY_CLASSES_SIDE):
        pass
    others, recipe = photo_data.unlabelled_cells(paths, cache, 0), photo_tower.Recipe()
    # one training says enough of words to rank by
    return train_photo.image_tower(stem, table, own, others, None, cache, recipe, VIEWS, teachers=1)


def example(sight: Sight, network: Objectness, photograph: Photograph) -> Example:
    """The candidates of a photograph."""
    rgb = rgb_of(photograph)
    seen = objectness.describe(sight, network, torch.from_numpy(rgb))
    made = merging.candidates(rgb, seen, MIN_AREA)
    superpixels, members = made.regions.superpixels, made.regions.members
    true = [
        rle.decode(mask.segmentation, *superpixels.shape)
        for mask in photograph.masks
        if not mask.extra.get("iscrowd", 0)
    ]
    if not true:
        return Example(made, np.zeros(len(members), np.float32))
    count = members.shape[1]
    counts = np.stack([np.bincount(superpixels[mask], minlength=count) for mask in true], 1)
    sizes = np.bincount(superpixels.ravel())[:, None]
    inside = members.astype(np.float32) @ np.concatenate([counts, sizes], 1).astype(np.float32)
    inside, areas = inside[:, :-1], inside[:, -1:]
    return Example(made, (inside / (areas + counts.sum(0) - inside)).max(1))


def kept(folder: Path, photograph: Photograph) -> Path:
    return folder / "candidates" / f"{photograph.path.stem}.npz"


def fill(
    folder: Path, towers: Sequence[Sight], network: Objectness, given: Sequence[Photograph]
) -> None:
    """Writes the candidates of the photographs that have none yet."""
    (folder / "candidates").mkdir(parents=True, exist_ok=True)
    for number, photograph in enumerate(given):
        path = kept(folder, photograph)
        if path.exists():
            continue
        made = example(towers[number % TOWERS], network, photograph)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(
            unfinished,
            superpixels=made.candidates.regions.superpixels,
            members=np.packbits(made.candidates.regions.members, axis=1),
            features=made.candidates.features.astype(np.float16),
            ious=made.ious,
        )
        unfinished.replace(path)
        print(f"{photograph.path.name}: {len(made.ious)} candidates", flush=True)


def read(folder: Path, photograph: Photograph) -> Example:
    """What `fill` wrote."""
    with np.load(kept(folder, photograph)) as file:
        superpixels = file["superpixels"]
        count = int(superpixels.max()) + 1
        members = np.unpackbits(file["members"], axis=1, count=count).astype(np.bool_)
        features = file["features"].astype(np.float32)
        quality = np.zeros(len(features), np.float32)
        return Example(Candidates(Regions(superpixels, members, quality), features), file["ious"])


def learnable(
    folder: Path, photograph: Photograph
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The features of a photograph's candidates and their IoUs, as `fill` wrote them."""
    with np.load(kept(folder, photograph)) as file:
        return file["features"].astype(np.float32), file["ious"]


def fit(
    begun: Mapping[str, torch.Tensor],
    examples: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    recipe: Recipe,
) -> Objectness:
    """The network that tells the IoU of a candidate with the nearest mask.

    Args:
        begun: the tensors of a network for which `begin` was called.
        examples: of each photograph the features (N, F) and the IoUs (N,) of its candidates.
        recipe: how it learns.
    """
    torch.manual_seed(recipe.seed)
    network = Objectness(recipe.hidden)
    fixed = {name: value for name, value in begun.items() if not name.startswith("layers")}
    network.load_state_dict(fixed, strict=False)
    data = [(torch.from_numpy(features), torch.from_numpy(ious)) for features, ious in examples]
    every = torch.cat([features for features, _ in data])
    network.mean.copy_(every.mean(0))
    network.deviation.copy_(every.std(0) + 1e-3)
    # candidates are drawn evenly over the range of IoUs, of which most lie near 0
    odds = [0.02 + ious.clamp(min=NOTHING) - NOTHING for _, ious in data]
    optimizer = torch.optim.AdamW(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, recipe.steps, pct_start=0.1
    )
    network.train()
    for step in range(recipe.steps):
        batch, wanted = [], []
        for index in torch.randint(len(data), (recipe.photographs,)).tolist():
            rows = torch.multinomial(odds[index], recipe.candidates, replacement=True)
            batch.append(data[index][0][rows])
            wanted.append(data[index][1][rows])
        loss = binary_cross_entropy_with_logits(network(torch.cat(batch)), torch.cat(wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step}: {loss.item():.4f}", flush=True)
    return network.eval()


def large(made: Candidates, least: float) -> Candidates:
    """The candidates with a share of the image or more."""
    sizes = np.bincount(made.regions.superpixels.ravel())
    rows = np.flatnonzero(made.regions.members @ sizes >= least * made.regions.superpixels.size)
    return Candidates(made.regions.kept(rows), made.features[rows])


def out_of_fold(
    folder: Path, given: Sequence[Photograph], folds: int, recipe: Recipe, settings: Propose
) -> coco.Dataset:
    """The proposals of each photograph by a network that did not learn from it."""
    begun = torch.load(folder / BEGUN, weights_only=True)
    images: list[coco.Image] = []
    annotations: list[coco.Annotation] = []
    learned = {place: learnable(folder, photograph) for place, photograph in enumerate(given)}
    for fold in range(folds):
        others = [part for place, part in learned.items() if place % folds != fold]
        network = fit(begun, others, recipe)
        for place in range(fold, len(given), folds):
            made = large(read(folder, given[place]).candidates, min_area(settings))
            proposals = merging.ranked(made, network, settings)
            height, width = proposals.superpixels.shape
            images.append(coco.Image(place + 1, given[place].path.name, width, height))
            for member, quality in zip(proposals.members, proposals.quality, strict=True):
                mask = rle.encode(member[proposals.superpixels])
                number = len(annotations) + 1
                annotations.append(coco.annotation(number, place + 1, 1, mask, float(quality)))
    return coco.Dataset({}, images, annotations, [coco.Category(1, "object")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the candidates and of the file"
    )
    parser.add_argument("--folds", type=int, help="measure on so many folds, and write no weights")
    parser.add_argument("--min-area", type=float, default=MIN_AREA, help="of the folds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stem = photo_stem.load(options.out)
    given = photographs(options.photographs, "train")
    network = Objectness()
    begin(options.out, stem, given[::STATISTICS], network)
    towers = sights(options.out, options.photographs, options.wordnet, stem)
    fill(options.out, towers, network, given)
    recipe = Recipe(seed=options.seed)
    if options.folds is None:
        fitted = fit(network.state_dict(), [learnable(options.out, part) for part in given], recipe)
        settings = {**asdict(recipe), "min_area": MIN_AREA, "photographs": len(given)}
        fingerprint = door.load("photo").fingerprint
        objectness.save(options.out / objectness.bundled().name, fitted, fingerprint, settings)
        return
    bounds = Propose(proposer="merging", min_area=options.min_area)
    proposed = out_of_fold(options.out, given, options.folds, recipe, bounds)
    coco.write(proposed, options.out / "folds.json")


if __name__ == "__main__":
    main()

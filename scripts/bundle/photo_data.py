"""The photographs from which `photo` is made: their labels by cell of the stem's grid, and what the stem sees there."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import photo_stem
import torch
from photo_words import Row, coco_names
from torch import Tensor

from ovtool.formats import rle
from ovtool.models.photo import with_means

NAMES = coco_names()
VOID = 255
VIEWS = ((336, False), (336, True), (480, False), (480, True), (608, False), (608, True))
CAPTIONED_SIDE = 240  # of captioned photographs, which are small
MANY_CLASSES_SIDE = 288  # of ImageNet's photographs
_CELLS_OF_A_VIEW = 130
_CELLS_OF_A_CAPTION = 64
_CELLS_OF_A_CLASS = 40
CONTEXT = (3, 9)  # of `photo`, see `PatchEmbed`
_LEAST_LABELLED = 0.3  # share of a cell's pixels that have a label, for the cell to count


@dataclass(frozen=True)
class Photograph:
    """A photograph with masks.

    Attributes:
        path: of its file.
        labels: uint8 (H, W), rows of COCO's names, 255 where there is none.
        words: the 20 rows that are asked for of it.
    """

    path: Path
    labels: Tensor
    words: Tensor


@dataclass(frozen=True)
class Cells:
    """Places of photographs, N of them.

    Attributes:
        deep, local: what the stem sees, float16 (N, 1280) and (N, 472), or (N, 472 (1 + K)) with the means of K squares.
        shares: of each of COCO's names among the labelled pixels, float32 (N, 133); 0 without labels.
        weights: how often each is drawn, float32 (N,), summing to 1.
    """

    deep: Tensor
    local: Tensor
    shares: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Captioned:
    """Photographs whose captions have a name, N of them with P cells each.

    Attributes:
        deep, local: what the stem sees, float16 (N, P, 1280) and (N, P, 472 (1 + K)).
        present: of COCO's names those in the captions, float32 (N, 133), summing to 1.
    """

    deep: Tensor
    local: Tensor
    present: Tensor


def photographs(folder: Path, split: str) -> list[Photograph]:
    """The photographs of `coco/{images,annotations}` with their masks, in the order of their names."""
    annotations = folder / "coco" / "annotations"
    truth = json.loads((annotations / f"semantic_{split}.json").read_text(encoding="utf-8"))
    asked = json.loads((annotations / f"classes_{split}.json").read_text(encoding="utf-8"))
    row = {category["id"]: NAMES.index(category["name"]) for category in truth["categories"]}
    labels = {i["id"]: np.full((i["height"], i["width"]), VOID, np.uint8) for i in truth["images"]}
    for annotation in truth["annotations"]:
        height, width = annotation["segmentation"]["size"]
        mask = rle.decode(annotation["segmentation"], height, width)
        labels[annotation["image_id"]][mask] = row[annotation["category_id"]]
    return [
        Photograph(
            folder / "coco" / "images" / split / image["file_name"],
            torch.from_numpy(labels[image["id"]]),
            torch.tensor([NAMES.index(word) for word in asked[image["file_name"]]]),
        )
        for image in sorted(truth["images"], key=lambda image: str(image["file_name"]))
    ]


def without(photograph: Photograph, left_out: Sequence[int]) -> Photograph:
    """The photograph without the labels of some names."""
    labels = photograph.labels.clone()
    labels[torch.isin(labels.long(), torch.tensor(left_out))] = VOID
    return replace(photograph, labels=labels)


def captions(folder: Path) -> dict[Path, str]:
    """The photographs of `flickr/images`, each with its captions in one text."""
    document = json.loads((folder / "flickr" / "captions.json").read_text(encoding="utf-8"))
    texts: dict[int, str] = {image["id"]: "" for image in document["images"]}
    for annotation in document["annotations"]:
        texts[annotation["image_id"]] += f"{annotation['caption'].lower()}\n"
    images = folder / "flickr" / "images"
    return {images / image["file_name"]: texts[image["id"]] for image in document["images"]}


def captioned_cells(
    texts: Mapping[Path, str], table: Sequence[Row], cache: Path, seed: int
) -> Captioned:
    """Some cells of captioned photographs, and COCO's names in their captions."""
    generator = torch.Generator().manual_seed(seed)
    patterns = [
        re.compile(rf"\b(?:{'|'.join(map(re.escape, row.words))})(?:s|es)?\b")
        for row in table[: len(NAMES)]
    ]
    parts = []
    for path, text in texts.items():
        present = torch.tensor([float(bool(pattern.search(text))) for pattern in patterns])
        if not present.any():
            continue
        features = photo_stem.cached(cache, path, CAPTIONED_SIDE)
        deep, local = _places(features, CONTEXT)
        rows = torch.randint(len(deep), (_CELLS_OF_A_CAPTION,), generator=generator)
        parts.append((deep[rows], local[rows], present / present.sum()))
    return Captioned(*(torch.stack(part) for part in zip(*parts, strict=True)))


def many_classes(folder: Path) -> list[Path]:
    """The photographs of `imagenet/images`, one for each class."""
    return sorted(path for path in (folder / "imagenet" / "images").iterdir() if path.is_file())


def unlabelled_cells(paths: Sequence[Path], cache: Path, seed: int) -> Cells:
    """Some cells of photographs without labels, drawn alike."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for path in paths:
        features = photo_stem.cached(cache, path, MANY_CLASSES_SIDE)
        deep, local = _places(features, CONTEXT)
        rows = torch.randperm(len(deep), generator=generator)[:_CELLS_OF_A_CLASS]
        parts.append((deep[rows], local[rows]))
    deep, local = (torch.cat(part) for part in zip(*parts, strict=True))
    count = len(deep)
    return Cells(deep, local, torch.zeros(count, len(NAMES)), torch.full((count,), 1 / count))


def shares(labels: Tensor, height: int, width: int) -> Tensor:
    """The share of each name among the pixels of each cell, float32 (height, width, 133)."""
    rows = torch.arange(labels.shape[0]) * height // labels.shape[0]
    columns = torch.arange(labels.shape[1]) * width // labels.shape[1]
    kinds = len(NAMES) + 1  # the last one for pixels without a label
    place = (rows[:, None] * width + columns) * kinds + labels.long().clamp(max=kinds - 1)
    counts = place.flatten().bincount(minlength=height * width * kinds).float()
    counts = counts.view(height, width, kinds)
    return counts[..., :-1] / counts.sum(-1, keepdim=True)


def _places(features: photo_stem.Features, context: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The deep map and the local one with its means, float16 (N, 1280) and (N, 472 (1 + K)), in row order."""
    around = with_means(features.local.float().permute(2, 0, 1)[None], context)[0]
    return features.deep.flatten(0, 1), around.flatten(1).T.half()


def view(
    photograph: Photograph, cache: Path, side: int, is_mirrored: bool, context: Sequence[int] = ()
) -> Cells:
    """All cells of one view of a photograph, in row order, equal weights for those with labels."""
    features = photo_stem.cached(cache, photograph.path, side, is_mirrored)
    height, width = features.deep.shape[:2]
    labels = photograph.labels.flip(1) if is_mirrored else photograph.labels
    share = shares(labels, height, width).flatten(0, 1)
    known = share.sum(1)
    share = share / known.clamp(min=1e-6)[:, None]
    weights = (known > _LEAST_LABELLED).float()
    return Cells(*_places(features, context), share, weights)


def sampled_cells(
    photographs: Iterable[Photograph],
    cache: Path,
    views: Sequence[tuple[int, bool]],
    seed: int,
    *,
    by_masks: bool = True,
) -> Cells:
    """Some cells of all views; a class that is n times as frequent is drawn n^.5 times as often, unless the masks
    have no say, where all cells are drawn alike.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for photograph in photographs:
        for side, is_mirrored in views:
            cells = view(photograph, cache, side, is_mirrored, CONTEXT)
            frequency = cells.shares.sum(0).clamp(min=1)
            weights = cells.weights * (cells.shares / frequency.sqrt()).sum(1)
            if not by_masks:
                weights = torch.ones(len(cells.shares))
            count = min(_CELLS_OF_A_VIEW, int((weights > 0).sum()))
            rows = torch.multinomial(weights, count, generator=generator)
            parts.append((cells.deep[rows], cells.local[rows], cells.shares[rows]))
    deep, local, share = (torch.cat(part) for part in zip(*parts, strict=True))
    weights = (share / share.sum(0).clamp(min=1).sqrt()).sum(1)
    if not by_masks:
        weights = torch.ones(len(share))
    return Cells(deep, local, share, weights / weights.sum())

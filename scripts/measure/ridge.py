#!/usr/bin/env python3
"""Ridge regression of the masks on what the stem of `photo` sees: the baseline of a trained model on photographs.

    scripts/measure/ridge.py --photographs FOLDER --out OUT

The cache of `scripts/bundle/train_photo.py` is taken from, or made in, `OUT/cache`; `OUT/ridge.safetensors` is written.
The shares of the 133 names in each cell of two sizes are regressed on standardised features (penalty 10,000, a name weighs the
root of its frequency), and .3 of
the cosine with the mean of a name's classes in the stem's classifier is added, as in the trial before `photo`.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.models import clip as clips
from ovtool.models.photo import HybridVisionTransformer

SIZES = (336, 480)
PENALTY = 10_000.0
CLASSES = 0.3


@dataclass(frozen=True)
class Ridge:
    """The regression, of F features and 133 names.

    Attributes:
        mean, deviation: of the features, float32 (F,).
        weight: float32 (F + 1, 133), of standardised features and the constant 1.
        centre: the mean of the stem's deep features, float32 (1280,).
        classes: the mean of each name's classifier rows, centred, float32 (133, 1280); 0 for names without classes.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    centre: Tensor
    classes: Tensor


def read(path: Path) -> Ridge:
    """The regression of a file."""
    return Ridge(**load_file(path))


@torch.no_grad()
def scores(ridge: Ridge, clip: clips.Clip, pixels: Tensor) -> Tensor:
    """The scores of the patches of one image, (1, 3, H, W) to (h, w, 133)."""
    deep, local = cast(HybridVisionTransformer, clip.model.visual).stem(pixels)
    deep, local = (part[0].permute(1, 2, 0) for part in (deep, local))
    features = (torch.cat([local, deep], -1) - ridge.mean) / ridge.deviation
    linear = features @ ridge.weight[:-1] + ridge.weight[-1]
    evidence = normalize(deep - ridge.centre, dim=-1) @ normalize(ridge.classes, dim=1).T
    return linear + CLASSES * evidence


def fit(folder: Path, out: Path, wordnet: Path) -> Mapping[str, Tensor]:
    """Fits the regression on all photographs with masks."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))
    import photo_data
    import photo_stem
    import photo_wordnet
    import photo_words

    photographs = photo_data.photographs(folder, "train")
    stem, cache = photo_stem.load(out), out / "cache"
    parts = []
    for side in SIZES:
        for _ in photo_stem.fill(stem, cache, [p.path for p in photographs], side):
            pass
        parts += [photo_data.view(p, cache, side, False) for p in photographs]
    some = torch.cat([torch.cat([p.local, p.deep], 1)[::4].float() for p in parts])
    mean, deviation = some.mean(0), some.std(0) + 1e-3
    names = photo_words.coco_names()
    # a name that is n times as frequent counts n^.5 times as much, and a cell 1 on average
    known_shares = torch.cat([p.shares[p.weights > 0] for p in parts[: len(photographs)]])
    frequency = known_shares.sum(0).clamp(min=1)
    usual = (known_shares / frequency.sqrt()).sum(1).mean()
    gram = torch.zeros(len(mean) + 1, len(mean) + 1)
    targets = torch.zeros(len(mean) + 1, len(names))
    for index, part in enumerate(parts):
        known = part.weights > 0
        features = (torch.cat([part.local, part.deep], 1)[known].float() - mean) / deviation
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        weights = (part.shares[known] / frequency.sqrt()).sum(1) / usual
        # a photograph counts the same at each size
        weights *= (SIZES[0] / SIZES[index // len(photographs)]) ** 2
        weighted = features.T * weights
        gram += weighted @ features
        targets += weighted @ part.shares[known]
    penalty = torch.full((len(gram),), PENALTY)
    penalty[-1] = 1e-3
    rows = photo_words.rows(photo_wordnet.read(wordnet))[: len(names)]
    centred = normalize(stem.rows - stem.rows.mean(0), dim=1)
    return {
        "mean": mean,
        "deviation": deviation,
        "weight": torch.linalg.solve(gram + torch.diag(penalty), targets).contiguous(),
        "centre": mean[-stem.rows.shape[1] :].clone(),
        "classes": torch.stack(
            [centred[list(r.classes)].mean(0) if r.classes else 0 * centred[0] for r in rows]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache and the file")
    options = parser.parse_args()
    file = options.out / "ridge.safetensors"
    save_file(dict(fit(options.photographs, options.out, options.wordnet)), file)


if __name__ == "__main__":
    main()

"""The rows of `photos.py` that `segment` makes as a user runs it: by its default method and what the model recommends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

import ovtool
from ovtool.formats.images import ImageItem
from ovtool.inputs.words import WordSet
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import ImageCounts, Interval
from ovtool.segmenters import dense
from ovtool.settings.segment import Fused
from ovtool.settings.shared import Compute

SAMPLES = 1000
CAT = "cat,dog,person,sky,wall,couch"


def counts(
    model: str, names: Sequence[str], photographs: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Hits, truth and predicted pixels of each class in each photograph, int64 (N, 3, classes).

    Args:
        model: the CLIP.
        names: of the classes.
        photographs: pixels, uint8 (H, W, 3), labels, uint8 (H, W), and the rows of the words of each.
    """
    words = WordSet(
        tuple((name,) for name in names),
        per_image={str(n): tuple(rows.tolist()) for n, (_, _, rows) in enumerate(photographs)},
    )
    compute = Compute(model=model)
    segmenter = dense.prepared(Fused(), words, (), compute, None)()
    encode = segmenter.encoder()
    parts = []
    for number, (rgb, labels, rows) in enumerate(photographs):
        item = ImageItem(Path(str(number)), str(number))
        segmented = segmenter.segment(item, rgb.numpy(), encode)
        known = labels < len(names)
        truth, predicted = labels[known].long(), rows[segmented.class_map.label.long()][known]
        own = (truth[truth == predicted], truth, predicted)
        parts.append(torch.stack([part.bincount(minlength=len(names)) for part in own]))
    return torch.stack(parts)


def figures(
    model: str,
    names: Sequence[str],
    photographs: Sequence[tuple[Tensor, Tensor, Tensor]],
    patch: Tensor,
) -> dict[str, Interval]:
    """Accuracy and mIoU of the default method, how much higher they are than those of patches, and the share of
    a close-up cat (scikit-image's `chelsea`) that is named cat.

    Args:
        model, names, photographs: as of `counts`.
        patch: what `counts` would give for patches alone.
    """
    own = counts(model, names, photographs).numpy()
    result: dict[str, Interval] = {}
    for name in ("accuracy", "miou"):
        before, after = (_measure(name, part) for part in (patch.numpy(), own))
        result[f"default_{name}"] = bootstrap.intervals(after, len(own), SAMPLES)[name]
        paired = bootstrap.difference(before, after)
        result[f"default_minus_patch_{name}"] = bootstrap.intervals(paired, len(own), SAMPLES)[name]
    masks = ovtool.Segmenter(CAT, model=model)(data.chelsea())
    share = float(masks["cat"].mean())
    return {**result, "cat_share": Interval(share, share, share)}


def _measure(name: str, parts: NDArray[np.int64]) -> bootstrap.Measure:
    hits, truth, predicted = parts[:, 0], parts[:, 1], parts[:, 2]
    if name == "accuracy":
        return bootstrap.ratio(name, hits.sum(1), truth.sum(1))
    return bootstrap.mean_ious(ImageCounts(hits, truth, predicted))

"""Rows on masks and pixels: crops, run lengths, superpixels, windows, the confusion matrix."""

from typing import Any

import numpy as np
import torch
from reference import crops as plain_crops
from reference import masks as plain_masks
from reference import superpixels as plain_superpixels
from reference import windows as plain_windows

from benchmarks import images
from benchmarks.measuring import Setup
from benchmarks.table import Row


def cutting(setup: Setup) -> list[Row]:
    """Crop, fill and resize of 100 regions."""
    from ovtool.methods import masked_crops

    rgb = next(images.photographs(640, 480))
    masks = images.tilted_masks(100, 480, 640)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def ours() -> Any:
        pixels = plain_crops.normalised([rgb], mean, std)[0]
        return masked_crops.masked_crops(pixels, torch.from_numpy(masks), 224)

    def theirs() -> Any:
        return plain_crops.normalised(plain_crops.cut(rgb, masks, 224, mean), mean, std)

    cost = setup.medians({"ours": ours, "theirs": theirs}, 7)
    written = 100 * 3 * 224 * 224 * 4
    return [
        Row(
            "cutting", "crop, fill and resize of 100 regions of 640 x 480, 224 px", cost["ours"],
            "Pillow in a loop", cost["theirs"], 5, setup.limits.traffic(written, cost["ours"]),
        )
    ]  # fmt: skip


def run_lengths(setup: Setup) -> list[Row]:
    """RLE of 100 masks."""
    from ovtool.formats import rle

    masks = images.tilted_masks(100, 480, 640)
    ways = {
        "ours": lambda: rle.encode_many(masks),
        "theirs": lambda: plain_masks.run_lengths(masks),
    }
    cost = setup.medians(ways, 7)
    return [
        Row(
            "rle", "RLE of 100 masks of 640 x 480", cost["ours"], "pycocotools one by one",
            cost["theirs"], 2, setup.limits.traffic(masks.nbytes, cost["ours"]),
        )
    ]  # fmt: skip


def superpixels(setup: Setup) -> list[Row]:
    """Regions of a photograph by merging superpixels."""
    from ovtool.methods import lab, regions

    rgb = next(images.photographs(640, 480))
    colours = lab.of_rgb(rgb)
    ways = {
        "ours": lambda: regions.propose_regions(rgb),
        "cut": lambda: regions.superpixels(colours),
        "theirs": lambda: plain_superpixels.regions(rgb),
    }
    cost = setup.medians(ways, 5)
    return [
        Row(
            "superpixels", "superpixel regions of a photograph of 640 x 480", cost["ours"],
            "scikit-image: slic, then merge_hierarchical", cost["theirs"], 5,
            f"{100 * cost['cut'] / cost['ours']:.0f} % is scikit-image's compiled felzenszwalb",
        )
    ]  # fmt: skip


def windows(setup: Setup) -> list[Row]:
    """The dense path in sliding windows, 150 words."""
    from ovtool.methods import windows as ours
    from ovtool.models import clip as clips

    clip = clips.load("photo")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 336, 448, generator=generator)
    text = torch.nn.functional.normalize(
        torch.randn(150, clip.embed_dim, generator=generator), dim=-1
    )

    @torch.no_grad()
    def score(crops: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bhwd,nd->bnhw", clips.patch_features(clip, crops), text)

    def together() -> Any:
        (scored,) = ours.score_windows(pixels, 224, 112, score)
        return [scored.rows(start, start + 48).argmax(0) for start in range(0, 336, 48)]

    def in_turn() -> Any:
        return plain_windows.slide(pixels, 224, 112, 150, score).argmax(0)

    cost = setup.medians({"ours": together, "theirs": in_turn}, 5)
    return [
        Row(
            "windows", "dense patches, 6 windows of 224 px, 150 words, `photo`", cost["ours"],
            "window after window", cost["theirs"], 1.5,
        )
    ]  # fmt: skip


def confusion(setup: Setup) -> list[Row]:
    """The confusion matrix of 847 classes at 2048 x 2048."""
    from ovtool.methods import metrics

    random = np.random.default_rng(0)
    coarse = random.integers(-1, 847, (2, 128, 128)).astype(np.int32)
    prediction, truth = coarse.repeat(16, 1).repeat(16, 2)
    ways = {
        "ours": lambda: metrics.confusion(prediction, truth, 847),
        "theirs": lambda: plain_masks.confusion(prediction.clip(0), truth, 847, -1),
    }
    cost = setup.medians(ways, 7)
    read = prediction.nbytes + truth.nbytes
    return [
        Row(
            "confusion", "confusion matrix, 847 classes, 2048 x 2048", cost["ours"], "torchmetrics",
            cost["theirs"], 3, setup.limits.traffic(read, cost["ours"]),
        )
    ]  # fmt: skip

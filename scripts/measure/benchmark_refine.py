"""The rows of `scripts/measure/benchmark.py` on refinement: dense CRF, PAMR and the random walk.

Each function returns rows of five: what, ours, reference, ratio, limit. On a GPU, where one is at
hand, a second row.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

RowTuple = tuple[str, str, str, float, str]
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SIZE = (375, 500)
PRESETS = ("pydensecrf", "irn", "clip-es")  # 80/13/10, 50/5/10, 67/3/4


def photos() -> Iterator[Tensor]:
    """Photographs that scikit-image ships, as uint8 (375, 500, 3)."""
    from PIL import Image
    from skimage import data

    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        yield torch.from_numpy(np.array(photo.resize((SIZE[1], SIZE[0]))))


def blobs(labels: int, seed: int) -> Tensor:
    """Probabilities of smooth blobs: float32 (labels, 375, 500)."""
    coarse = torch.rand(1, labels, 9, 12, generator=torch.Generator().manual_seed(seed))
    sharp = interpolate(coarse, size=SIZE, mode="bicubic")[0].clamp(min=0.02) ** 3
    return sharp / sharp.sum(0)


def pydensecrf(unary: Tensor, image: Tensor, preset: Any) -> NDArray[np.float32]:
    """The peer's Q; ImportError where the extra `peers` is not installed."""
    import pydensecrf.densecrf as peer

    labels, height, width = unary.shape
    field = peer.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary.numpy().reshape(labels, -1)))
    field.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=image.numpy(),
        compat=preset.bilateral_weight,
    )  # fmt: skip
    return np.array(field.inference(preset.iterations)).reshape(unary.shape)


def timed(*works: Callable[[], Any], repeats: int = 5) -> list[float]:
    """The least wall time of each work, in seconds, taken in turn after one round to warm up."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for kept, work in zip(times, works, strict=True):
            began = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                kept.append(time.perf_counter() - began)
    return [min(kept) for kept in times]


def crf(repeats: int = 5) -> list[RowTuple]:
    """The dense CRF against pydensecrf, 3 labels, geometric mean over photographs for each preset."""
    from ovtool.methods import dense_crf

    rows: list[RowTuple] = []
    ratios, worst = [], 1.0
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for name in PRESETS:
        preset = dense_crf.PRESETS[name]
        pairs = []
        for seed, image in enumerate(photos()):
            unary = dense_crf.soft_unary(blobs(3, seed))
            ours = dense_crf.refine(unary, image, preset)
            theirs = pydensecrf(unary, image, preset)
            worst = min(worst, float((ours.numpy().argmax(0) == theirs.argmax(0)).mean()))
            placed = [(unary.to(device), image.to(device)) for device in devices]
            works = [partial(dense_crf.refine, *pair, preset) for pair in placed]
            works.append(partial(pydensecrf, unary, image, preset))
            pairs.append(timed(*works, repeats=repeats))
        *ours_s, theirs_s = (
            statistics.geometric_mean(column) for column in zip(*pairs, strict=True)
        )
        for device, seconds in zip(devices, ours_s, strict=True):
            rows.append(
                (
                    f"dense CRF, 500 x 375, 3 labels, `{name}`, {device}",
                    f"{1000 * seconds:.0f} ms",
                    f"pydensecrf2: {1000 * theirs_s:.0f} ms",
                    seconds / theirs_s,
                    "reported",
                )
            )
        ratios.append(ours_s[0] / theirs_s)
    mean = statistics.geometric_mean(ratios)
    what = f"dense CRF, geometric mean of the presets; least label agreement {100 * worst:.2f} %"
    return [*rows, (what, f"{mean:.2f}", "pydensecrf2: 1", mean, "at most 0.8")]


def _stacked_pamr(image: Tensor, maps: Tensor, iterations: int) -> Tensor:
    """PAMR as it is usually written: all neighbours stacked in one tensor."""
    from ovtool.methods import pixel_adaptive

    weights = pixel_adaptive.affinity(image)
    height, width = image.shape[1:]
    for _ in range(iterations):
        shifted = []
        for d in pixel_adaptive.DISTANCES:
            framed = pad(maps[None], [d] * 4, mode="replicate")[0]
            shifted += [
                framed[:, y : y + height, x : x + width]
                for y in (0, d, 2 * d)
                for x in (0, d, 2 * d)
                if (y, x) != (d, d)
            ]
        maps = (torch.stack(shifted, dim=1) * weights).sum(1)
    return maps


def pamr(repeats: int = 3) -> list[RowTuple]:
    """PAMR against its neighbours stacked: 3 maps of 500 x 375, 10 iterations."""
    from ovtool.methods import pixel_adaptive

    image = next(photos()).permute(2, 0, 1).float() / 255
    rows = []
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        picture, maps = image.to(device), blobs(3, 0).to(device)
        ours, stacked = timed(
            partial(pixel_adaptive.pamr, picture, maps),
            partial(_stacked_pamr, picture, maps, 10),
            repeats=repeats,
        )
        slow = f"neighbours stacked: {1000 * stacked:.0f} ms"
        what = f"PAMR, 3 maps of 500 x 375, 10 iterations, {device}"
        rows.append((what, f"{1000 * ours:.0f} ms", slow, ours / stacked, "reported"))
    return rows


def _squared_walk(maps: Tensor, step: Any, doublings: int) -> Tensor:
    """The walk as published: the dense matrix squared again and again."""
    count = len(step.sources)
    matrix = step.weights.new_zeros(count, count).scatter_add_(1, step.sources, step.weights)
    for _ in range(doublings):
        matrix = matrix @ matrix
    return (matrix @ maps.flatten(1).T).T.view(maps.shape)


def walk(grid: tuple[int, int] = (47, 63), doublings: int = 8) -> list[RowTuple]:
    """2^8 sparse steps against squaring the dense matrix 8 times, float64, the same result: a picture
    of 500 x 375 at stride 8 (at stride 4 the matrix alone is 1.1 GB)."""
    from ovtool.methods import random_walk

    image = interpolate(next(photos()).permute(2, 0, 1)[None].double(), size=grid, mode="area")[0]
    maps = torch.rand(3, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sources, inside = random_walk.neighbours(grid)
    affinity = random_walk.colour_affinity(image, sources, 30.0)
    step = random_walk.transition(affinity, sources, inside)
    rows = []
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        placed = random_walk.Transition(sources.to(device), step.weights.to(device))
        own = maps.to(device)

        found = random_walk.walk(own, placed, doublings)
        wanted = _squared_walk(own, placed, doublings)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        ours, theirs = timed(
            partial(random_walk.walk, own, placed, doublings),
            partial(_squared_walk, own, placed, doublings),
            repeats=2,
        )
        table = placed.sources.numel() * 16 / 1e6
        dense = 2 * 8 * len(placed.sources) ** 2 / 1e6
        what = f"random walk, 256 steps, 3 maps of {grid[0]} x {grid[1]}, float64, {device}"
        rows.append(
            (
                what,
                f"{1000 * ours:.0f} ms, {table:.0f} MB",
                f"8 dense squarings: {1000 * theirs:.0f} ms, {dense:.0f} MB",
                ours / theirs,
                "reported",
            )
        )
    return rows

"""Rows on refinement and activation maps: dense CRF, PAMR, random walk, GradCAM."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from reference import gradcam as plain_gradcam
from reference import refinement as plain
from torch.nn.functional import interpolate, normalize

from benchmarks import images
from benchmarks.measuring import Setup, added_gigabytes
from benchmarks.table import Row

PRESETS = ("pydensecrf", "irn", "clip-es")  # 80/13/10, 50/5/10, 67/3/4
HEIGHT, WIDTH = 375, 500


def crf(setup: Setup) -> list[Row]:
    """The dense CRF, 3 labels, on one thread and on all: geometric means over photographs."""
    from ovtool.methods import dense_crf

    photos = [torch.from_numpy(photo) for photo in images.photographs(WIDTH, HEIGHT)]
    threads = torch.get_num_threads()
    rows = []
    for name in PRESETS[:1] if setup.quick else PRESETS:
        preset = dense_crf.PRESETS[name]
        costs: list[dict[str, float]] = []
        for seed, photo in enumerate(photos[:1] if setup.quick else photos):
            unary = dense_crf.soft_unary(images.blobs(3, HEIGHT, WIDTH, seed))
            ours = partial(_with_threads, partial(dense_crf.refine, unary, photo, preset))
            ways = {"one": partial(ours, 1)} | (
                {"all": partial(ours, threads)} if threads > 1 else {}
            )
            ways["peer"] = partial(plain.dense_crf, unary, photo, preset)
            costs.append(setup.medians(ways, 3))
        mean = {way: statistics.geometric_mean(cost[way] for cost in costs) for way in costs[0]}
        for key, count, goal in (("one", 1, 2.0), ("all", threads, 1 / 0.3))[: len(mean) - 1]:
            on = "one thread" if count == 1 else f"{count} threads"
            rows.append(
                Row(f"crf-{name}-{key}", f"dense CRF, 500 x 375, 3 labels, `{name}`, {on}", mean[key],
                    "pydensecrf2, one thread", mean["peer"], goal)
            )  # fmt: skip
    return rows


def _with_threads(work: Callable[[], Any], threads: int) -> None:
    """Runs a work with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        work()
    finally:
        torch.set_num_threads(before)


def pamr_ways(size: int) -> dict[str, Callable[[], Any]]:
    """PAMR of 3 maps of a photograph, ours and with all neighbours in one tensor; size: 2 for a small one."""
    from ovtool.methods import pixel_adaptive

    height, width = (HEIGHT, WIDTH) if size > 2 else (64, 64)
    photo = torch.from_numpy(next(images.photographs(width, height)))
    image, maps = photo.permute(2, 0, 1).float() / 255, images.blobs(3, height, width, 0)
    arguments = (image, maps, pixel_adaptive.ITERATIONS, pixel_adaptive.DISTANCES)
    return {
        "ours": partial(pixel_adaptive.pamr, *arguments),
        "theirs": partial(plain.pamr, *arguments),
    }


def pamr(setup: Setup) -> list[Row]:
    """PAMR: time and memory."""
    cost = setup.medians(pamr_ways(3), 5)
    what, slow = "PAMR, 3 maps of 500 x 375, 10 iterations", "all neighbours unfolded"
    rows = [Row("pamr", what, cost["ours"], slow, cost["theirs"], 2)]
    if not setup.quick:
        ours, theirs = (
            added_gigabytes("refinement", "pamr_ways", way, 3) for way in ("ours", "theirs")
        )
        rows.append(Row("pamr-memory", f"{what}: peak memory", ours, slow, theirs, 10, unit="GB"))
    return rows


def walk(setup: Setup) -> list[Row]:
    """2^8 sparse steps of the random walk against the dense matrix squared 8 times, float64: an image of
    500 x 375 at stride 8 (at stride 4 the matrix alone is 1.1 GB)."""
    from ovtool.methods import random_walk

    grid = (47, 63)
    photo = torch.from_numpy(next(images.photographs(WIDTH, HEIGHT)))
    image = interpolate(photo.permute(2, 0, 1)[None].double(), size=grid, mode="area")[0]
    maps = torch.rand(3, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sources, inside = random_walk.neighbours(grid)
    affinity = random_walk.colour_affinity(image, sources, 30.0)
    step = random_walk.transition(affinity, sources, inside)
    ways = {
        "ours": lambda: random_walk.walk(maps, step, 8),
        "theirs": lambda: plain.squared_walk(maps, step.sources, step.weights, 8),
    }
    cost = setup.medians(ways, 2)
    what = f"random walk, 256 steps, 3 maps of {grid[0]} x {grid[1]}, float64"
    return [Row("walk", what, cost["ours"], "8 dense squarings", cost["theirs"])]


def gradcam(setup: Setup) -> list[Row]:
    """An image of 256 pixels with 5 classes, the bundled CLIP."""
    from ovtool.models import clip as clips
    from ovtool.models import gradcam as ours

    clip = clips.load("tiny")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, clip.image_size, clip.image_size, generator=generator)
    text = normalize(torch.randn(32, clip.embed_dim, generator=generator), dim=-1)
    ways = {
        "ours": lambda: ours.maps(clip, pixels, text, 5),
        "theirs": lambda: plain_gradcam.maps(clip.model, pixels, text, 5, clip.logit_scale),
    }
    cost = setup.medians(ways, 15)
    return [
        Row(
            "gradcam", f"`gradcam` maps of 5 classes, `tiny` at {clip.image_size} px", cost["ours"],
            "a forward and a backward pass for each class", cost["theirs"], 3,
        )
    ]  # fmt: skip

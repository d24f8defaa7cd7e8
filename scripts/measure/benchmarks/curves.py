"""How costs grow: six curves in one image, each beside its theory."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks import alignment, images
from benchmarks.measuring import OVTOOL, Setup, command


@dataclass(frozen=True)
class Curve:
    """A cost that grows.

    Attributes:
        of: what grows.
        what: is measured.
        sizes: how large it was.
        seconds: what it cost.
        theory: what it should cost, in seconds.
        says: the theory in words.
    """

    of: str
    what: str
    sizes: Sequence[int]
    seconds: Sequence[float]
    theory: Sequence[float]
    says: str


def draw(setup: Setup, path: Path) -> None:
    """Measures the curves and draws them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    for axis, measure in zip(axes.flat, CURVES, strict=True):
        curve = measure(setup)
        axis.loglog(curve.sizes, curve.seconds, "o-", color="#1f5fa8", label="measured")
        axis.loglog(curve.sizes, curve.theory, "--", color="#888888", label=curve.says)
        axis.set_title(f"{curve.what}", fontsize=9)
        axis.set_xlabel(curve.of, fontsize=9)
        axis.set_ylabel("seconds", fontsize=9)
        axis.set_xticks(curve.sizes, [str(size) for size in curve.sizes], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        print(curve, flush=True)
    figure.savefig(path, dpi=75)


def _measured(setup: Setup, ways: dict[int, Callable[[], Any]], repeats: int) -> list[float]:
    """The median seconds of each size."""
    cost = setup.medians({str(size): work for size, work in ways.items()}, repeats)
    return [cost[str(size)] for size in ways]


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """A fixed cost and one for each, through the first and the last size."""
    slope = (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])
    return [seconds[0] + slope * (size - sizes[0]) for size in sizes]


def regions(setup: Setup) -> Curve:
    """Masked crops of an image."""
    from ovtool.models import clip as clips
    from ovtool.models import region_clip

    clip, rgb = clips.load("tiny"), next(images.photographs(640, 480))
    sizes = (1, 4, 16, 64)
    ways: dict[int, Callable[[], Any]] = {
        n: partial(region_clip.encode_regions, clip, rgb, images.tilted_masks(n, 480, 640))
        for n in sizes
    }
    seconds = _measured(setup, ways, 3)
    return Curve("regions of an image", "masked crops, `tiny`", sizes, seconds, _line(sizes, seconds),
                 "fixed + each")  # fmt: skip


def _dense(clip: Any, rgb: Any, words: int, size: tuple[int, int]) -> Callable[[], Any]:
    """The dense path of an image: scores of words, brought to a size, and the best of them."""
    from ovtool.methods import class_maps
    from ovtool.models import dense_scores
    from ovtool.models.dense_scores import DenseSettings

    text = normalize(torch.randn(words, clip.embed_dim), dim=-1)
    settings = DenseSettings().settled(clip)
    encode = dense_scores.encoder(clip, settings.last_block, 8)

    def work() -> Any:
        ((scored, _),) = list(
            dense_scores.views(clip, torch.from_numpy(rgb), text, settings, encode)
        )[:1]
        return class_maps.label_blocks(dense_scores.rows(scored, size), size, words)

    return work


def words(setup: Setup) -> Curve:
    """Words for one image."""
    from ovtool.models import clip as clips

    clip, rgb = clips.load("photo"), next(images.photographs(640, 480))
    sizes = (1, 10, 100, 847)
    seconds = _measured(setup, {n: _dense(clip, rgb, n, (480, 640)) for n in sizes}, 3)
    return Curve("words", "dense path, 640 x 480, `photo`", sizes, seconds, _line(sizes, seconds),
                 "tower + each word")  # fmt: skip


def pixels(setup: Setup) -> Curve:
    """Pixels of an image."""
    from ovtool.models import clip as clips

    clip, sides = clips.load("photo"), (128, 256, 512, 1024, 2048)
    ways = {
        side * side: _dense(clip, next(images.photographs(side, side)), 20, (side, side))
        for side in sides
    }
    seconds = _measured(setup, ways, 3)
    return Curve("pixels of an image", "dense path, 20 words, `photo`", list(ways), seconds,
                 _line(list(ways), seconds), "tower + each pixel")  # fmt: skip


def runs(setup: Setup) -> Curve:
    """Images of a run."""
    captions = images.captioned(setup.folder / "run", 16)
    files = sorted((captions.parent / "images").iterdir())
    sizes = (1, 4, 16)
    ways = {
        n: command([
            *OVTOOL, "segment", *map(str, files[:n]), "--classes", "cat,cup", "--model", "tiny", "--overwrite",
            "-o", str(setup.folder / "run.json"),
        ])
        for n in sizes
    }  # fmt: skip
    seconds = _measured(setup, ways, 1)
    return Curve("images of a run", "`segment`, `tiny`, start to file", sizes, seconds,
                 _line(sizes, seconds), "start + each image")  # fmt: skip


def batch(setup: Setup) -> Curve:
    """Images of a batch of PACL."""
    sizes = (16, 64, 256, 512)
    seconds = _measured(setup, {n: alignment.steps(n)["ours"] for n in sizes}, 3)
    each = seconds[0] / sizes[0]
    pairs = max(seconds[-1] - each * sizes[-1], 0) / sizes[-1] ** 2
    theory = [each * n + pairs * n * n for n in sizes]
    return Curve("images of a batch", "step of `train-pacl`, tokens kept", sizes, seconds, theory,
                 "each image + each pair")  # fmt: skip


def ranks(setup: Setup) -> Curve:
    """Ranks of a training, one thread each; the theory is the same work without any exchange, which shows what the
    cores of this machine take from each other."""
    sizes = (1, 2, 4)
    together, alone = ([_ranks(n, exchanges) for n in sizes] for exchanges in (True, False))
    return Curve("ranks of one thread", "step of `train-pacl`, batch 64", sizes, together, alone,
                 "the same without exchange")  # fmt: skip


def _ranks(count: int, exchanges: bool) -> float:
    """The seconds of a step on so many ranks."""
    folder = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder.parents[1]}",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    code = f"from benchmarks import ranks; ranks.main({exchanges})"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
         "--no-python", sys.executable, "-c", code],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


CURVES = (regions, words, pixels, runs, batch, ranks)

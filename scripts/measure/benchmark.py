#!/usr/bin/env python3
"""Speed and memory, each as a ratio to a named reference that is measured in the same run.

    scripts/measure/benchmark.py [NAME ...] [--json FILE]

Names: startup, collage, patch, fused, memory, vocabulary, regions, align, align-memory, cam, crf, pamr,
walk. Without one, all. Prints a Markdown
table; run it on an idle machine.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import benchmark_align
import benchmark_cam
import benchmark_refine
import numpy as np

OVTOOL = [sys.executable, "-m", "ovtool"]


@dataclass(frozen=True)
class Row:
    """One line of the table. ratio: ours to the reference's, or a share of the limit."""

    what: str
    ours: str
    reference: str
    ratio: float
    limit: str


def seconds(command: list[str], repeats: int = 3) -> float:
    """The median wall time of a command, whose output is thrown away."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_gigabytes(command: list[str]) -> float:
    """The peak resident memory of a command, in GB of 10^9 bytes."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024 / 1e9


def picture(folder: Path, side: int) -> Path:
    """A collage scene of `side` pixels as PNG."""
    from PIL import Image

    from ovtool.datasets import collage_files

    spec = collage_files.CollageSpec("demo", 1, 7, 256)
    scene = next(collage_files.scenes(spec))
    path = folder / f"scene-{side}.png"
    Image.fromarray(scene.pixels).resize((side, side)).save(path)
    return path


def startup(folder: Path) -> list[Row]:
    ours = seconds([*OVTOOL, "--help"], 9)
    reference = seconds([sys.executable, "-c", "import typer"], 9)
    return [
        Row(
            "`ovtool --help`, median of 9",
            f"{1000 * ours:.0f} ms",
            f"`python -c 'import typer'`: {1000 * reference:.0f} ms",
            ours / reference,
            "at most 3",
        )
    ]


def collage(folder: Path) -> list[Row]:
    from ovtool.datasets import collage_files

    warm = collage_files.CollageSpec("test", 64, 1, 128)
    collage_files.make(warm, folder / "warm")
    began = time.perf_counter()
    command = [*OVTOOL, "data", "make", "collage", str(folder / "c"), "--split", "test"]
    subprocess.run(
        [*command, "--count", "2000", "--size", "128", "--workers", "2"],
        check=True,
        capture_output=True,
    )
    rate = 2000 / (time.perf_counter() - began)
    return [
        Row(
            "`data make collage`, 128 px, 2,000 images, 2 workers, start included",
            f"{rate:.0f} images/s",
            "200 images/s",
            rate / 200,
            "at least 1",
        )
    ]


def _bare_forward(image: Path, words: list[str], repeats: int = 5) -> float:
    """Seconds for the forward passes alone: the image tower on the picture that `segment` shows it,
    and the text tower on the words."""
    import torch
    from PIL import Image

    from ovtool.models import clip as door
    from ovtool.models import dense_scores, text

    clip = door.load("tiny")
    rgb = torch.from_numpy(np.array(Image.open(image).convert("RGB")))
    pixels = dense_scores.prepare(clip, rgb, None)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        door.patch_features(clip, pixels)
        text.embed_words(clip, words, cache=False)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _segment_cost(folder: Path, method: str, limit: str) -> Row:
    image = picture(folder, 512)
    words = ["teapot", "apple"]
    command = [*OVTOOL, "segment", str(image), "--classes", ",".join(words), "--model", "tiny"]
    command += ["--method", method, "--overwrite", "-o", str(folder / "out.json")]
    subprocess.run(command, check=True, capture_output=True)
    ours = seconds(command, 5)
    imports = seconds([sys.executable, "-c", "import torch, open_clip"], 5)
    forward = _bare_forward(image, words)
    return Row(
        f"`segment --method {method}`, one 512 x 512 image, `tiny`",
        f"{ours:.2f} s",
        f"`import torch, open_clip` {imports:.2f} s + bare forward passes {forward:.2f} s",
        ours / (imports + forward),
        limit,
    )


def patch(folder: Path) -> list[Row]:
    return [_segment_cost(folder, "patch", "at most 1.25")]


def fused(folder: Path) -> list[Row]:
    return [_segment_cost(folder, "fused", "reported")]


def memory(folder: Path) -> list[Row]:
    image = picture(folder, 512)
    command = [*OVTOOL, "segment", str(image), "--classes", "teapot,apple", "--model", "tiny"]
    command += ["--method", "patch", "--overwrite", "-o", str(folder / "out.json")]
    peak = peak_gigabytes(command)
    return [
        Row(
            "peak memory of `segment --method patch`, 512 x 512",
            f"{peak:.2f} GB",
            "1.5 GB",
            peak / 1.5,
            "at most 1",
        )
    ]


def vocabulary(folder: Path) -> list[Row]:
    image = picture(folder, 2048)
    names = folder / "words.txt"
    names.write_text("".join(f"word{number}\n" for number in range(847)))
    rows = []
    for method in ("patch", "fused"):
        command = [*OVTOOL, "segment", str(image), "--classes-file", str(names), "--model", "tiny"]
        command += ["--method", method, "--overwrite", "-o", str(folder / "out.json")]
        command += ["--label-maps", str(folder / f"maps-{method}")]
        peak = peak_gigabytes(command)
        rows.append(
            Row(
                f"peak memory of `segment --method {method}`, 847 words, 2048 x 2048",
                f"{peak:.2f} GB",
                "3 GB",
                peak / 3,
                "at most 1",
            )
        )
    return rows


def _tilted_masks(count: int, side: int) -> np.ndarray:
    """Ellipses of many sizes, aspects and tilts: bool (count, side, side)."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    masks = np.empty((count, side, side), bool)
    for mask in masks:
        row, column = random.uniform(0.3 * side, 0.7 * side, 2)
        radius, aspect = random.uniform(0.06, 0.25) * side, random.uniform(1.5, 5)
        tilt = random.uniform(0, np.pi)
        along = (x - column) * np.cos(tilt) + (y - row) * np.sin(tilt)
        across = (y - row) * np.cos(tilt) - (x - column) * np.sin(tilt)
        mask[:] = np.hypot(along, across * aspect) <= radius
    return masks


def _pil_regions(clip: Any, rgb: np.ndarray, masks: np.ndarray) -> Any:
    """The straightforward way: crop, fill and resize with PIL in a loop, then one full batch."""
    import torch
    from PIL import Image

    mean = (255 * np.array(clip.mean)).round().astype(np.uint8)
    crops = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        filled = np.where(mask[box][..., None], rgb[box], mean)
        size = (clip.image_size, clip.image_size)
        crop = np.asarray(Image.fromarray(filled).resize(size, Image.Resampling.BICUBIC))
        crops.append(torch.from_numpy(crop / 255).float() - torch.tensor(clip.mean))
    pixels = (torch.stack(crops) / torch.tensor(clip.std)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return clip.model.encode_image(pixels, normalize=True)


def regions(folder: Path, count: int = 100, repeats: int = 3) -> list[Row]:
    """`count` regions of one picture through a ViT-B/16 at random weights, float32, on this CPU."""
    import open_clip
    import torch
    from PIL import Image

    from ovtool.methods import mask_prompts
    from ovtool.models import clip as door
    from ovtool.models import region_clip

    clip = door.from_model(open_clip.create_model("ViT-B-16"), "ViT-B-16 at random weights")
    rgb = np.array(Image.open(picture(folder, 512)).convert("RGB"))
    masks = _tilted_masks(count, 512)
    shown = region_clip.crops(clip, rgb, torch.from_numpy(masks), clip.image_size).foreground
    blank = 1 - shown.float().mean().item()

    def timed(work: Callable[[], Any]) -> float:
        work()
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def with_prompts(depth: int) -> Callable[[], Any]:
        start = mask_prompts.initial(depth, (14, 14), 768, torch.Generator().manual_seed(0))
        return lambda: region_clip.encode_regions(clip, rgb, masks, prompts=start)

    reference = timed(lambda: _pil_regions(clip, rgb, masks))
    slow = f"PIL in a loop, one batch, no prompts: {count / reference:.2f} regions/s"
    none = timed(lambda: region_clip.encode_regions(clip, rgb, masks))
    three, whole = timed(with_prompts(3)), timed(with_prompts(12))
    tokens = timed(lambda: region_clip.encode_region_tokens(clip, rgb, masks))
    what = f"{count} regions of one picture, ViT-B/16, f = {blank:.2f}"
    arithmetic = 1 / (1 - blank)
    return [
        Row(f"{what}: crops, no prompts", f"{count / none:.2f}/s", slow, reference / none, "reported"),
        Row(f"{what}: prompts of depth 3", f"{count / three:.2f}/s", slow, reference / three, "at least 1.1"),
        Row(
            f"{what}: prompts at every block",
            f"{count / whole:.2f}/s",
            f"depth 3 times 1 / (1 - f): {arithmetic * count / three:.2f}/s",
            three / whole / arithmetic,
            "at least 0.9",
        ),
        Row(f"{what}: `tokens`, one pass", f"{count / tokens:.2f}/s", slow, reference / tokens, "at least 20"),
    ]  # fmt: skip


BENCHMARKS: dict[str, Callable[[Path], list[Row]]] = {
    "startup": startup,
    "collage": collage,
    "patch": patch,
    "fused": fused,
    "memory": memory,
    "vocabulary": vocabulary,
    "regions": regions,
    "cam": lambda _: [Row(*row) for row in benchmark_cam.speed()],
    "crf": lambda _: [Row(*row) for row in benchmark_refine.crf()],
    "pamr": lambda _: [Row(*row) for row in benchmark_refine.pamr()],
    "align": lambda _: [Row(*row) for row in benchmark_align.speed()],
    "align-memory": lambda _: [Row(*row) for row in benchmark_align.memory()],
    "walk": lambda _: [Row(*row) for row in benchmark_refine.walk()],
}


def machine() -> str:
    """The processor and the number of cores."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = found.group(1) if found else name
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    print(f"{machine()}, Python {platform.python_version()}\n")
    print("| what | ours | reference | ratio | limit |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.names or BENCHMARKS:
            for row in BENCHMARKS[name](Path(scratch)):
                rows.append(row)
                print(
                    f"| {row.what} | {row.ours} | {row.reference} | {row.ratio:.2f} | {row.limit} |",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures every way to segment on the collage, each image with its own 20 words.

    scripts/measure/methods.py [--model tiny] [--split test] [--images 200] [--only fused]

The measure of record: 200 images of `test`, seed 7, 256 pixels, mIoU against the semantic masks
(objects and grounds, every pixel counts), by both conventions. The default method is chosen on `val`. Prints a Markdown
table with the options of `ovtool segment` that each row stands for; the default is measured first, and each other row
has its difference from it. Intervals are of the paired bootstrap over images, 95 %.
"""

import argparse
import contextlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ovtool.datasets import collage_files, registry
from ovtool.models import sources
from ovtool.settings.evaluate import MeanIou
from ovtool.settings.segment import Fused, Patch, TwoStage
from ovtool.settings.shared import Compute, Run
from ovtool.settings.words import Words
from ovtool.stages import evaluate, segment

DEFAULT = "(nothing: the default)"
BLOCKS: tuple[Any, ...] = ("clip", "maskclip", "sclip", "clearclip", "naclip")
ROWS: dict[str, Patch | Fused | TwoStage] = {
    DEFAULT: Fused(),
    **{f"--method patch --last-block {block}": Patch(last_block=block) for block in BLOCKS},
    "--method patch": Patch(),
    "--method patch --patch-stride 8": Patch(patch_stride=8),
    "--method patch --last-block naclip --patch-stride 8": Patch(
        last_block="naclip", patch_stride=8
    ),
    "--method patch --pacl none --window 0 --short-side 128": Patch(
        pacl="none", window=0, short_side=128
    ),
    **{f"--method fused --last-block {block}": Fused(last_block=block) for block in BLOCKS[1:]},
    "--method fused --window 0 --short-side 128": Fused(window=0, short_side=128),
    "--method fused --pacl ovtool/weights/tiny_pacl.safetensors": Fused(
        pacl=sources.bundled_folder() / "tiny_pacl.safetensors"
    ),
    "--method fused --templates pacl": Fused(templates="pacl"),
    "--method two-stage": TwoStage(),
    "--recipe ovseg": TwoStage(recipe="ovseg"),
}


def measure(
    data: registry.DataSet, model: str, method: Patch | Fused | TwoStage, out: Path
) -> float:
    """Segments with one method into a file; its seconds an image, loading the model included."""
    began = time.perf_counter()
    outcome = segment.run(
        data.images,
        Words(classes_per_image=data.classes_per_image),
        method,
        out=out,
        run=Run(overwrite=True),
        compute=Compute(model=model),
    )
    return (time.perf_counter() - began) / len(outcome.dataset.images)


def cells(scores: dict[str, Any], difference: dict[str, Any] | None) -> list[str]:
    """The figures of a row; difference: from the default, None for the default itself."""
    objects, grounds = _apart(scores)
    values = (scores["miou_union"], objects, grounds, scores["pixel_accuracy"])
    own = {"value": scores["miou"], **scores["intervals"]["miou"]}
    more = "" if difference is None else _percent(difference["miou"], "+")
    return [_percent(own), more, *(f"{100 * value:.1f}" for value in values)]


def _percent(interval: dict[str, float], sign: str = "") -> str:
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{value:{sign}.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", help="rows whose options contain this text")
    args = parser.parse_args()
    print(f"`collage:{args.split}`; mIoU of the classes of the truth, and of truth or prediction\n")
    heads = "mIoU | more than the default | union | objects | grounds | pixels right | s/image"
    print(f"| `ovtool segment` with | {heads} |\n|---|{'---|' * 7}")
    with TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        folder, default = Path(scratch), Path(scratch) / "default.json"
        spec = collage_files.CollageSpec(args.split, args.images, args.seed)
        collage_files.make(spec, folder / "data")
        data = registry.collage_in(folder / "data", args.split)
        for name, method in ROWS.items():
            if args.only and args.only not in name and name != DEFAULT:
                continue
            is_default = name == DEFAULT
            out = default if is_default else folder / "other.json"
            spent = measure(data, args.model, method, out)
            metric = MeanIou(classes_per_image=data.classes_per_image)
            result = evaluate.run(default, data.semantic, metric, other=None if is_default else out)
            scores = result if is_default else result["other"]
            row = " | ".join(cells(scores, result.get("difference")))
            print(f"| `{name}` | {row} | {spent:.2f} |", flush=True)


def _apart(scores: dict[str, Any]) -> tuple[float, float]:
    """The mean IoU of the objects and of the grounds."""
    grounds = set(collage_files.GROUNDS)
    means = []
    for wanted in (False, True):
        ious = [
            one["iou"]
            for one in scores["classes"]
            if (one["name"] in grounds) == wanted and one["iou"] is not None
        ]
        means.append(sum(ious) / len(ious))
    return means[0], means[1]


if __name__ == "__main__":
    main()

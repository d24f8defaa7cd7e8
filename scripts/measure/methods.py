#!/usr/bin/env python3
"""Measures every way to segment on the collage, each image with its own 20 words.

    scripts/measure/methods.py [--model tiny] [--split test] [--images 200] [--only fused]

The measure of record: 200 images of `test`, seed 7, 256 pixels, mIoU against the semantic masks
(objects and grounds, every pixel counts), by both conventions. The default method is chosen on `val`. Prints a Markdown
table with the options of `ovtool segment` that each row stands for.
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
from ovtool.settings.shared import Compute
from ovtool.settings.words import Words
from ovtool.stages import evaluate, segment

BLOCKS: tuple[Any, ...] = ("clip", "maskclip", "sclip", "clearclip", "naclip")
ROWS: dict[str, Patch | Fused | TwoStage] = {
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
    "(nothing: the default)": Fused(),
}


def measure(
    data: registry.DataSet, model: str, method: Patch | Fused | TwoStage, folder: Path
) -> tuple[dict[str, Any], float]:
    """The scores of one way to segment, and its seconds an image, loading the model included."""
    out = folder / "segments.json"
    out.unlink(missing_ok=True)
    began = time.perf_counter()
    outcome = segment.run(
        data.images,
        Words(classes_per_image=data.classes_per_image),
        method,
        out=out,
        compute=Compute(model=model),
    )
    spent = (time.perf_counter() - began) / len(outcome.dataset.images)
    truth = str(data.semantic)
    return evaluate.run(out, truth, MeanIou(classes_per_image=data.classes_per_image)), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", help="rows whose options contain this text")
    args = parser.parse_args()
    print(
        f"`collage:{args.split}`; mIoU of the classes of the truth [95 %, bootstrap over images], and of truth or "
        "prediction\n"
    )
    print("| `ovtool segment` with | mIoU | union | objects | grounds | pixels right | s/image |")
    print("|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        folder = Path(scratch)
        spec = collage_files.CollageSpec(args.split, args.images, args.seed)
        collage_files.make(spec, folder / "data")
        data = registry.collage_in(folder / "data", args.split)
        for name, method in ROWS.items():
            if args.only and args.only not in name:
                continue
            scores, spent = measure(data, args.model, method, folder)
            objects, grounds = _apart(scores)
            ends = scores["intervals"]["miou"]
            own = f"{100 * scores['miou']:.1f} [{100 * ends['low']:.1f}, {100 * ends['high']:.1f}]"
            cells = (scores["miou_union"], objects, grounds, scores["pixel_accuracy"])
            row = " | ".join(f"{100 * cell:.1f}" for cell in cells)
            print(f"| `{name}` | {own} | {row} | {spent:.2f} |", flush=True)


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

#!/usr/bin/env python3
"""Measures the snapshots of a training of `tiny` on `val`, and draws its log.

    scripts/bundle/tiny_history.py tiny.pt SNAPSHOTS [--out scripts/bundle/tiny_training]

Reads the log from the checkpoint and the snapshots that `train_tiny.py --snapshots` left, and writes
OUT.json and OUT.png: loss and share of right images in training, and for every snapshot top-1 of
all nouns and the accuracy of patches (`measure/tiny.py`).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import train_tiny
from matplotlib.figure import Figure

from ovtool.formats import tensors
from ovtool.models import clip as clips

sys.path.append(str(Path(__file__).parents[1] / "measure"))
import tiny as measure_tiny  # noqa: E402


def evaluation(path: Path, count: int) -> dict[str, Any]:
    """The figures of one snapshot on val, fractions but for the cross entropy."""
    header, weights = tensors.load(path, "clip")
    model = train_tiny.Training(0, torch.device("cpu")).average
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    measured = measure_tiny.figures(clips.from_model(model, "tiny"), "val", 0, count)
    rounded = {name: round(value, 4) for name, value in measured.items()}
    return {"pictures": header["settings"]["pictures"], **rounded}


def draw(log: list[dict[str, float]], evaluations: list[dict[str, float]], path: Path) -> None:
    """The loss in training on the left; what was measured on the right."""
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([one["pictures"] for one in log], [one["loss"] for one in log])
    left.set(xlabel="images", ylabel="loss (nats)", title="training")
    right.plot(
        [one["pictures"] for one in log], [one["right"] for one in log], label="training, best noun"
    )
    for name in ("top1", "among_20", "patches_objects", "patches_grounds"):
        pairs = [(one["pictures"], one[name]) for one in evaluations]
        right.plot(*zip(*pairs, strict=True), marker="o", markersize=3, label=f"val, {name}")
    right.set(xlabel="images", ylabel="share that is right", title="figures", ylim=(0, 1))
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("snapshots", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tiny_training")
    parser.add_argument("--command", help="what was run, for the record")
    parser.add_argument("--pictures", type=int, default=1000, help="images of val a snapshot")
    args = parser.parse_args()
    log = torch.load(args.checkpoint, weights_only=True, map_location="cpu")["log"]
    measured = []
    for path in sorted(args.snapshots.glob("tiny-*.safetensors")):
        measured.append(evaluation(path, args.pictures))
        print(json.dumps(measured[-1]), flush=True)
    record = {"command": args.command, "evaluations": measured, "log": log}
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    draw(log, measured, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Trains the bundled proposer `tiny` on scenes of `collage:train`, from nothing.

    torchrun --standalone --nproc-per-node 2 scripts/bundle/train_tiny_proposer.py --pictures 400000

Needs the art of `scripts/bundle/fetch_art`. Scenes are composed on the way; objects and grounds are targets, one
mask each. Each picture depends on (seed, step, row) alone. It goes on from --checkpoint where that exists,
and removes it when the weights are written. `--start FILE` begins with the weights of an earlier run in
place of nothing. Masks are compared at every second pixel. Recall and mIoU on `collage:val`, whose art is never learned from, are
printed on the way. `--dry-steps N` stops after N steps and writes nothing: it measures the speed.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from restyle import restyle
from scene_batches import drawing_bank

from ovtool.batches import masks as mask_batches
from ovtool.batches.masks import Example, Truth
from ovtool.datasets import collage, registry
from ovtool.datasets.nouns import GROUNDS, table
from ovtool.formats import coco, parts
from ovtool.models import maskformer
from ovtool.runtime import device as devices
from ovtool.runtime.progress import no_progress
from ovtool.stages import train_proposer
from ovtool.trainers import proposer as proposer_trainer
from ovtool.trainers.proposer import Settings
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.checkpoints import Checkpoint

WEIGHTS = Path(__file__).parents[2] / "ovtool" / "weights" / "tiny_proposer.safetensors"
NAMES = (*(noun.name for noun in table()), *GROUNDS)
SIDE = 128  # of the pictures
CLASS_WEIGHT = 0.1  # masks are learned several times sooner, and words no later
DRAWING = 160  # pixels on the longer side of a drawing before it is posed
VALIDATED = 64  # pictures of collage:val


@lru_cache(maxsize=1)
def bank() -> collage.Drawings:
    """The training drawings; workers that are forked inherit them."""
    from ovtool.datasets import art

    return drawing_bank(DRAWING, tuple(art.TRAIN_STYLES))


class Scenes:
    """Example `row` of step `step`: a scene with the visible mask of every object and ground."""

    def __init__(self, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size

    def __call__(self, step: int, row: int) -> Example:
        rng = collage.scene_generator("train", self.seed, step * self.batch_size + row)
        code = collage.SPLIT_CODES["train"]
        scene = collage.compose(rng, collage.LAW, bank(), code, SIDE, restyle)
        things = [scene.object_map == index for index in range(len(scene.objects))]
        empty = scene.object_map < 0
        grounds = [(scene.ground_map == index) & empty for index in range(len(scene.grounds))]
        masks = np.stack([*things, *grounds])
        labels = np.array([NAMES.index(name) for name in (*scene.objects, *scene.grounds)])
        kept = masks.any((1, 2))
        return Example(scene.pixels, masks[kept], labels[kept])


def validation_truth() -> Truth:
    """Pictures of `collage:val` with their instances, all held out; its nouns are numbered alike."""
    files = registry.locate("collage:val")
    dataset = coco.read(files.instances, root=files.images)
    truth = mask_batches.truth_of(dataset, files.images, "instances", 0.0)
    assert truth.names == NAMES[: len(truth.names)]
    return replace(truth, training=(), held_out=truth.training[:VALIDATED])


@contextmanager
def spoken(total: int | None, description: str) -> Iterator[Callable[..., None]]:
    """Progress as a line every hundred steps."""
    done, counted, began = 0, 0, time.monotonic()

    def advance(n: int = 1) -> None:
        nonlocal done, counted, began
        done += n
        if n != 1:  # what an earlier run did
            began = time.monotonic()
            return
        counted += 1
        if done % 100 == 0 or done == total:
            speed = counted / (time.monotonic() - began)
            print(f"{description}: {done} of {total} steps, {speed:.2f} steps/s", flush=True)

    yield advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=400_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--queries", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="processes that compose scenes")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--validate-every", type=int, default=1000)
    parser.add_argument("--checkpoint", type=Path, default=Path("tiny_proposer.checkpoint"))
    parser.add_argument("--export", type=Path, default=WEIGHTS)
    parser.add_argument("--start", type=Path, help="weights of an earlier run to begin with")
    parser.add_argument("--dry-steps", type=int, help="stop after so many steps, writing nothing")
    args = parser.parse_args()
    settings = Settings(
        "tiny",
        "instances",
        args.queries,
        args.pictures // args.batch_size,
        args.batch_size,
        args.rate,
        SIDE,
        templates="one",
        seed=args.seed,
        precision=args.precision,
        validate_every=args.validate_every,
        target_stride=2,
        class_weight=CLASS_WEIGHT,
    )
    with distributed.joined(devices.choose(args.device)) as ranks:
        if ranks.world > 1 and ranks.device.type == "cpu":
            torch.set_num_threads(1)  # one core a process
        clip, words = train_proposer.embedded("tiny", NAMES, settings.templates)
        words = words.to(ranks.device)
        network, _ = train_proposer.start(settings, clip, ranks)
        if args.start is not None:
            earlier = maskformer.load(args.start, clip)
            network.load_state_dict(earlier.network.state_dict())
        scenes = Scenes(args.seed, args.batch_size)
        bank()
        if args.dry_steps:
            settings = replace(settings, steps=args.dry_steps, validate_every=0)
        shown = asdict(settings) | {"scenes": [SIDE, DRAWING]}
        if args.start is not None:
            shown["start"] = earlier.weights
        digest = parts.settings_digest(shown | {"clip": clip.fingerprint})
        checkpoint = Checkpoint(args.checkpoint, digest)
        begun = checkpoints.begin_together(checkpoint, ranks, resume=True, overwrite=False)
        truth = validation_truth() if settings.validate_every and ranks.is_first else None

        def validate() -> dict[str, float]:
            assert truth is not None
            measured = proposer_trainer.validation(network, words, truth, SIDE)
            print(json.dumps(measured), flush=True)
            return measured

        curve = proposer_trainer.fit(
            network,
            words,
            scenes,
            settings,
            checkpoint,
            begun=begun,
            validate=validate if settings.validate_every else None,
            ranks=ranks,
            save_every=0 if args.dry_steps else args.save_every,
            workers=args.workers,
            progress=spoken if ranks.is_first else no_progress,
        )
        if ranks.is_first and not args.dry_steps:
            thin = loop.thinned(curve)
            shown |= {"names": list(NAMES), "short_side": SIDE, "curve": thin}
            maskformer.save(args.export, network, words, clip, shown, half=True)
            checkpoint.remove()
            print(json.dumps(thin[-1]), f"{args.export.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

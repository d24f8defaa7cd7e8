#!/usr/bin/env python3
"""Trains the bundled proposer `tiny` on scenes of `collage:train`, from nothing.

    torchrun --standalone --nproc-per-node 2 scripts/bundle/train_tiny_proposer.py --pictures 400000

Needs the art of `scripts/bundle/fetch_art`. Scenes are composed on the way; objects and grounds are targets, one
mask each. Each image depends on (seed, step, row) alone. It goes on from --checkpoint where that exists,
and removes it when the weights are written. `--start FILE` begins with the weights of an earlier run in
place of nothing. Masks are compared at every second pixel. Recall and mIoU on `collage:val`, whose art is never learned from, are
printed on the way. `--dry-steps N` stops after N steps and writes nothing: it measures the speed.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from ovtool.settings import layers
from ovtool.settings.proposer import ProposerTraining
from ovtool.trainers import proposer as proposer_trainer
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.checkpoints import Checkpoint

WEIGHTS = Path(__file__).parents[2] / "ovtool" / "weights" / "tiny_proposer.safetensors"
NAMES = (*(noun.name for noun in table()), *GROUNDS)
SIDE = 128  # of the images
CLASS_WEIGHT = 0.1  # masks are learned several times sooner, and words no later
DRAWING = 160  # pixels on the longer side of a drawing before it is posed
TARGET_STRIDE = 2  # pixels between those at which masks are compared
VALIDATED = 64  # images of collage:val


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
    """Images of `collage:val` with their instances, all held out; its nouns are numbered alike."""
    files = registry.locate("collage:val")
    dataset = coco.read(files.instances, root=files.images)
    truth = mask_batches.truth_of(dataset, files.images, "instances", held_out=0.0)
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
    training = ProposerTraining(
        architecture="tiny",
        targets="instances",
        queries=args.queries,
        steps=args.dry_steps or args.pictures // args.batch_size,
        batch_size=args.batch_size,
        lr=args.rate,
        crop_size=SIDE,
        templates="one",
        seed=args.seed,
        validate_every=0 if args.dry_steps else args.validate_every,
        save_every=args.save_every,
        loader_workers=args.workers,
        class_weight=CLASS_WEIGHT,
    )
    training, _ = proposer_trainer.settled(training, args.pictures)
    with distributed.joined(devices.choose(args.device)) as ranks:
        if ranks.world > 1 and ranks.device.type == "cpu":
            torch.set_num_threads(1)  # one core a process
        clip, words = proposer_trainer.embedded("tiny", NAMES, training.templates)
        words = words.to(ranks.device)
        network, _ = proposer_trainer.start(training, clip.embed_dim, ranks)
        if args.start is not None:
            earlier = maskformer.load(args.start, clip)
            network.load_state_dict(earlier.network.state_dict())
        scenes = Scenes(args.seed, args.batch_size)
        bank()
        dtype = devices.training_precision(args.precision, ranks.device)
        shapes = layers.as_data(training) | {
            "scenes": [SIDE, DRAWING],
            "target_stride": TARGET_STRIDE,
            "precision": str(dtype).removeprefix("torch."),
        }
        if args.start is not None:
            shapes["start"] = earlier.weights
        digest = parts.settings_digest(shapes | {"clip": clip.fingerprint})
        checkpoint = Checkpoint(args.checkpoint, digest)
        begun = checkpoints.begin_together(checkpoint, ranks, resume=True, overwrite=False)
        is_validated = bool(training.validate_every)
        truth = validation_truth() if is_validated and ranks.is_first else None

        def validate() -> dict[str, float]:
            assert truth is not None
            measured = proposer_trainer.validation(network, words, truth, SIDE)
            print(json.dumps(measured), flush=True)
            return measured

        task = proposer_trainer.task(
            network,
            words,
            scenes,
            training,
            ranks,
            dtype=dtype,
            validate=validate if is_validated else None,
            target_stride=TARGET_STRIDE,
        )
        if args.dry_steps:
            task = replace(task, plan=replace(task.plan, save_every=0))
        progress = spoken if ranks.is_first else no_progress
        curve = loop.train(task, checkpoint, begun=begun, ranks=ranks, progress=progress)
        if ranks.is_first and not args.dry_steps:
            thin = loop.thinned(curve)
            header = shapes | {"names": list(NAMES), "short_side": SIDE, "curve": thin}
            maskformer.save(args.export, network, words, clip, header, half=True)
            checkpoint.remove()
            print(json.dumps(thin[-1]), f"{args.export.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

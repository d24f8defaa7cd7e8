#!/usr/bin/env python3
"""Trains the bundled PACL head of `tiny` on scenes of `collage:train` and their captions.

    scripts/bundle/train_tiny_pacl.py

Needs the art of `scripts/bundle/fetch_art`. Scenes are composed and restyled once, shown to the frozen tower, and
only their patch tokens are kept; no mask is read. Scene and captions depend on (seed, number) alone. Tokens
lie in --work, whose parts are not made again. Patch accuracy and mIoU on `collage:val`, whose art is never
learned from, are printed before and after.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from restyle import restyle
from scene_batches import drawing_bank

from ovtool.batches import captions as caption_batches
from ovtool.batches.captions import Batch
from ovtool.datasets import collage, registry
from ovtool.datasets.captions import caption
from ovtool.formats import image_search, parts, plots, tensors
from ovtool.models import clip as clips
from ovtool.models import pacl
from ovtool.settings.layers import as_data
from ovtool.settings.pacl import Pacl
from ovtool.trainers import pacl as trainer
from ovtool.trainers import patch_validation
from ovtool.trainers.pacl import PaclTraining
from ovtool.training import distributed, loop
from ovtool.training.checkpoints import Checkpoint

WEIGHTS = Path(__file__).parents[2] / "ovtool" / "weights" / "tiny_pacl.safetensors"
SIDE, DRAWING = 256, 160  # of a scene, and of a drawing before it is posed, in pixels
CAPTIONS = 3  # of a scene
PART = 500  # scenes


@lru_cache(maxsize=1)
def bank() -> collage.Drawings:
    """The training drawings."""
    from ovtool.datasets import art

    return drawing_bank(DRAWING, tuple(art.TRAIN_STYLES))


def scene(seed: int, number: int) -> tuple[np.ndarray, list[str]]:
    """A scene, uint8 (SIDE, SIDE, 3), and its captions."""
    rng = collage.scene_generator("train", seed, number)
    code = collage.SPLIT_CODES["train"]
    made = collage.compose(rng, collage.LAW, bank(), code, SIDE, restyle)
    return made.pixels, [caption(rng, made.objects, made.grounds) for _ in range(CAPTIONS)]


@dataclass(frozen=True, eq=False)
class Scenes:
    """The tokens (N, T, width) of scenes, and the captions of each."""

    tokens: torch.Tensor
    captions: list[list[str]]


@dataclass(frozen=True)
class SceneBatches:
    """The batch of a step: epochs of all scenes in a new order, a caption each."""

    captions: list[list[str]]
    size: int
    seed: int

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self.captions) // self.size)
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.captions))
        own = order[place * self.size : (place + 1) * self.size].tolist()
        which = np.random.default_rng([self.seed, 3, step]).integers(CAPTIONS, size=self.size)
        captions = [self.captions[n][w] for n, w in zip(own, which, strict=True)]
        all_captions = tuple(tuple(self.captions[n]) for n in own)
        return Batch(None, tuple(own), tuple(captions), all_captions)


def tokens_of(training: PaclTraining, seed: int, count: int, work: Path) -> Scenes:
    """The scenes' tokens and captions, made where they are not in the folder yet."""
    settings, clip = training.settings, training.features.clip
    view = [clip.fingerprint, settings.crop_size, settings.window, settings.last_block]
    folder = work / parts.settings_digest({"view": view, "seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    stored, said = [], []
    for start in range(0, count, PART):
        path = folder / f"{start // PART:05d}.safetensors"
        if not path.exists():
            made = [scene(seed, number) for number in range(start, start + PART)]
            pixels = torch.stack(
                [caption_batches.squared(rgb, settings.crop_size or 0) for rgb, _ in made]
            )
            content = {"tokens": training.features.tokens(pixels).half()}
            header = {"kind": "tokens", "settings": {"captions": [each for _, each in made]}}
            tensors.save(path, content, header)
            print(f"{start + PART} of {count} scenes", flush=True)
        header, content = tensors.load(path, kind="tokens")
        stored.append(content["tokens"])
        said += header["settings"]["captions"]
    return Scenes(torch.cat(stored)[:count], said[:count])


def validation(training: PaclTraining, pictures_of_val: int) -> patch_validation.Validation | None:
    """Images of `collage:val` with their masks."""
    items = image_search.find_images([str(registry.locate("collage:val").images)])[:pictures_of_val]
    return patch_validation.load("collage:val", items, training.features.clip)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--patch-scale", type=float, default=20.0)
    parser.add_argument("--logit-scale", type=float, default=25.0)
    parser.add_argument("--noun-weight", type=float, default=3.0)
    parser.add_argument("--naming", type=float, default=6.0)
    parser.add_argument("--last-block", default="naclip+clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validated", type=int, default=64, help="images of collage:val")
    parser.add_argument("--work", type=Path, default=Path("tiny_pacl_tokens"))
    parser.add_argument("--export", type=Path, default=WEIGHTS)
    return parser.parse_args()


def main() -> None:
    args = parsed()
    clip = clips.load("tiny")
    given = Pacl(
        batch_size=args.batch_size,
        steps=args.steps,
        lr=args.lr,
        patch_scale=args.patch_scale,
        nouns=args.noun_weight > 0,
        noun_weight=args.noun_weight,
        naming=args.naming,
        logit_scale=args.logit_scale,
        warmup=10,
        last_block=args.last_block,
        seed=args.seed,
        save_every=50,
        validate_every=max(1, args.steps // 3),
    )
    ranks = distributed.alone()
    settings, _ = trainer.settled(given, clip, args.scenes, ranks)
    training = trainer.begun(clip, settings, torch.float32, ranks)
    scenes = tokens_of(training, args.seed, args.scenes, args.work)
    training.features.keep_tokens(scenes.tokens)
    training.features.encode_captions([one for several in scenes.captions for one in several])
    known = validation(training, args.validated)

    def validate() -> dict[str, float]:
        measured = {} if known is None else known.measure(clip, training.head())
        print(json.dumps(measured), flush=True)
        return measured

    recorded = as_data(settings) | {"scenes": args.scenes}
    digest = parts.settings_digest(recorded | {"clip": clip.fingerprint})
    checkpoint = Checkpoint(args.work / "checkpoint", digest)
    begun = checkpoint.begin(resume=True, overwrite=False)
    before = validate()
    batches = SceneBatches(scenes.captions, args.batch_size, args.seed)
    curve = loop.train(trainer.task(training, batches, validate), checkpoint, begun=begun)
    after = {name: curve[-1][name] for name in before}
    header = recorded | {"before": before, "after": after, "curve": loop.thinned(curve)}
    pacl.save(args.export, clip, replace(training.head(), settings=header), half=True)
    plots.losses(args.work / "curve.png", header["curve"], "the head of tiny")
    checkpoint.remove()
    print(f"{args.export}: {args.export.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

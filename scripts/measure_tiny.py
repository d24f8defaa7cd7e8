#!/usr/bin/env python3
"""Measures a CLIP on drawings that `tiny` never saw: zero-shot classification of single objects.

    scripts/measure_tiny.py [--model tiny] [--split test] [--pictures 1000] [--seeds 7,8,9]

One large object a picture (the law `single` of `ovtool.datasets.collage`), 128 pixels, Twemoji. The
classes are all nouns of the table, or, for the last column, 20 words: the picture's and 19 others.
Prints one JSON object a seed and their mean.
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image

from ovtool.datasets import art, collage
from ovtool.datasets.nouns import table
from ovtool.models import clip as door
from ovtool.models import text


def pictures(split: str, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures uint8 (count, 128, 128, 3) and the index of each one's noun, int64 (count,)."""
    found = art.twemoji_drawings()
    drawings = {name: [Image.fromarray(one) for one in some] for name, some in found.items()}
    names = [noun.name for noun in table()]
    pixels = np.empty((count, 128, 128, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for index in range(count):
        rng = collage.scene_generator(split, seed, index)
        scene = collage.compose(
            rng, collage.SINGLE, drawings, collage.SPLIT_CODES[split], pixels.shape[1]
        )
        pixels[index], labels[index] = scene.pixels, names.index(scene.objects[0])
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def among_twenty(logits: torch.Tensor, labels: torch.Tensor, seed: int) -> float:
    """The share of pictures whose noun beats 19 others, drawn at random."""
    rng = np.random.default_rng(seed)
    right = 0
    for row, label in zip(logits, labels.tolist(), strict=True):
        others = rng.permutation(len(row))
        others = others[others != label][:19]
        right += bool((row[label] > row[others]).all())
    return right / len(labels)


def measure(model: str, split: str, seed: int, count: int, templates: str) -> dict[str, float]:
    """Top-1, top-5 and among 20 words, as fractions."""
    clip = door.load(model)
    nouns = text.embed_words(clip, [noun.name for noun in table()], templates)
    pixels, labels = pictures(split, seed, count)
    features = torch.cat(
        [door.encode_images(clip, door.normalise(clip, chunk)) for chunk in pixels.split(100)]
    )
    logits = features @ nouns.T
    best = logits.topk(5, 1).indices
    return {
        "top1": (best[:, 0] == labels).float().mean().item(),
        "top5": (best == labels[:, None]).any(1).float().mean().item(),
        "among_20": among_twenty(logits, labels, seed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seeds", default="7,8,9")
    parser.add_argument("--templates", default="one")
    args = parser.parse_args()
    found = []
    for seed in map(int, args.seeds.split(",")):
        found.append(measure(args.model, args.split, seed, args.pictures, args.templates))
        print(json.dumps({"seed": seed, **{key: round(v, 4) for key, v in found[-1].items()}}))
    mean = {key: round(float(np.mean([one[key] for one in found])), 4) for key in found[0]}
    print(json.dumps({"mean": mean, "nouns": len(table()), "split": args.split}))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures a CLIP on drawings that `tiny` never saw: zero-shot classification of single objects.

    scripts/measure/tiny.py [--model tiny] [--split test] [--pictures 1000] [--seeds 7,8,9]

One large object an image (the law `single` of `ovtool.datasets.collage`), 128 pixels, Twemoji. The
classes are all nouns of the table, or, for the last column, 20 words: the image's and 19 others.
Prints one JSON object a seed and their mean.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ovtool.datasets import art, collage, collage_files
from ovtool.datasets.nouns import class_names, table
from ovtool.models import clip as clips
from ovtool.models import text

SIDE = 128


def drawings() -> collage.Drawings:
    """Twemoji, as the scene law takes it."""
    results = art.twemoji_drawings()
    return {name: [Image.fromarray(one) for one in some] for name, some in results.items()}


def pictures(split: str, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Images of one object, uint8 (count, 128, 128, 3), and the index of each one's noun, int64."""
    bank, code = drawings(), collage.SPLIT_CODES[split]
    names = [noun.name for noun in table()]
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for index in range(count):
        rng = collage.scene_generator(split, seed, index)
        scene = collage.compose(rng, collage.SINGLE, bank, code, SIDE)
        pixels[index], labels[index] = scene.pixels, names.index(scene.objects[0])
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def among_twenty(logits: Tensor, labels: Tensor, seed: int) -> float:
    """The share of images whose noun beats 19 others, drawn at random."""
    rng = np.random.default_rng(seed)
    right = 0
    for row, label in zip(logits, labels.tolist(), strict=True):
        others = rng.permutation(len(row))
        others = others[others != label][:19]
        right += bool((row[label] > row[others]).all())
    return right / len(labels)


def patch_accuracy(
    clip: clips.Clip, words: Tensor, split: str, seed: int, count: int
) -> dict[str, float]:
    """The share of patches that are named right among 20 words of their scene, objects and grounds
    apart. A patch counts where more than half of it has one label; the scenes follow the law of record,
    and patches are read as MaskCLIP reads them.

    words: (N, D) float32 unit embeddings of `class_names()`.
    """
    bank, code, names = drawings(), collage.SPLIT_CODES[split], class_names()
    rights: dict[str, list[bool]] = {"objects": [], "grounds": []}
    for index in range(count):
        rng = collage.scene_generator(split, seed, index)
        scene = collage.compose(rng, collage.LAW, bank, code, SIDE)
        present = [names.index(name) for name in {*scene.objects, *scene.grounds}]
        others = [other for other in rng.permutation(len(names)).tolist() if other not in present]
        asked = torch.tensor(sorted([*present, *others[: 20 - len(present)]]))
        truth = torch.from_numpy(collage_files.semantic_map(scene, names).astype(np.int64))
        cells = F.one_hot(truth, len(names)).float().permute(2, 0, 1)
        share, label = F.avg_pool2d(cells, clip.patch_size).max(0)  # each (grid, grid)
        pixels = clips.normalise(clip, torch.from_numpy(scene.pixels)[None])
        features = clips.patch_features(clip, pixels, "maskclip")[0]
        guesses = asked[(features @ words[asked].T).argmax(-1)]
        ground = label >= len(table())
        for name, kind in (("objects", ~ground), ("grounds", ground)):
            rights[name].extend((guesses == label)[(share > 0.5) & kind].tolist())
    return {f"patches_{name}": float(np.mean(right)) for name, right in rights.items()}


def figures(
    clip: clips.Clip, split: str, seed: int, count: int, templates: str = "one"
) -> dict[str, float]:
    """Cross entropy (nats), top-1, top-5 and among 20 words over single objects, and the accuracy of
    patches over a fifth as many scenes; all but the first are fractions."""
    words = text.embed_words(clip, list(class_names()), templates)
    nouns = words[: len(table())]
    pixels, labels = pictures(split, seed, count)
    features = torch.cat(
        [clips.encode_images(clip, clips.normalise(clip, chunk)) for chunk in pixels.split(100)]
    )
    logits = features @ nouns.T
    best = logits.topk(5, 1).indices
    return {
        "cross_entropy": F.cross_entropy(clip.logit_scale * logits, labels).item(),
        "top1": (best[:, 0] == labels).float().mean().item(),
        "top5": (best == labels[:, None]).any(1).float().mean().item(),
        "among_20": among_twenty(logits, labels, seed),
        **patch_accuracy(clip, words, split, seed, count // 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seeds", default="7,8,9")
    parser.add_argument("--templates", default="one")
    args = parser.parse_args()
    clip, results = clips.load(args.model), []
    for seed in map(int, args.seeds.split(",")):
        results.append(figures(clip, args.split, seed, args.pictures, args.templates))
        print(json.dumps({"seed": seed, **{key: round(v, 4) for key, v in results[-1].items()}}))
    mean = {key: round(float(np.mean([one[key] for one in results])), 4) for key in results[0]}
    print(json.dumps({"mean": mean, "nouns": len(table()), "split": args.split}))


if __name__ == "__main__":
    main()

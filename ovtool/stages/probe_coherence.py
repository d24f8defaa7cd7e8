"""`probe coherence`: whether patches of one class look alike to a CLIP, whatever words it has for them.

The cosine of two patches is the score of a classifier of "they show the same class"; its ROC curve and
the area under it say how coherent the patches of a block are (PACL, Mukhoti et al., CVPR 2023, section 3,
which concludes that a small head suffices).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import ovtool
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, plots
from ovtool.inputs import labelled_patches, truths
from ovtool.inputs.truths import Probed
from ovtool.methods import roc
from ovtool.models.dense_scores import DenseSettings
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

KINDS = ("within", "across")  # one image, two images
MOST_PATCHES = 64  # of an image, from which its pairs are drawn
BOOTSTRAP = 200
HEAD = "PACL head"


@dataclass(frozen=True)
class Patches:
    """Some patches of all images: int64 (n,), their images and classes, and for each row of the table
    their vectors, float32 (n, D) of length 1."""

    images: Tensor
    classes: Tensor
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Pairs of patches, int64 (n,) and (n,), and whether the two show the same class, bool (n,)."""

    first: Tensor
    second: Tensor
    same: Tensor

    @property
    def are_alike(self) -> bool:
        """Whether there is nothing to tell apart."""
        return bool(self.same.all()) or not bool(self.same.any())


def run(
    data_set: str | None = None,
    *,
    coco_file: Path | None = None,
    images: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    pacl: str | None = None,
    layers: str = "all",
    pairs: int = 20000,
    short_side: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures the patches of a data set `NAME[:SPLIT]` with masks, or of `coco_file` with the folder
    `images`. Pictures are shown as `segment --method patch` shows them, but that windows lie side by
    side; patches without a majority are left out.

    layers: `all`, `last`, or numbers of blocks, from 1: "8,10". A PACL head is a row of its own.
    pairs: how many are drawn within images, and how many across, with `seed`.
    pacl: a file, `none`, or None for the head that comes with a bundled model.
    picture: a PNG of the areas by block, or of the ROC curves where there is one block.

    Returns what JSON holds: `rows`, each with `name`, `layer`, `pacl`, and for `within` and `across`
    `auc`, its 95 % bootstrap interval by images (`low`, `high`), and how many `pairs` there were, and
    how many of the `same` class; None where all pairs are alike.

    Raises UsageError, InputError (also where all patches are of one class), ModelError, MismatchError,
    OutputExistsError.
    """
    if picture is not None:
        atomic.check_output(picture, overwrite)
    place = devices.choose(device)
    _numbers(layers, 1 << 30)  # what means nothing is told before any work
    probed = truths.open_probed(data_set, coco_file, images, None, limit)
    from ovtool.models import clip as door
    from ovtool.models import pacl as heads
    from ovtool.models import towers

    clip = door.load(model, place, devices.precision(precision, place))
    blocks = _numbers(layers, towers.depth(clip.model.visual))
    settings = DenseSettings(None, short_side, window, stride).settled(clip)
    settings = replace(settings, stride=settings.stride if stride else settings.window)
    head = heads.choose(pacl, clip)
    patches = _patches(clip, head, blocks, probed, settings, pairs, seed, progress)
    drawn = {kind: _drawn(patches, kind, pairs, seed) for kind in KINDS}
    if all(each.are_alike for each in drawn.values()):
        raise InputError(
            f"{probed.source}: there are no patches of two classes to tell apart; give images that show "
            "several, or more --pairs"
        )
    rows = [
        {
            "name": name,
            "layer": None if name == HEAD else int(name.split()[1]),
            "pacl": head.fingerprint if head is not None and name == HEAD else None,
            **{kind: _measured(patches, name, drawn[kind], seed) for kind in KINDS},
        }
        for name in patches.vectors
    ]
    if picture is not None:
        draw(picture, rows, patches, drawn)
    return {
        "metric": "coherence",
        "images": len(probed.items),
        "rows": rows,
        "ovtool": {
            "version": ovtool.__version__,
            "command": "probe coherence",
            "model": {"name": clip.name, "fingerprint": clip.fingerprint},
            "settings": {
                "layers": blocks,
                "pairs": pairs,
                "seed": seed,
                "short_side": settings.short_side,
                "window": settings.window,
                "stride": settings.stride,
            },
        },
    }


def _numbers(layers: str, depth: int) -> list[int]:
    """The blocks that `--layers` means, from 1. Raises UsageError for others than 1 to `depth`."""
    if layers == "all":
        return list(range(1, depth + 1)) if depth < 1 << 30 else []
    if layers == "last":
        return [depth]
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in layers.split(",")]
    if not all(1 <= number <= depth for number in numbers):
        most = f"1 to {depth}" if depth < 1 << 30 else "1 to the last"
        raise UsageError(f"--layers '{layers}': give all, last, or blocks of {most}, such as 1,3")
    return list(dict.fromkeys(numbers))


def _patches(
    clip: Clip,
    head: Head | None,
    blocks: Sequence[int],
    probed: Probed,
    settings: DenseSettings,
    pairs: int,
    seed: int,
    progress: Progress,
) -> Patches:
    """At most `MOST_PATCHES` patches of each image, fewer where there are more images than pairs need."""
    most = min(MOST_PATCHES, max(8, 4 * pairs // len(probed.items)))
    found: dict[str, list[Tensor]] = {}
    images, classes = [], []
    with progress(len(probed.items), "probing") as advance:
        for number, item in enumerate(probed.items):
            seen = labelled_patches.shown(clip, *probed.read(item), settings)
            true = seen.labels.counted().flatten()
            order = torch.randperm(len(true), generator=_generator(seed, number))
            chosen = order[true[order] >= 0][:most]
            images.append(torch.full_like(chosen, number))
            classes.append(true[chosen])
            where = (seen.places.flatten() == chosen[:, None]).int().argmax(1)  # its first window
            for name, tokens in _tokens(clip, head, blocks, seen.crops).items():
                kept = tokens.flatten(0, 2)[where.to(tokens.device)]
                found.setdefault(name, []).append(normalize(kept.float(), dim=1).cpu())
            advance()
    vectors = {name: torch.cat(each) for name, each in found.items()}
    return Patches(torch.cat(images), torch.cat(classes), vectors)


def _tokens(
    clip: Clip, head: Head | None, blocks: Sequence[int], crops: Tensor
) -> dict[str, Tensor]:
    """The patches of the crops (n, 3, H, W) by row of the table: (n, h, w, width) each."""
    from ovtool.models import clip as door
    from ovtool.models import pacl as heads

    layers = door.layer_tokens(clip, crops, [block - 1 for block in blocks])
    found = {f"block {block}": tokens for block, tokens in zip(blocks, layers, strict=True)}
    return found if head is None else {**found, HEAD: heads.patch_features(clip, head, crops)}


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers of their own for a seed and an image."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) >> 1)


def _drawn(patches: Patches, kind: str, count: int, seed: int) -> Pairs:
    """Pairs of different patches, of one image or of two, each drawn by itself."""
    generator = _generator(seed, 1 << 40, KINDS.index(kind))
    total = len(patches.images)
    per_image = torch.bincount(patches.images)  # which lie one after the other
    begin = per_image.cumsum(0) - per_image
    if total == 0:
        return Pairs(*(torch.empty(0, dtype=torch.int64) for _ in range(2)), torch.empty(0).bool())
    first = torch.randint(total, (count,), generator=generator)
    own = patches.images[first]
    if kind == "within":
        size, start = per_image[own], begin[own]
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        step = 1 + (share * (size - 1)).long().clamp(max=size - 2)
        second = start + (first - start + step) % size
        valid = size > 1
    else:
        second = torch.randint(total, (count,), generator=generator)
        valid = patches.images[second] != own
    first, second = first[valid], second[valid]
    return Pairs(first, second, patches.classes[first] == patches.classes[second])


def _scores(patches: Patches, name: str, pairs: Pairs) -> Tensor:
    """The cosine of each pair, float32 (n,)."""
    vectors = patches.vectors[name]
    return (vectors[pairs.first] * vectors[pairs.second]).sum(1)


def _measured(patches: Patches, name: str, pairs: Pairs, seed: int) -> dict[str, Any] | None:
    """The area of a row over pairs, None where they are alike."""
    if pairs.are_alike:
        return None
    scores = _scores(patches, name, pairs)
    first, second = patches.images[pairs.first], patches.images[pairs.second]
    images = [first] if torch.equal(first, second) else [first, second]
    low, high = roc.interval(scores, pairs.same, images, BOOTSTRAP, seed)
    return {
        "auc": roc.auc(scores, pairs.same),
        "low": low,
        "high": high,
        "pairs": len(pairs.same),
        "same": int(pairs.same.sum()),
    }


def draw(
    path: Path, rows: Sequence[Mapping[str, Any]], patches: Patches, drawn: Mapping[str, Pairs]
) -> None:
    """The areas over the blocks, a head as a level line; of one block the ROC curves."""
    blocks = [row for row in rows if row["layer"] is not None]
    kinds = [kind for kind in KINDS if not drawn[kind].are_alike]
    if len(blocks) > 1:
        levels = [row["layer"] for row in blocks]
        curves = {
            f"{kind} images": (levels, [row[kind]["auc"] for row in blocks]) for kind in kinds
        }
        for row in rows[len(blocks) :]:
            ends = [levels[0], levels[-1]]
            curves |= {f"{row['name']}, {kind}": (ends, 2 * [row[kind]["auc"]]) for kind in kinds}
        plots.lines(path, curves, title="Patches of one class", x_label="block", y_label="ROC AUC")
        return
    curves = {
        f"{row['name']}, {kind} images": roc.curve(
            _scores(patches, row["name"], drawn[kind]), drawn[kind].same
        )
        for row in rows
        for kind in kinds
    }
    labels = {"x_label": "false positive rate", "y_label": "true positive rate"}
    plots.lines(path, curves, title="Patches of one class", **labels)

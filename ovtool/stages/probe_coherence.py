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
from torch.nn.functional import adaptive_avg_pool2d, normalize

from ovtool.errors import InputError
from ovtool.formats import plots
from ovtool.inputs import labelled_patches, probes
from ovtool.inputs.probes import Probe
from ovtool.methods import roc
from ovtool.models.dense_scores import DenseSettings
from ovtool.outputs import probe_results
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.probe import Coherence
from ovtool.settings.shared import Compute, Run, Source

if TYPE_CHECKING:  # loaded where it is used: timm is not needed for a CLIP alone
    from ovtool.models.clip import Clip
    from ovtool.models.timm_backbone import Backbone

KINDS = ("within", "across")  # one image, two images
MOST_PATCHES = 64  # of an image, from which its pairs are drawn
BOOTSTRAP = 200
HEAD = "PACL head"
BLOCK = "block "


@dataclass(frozen=True)
class Patches:
    """Some patches of all images.

    Attributes:
        images: the number of each patch's image, int64 (n,).
        classes: the class of each, int64 (n,).
        vectors: for each row of the table, float32 (n, D) of length 1.
    """

    images: Tensor
    classes: Tensor
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Pairs of patches.

    Attributes:
        first: the number of a patch, int64 (n,).
        second: that of the other, int64 (n,).
        same: whether the two show the same class, bool (n,).
    """

    first: Tensor
    second: Tensor
    same: Tensor

    @property
    def are_alike(self) -> bool:
        """Whether there is nothing to tell apart."""
        return bool(self.same.all()) or not bool(self.same.any())


def run(
    data_set: str | None = None,
    coherence: Coherence = Coherence(),
    *,
    plot: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures how well the cosine of two patches tells whether they show the same class.

    Images are shown as `segment --method patch` shows them, but that windows lie side by side; patches
    without a majority are left out.

    Args:
        data_set: a data set with masks, by name or folder; None where `source` names a COCO JSON.
        coherence: the blocks, how many pairs are drawn, and how images are shown.
        plot: a PNG of the areas by block, or of the ROC curves where there is one block.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        run: whether the plot may replace one; `dry_run` only counts images and words.
        compute: the CLIP, and where and how it computes.
        progress: opens a bar.

    Returns:
        What JSON holds: `rows`, each with `name`, `layer`, `pacl`, and for `within` and `across` `auc`,
        its 95 % bootstrap interval by images (`low`, `high`), how many `pairs` there were, and how many
        of the `same` class; None where all pairs are alike. A PACL head is a row of its own, and so is each
        stage of a backbone, whose map is brought to the CLIP's patches by its means over them.

    Raises:
        UsageError, ModelError, MismatchError, OutputExistsError.
        InputError: also where all patches are of one class.
    """
    place = probes.plot_place(plot, run, coherence, data_set, source)
    if run.dry_run:
        return probes.planned(data_set, source, coherence)
    with probes.plotting(place, run):
        probe = probes.opened(data_set, source, coherence, compute)
        from ovtool.models import towers

        blocks = coherence.blocks(towers.depth(probe.clip.model.visual))
        views = labelled_patches.settled(probe.clip, coherence)
        views = replace(views, stride=views.stride if coherence.stride else views.window)
        backbone = _backbone(coherence, views.short_side)
        patches = _patches(probe, coherence, blocks, views, backbone, progress)
        seed = coherence.seed
        pairs = {kind: _drawn(patches, kind, coherence.sample, seed) for kind in KINDS}
        if all(drawn.are_alike for drawn in pairs.values()):
            raise InputError(
                f"{probe.truth.source}: there are no patches of two classes to tell apart; give images that "
                "show several, or a larger --sample"
            )
        head = probe.head
        rows = [
            {
                "name": name,
                "layer": int(name.split()[1]) if name.startswith(BLOCK) else None,
                "pacl": head.fingerprint if head is not None and name == HEAD else None,
                **{kind: _measured(patches, name, pairs[kind], seed) for kind in KINDS},
            }
            for name in patches.vectors
        ]
        if place is not None:
            draw(place, rows, patches, pairs)
        settings = labelled_patches.as_data(probe.clip, coherence, views, probe.contents(coherence))
        return probe_results.document(
            "coherence",
            {"images": len(probe.truth.items), "rows": rows},
            probe.clip,
            {"data_set": probe.truth.name, **settings, "layers": blocks},
        )


def _patches(
    probe: Probe,
    coherence: Coherence,
    blocks: Sequence[int],
    views: DenseSettings,
    backbone: Backbone | None,
    progress: Progress,
) -> Patches:
    """At most `MOST_PATCHES` patches of each image, fewer where there are more images than pairs need."""
    items = probe.truth.items
    most = min(MOST_PATCHES, max(8, 4 * coherence.sample // len(items)))
    vectors: dict[str, list[Tensor]] = {}
    images, classes = [], []
    with progress(len(items), "probing") as advance:
        for number, item in enumerate(items):
            view = labelled_patches.view(probe.clip, *probe.truth.read(item), views)
            true = view.labels.counted().flatten()
            order = torch.randperm(len(true), generator=_generator(coherence.seed, number))
            taken = order[true[order] >= 0][:most]
            images.append(torch.full_like(taken, number))
            classes.append(true[taken])
            where = (view.places.flatten() == taken[:, None]).int().argmax(1)  # its first window
            rows = _tokens(probe, blocks, view.crops)
            if backbone is not None:
                rows |= _stages(backbone, probe.clip, view.crops)
            for name, tokens in rows.items():
                kept = tokens.flatten(0, 2)[where.to(tokens.device)]
                vectors.setdefault(name, []).append(normalize(kept.float(), dim=1).cpu())
            advance()
    joined = {name: torch.cat(parts) for name, parts in vectors.items()}
    return Patches(torch.cat(images), torch.cat(classes), joined)


def _tokens(probe: Probe, blocks: Sequence[int], crops: Tensor) -> dict[str, Tensor]:
    """The patches of the crops (n, 3, H, W) by row of the table: (n, h, w, width) each."""
    from ovtool.models import clip as clips
    from ovtool.models import pacl as heads

    clip, head = probe.clip, probe.head
    layers = clips.layer_tokens(clip, crops, [block - 1 for block in blocks])
    rows = {f"{BLOCK}{block}": tokens for block, tokens in zip(blocks, layers, strict=True)}
    return rows if head is None else {**rows, HEAD: heads.patch_features(clip, head, crops)}


def _backbone(coherence: Coherence, size: int | None) -> Backbone | None:
    """The network beside the CLIP, which is told where it begins at random weights."""
    if coherence.backbone is None:
        return None
    from ovtool.models import timm_backbone

    name = timm_backbone.name_of(coherence.backbone)
    backbone = timm_backbone.Backbone(name, size or 224, coherence.seed)
    timm_backbone.say_start(backbone)
    return backbone.eval()


def _stages(backbone: Backbone, clip: Clip, crops: Tensor) -> dict[str, Tensor]:
    """The stages of a backbone, by row of the table, at the patches of a CLIP's crops: (n, h, w, channels) each."""
    from ovtool.models import timm_backbone

    mean, std = (crops.new_tensor(three).view(1, 3, 1, 1) for three in (clip.mean, clip.std))
    rgb = ((crops * std + mean) * 255).permute(0, 2, 3, 1).cpu()
    grid = (crops.shape[2] // clip.patch_size, crops.shape[3] // clip.patch_size)
    maps = backbone.stages(timm_backbone.normalise(rgb))
    return {
        f"{backbone.name}, stage {number}": adaptive_avg_pool2d(own, grid).permute(0, 2, 3, 1)
        for number, own in enumerate(maps, start=1)
    }


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
        none = torch.empty(0, dtype=torch.int64)
        return Pairs(none, none, none.bool())
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
    """Draws the areas over the blocks, a head as a level line; of one block the ROC curves."""
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

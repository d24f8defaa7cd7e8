"""`probe classify`: whole images named without training, by the class token and by a PACL head.

The score of an image and a word is the cosine of the class token with the word's text embedding, or
the compatibility that PACL is trained with (Mukhoti et al., CVPR 2023, sections 4 and 5.3). An image
has several labels, the classes of its masks: its best word is a hit where it is any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import plots
from ovtool.inputs import probes
from ovtool.inputs.probes import Probe
from ovtool.inputs.truths import Probed
from ovtool.methods import class_maps, patch_alignment, roc
from ovtool.models import dense_scores
from ovtool.outputs import probe_results
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.probe import Classify
from ovtool.settings.shared import Compute, Run, Source

TOKEN, HEAD = "class token", "PACL head"
POOLED = {"token": TOKEN, "attention": "attention pooling", "average": "mean of patches"}


def run(
    data_set: str | None = None,
    classify: Classify = Classify(),
    *,
    plot: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures how well whole images are named.

    Both ways see the same pixels: the whole image, its shorter side that which the model was trained on.

    Args:
        data_set: a data set with masks, by name or folder; None where `source` names a COCO JSON.
        classify: the words and their sentences, and the PACL head.
        plot: a PNG of the measures.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        run: whether the plot may replace one; `dry_run` only counts images and words.
        compute: the CLIP, and where and how it computes.
        progress: opens a bar.

    Returns:
        What JSON holds: `rows`, each with `name`, `pacl`, and by group (`inputs.truths.open_probed`)
        `top1`, the share of images whose best word of the group is one of their labels, among images
        with a label of the group, and `map`, the mean over classes of the average precision among the
        images that have the class in their list; both in [0, 1], None where there is nothing to measure.

    Raises:
        UsageError, InputError, ModelError, MismatchError, OutputExistsError.
    """
    place = probes.plot_place(plot, run, classify, data_set, source)
    if run.dry_run:
        return probes.planned(data_set, source, classify)
    with probes.plotting(place, run):
        probe = probes.opened(data_set, source, classify, compute)
        truth, head = probe.truth, probe.head
        scores, labels = _scored(probe, classify, progress)
        if not labels.any():
            raise InputError(f"{truth.source}: no image has a label that is among its words")
        rows = [
            {
                "name": name,
                "pacl": head.fingerprint if head is not None and name == HEAD else None,
                **_measured(own, labels, truth),
            }
            for name, own in scores.items()
        ]
        if place is not None:
            draw(place, rows)
        settings = layers.provenance(classify, probe.contents(classify))
        return probe_results.document(
            "classify",
            {
                "images": len(truth.items),
                "labels_an_image": float(labels.sum()) / len(truth.items),
                "words_an_image": truth.words_an_image,
                "rows": rows,
            },
            probe.clip,
            {"data_set": truth.name, **settings, "short_side": probe.clip.image_size},
        )


def _scored(
    probe: Probe, classify: Classify, progress: Progress
) -> tuple[dict[str, Tensor], Tensor]:
    """The scores of all images and classes by each way, and whether the class is a label of the image.

    Returns:
        Scores float32 (images, classes), minus infinity where the class is not in the image's list, and
        labels, bool of the same shape.
    """
    truth, embedded = probe.truth, probe.embedded(classify.templates)
    names = [POOLED[probe.clip.pooling], *([] if probe.head is None else [HEAD])]
    shape = (len(truth.items), len(truth.words.classes))
    scores = {name: torch.full(shape, -torch.inf) for name in names}
    labels = torch.zeros(shape, dtype=torch.bool)
    with progress(len(truth.items), "probing") as advance:
        for number, item in enumerate(truth.items):
            rgb, true = truth.read(item)
            labels[number, true[true >= 0]] = True
            text, owner = embedded.of_image(item.name)
            side = probe.clip.image_size
            pixels = dense_scores.prepare(probe.clip, torch.from_numpy(rgb), side)
            ways = _scores(probe, pixels, text)
            for name, of_words in zip(names, ways, strict=True):
                best = class_maps.class_scores(of_words.cpu(), owner)
                scores[name][number, list(truth.words.of_image(item.name))] = best
            advance()
    return scores, labels


def _scores(probe: Probe, pixels: Tensor, text: Tensor) -> list[Tensor]:
    """The scores of an image (1, 3, H, W) with texts (N, D) by each way: (N,) each, in -1..1."""
    from ovtool.models import clip as clips
    from ovtool.models import pacl

    scores = [(clips.encode_images(probe.clip, pixels) @ text.T)[0]]
    head = probe.head
    if head is not None:
        with torch.no_grad():
            tokens = pacl.tokens(probe.clip, pixels, head.last_block)
            patches = head.embedder(tokens.float()).flatten(1, 2)
            scores.append(patch_alignment.compatibility(patches, text, head.pooling)[0])
    return scores


def _measured(scores: Tensor, labels: Tensor, truth: Probed) -> dict[str, dict[str, Any]]:
    """`top1` and `map` by group, from scores and labels (images, classes)."""
    top1: dict[str, float | None] = {}
    precision: dict[str, float | None] = {}
    for group, members in truth.groups.items():
        # words that are no class of the truth compete in `all`
        own = torch.arange(labels.shape[1]) if group == "all" else torch.tensor(sorted(members))
        true = labels[:, own]
        has = true.any(1)
        best = scores[:, own].argmax(1, keepdim=True)
        hit = true.gather(1, best)[has, 0]
        top1[group] = float(hit.double().mean()) if len(hit) else None
        precisions = []
        for k in members:
            listed = scores[:, k] > -torch.inf
            if labels[listed, k].any():
                precisions.append(roc.average_precision(scores[listed, k], labels[listed, k]))
        precision[group] = sum(precisions) / len(precisions) if precisions else None
    return {"top1": top1, "map": precision}


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the measures of the rows of `run` as bars, by measure and group."""
    names = {"top1": "top-1", "map": "mAP"}
    groups = {
        f"{names[measure]}\n{group}": {
            row["name"]: 100 * row[measure][group]
            for row in rows
            if row[measure][group] is not None
        }
        for measure in names
        for group in rows[0][measure]
    }
    plots.bars(path, groups, title="Images named right", y_label="%")

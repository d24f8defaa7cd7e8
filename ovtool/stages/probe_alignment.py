"""`probe alignment`: how often a patch of a CLIP is named by what it shows.

Each patch takes the class of most of its pixels, and the word whose text embedding is nearest; the
probe measures how often the two agree (PACL, Mukhoti et al., CVPR 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import plots
from ovtool.inputs import labelled_patches, probes
from ovtool.inputs.probes import Probe
from ovtool.methods import bootstrap, class_maps
from ovtool.methods.bootstrap import Measure
from ovtool.methods.patch_labels import IGNORED, MIXED
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings
from ovtool.outputs import probe_results
from ovtool.runtime.device import Halving
from ovtool.runtime.progress import Progress, no_progress
from ovtool.segmenters.dense import BATCH_SIZE
from ovtool.settings.probe import Alignment
from ovtool.settings.shared import Compute, Run, Source


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read patches.

    Attributes:
        name: for the table.
        last_block: the attention of the last block that it reads.
        encode: crops to features.
        head: the fingerprint of its head, None without one.
    """

    name: str
    last_block: str
    encode: Halving[Tensor, Tensor]
    head: str | None = None


@dataclass(frozen=True, eq=False)
class Counts:
    """How many patches were seen, and how many of them each reading named right.

    Attributes:
        patches: int64 (N, K), by image and class of the truth.
        right: int64 (readings, N, K).
        left_out: how many patches had no majority (`MIXED`), and how many no class (`IGNORED`).
    """

    patches: Tensor
    right: Tensor
    left_out: dict[int, int]


def run(
    data_set: str | None = None,
    alignment: Alignment = Alignment(),
    *,
    plot: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures how well the patches of images with masks are named.

    Images are shown as `segment --method patch` shows them; the patches of every window count. The ways
    to read them are the tower as it is (`clip`), the last block that is given or that the model
    recommends, and the PACL head.

    Args:
        data_set: a data set with masks, by name or folder; None where `source` names a COCO JSON.
        alignment: how images are shown and patches are read and counted.
        plot: a PNG of the shares.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        run: the batch size, and whether the plot may replace one; `dry_run` only counts images and words.
        compute: the CLIP, and where and how it computes.
        progress: opens a bar.

    Returns:
        What JSON holds: `rows`, each with `name`, `last_block`, `pacl` and `accuracy`, by group (see
        `inputs.truths.open_probed`) the share of patches named right, in [0, 1], with their `intervals` and
        their `difference` from the first row (`outputs.probe_results.sureness`); `patches` by group, and how
        many were left out as `mixed` or `ignored`.

    Raises:
        UsageError, InputError, ModelError, MismatchError, OutputExistsError.
    """
    place = probes.plot_place(plot, run, alignment, data_set, source)
    if run.dry_run:
        return probes.planned(data_set, source, alignment)
    with probes.plotting(place, run):
        probe = probes.opened(data_set, source, alignment, compute)
        views = labelled_patches.settled(probe.clip, alignment)
        readings = _readings(probe, views, run.batch_size or BATCH_SIZE)
        counts = _count(probe, alignment, views, readings, progress)
        if not counts.patches.sum():
            raise InputError(
                f"{probe.truth.source}: no patch shows a class that is among its words"
            )
        table = _table(probe, readings, counts)
        if place is not None:
            draw(place, table["rows"])
        return probe_results.document(
            "alignment",
            {
                "images": len(probe.truth.items),
                "words_an_image": probe.truth.words_an_image,
                **table,
                "mixed": counts.left_out[MIXED],
                "ignored": counts.left_out[IGNORED],
            },
            probe.clip,
            {
                "data_set": probe.truth.name,
                **labelled_patches.as_data(probe.clip, alignment, views, probe.contents(alignment)),
            },
        )


def _readings(probe: Probe, views: DenseSettings, batch_size: int) -> list[Reading]:
    """The ways to read patches, each once."""
    blocks = dict.fromkeys(("clip", str(views.last_block)))
    readings = [
        Reading(f"last block {name}", name, dense_scores.encoder(probe.clip, name, batch_size))
        for name in blocks
    ]
    head = probe.head
    if head is not None:
        encode = dense_scores.encoder(probe.clip, None, batch_size, head)
        readings.append(Reading("PACL head", head.last_block, encode, head.fingerprint))
    return readings


def _count(
    probe: Probe,
    alignment: Alignment,
    views: DenseSettings,
    readings: Sequence[Reading],
    progress: Progress,
) -> Counts:
    """Reads the patches of every image in each way."""
    truth, embedded = probe.truth, probe.embedded(alignment.templates)
    classes = len(truth.labels.classes)
    patches = torch.zeros(len(truth.items), classes, dtype=torch.int64)
    right = torch.zeros(len(readings), *patches.shape, dtype=torch.int64)
    left_out = {MIXED: 0, IGNORED: 0}
    with progress(len(truth.items), "probing") as advance:
        for number, item in enumerate(truth.items):
            view = labelled_patches.view(probe.clip, *truth.read(item), views)
            true = view.labels.counted(alignment.count_mixed).flatten()[view.places]  # (n, h, w)
            for kind in left_out:
                left_out[kind] += int((true == kind).sum())
            patches[number] = torch.bincount(true[true >= 0], minlength=classes)
            text, owner = embedded.of_image(item.name)
            competing = torch.tensor(truth.words.of_image(item.name))
            for row, reading in enumerate(readings):
                best = _named(reading.encode, view.crops, text, owner)
                hit = true[(competing[best] == true) & (true >= 0)]
                right[row, number] = torch.bincount(hit, minlength=classes)
            advance()
    return Counts(patches, right, left_out)


def _named(
    encode: Halving[Tensor, Tensor], crops: Tensor, text: Tensor, owner: Sequence[int]
) -> Tensor:
    """The place of the best class of each patch among those that compete: int64 (n, h, w)."""
    features = torch.cat(list(encode(crops)))
    scores = torch.einsum("bhwd,nd->bnhw", features, text)
    best: Tensor = class_maps.class_scores(scores, owner, dim=1).argmax(1).cpu()
    return best


def _table(probe: Probe, readings: Sequence[Reading], counts: Counts) -> dict[str, Any]:
    """`rows` and `patches` of `run`."""
    members = {name: torch.tensor(sorted(own)) for name, own in probe.truth.groups.items()}
    total = {name: int(counts.patches[:, own].sum()) for name, own in members.items()}

    def measure(right: Tensor) -> Measure:
        ratios = [
            bootstrap.ratio(name, _sums(right, own), _sums(counts.patches, own))
            for name, own in members.items()
        ]
        return lambda times: {
            name: values for ratio in ratios for name, values in ratio(times).items()
        }

    sure = probe_results.sureness([measure(right) for right in counts.right], len(counts.patches))
    rows = [
        {
            "name": reading.name,
            "last_block": reading.last_block,
            "pacl": reading.head,
            "accuracy": {
                name: int(right[:, own].sum()) / total[name] if total[name] else None
                for name, own in members.items()
            },
            **own_sureness,
        }
        for reading, right, own_sureness in zip(readings, counts.right, sure, strict=True)
    ]
    return {"rows": rows, "patches": total}


def _sums(counts: Tensor, classes: Tensor) -> NDArray[np.float64]:
    """Those of some classes in each image, (N,), of counts int64 (N, K)."""
    return counts[:, classes].sum(1).double().numpy()


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the shares of the rows of `run` as bars, by group."""
    groups = {
        group: {
            row["name"]: 100 * row["accuracy"][group]
            for row in rows
            if row["accuracy"][group] is not None
        }
        for group in rows[0]["accuracy"]
    }
    plots.bars(path, groups, title="Patches named right", y_label="%")

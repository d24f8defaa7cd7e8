"""`probe oracle`: which half of a two-stage segmentation is the worse one.

True masks are named by the CLIP, and proposals by the truth. If the first is far below the second, names
are the bottleneck, and not masks (OVSeg, Liang et al., CVPR 2023, section 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError
from ovtool.inputs import probes
from ovtool.inputs.probes import Probe
from ovtool.methods import bootstrap, class_maps, metrics
from ovtool.methods import oracle as method
from ovtool.methods.bootstrap import ImageCounts, Measure
from ovtool.outputs import probe_results
from ovtool.proposers import by_name, proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime.progress import Progress, no_progress
from ovtool.segmenters import two_stage
from ovtool.settings import layers
from ovtool.settings.probe import Oracle
from ovtool.settings.shared import Compute, Run, Source

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.methods.mask_prompts import MaskPrompts
    from ovtool.models.clip import Clip

MASKED = "true masks named by CLIP, masked crops"
PROMPTED = "true masks named by CLIP, masked crops with prompts"
UNMASKED = "true masks named by CLIP, unmasked crops"
PROPOSED = "proposals named by truth"


@dataclass(frozen=True, eq=False)
class Naming:
    """A row of the table that a CLIP names.

    Attributes:
        name: for the table.
        clip: the model, with the tower that belongs to the prompts.
        prompts: take the place of tokens outside the mask; None for none.
        fill: whether pixels outside a mask become the model's mean.
    """

    name: str
    clip: Clip
    prompts: MaskPrompts | None = None
    fill: bool = True


@dataclass(eq=False)
class Counts:
    """What was counted of all images.

    Attributes:
        confusion: row of the table to int64 (K, K + 1), over pixels.
        of_images: row of the table to what the bootstrap keeps of each image, int64 (3, K).
        right: row of the table to the number of true masks of each image that were named right; NaN where no CLIP
            names them.
        masks: the number of true masks of each image.
    """

    confusion: dict[str, NDArray[np.int64]]
    of_images: dict[str, list[NDArray[np.int64]]]
    right: dict[str, list[float]]
    masks: list[int] = field(default_factory=list)

    def add(self, row: str, confusion: NDArray[np.int64], right: float) -> None:
        """An image of a row of the table."""
        self.confusion[row] += confusion
        self.of_images[row].append(bootstrap.image_counts(confusion))
        self.right[row].append(right)

    def measure(self, row: str) -> Measure:
        """The figures of a row, as the bootstrap takes them."""
        ious = bootstrap.mean_ious(ImageCounts.of(self.of_images[row]))
        hits, truth = np.array([own[:2].sum(axis=1) for own in self.of_images[row]], np.float64).T
        pixels = bootstrap.ratio("pixel_accuracy", hits, truth)
        masks = bootstrap.ratio("accuracy", np.array(self.right[row]), np.array(self.masks))
        return lambda times: {**ious(times), **pixels(times), **masks(times)}


def run(
    data_set: str | None = None,
    oracle: Oracle = Oracle(),
    *,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures both halves of a two-stage segmentation on images with masks.

    Args:
        data_set: a data set with masks, by name or folder; None where `source` names a COCO JSON.
        oracle: the words, the prompts and crops of the CLIP, and where proposals come from.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        run: the number of crops at once; `dry_run` only counts images and words.
        compute: the CLIP, and where and how it computes.
        progress: opens a bar.

    Returns:
        What JSON holds: `rows`, each with `name`, `miou`, `miou_union`, `pixel_accuracy` and, where a CLIP names true
        masks, `accuracy`, the share of them that is named right; all fractions in [0, 1], with their `intervals`
        and their `difference` from the first row (`outputs.probe_results.sureness`).

    Raises:
        UsageError, InputError, ModelError, MismatchError.
    """
    if run.dry_run:
        return probes.planned(data_set, source, oracle)
    probe = probes.opened(data_set, source, oracle, compute)
    regions = _regions(probe, oracle)
    rows, prompts = _namings(probe.clip, oracle)
    counts = _count(probe, oracle, rows, regions, run.batch_size, progress)
    if not any(counts.masks):
        raise InputError(f"{probe.truth.source}: none of its images has a mask; nothing to measure")
    names = list(counts.confusion)
    sure = probe_results.sureness([counts.measure(name) for name in names], len(counts.masks))
    return probe_results.document(
        "oracle",
        {
            "images": len(probe.truth.items),
            "masks": sum(counts.masks),
            "words_an_image": probe.truth.words_an_image,
            "rows": [{**_row(name, counts), **own} for name, own in zip(names, sure, strict=True)],
        },
        probe.clip,
        _provenance(probe, oracle, regions, prompts),
    )


def _regions(probe: Probe, oracle: Oracle) -> ProposalSource:
    """Where the proposals come from."""
    if oracle.proposals is not None:
        return proposal_sources.from_file(oracle.proposals, probe.truth.items)
    name = oracle.proposer or by_name.default_name(probe.clip.name)
    return proposal_sources.from_proposer(name, device=probe.device)


def _namings(clip: Clip, oracle: Oracle) -> tuple[list[Naming], str | None]:
    """The rows that a CLIP names, and the digest of the prompts of one of them, if there are any."""
    from ovtool.models import region_clip

    rows = [Naming(MASKED, clip), Naming(UNMASKED, clip, fill=False)]
    given = None if oracle.prompts is None else str(oracle.prompts)
    path = two_stage.prompts_file(clip, given)
    if path is None:
        return rows, None
    rows.insert(1, Naming(PROMPTED, *region_clip.with_prompts(clip, path, oracle.crop_size)))
    return rows, two_stage.digest_of(path)


def _count(
    probe: Probe,
    oracle: Oracle,
    rows: Sequence[Naming],
    regions: ProposalSource,
    batch_size: int | None,
    progress: Progress,
) -> Counts:
    """Names the true masks and the proposals of every image."""
    truth, embedded = probe.truth, probe.embedded(oracle.templates)
    classes = len(truth.labels.classes)
    names = [*(row.name for row in rows), PROPOSED]
    counts = Counts(
        {name: np.zeros((classes, classes + 1), np.int64) for name in names},
        {name: [] for name in names},
        {name: [] for name in names},
    )
    with progress(len(truth.items), "probing") as advance:
        for item in truth.items:
            rgb, true = truth.read(item)
            labels = true.numpy()
            present = np.unique(labels[labels >= 0])
            counts.masks.append(len(present))
            text, owner = embedded.of_image(item.name)
            competing = np.array(truth.words.of_image(item.name))
            masks = torch.from_numpy(labels[None] == present[:, None, None])
            for row in rows:
                whole = np.full(classes + 1, -1)
                if len(present):
                    vectors = _encoded(row, rgb, masks, oracle.crop_size, batch_size)
                    scores = class_maps.class_scores(vectors @ text.T, owner, dim=1)
                    whole[present] = competing[scores.argmax(1).cpu().numpy()]
                confusion = metrics.confusion(whole[labels], labels, classes)
                counts.add(row.name, confusion, int((whole[present] == present).sum()))
            proposed = regions.find(item, rgb)
            best = method.named_by_truth(
                torch.from_numpy(proposed.superpixels.astype(np.int64)),
                torch.from_numpy(proposed.members),
                true,
                classes,
            )
            counts.add(PROPOSED, metrics.confusion(best, true, classes), np.nan)
            advance()
    return counts


def _encoded(
    row: Naming,
    rgb: NDArray[np.uint8],
    masks: Tensor,
    crop_size: int | None,
    batch_size: int | None,
) -> Tensor:
    """The embeddings (N, D) of the crops of an image's masks, bool (N, H, W), as a row shows them."""
    from ovtool.models import region_clip

    return region_clip.encode_regions(
        row.clip,
        torch.from_numpy(rgb),
        masks,
        prompts=row.prompts,
        fill=row.fill,
        batch_size=batch_size or region_clip.BATCH_SIZE,
        crop_size=crop_size,
    )


def _row(name: str, counts: Counts) -> dict[str, Any]:
    scores = metrics.scores(counts.confusion[name])
    return {
        "name": name,
        "miou": scores.miou_truth,
        "miou_union": scores.miou_union,
        "pixel_accuracy": scores.pixel_accuracy,
        "accuracy": None if name == PROPOSED else sum(counts.right[name]) / sum(counts.masks),
    }


def _provenance(
    probe: Probe, oracle: Oracle, regions: ProposalSource, prompts: str | None
) -> dict[str, Any]:
    """All that shapes the figures; files by digests and names."""
    digests = {"proposer": regions.proposer, "proposals": regions.digest, "prompts": prompts}
    contents = {name: value for name, value in digests.items() if value is not None}
    settings = layers.provenance(oracle, {**probe.contents(oracle), **contents})
    side = oracle.crop_size or probe.clip.image_size
    return {"data_set": probe.truth.name, **settings, "crop_size": side}

"""`probe oracle`: which half of a two-stage segmentation is the worse one.

True masks are named by the CLIP, and proposals by the truth. If the first is far below the second, names
are the bottleneck, and not masks (OVSeg, Liang et al., CVPR 2023, section 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ovtool
from ovtool.errors import InputError
from ovtool.formats import coco, labelled
from ovtool.formats import images as pictures
from ovtool.formats.images import ImageItem
from ovtool.inputs import truths
from ovtool.inputs.truths import CompetingWords
from ovtool.methods import class_maps, metrics
from ovtool.methods import oracle as method
from ovtool.proposers import by_name, proposal_sources
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.segmenters import two_stage

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.methods.mask_prompts import MaskPrompts
    from ovtool.models.clip import Clip

MASKED = "true masks named by CLIP, masked crops"
PROMPTED = "true masks named by CLIP, masked crops with prompts"
UNMASKED = "true masks named by CLIP, unmasked crops"
PROPOSED = "proposals named by truth"


@dataclass(frozen=True)
class Naming:
    """A row of the table that a CLIP names: with these prompts, and filled or not."""

    name: str
    clip: Clip
    prompts: MaskPrompts | None = None
    fill: bool = True


def run(
    data_set: str | None = None,
    *,
    coco_file: Path | None = None,
    images: Path | None = None,
    classes_per_image: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    templates: str = "one",
    prompts: str | None = None,
    crop_size: int | None = None,
    proposer: str | None = None,
    proposals_file: Path | None = None,
    limit: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures both halves on a data set `NAME[:SPLIT]` with masks, or on `coco_file` with the folder
    `images`.

    classes_per_image: the words that compete in each image, JSON; a data set may bring its own; without
        any, all categories of the truth do.
    prompts: a file, `none`, or None for those that come with a bundled model.

    Returns what JSON holds: `rows`, each with `name`, `miou`, `pixel_accuracy` and, where a CLIP names
    true masks, `accuracy`, the share of them that is named right; all fractions in [0, 1].

    Raises UsageError, InputError, ModelError, MismatchError.
    """
    source, folder, listed = truths.files(data_set, coco_file, images)
    place = devices.choose(device)
    truth = labelled.from_dataset(coco.read(source, root=folder), str(source))
    names = truth.names[:limit]
    if not names:
        raise InputError(f"{source} lists no images")
    items = [ImageItem(folder / name, name) for name in names]
    words = CompetingWords(truth, classes_per_image or listed, names)
    from ovtool.models import clip as door
    from ovtool.models import region_clip, text

    clip = door.load(model, place, devices.precision(precision, place))
    regions = (
        proposal_sources.from_file(proposals_file, items)
        if proposals_file is not None
        else proposal_sources.from_proposer(
            proposer or by_name.default_name(clip.name), device=place
        )
    )
    rows = [Naming(MASKED, clip), Naming(UNMASKED, clip, fill=False)]
    path = two_stage.prompts_file(clip, prompts)
    if path is not None:
        rows.insert(1, Naming(PROMPTED, *region_clip.with_prompts(clip, path, crop_size)))
    text.warn_unlearned(clip, words.all_names)
    embedded = text.embed_words(clip, words.all_names, templates)
    classes = len(truth.classes)
    counts = {name: torch.zeros(classes, classes + 1, dtype=torch.int64) for name in _names(rows)}
    right, masks = dict.fromkeys(counts, 0), 0
    with progress(len(items), "probing") as advance:
        for item in items:
            rgb, labels = pictures.read_rgb(item.path), words.counted(item.name)
            if rgb.shape[:2] != labels.shape:
                raise InputError(f"{item.path} has another size than its masks in {source}")
            present = np.unique(labels[labels >= 0])
            masks += len(present)
            true = torch.from_numpy(labels).long()
            for row in rows if len(present) else ():
                found = _named(
                    row, rgb, labels, present, words, item.name, embedded, batch_size, crop_size
                )
                right[row.name] += int((found == present).sum())
                whole = np.full(classes + 1, -1)
                whole[present] = found
                counts[row.name] += metrics.confusion(
                    torch.from_numpy(whole[labels]), true, classes
                )
            proposed = regions.find(item, rgb)
            best = method.named_by_truth(
                torch.from_numpy(proposed.superpixels.astype(np.int64)),
                torch.from_numpy(proposed.members),
                true,
                classes,
            )
            counts[PROPOSED] += metrics.confusion(best, true, classes)
            advance()
    if not masks:
        raise InputError(f"{source}: none of its images has a mask; nothing to measure")
    return {
        "metric": "oracle",
        "images": len(items),
        "masks": masks,
        "words_an_image": words.mean_count,
        "rows": [
            _row(name, count, None if name == PROPOSED else right[name] / masks)
            for name, count in counts.items()
        ],
        "ovtool": {
            "version": ovtool.__version__,
            "command": "probe oracle",
            "model": {"name": clip.name, "fingerprint": clip.fingerprint},
            "settings": {
                "templates": templates,
                "crop_size": crop_size or clip.image_size,
                "prompts": None if path is None else two_stage.digest_of(path),
                "proposer": regions.proposer,
                "proposals": regions.digest,
            },
        },
    }


def _named(
    row: Naming,
    rgb: NDArray[np.uint8],
    labels: NDArray[np.int32],
    present: NDArray[np.int32],
    words: CompetingWords,
    image: str,
    embedded: Tensor,
    batch_size: int | None,
    crop_size: int | None,
) -> NDArray[np.int64]:
    """The class that a CLIP gives to each true mask of a picture: the mask of each of `present`."""
    from ovtool.models import region_clip

    masks = torch.from_numpy(labels[None] == present[:, None, None])
    vectors = region_clip.encode_regions(
        row.clip,
        torch.from_numpy(rgb),
        masks,
        prompts=row.prompts,
        fill=row.fill,
        batch_size=batch_size or region_clip.BATCH_SIZE,
        crop_size=crop_size,
    )
    places, owner = words.rows(image)
    scores = class_maps.class_scores(vectors @ embedded[places].T, owner, dim=1)
    return np.array(words.chosen(image))[scores.argmax(1).cpu().numpy()]


def _names(rows: Sequence[Naming]) -> list[str]:
    return [*(row.name for row in rows), PROPOSED]


def _row(name: str, confusion: Tensor, accuracy: float | None) -> dict[str, Any]:
    found = metrics.scores(confusion)
    return {
        "name": name,
        "miou": found.miou,
        "pixel_accuracy": found.pixel_accuracy,
        "accuracy": accuracy,
    }

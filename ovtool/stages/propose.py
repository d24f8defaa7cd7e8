"""`propose`: images to class-agnostic masks, each with a quality."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, parts, rle
from ovtool.formats import images as pictures
from ovtool.formats.images import ImageItem
from ovtool.methods import regions
from ovtool.methods.regions import Regions
from ovtool.runtime import engine
from ovtool.stages import inputs as sources
from ovtool.stages import mapping
from ovtool.stages.mapping import Outcome, Run

PROPOSERS = ("regions",)
WORKING_SIDE = 512  # longer side at which regions are looked for; larger pictures are reduced

Proposer = Callable[[NDArray[np.uint8]], Regions]


@dataclass(frozen=True)
class ProposalSettings:
    """max_proposals: the most masks of an image, after non-maximum suppression.
    min_area: the least share of the picture that a mask has."""

    proposer: str = "regions"
    max_proposals: int = 100
    min_area: float = 0.001


def proposer_of(settings: ProposalSettings) -> Proposer:
    """The function from a picture, uint8 (H, W, 3), to its regions. Raises UsageError."""
    if settings.proposer not in PROPOSERS:
        raise UsageError(
            f"unknown proposer '{settings.proposer}'; choose from {', '.join(PROPOSERS)}"
        )
    return lambda rgb: _regions(rgb, settings)


def _regions(rgb: NDArray[np.uint8], settings: ProposalSettings) -> Regions:
    height, width = rgb.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = (
        np.asarray(Image.fromarray(rgb).resize(small, Image.Resampling.BOX)) if scale < 1 else rgb
    )
    found = regions.propose_regions(seen, settings.max_proposals, settings.min_area)
    if scale == 1:
        return found
    labels = Image.fromarray(found.superpixels).resize((width, height), Image.Resampling.NEAREST)
    return Regions(np.asarray(labels), found.members, found.quality)


def proposal_records(items: Sequence[ImageItem], propose: Proposer) -> Iterator[parts.Record]:
    """The record of each image: its masks, best first, all of the one category `object`."""
    for item in items:
        try:
            rgb = pictures.read_rgb(item.path)
        except InputError as error:
            yield parts.failure_record(item.name, error)
            continue
        found = propose(rgb)
        masks = found.masks()
        filled = masks.any((1, 2))
        entries = [
            {"category_id": 1, "segmentation": mask, "score": round(float(score), 6)}
            for mask, score in zip(
                rle.encode_many(masks[filled]), found.quality[filled], strict=True
            )
        ]
        yield parts.image_record(item.name, rgb.shape[0], rgb.shape[1], entries)


def run(
    inputs: Sequence[str],
    *,
    proposer: str = "regions",
    max_proposals: int = 100,
    min_area: float = 0.001,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Writes the masks of every image as COCO JSON, class-agnostic: one category, `object`.

    inputs: see `stages.inputs.find`.
    out: where to write; `-` is stdout, None is a name made from the input in the current folder.

    Raises UsageError, InputError, OutputExistsError; an image that cannot be read is no error but a
    failure, listed in the outcome and in the output, unless `how.strict`.
    """
    settings = ProposalSettings(proposer, max_proposals, min_area)
    propose = proposer_of(settings)
    items = sources.find(inputs, coco_file, images, limit)
    target = out or sources.default_output(inputs, items, coco_file, "proposals")
    shown: dict[str, Any] = {
        "proposer": proposer,
        "max_proposals": max_proposals,
        "min_area": min_area,
    }
    return mapping.map_images(
        items,
        lambda chunk: engine.PartOutput(proposal_records(chunk, propose)),
        info=mapping.provenance("propose", shown, None),
        categories=(coco.Category(1, "object"),),
        out=target,
        device=torch.device("cpu"),
        run=how or Run(),
        description="proposing",
    )

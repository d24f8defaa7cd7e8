"""`propose`: images to class-agnostic masks, each with a quality."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import UsageError
from ovtool.formats import coco, parts, rle
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
    """The regions of a picture, found at a longer side of `WORKING_SIDE` and as large as it is."""
    height, width = rgb.shape[:2]
    scale = WORKING_SIDE / max(height, width)
    if scale >= 1:
        return regions.propose_regions(rgb, settings.max_proposals, settings.min_area)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced = np.asarray(Image.fromarray(rgb).resize(small, Image.Resampling.BOX))
    found = regions.propose_regions(reduced, settings.max_proposals, settings.min_area)
    labels = Image.fromarray(found.superpixels).resize((width, height), Image.Resampling.NEAREST)
    return Regions(np.asarray(labels), found.members, found.quality)


def record(item: ImageItem, rgb: NDArray[np.uint8], propose: Proposer) -> parts.Record:
    """The masks of a picture, best first, all of the one category `object`."""
    found = propose(rgb)
    entries = [
        {
            "category_id": 1,
            "segmentation": rle.encode(member[found.superpixels]),  # one by one: they may be large
            "score": round(float(quality), 6),
        }
        for member, quality in zip(found.members, found.quality, strict=True)
    ]
    return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], entries)


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
    how = how or Run()
    settings = ProposalSettings(proposer, max_proposals, min_area)
    propose = proposer_of(settings)
    items = sources.find(inputs, coco_file, images, limit)
    target = out or sources.default_output(inputs, items, coco_file, "proposals")
    categories = (coco.Category(1, "object"),)
    mapping.check_place(target, how)
    if how.dry_run:
        return mapping.planned(items, categories, target)

    def work(chunk: Sequence[ImageItem]) -> engine.PartOutput:
        return engine.PartOutput(
            mapping.picture_records(chunk, lambda item, rgb: record(item, rgb, propose))
        )

    return mapping.map_images(
        items,
        work,
        info=mapping.provenance("propose", asdict(settings), None),
        categories=categories,
        out=target,
        device=torch.device("cpu"),
        run=how,
        description="proposing",
    )

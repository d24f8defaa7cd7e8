"""The maps of one image after another, refined, and kept as maps or as pseudo masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.cams import refine_steps
from ovtool.cams.refine_steps import Context
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, parts, rle
from ovtool.formats.cams import CamImage, Cams
from ovtool.formats.images import ImageItem
from ovtool.methods import activation_maps, pseudo_masks
from ovtool.methods.pseudo_masks import Background
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import engine, runs
from ovtool.settings.refine import Apply, PseudoMasks, background_rule

BACKGROUND = "background"
CONFIDENCE = 0.95  # after a CRF, CLIP-ES's; nothing is in doubt without one
Rgb = NDArray[np.uint8]
MapsOf = Callable[[CamImage, Tensor], Tensor]  # an image uint8 (H, W, 3) to its maps (K, h, w)


@dataclass(frozen=True)
class Masking:
    """How maps become pseudo masks.

    Attributes:
        background: how it is scored.
        confidence: the least share of a pixel's scores that its best score must have.
    """

    background: Background
    confidence: float

    @classmethod
    def of(cls, masks: PseudoMasks, apply: Apply) -> Masking:
        """From `--background-score` and `--confidence`. Without them: after `crf`, whose maps are
        probabilities, the background has the rest and 0.95 is asked for; else Otsu's threshold parts the
        maps of each image, and no pixel is in doubt."""
        has_crf = bool(apply.apply) and apply.apply[-1] == "crf"
        background, confidence = Background("rest" if has_crf else "otsu"), masks.confidence
        if masks.background_score is not None:
            background = Background(*background_rule(masks.background_score))
        if confidence is None:
            confidence = CONFIDENCE if has_crf else 0.0
        return cls(background, confidence)


@dataclass(frozen=True, eq=False)
class Refiner:
    """The maps of one image after another.

    Attributes:
        maps_of: the maps that the steps begin with.
        context: what the steps need.
        regions: the proposals of an image, for the step `sam`.
    """

    maps_of: MapsOf
    context: Context
    regions: ProposalSource | None = None

    def __call__(self, item: ImageItem, image: CamImage, rgb: Rgb) -> Tensor:
        """The refined maps of an image, float32 (K, h, w) in [0, 1], on the CPU.

        Raises InputError where a step leaves numbers that are not finite.
        """
        pixels, context = torch.from_numpy(rgb), self.context
        steps = context.options.on_images
        if self.regions is not None:
            masks = self.regions.find(item, rgb).masks()
            context = replace(context, proposals=torch.from_numpy(masks))
        maps = refine_steps.run(pixels, self.maps_of(image, pixels), steps, context)
        if not maps.isfinite().all():
            raise InputError(
                f"{item.name}: its maps are not finite after {', '.join(steps)}; leave out a step"
            )
        return maps.cpu().float().clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Work:
    """What is done with each image.

    Attributes:
        cams: the maps that are given.
        refiner: refines those of an image.
        masking: how they become pseudo masks; None keeps them as maps.
        drawings: the files that are drawn of pseudo masks.
    """

    cams: Cams
    refiner: Refiner
    masking: Masking | None
    drawings: DrawnFiles

    def part_output(self, items: Sequence[ImageItem]) -> engine.PartOutput:
        """The records of a part, with its maps as tensors where maps are wanted."""
        by_name = {image.file_name: image for image in self.cams.images}
        kept: dict[str, Tensor] = {}

        def record(item: ImageItem, rgb: Rgb) -> parts.Record:
            image = by_name[item.name]
            if rgb.shape[:2] != (image.height, image.width):
                return parts.failure_record(
                    item.name, f"{item.name} has another size than its maps"
                )
            maps = self.refiner(item, image, rgb)
            if self.masking is None:
                kept[item.name] = maps.half()
                own = {"id": image.id, "category_ids": list(image.category_ids)}
                return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], [], **own)
            return self._masks(item, image, rgb, maps)

        return engine.PartOutput(runs.image_records(items, record), tensors=kept)

    def _masks(self, item: ImageItem, image: CamImage, rgb: Rgb, maps: Tensor) -> parts.Record:
        """The pseudo masks of an image; category 1 is the background."""
        assert self.masking is not None
        maps = activation_maps.resized(maps, (rgb.shape[0], rgb.shape[1]))
        local, share = pseudo_masks.labels(maps, self.masking.background, self.masking.confidence)
        place = {category.id: k for k, category in enumerate(self.cams.categories, start=1)}
        # the background, then the classes: places in the list of categories; the last stands for doubt
        index = torch.tensor([0, *(place[category] for category in image.category_ids), -1])
        labels = index[local].numpy().astype(np.int32)
        entries, scores = [], {}
        for label, mask in sorted(rle.encode_label_map(labels, range(len(place) + 1)).items()):
            scores[label] = float(share.numpy()[labels == label].mean())
            score = round(scores[label], 6)
            entries.append({"category_id": label + 1, "segmentation": mask, "score": score})
        self.drawings.write(item, rgb, labels, scores)
        return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], entries)


def with_background(categories: Sequence[coco.Category]) -> tuple[coco.Category, ...]:
    """The categories of pseudo masks: `background` with id 1, then the classes in their order. Raises
    UsageError where a class has that name already."""
    if any(category.name.casefold() == BACKGROUND for category in categories):
        raise UsageError(
            "a class of the maps is called background, which pseudo masks have of their own; rename it"
        )
    own = [
        coco.Category(number, category.name, category.supercategory, category.synonyms)
        for number, category in enumerate(categories, start=2)
    ]
    return (coco.Category(1, BACKGROUND), *own)

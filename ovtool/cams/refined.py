"""The maps of one image after another, refined, and kept as maps or as pseudo masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.cams import refine_steps
from ovtool.cams.refine_steps import Context
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, parts, rle
from ovtool.formats.cams import CamImage, Cams
from ovtool.formats.images import ImageItem
from ovtool.methods import pseudo_masks
from ovtool.methods.pseudo_masks import Background
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import engine, runs
from ovtool.settings.refine import Apply, PseudoMasks, background_rule

BACKGROUND = "background"
CONFIDENCE = 0.95  # after a CRF, CLIP-ES's; nothing is in doubt without one
Rgb = NDArray[np.uint8]
MapsOf = Callable[[CamImage, Tensor], Tensor]  # a picture uint8 (H, W, 3) to its maps (K, h, w)


@dataclass(frozen=True)
class Masking:
    """How maps become pseudo masks.

    background: its score. confidence: the least share of a pixel's scores that its best one must have.
    """

    background: Background
    confidence: float

    @classmethod
    def of(cls, masks: PseudoMasks, apply: Apply) -> Masking:
        """From `--background-score` and `--confidence`. Without them: after `crf`, whose maps are
        probabilities, the background has the rest and 0.95 is asked for; else Otsu's threshold parts the
        maps of each image, and no pixel is in doubt."""
        has_crf = bool(apply.apply) and apply.apply[-1] == "crf"
        background = Background("rest") if has_crf else Background()
        if masks.background_score is not None:
            background = Background(*background_rule(masks.background_score))
        confidence = masks.confidence
        if confidence is None:
            confidence = CONFIDENCE if has_crf else 0.0
        return cls(background, confidence)


@dataclass(frozen=True, eq=False)
class Refiner:
    """The maps of one picture after another.

    maps_of: the maps that the steps begin with. regions: proposals of a picture, for the step `sam`.
    """

    maps_of: MapsOf
    context: Context
    regions: ProposalSource | None = None

    def __call__(self, item: ImageItem, image: CamImage, rgb: Rgb) -> Tensor:
        """The refined maps of a picture, float32 (K, h, w) in [0, 1], on the CPU.

        Raises InputError where a step leaves numbers that are not finite.
        """
        pixels, context = torch.from_numpy(rgb), self.context
        steps = context.options.on_images
        if self.regions is not None:
            regions = self.regions.find(item, rgb)
            empty = [rgb[..., 0] < 0]
            masks = np.stack([member[regions.superpixels] for member in regions.members] or empty)
            context = replace(context, proposals=torch.from_numpy(masks))
        maps = refine_steps.run(pixels, self.maps_of(image, pixels), steps, context)
        if not maps.isfinite().all():
            raise InputError(
                f"{item.name}: its maps are not finite after {', '.join(steps)}; leave out a step"
            )
        return maps.cpu().float().clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Work:
    """What is done with each picture: refined, then kept as maps (no `masking`) or as pseudo masks."""

    cams: Cams
    refiner: Refiner
    masking: Masking | None
    drawings: DrawnFiles
    _by_name: Mapping[str, CamImage] = field(init=False)

    def __post_init__(self) -> None:
        by_name = {image.file_name: image for image in self.cams.images}
        object.__setattr__(self, "_by_name", by_name)

    def part_output(self, items: Sequence[ImageItem]) -> engine.PartOutput:
        """The records of a part, with its maps as tensors where maps are wanted."""
        kept: dict[str, Tensor] = {}

        def one(item: ImageItem, rgb: Rgb) -> parts.Record:
            image = self._by_name[item.name]
            if rgb.shape[:2] != (image.height, image.width):
                return parts.failure_record(
                    item.name, f"{item.name} has another size than its maps"
                )
            maps = self.refiner(item, image, rgb)
            if self.masking is None:
                kept[f"cam/{image.id}"] = maps.half()
                return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], [])
            return self._masks(item, image, rgb, maps)

        def records() -> Iterator[parts.Record]:
            yield from runs.image_records(items, one)

        return engine.PartOutput(records(), tensors=kept)

    def _masks(self, item: ImageItem, image: CamImage, rgb: Rgb, maps: Tensor) -> parts.Record:
        """The pseudo masks of a picture; category 1 is the background."""
        assert self.masking is not None
        size = rgb.shape[:2]
        if len(maps) and maps.shape[1:] != size:
            maps = interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
        elif not len(maps):
            maps = maps.new_zeros(0, *size)
        found, share = pseudo_masks.labels(maps, self.masking.background, self.masking.confidence)
        place = {category.id: k for k, category in enumerate(self.cams.categories, start=1)}
        # the background, then the classes: places in the list of categories; the last stands for doubt
        index = torch.tensor([0, *(place[one] for one in image.category_ids), -1])
        labels = index[found].numpy().astype(np.int32)
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
    if any(each.name.casefold() == BACKGROUND for each in categories):
        raise UsageError(
            "a class of the maps is called background, which pseudo masks have of their own; rename it"
        )
    own = [
        coco.Category(number, each.name, each.supercategory, each.synonyms)
        for number, each in enumerate(categories, start=2)
    ]
    return (coco.Category(1, BACKGROUND), *own)

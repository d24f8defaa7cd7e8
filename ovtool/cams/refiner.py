"""The work of `refine` on one image after another: its maps refined, then kept or made pseudo masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.cams import refine_steps
from ovtool.cams import sources as cam_sources
from ovtool.cams.pseudo import Masking
from ovtool.cams.refine_steps import Context
from ovtool.errors import InputError
from ovtool.formats import parts, rle
from ovtool.formats.cams import CamImage, Cams
from ovtool.formats.images import ImageItem
from ovtool.methods import pseudo_masks
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import engine, runs

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.mask_generator import Generator

Rgb = NDArray[np.uint8]
MapsOf = Callable[[CamImage, Tensor], Tensor]  # an image uint8 (H, W, 3) to its maps (K, h, w)


def maps_of_generator(generator: Generator) -> MapsOf:
    """The maps of a trained generator, over the image and its mirror image."""
    place = {category.id: k for k, category in enumerate(generator.categories)}
    network = cam_sources.generator(generator)

    def maps_of(image: CamImage, rgb: Tensor) -> Tensor:
        classes = [place[number] for number in image.category_ids]
        return cam_sources.maps_of(network, rgb, classes, flip=True).cpu()

    return maps_of


@dataclass(frozen=True, eq=False)
class Refiner:
    """The refined maps of one image after another.

    Attributes:
        maps_of: The maps that the steps begin with.
        context: The steps, and what they need.
        regions: Proposals of an image, for the step `sam`.
    """

    maps_of: MapsOf
    context: Context
    regions: ProposalSource | None = None

    def __call__(self, item: ImageItem, image: CamImage, rgb: Rgb) -> Tensor:
        """The refined maps of an image, float32 (K, h, w) in [0, 1], on the CPU.

        Raises:
            InputError: A step leaves numbers that are not finite.
        """
        pixels, context = torch.from_numpy(rgb), self.context
        if self.regions is not None:
            regions = self.regions.find(item, rgb)
            masks = [member[regions.superpixels] for member in regions.members]
            proposals = np.stack(masks or [rgb[..., 0] < 0])
            context = replace(context, proposals=torch.from_numpy(proposals))
        steps = context.options.on_images
        maps = refine_steps.run(pixels, self.maps_of(image, pixels), steps, context)
        if not maps.isfinite().all():
            raise InputError(
                f"{item.name}: its maps are not finite after {', '.join(steps)}; leave out a step"
            )
        return maps.cpu().float().clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Work:
    """What is done with each image: refined, then kept as maps or made pseudo masks.

    Attributes:
        cams: The maps that were read, with their images.
        refiner: Refines them.
        masking: How they become pseudo masks; None keeps them as maps.
        drawn: What is drawn of the pseudo masks.
    """

    cams: Cams
    refiner: Refiner
    masking: Masking | None
    drawn: DrawnFiles
    _by_name: Mapping[str, CamImage] = field(init=False)

    def __post_init__(self) -> None:
        by_name = {image.file_name: image for image in self.cams.images}
        object.__setattr__(self, "_by_name", by_name)

    def part_output(self, items: Sequence[ImageItem]) -> engine.PartOutput:
        """The records of a part, with its maps as tensors where maps are wanted."""
        kept: dict[str, Tensor] = {}

        def record(item: ImageItem, rgb: Rgb) -> parts.Record:
            image = self._by_name[item.name]
            if rgb.shape[:2] != (image.height, image.width):
                return parts.failure_record(
                    item.name, f"{item.name} has another size than its maps"
                )
            maps = self.refiner(item, image, rgb)
            if self.masking is None:
                kept[f"cam/{image.id}"] = maps.half()
                return parts.image_record(item.name, image.height, image.width, [])
            return self._masks(item, image, rgb, maps)

        def records() -> Iterator[parts.Record]:
            yield from runs.picture_records(items, record)

        return engine.PartOutput(records(), tensors=kept)

    def _masks(self, item: ImageItem, image: CamImage, rgb: Rgb, maps: Tensor) -> parts.Record:
        """The pseudo masks of an image; category 1 is the background."""
        assert self.masking is not None
        size = rgb.shape[:2]
        if len(maps) and maps.shape[1:] != size:
            maps = interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
        elif not len(maps):
            maps = maps.new_zeros(0, *size)
        best, share = pseudo_masks.labels(maps, self.masking.background, self.masking.confidence)
        place = {category.id: k for k, category in enumerate(self.cams.categories, start=1)}
        # the background, then the classes: places in the list of categories; the last stands for doubt
        index = torch.tensor([0, *(place[number] for number in image.category_ids), -1])
        labels = index[best].numpy().astype(np.int32)
        entries, scores = [], {}
        for label, mask in sorted(rle.encode_label_map(labels, range(len(place) + 1)).items()):
            scores[label] = float(share.numpy()[labels == label].mean())
            score = round(scores[label], 6)
            entries.append({"category_id": label + 1, "segmentation": mask, "score": score})
        self.drawn.write(item, rgb, labels, scores)
        return parts.image_record(item.name, image.height, image.width, entries)

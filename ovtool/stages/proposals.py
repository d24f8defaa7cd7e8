"""Where the regions of a picture come from while it is segmented: a proposer, or a file of masks."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import MismatchError
from ovtool.formats import atomic, coco, labelled, rle
from ovtool.formats.images import ImageItem
from ovtool.methods import regions
from ovtool.methods.regions import Regions
from ovtool.stages.propose import ProposalSettings, proposer_of


@dataclass(frozen=True)
class RegionSource:
    """The regions of a picture: `find(item, rgb)`, with rgb uint8 (H, W, 3).

    proposer: the one that makes them, or None; digest: of the masks, where they come from a file.
    """

    find: Callable[[ImageItem, NDArray[np.uint8]], Regions]
    proposer: str | None = None
    digest: str | None = None


def from_proposer(name: str) -> RegionSource:
    """Regions made on the way. Raises UsageError for a proposer that is not known."""
    propose = proposer_of(ProposalSettings(name))
    return RegionSource(lambda item, rgb: propose(rgb), proposer=name)


def from_file(source: Path, items: Sequence[ImageItem]) -> RegionSource:
    """Regions from a COCO JSON, a folder of parts, or `-` (stdin), made for the images `items`.

    Raises InputError for a file that is broken, MismatchError where it lacks an image (unless it says
    that this one could not be read) and, on finding, where a picture has another size.
    """
    dataset = coco.read(source)
    images = {image.file_name: image for image in dataset.images}
    known = images.keys() | _failed(dataset)
    missing = [item.name for item in items if item.name not in known]
    if missing:
        raise MismatchError(
            f"{source} has no proposals for {labelled.shortened(missing, 1)}: make them for the same "
            "images"
        )
    masks: dict[int, list[coco.Annotation]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        masks[annotation.image_id].append(annotation)

    def find(item: ImageItem, rgb: NDArray[np.uint8]) -> Regions:
        image = images.get(item.name)
        if image is None or (image.height, image.width) != rgb.shape[:2]:
            there = "a failure" if image is None else f"{image.width} x {image.height}"
            raise MismatchError(
                f"{source}: {item.name} is {there} there and {rgb.shape[1]} x {rgb.shape[0]} here: "
                "make the proposals for these images"
            )
        return _regions(masks[image.id], image.height, image.width)

    return RegionSource(find, digest=_digest(dataset))


def _regions(found: Sequence[coco.Annotation], height: int, width: int) -> Regions:
    """Masks as regions, the best first; one without a score counts fully."""
    quality = [1.0 if mask.score is None else min(1.0, max(0.0, mask.score)) for mask in found]
    order = np.argsort([-value for value in quality], kind="stable")
    masks = np.zeros((len(found), height, width), np.bool_)
    for mask, index in zip(masks, order, strict=True):
        mask[:] = rle.decode(found[index].segmentation, height, width)
    return regions.from_masks(masks, np.array(quality, np.float32)[order])


def _failed(dataset: coco.Dataset) -> set[str]:
    """The images that could not be read when the file was made, if ovtool made it."""
    made_by = dataset.info.get("ovtool")
    failures = made_by.get("failures") if isinstance(made_by, dict) else None
    listed = failures if isinstance(failures, list) else []
    return {str(failure.get("file_name")) for failure in listed if isinstance(failure, dict)}


def _digest(dataset: coco.Dataset) -> str:
    """A short name for the images and masks of a file, however it is laid out."""
    content = hashlib.sha256()
    for image in dataset.images:
        content.update(atomic.canonical_json(coco.image_entry(image)).encode())
    for annotation in dataset.annotations:
        content.update(atomic.canonical_json(coco.annotation_entry(annotation)).encode())
    return content.hexdigest()[:16]

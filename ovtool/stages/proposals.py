"""Where the regions of a picture come from while it is segmented: a proposer, or a file of masks."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import MismatchError
from ovtool.formats import coco, rle
from ovtool.formats.images import ImageItem
from ovtool.methods import regions
from ovtool.methods.regions import Regions
from ovtool.stages.propose import ProposalSettings, proposer_of

Source = Callable[[ImageItem, NDArray[np.uint8]], Regions]


def source(proposer: str, file: str | None) -> Source:
    """The regions of a picture, from the COCO JSON `file` if there is one, else from the proposer."""
    if file is not None:
        return _from_file(Path(file))
    propose = proposer_of(ProposalSettings(proposer))
    return lambda item, rgb: propose(rgb)


def digest(file: Path) -> str:
    """A short name for the content of a file or of a folder of parts."""
    paths = sorted(file.iterdir()) if file.is_dir() else [file]
    content = hashlib.sha256()
    for path in paths:
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _from_file(file: Path) -> Source:
    dataset = coco.read(file)
    ids = {image.file_name: image for image in dataset.images}
    by_image: dict[int, list[coco.Annotation]] = {}
    for annotation in dataset.annotations:
        by_image.setdefault(annotation.image_id, []).append(annotation)

    def find(item: ImageItem, rgb: NDArray[np.uint8]) -> Regions:
        image = ids.get(item.name)
        if image is None:
            raise MismatchError(
                f"{file} has no proposals for {item.name}: make them for the same images"
            )
        if (image.height, image.width) != rgb.shape[:2]:
            raise MismatchError(
                f"{file}: {item.name} is {image.width} x {image.height} there and "
                f"{rgb.shape[1]} x {rgb.shape[0]} here: make the proposals for these images"
            )
        found = sorted(by_image.get(image.id, ()), key=lambda entry: -(entry.score or 0.0))
        masks = np.zeros((len(found), image.height, image.width), np.bool_)
        for mask, entry in zip(masks, found, strict=True):
            mask[:] = rle.decode(entry.segmentation, image.height, image.width)
        scores = [
            1.0 if entry.score is None else min(1.0, max(0.0, entry.score)) for entry in found
        ]
        return regions.from_masks(masks, np.array(scores, np.float32))

    return find

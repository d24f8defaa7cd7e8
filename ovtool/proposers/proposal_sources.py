"""Where the proposals of an image come from while it is worked on: a proposer, or a file of masks.

What `find` gives is a `Proposals`: the masks best first, their quality and, where the proposer has
them, soft masks and embeddings in the space of a CLIP's texts. Probabilities of words come from the
latter: softmax over the cosines with the words and with `no_object`, each divided by `maskformer.TEMPERATURE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, labelled, rle
from ovtool.formats.images import ImageItem
from ovtool.formats.mask_store import masks_of
from ovtool.methods import regions
from ovtool.models import artefacts
from ovtool.proposers import by_name
from ovtool.proposers.proposals import Proposals
from ovtool.settings.propose import Propose

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


@dataclass(frozen=True)
class ProposalSource:
    """The proposals of an image: `find(item, rgb)`, with rgb uint8 (H, W, 3).

    Attributes:
        find: the function from an image to its proposals, best first.
        proposer: the proposer that makes them, or None.
        digest: of the masks, where they come from a file.
        no_object: float32 (D,), the unit vector of "no object" where `find` gives embeddings, else None.
    """

    find: Callable[[ImageItem, NDArray[np.uint8]], Proposals]
    proposer: str | None = None
    digest: str | None = None
    no_object: NDArray[np.float32] | None = None


def from_proposer(
    name: str,
    *,
    most: int = Propose.max_proposals,
    clip: Clip | None = None,
    device: torch.device | None = None,
) -> ProposalSource:
    """Proposals that are made while the images are worked on.

    Args:
        name: the proposer, as `by_name` lists them.
        most: the greatest number of masks of an image.
        clip: the CLIP that the proposer was trained for, where embeddings are needed.
        device: where it computes; None for the CPU.

    Raises:
        UsageError: the name is unknown.
        ModelError: weights are not at hand.
        MismatchError: the proposer belongs to another CLIP than `clip`.
    """
    loaded = by_name.load(Propose(proposer=name, max_proposals=most), clip=clip, device=device)
    return ProposalSource(
        lambda item, rgb: loaded(rgb), proposer=loaded.name, no_object=loaded.no_object
    )


def from_file(source: Path, items: Sequence[ImageItem]) -> ProposalSource:
    """The masks of a COCO JSON, a folder of parts, or `-` (stdin). Raises as `read_masks`."""
    return of_masks(read_masks(source, items), source)


def read_masks(source: Path, items: Sequence[ImageItem]) -> coco.Dataset:
    """The masks of a COCO JSON, a folder of parts, or `-` (stdin), made for the images `items`.

    Raises:
        InputError: The file is broken.
        MismatchError: It lacks an image, and does not say that this image could not be read.
    """
    dataset = coco.read(source)
    known = {image.file_name for image in dataset.images} | _failed(dataset)
    missing = [item.name for item in items if item.name not in known]
    if missing:
        same = "images"
        if len(missing) == len(items):
            same += ", with the split where they are a data set's (coco:train2017)"
        raise MismatchError(
            f"{source} has no proposals for {labelled.shortened(missing, 1)}; make them for the same {same}"
        )
    return dataset


def of_masks(
    dataset: coco.Dataset, source: Path, *, embeddings: Path | None = None, clip: Clip | None = None
) -> ProposalSource:
    """Regions from masks that were read; on finding, an image of another size raises MismatchError.

    Args:
        dataset: The masks, as of `read_masks`.
        source: Their file, as messages name it.
        embeddings: The file that `propose --save-embeddings` wrote beside the masks; it needs `clip`.
        clip: The CLIP whose space the embeddings lie in.

    Raises:
        InputError: The file of embeddings is broken.
        MismatchError: It belongs to another CLIP or to other masks.
    """
    images = {image.file_name: image for image in dataset.images}
    vectors: dict[int, NDArray[np.float32]] = {}
    no_object = None
    if embeddings is not None:
        if clip is None:
            raise ValueError("embeddings are read in the space of a CLIP")
        rows, column = read_embeddings(embeddings, dataset, clip)
        no_object = column.cpu().numpy()
        vectors = {
            entry.id: row for entry, row in zip(dataset.annotations, rows.numpy(), strict=True)
        }
    masks_of_image = masks_of(dataset)

    def find(item: ImageItem, rgb: NDArray[np.uint8]) -> Proposals:
        image = images.get(item.name)
        if image is None or (image.height, image.width) != rgb.shape[:2]:
            size = "a failure" if image is None else f"{image.width} x {image.height}"
            raise MismatchError(
                f"{source}: {item.name} is {size} there and {rgb.shape[1]} x {rgb.shape[0]} here; "
                "make the proposals for these images"
            )
        stacked = None
        if no_object is not None:
            rows = [vectors[mask.id] for mask in masks_of_image(image.id)]
            stacked = np.array(rows, np.float32).reshape(len(rows), len(no_object))
        return _regions(masks_of_image(image.id), image.height, image.width, stacked)

    return ProposalSource(find, digest=coco.digest(dataset), no_object=no_object)


def read_embeddings(path: Path, dataset: coco.Dataset, clip: Clip) -> tuple[Tensor, Tensor]:
    """The embeddings of the proposals of a file.

    Returns:
        Those of the proposals, float32 (M, D) in the order of `dataset.annotations`, and the vector of
        "no object", float32 (D,); all of length 1, on the CPU.

    Raises:
        InputError: the file is broken.
        MismatchError: it belongs to another CLIP, or to other proposals than `dataset`.
    """
    header, arrays = artefacts.load(path, "proposals", clip, "make it again")
    if header.get("settings", {}).get("proposals") != coco.digest(dataset):
        raise MismatchError(
            f"{path} holds the embeddings of other proposals; make both by one run of "
            "`ovtool propose --save-embeddings`"
        )
    rows, column = arrays.get("embeddings"), arrays.get("no_object")
    shape = (len(dataset.annotations), clip.embed_dim)
    if rows is None or column is None or rows.shape != shape or column.shape != shape[1:]:
        raise InputError(
            f"{path} does not hold {shape[0]} embeddings of width {shape[1]}; remake it"
        )
    rows = torch.nn.functional.normalize(rows.float(), dim=-1)
    order = np.argsort(np.argsort([entry.id for entry in dataset.annotations], kind="stable"))
    return rows[torch.from_numpy(order)], torch.nn.functional.normalize(column.float(), dim=-1)


def _regions(
    annotations: Sequence[coco.Annotation],
    height: int,
    width: int,
    embeddings: NDArray[np.float32] | None = None,
) -> Proposals:
    """Masks as regions, the best first; a mask without a score has the quality 1."""
    scores = [1.0 if mask.score is None else mask.score for mask in annotations]
    quality = np.clip(scores, 0.0, 1.0).astype(np.float64)
    order = np.argsort(-quality, kind="stable")
    masks = np.zeros((len(annotations), height, width), np.bool_)
    for mask, index in zip(masks, order, strict=True):
        mask[:] = rle.decode(annotations[index].segmentation, height, width)
    cut = regions.from_masks(masks, quality.astype(np.float32)[order])
    return Proposals.of(cut, embeddings=None if embeddings is None else embeddings[order])


def _failed(dataset: coco.Dataset) -> set[str]:
    """The images that could not be read when the file was made, if ovtool made it."""
    made_by = dataset.info.get("ovtool")
    failures = made_by.get("failures") if isinstance(made_by, dict) else None
    listed = failures if isinstance(failures, list) else []
    return {str(failure.get("file_name")) for failure in listed if isinstance(failure, dict)}

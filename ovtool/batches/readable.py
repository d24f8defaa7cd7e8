"""Which images a training can read: all are looked at before its first step, so that none ends it later."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ovtool.batches.loader import Loader
from ovtool.errors import InputError
from ovtool.formats import images as image_files
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import Exif, ImageItem
from ovtool.runtime.progress import Progress, no_progress
from ovtool.training import distributed
from ovtool.training.run import Failure

NAMED = 3  # images of a warning; it counts the others

logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Expected:
    """An image, and the height and width in pixels that its labels have; None where they have none."""

    item: ImageItem
    size: tuple[int, int] | None = None


class Sized(Protocol):
    """An image as a file lists it."""

    @property
    def file_name(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


def expected(images: Iterable[Sized], folder: Path) -> list[Expected]:
    """Images of a folder with the sizes that a file lists."""
    return [
        Expected(
            ImageItem(path_of(folder, image.file_name), image.file_name),
            (image.height, image.width),
        )
        for image in images
    ]


@dataclass(frozen=True)
class Check:
    """How images are looked at.

    Attributes:
        strict: Whether the first image that fails is an error, and not left out.
        workers: Processes that read images; 0 is this one itself.
        progress: Opens a bar.
        exif: Whether labels belong to upright images, or to their pixels as they are stored.
    """

    strict: bool = False
    workers: int = 0
    progress: Progress = no_progress
    exif: Exif = "upright"

    def failures(
        self,
        images: Sequence[Expected],
        source: str,
        labels: str = "labels",
        known: Sequence[Failure] = (),
    ) -> tuple[Failure, ...]:
        """The images that a training leaves out, counted in one warning.

        Args:
            images: All that the training would read.
            source: What names them, for messages.
            labels: What has the sizes, in the plural, for messages.
            known: Images that failed before, which are counted too.

        Returns:
            Of each image that cannot be read, or has another size than its labels, name and reason.

        Raises:
            InputError: No image can be read or, where this is strict, the first of them cannot.
        """
        failures = list(known)
        if self.strict and failures:
            raise InputError(failures[0]["reason"])
        total = len(images) + len(failures)
        faults = Loader(_Faults(images, labels, self.exif), len(images), self.workers)
        speaks = distributed.is_to_speak()
        progress = self.progress if speaks else no_progress
        with progress(len(images), "checking images") as advance:
            for index, image in enumerate(images):
                fault = faults(index)
                if fault is not None and self.strict:
                    raise InputError(fault)
                if fault is not None:
                    failures.append({"file_name": image.item.name, "reason": fault})
                advance(1)
        if speaks and self.exif == "upright":
            image_files.warn_of_turned(
                [image.item for image in images if image.size is not None], labels
            )
        if failures and len(failures) == total:
            raise InputError(
                f"none of the {total} images of {source} can be trained on; the first: "
                f"{failures[0]['reason']}"
            )
        if failures and speaks:
            logger.warning(
                "left out %d of the %d images of %s: %s",
                len(failures), total, source, _listed(failures),
            )  # fmt: skip
        return tuple(failures)


LENIENT = Check()  # what cannot be read is left out


def names(failures: Sequence[Failure]) -> frozenset[str]:
    """The names of the images that failed."""
    return frozenset(failure["file_name"] for failure in failures)


def failure(item: ImageItem, error: InputError) -> Failure:
    """An image that failed with an error, whose reason names it as outputs do, wherever it lies."""
    return {"file_name": item.name, "reason": str(error).replace(str(item.path), item.name)}


@dataclass(frozen=True)
class _Faults:
    """What is wrong with each image, by its place in the list; None where nothing is."""

    images: Sequence[Expected]
    labels: str
    exif: Exif

    def __getitem__(self, index: int) -> str | None:
        item, size = self.images[index].item, self.images[index].size
        try:
            height, width = _decoded_size(item.path, self.exif)
        except InputError as error:
            return failure(item, error)["reason"]
        if size is None or size == (height, width):
            return None
        return (
            f"{item.name} has {width} x {height} pixels, and its {self.labels} {size[1]} x {size[0]}; "
            "give the images that they were made for"
        )


def _decoded_size(path: Path, exif: Exif) -> tuple[int, int]:
    """Height and width of an image all of whose data can be read, as `formats.images.read_rgb` gives it.

    A JPEG is decoded at an eighth of its size, which reads all of the file and is quick.

    Raises:
        InputError: The file is missing, truncated or damaged, or no image that can be read.
    """
    with image_files.opened(path) as image:
        is_jpeg = image.format == "JPEG"
        if is_jpeg:
            image.draft(None, (1, 1))
            image.load()
    if is_jpeg:
        return image_files.read_size(path, exif)
    height, width = image_files.read_rgb(path, exif).shape[:2]
    return height, width


def _listed(failures: Sequence[Failure]) -> str:
    """The first reasons, without what to do, and how many more there are."""
    reasons = [failure["reason"] for failure in failures[:NAMED]]
    listed = "; ".join(reason.rpartition("; ")[0] or reason for reason in reasons)
    more = len(failures) - NAMED
    return f"{listed} and {more} more" if more > 0 else listed

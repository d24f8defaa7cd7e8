"""Annotations in their order: the first in memory, and of very many the rest in a temporary file (in `TMPDIR`).

What stays in memory of an annotation in the file are its place there and the id of its image, 16 bytes, and as much
again where the ids of the images do not rise. The file has no name (on Windows it goes when it is closed), so that a
killed run leaves nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from ovtool.formats import atomic
from ovtool.formats.coco_entries import Annotation, Dataset, Image
from ovtool.formats.rle import Rle

HELD = 2**18  # bytes of annotations in memory
_OBJECTS = 700  # bytes of an annotation beside the letters of its mask


class Masks(Sequence[Annotation]):
    """A list of annotations that only grows; each is read anew where it lies in the file.

    It can be handed to another process of this machine, which reads the same file, as long as this process keeps
    it; `whole` is for one of another machine.
    """

    def __init__(self, annotations: Iterable[Annotation] = ()) -> None:
        self._held: list[Annotation] = []
        self._size = 0  # of what is held
        self._images = array("q")  # the image id of each
        self._are_sorted = True  # these ids
        self._by_image: tuple[array[int], array[int]] | None = (
            None  # else: sorted, and whose they are
        )
        self._starts = array("q", [0])  # in the file, and its end
        self._file: BinaryIO | None = None
        self._is_flushed = True
        for annotation in annotations:
            self.append(annotation)

    def append(self, annotation: Annotation) -> None:
        """Adds an annotation at the end. Raises InputError where the temporary file cannot be written."""
        is_behind = bool(self._images) and annotation.image_id < self._images[-1]
        self._are_sorted = self._are_sorted and not is_behind
        self._images.append(annotation.image_id)
        self._by_image = None
        if self._size < HELD:
            self._held.append(annotation)
            self._size += _OBJECTS + len(annotation.segmentation["counts"])
            return
        line = _line(annotation)
        try:
            if self._file is None:
                self._file = _temporary()
            self._file.write(line)
        except OSError as error:
            raise atomic.temporary_error(error) from None
        self._starts.append(self._starts[-1] + len(line))
        self._is_flushed = False

    def of_image(self, image_id: int) -> list[Annotation]:
        """The annotations of an image, in their order; none for an id that has none."""
        ids, numbers = (self._images, None) if self._are_sorted else self._sorted()
        places = range(bisect_left(ids, image_id), bisect_right(ids, image_id))
        return [self[place if numbers is None else numbers[place]] for place in places]

    def _sorted(self) -> tuple[array[int], array[int]]:
        """The image ids in their order, and the number of the annotation of each."""
        if self._by_image is None:
            ids = np.frombuffer(self._images, np.int64)
            order = np.argsort(ids, kind="stable")
            self._by_image = array("q", ids[order].tobytes()), array("q", order.tobytes())
        return self._by_image

    def __len__(self) -> int:
        return len(self._held) + len(self._starts) - 1

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]  # counted from the start; IndexError
        if number < len(self._held):
            return self._held[number]
        line = number - len(self._held)
        start, stop = self._starts[line], self._starts[line + 1]
        return _annotation(self._read(start, stop))

    def __iter__(self) -> Iterator[Annotation]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __getstate__(self) -> dict[str, Any]:
        """What travels: the place of the file where another process can open it, else what it holds."""
        place = None if self._file is None else f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        if place is None or not os.path.exists(place):
            return self.whole()
        self._flush()
        return {**self.__dict__, "_file": place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._file, bytes):
            content, self._file = self._file, _temporary()
            self._file.write(content)
            self._is_flushed = False
        elif isinstance(self._file, str):
            self._file = open(self._file, "rb")

    def whole(self) -> dict[str, Any]:
        """What travels to a process that cannot open the file: all that it holds."""
        content = None if self._file is None else self._read(0, self._starts[-1])
        return {**self.__dict__, "_file": content}

    def _read(self, start: int, stop: int) -> bytes:
        """Bytes of the file; processes that share it by a fork have one place in it, which is left alone."""
        assert self._file is not None
        self._flush()
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), stop - start, start)
        self._file.seek(start)
        content = self._file.read(stop - start)
        self._file.seek(0, os.SEEK_END)
        return content

    def _flush(self) -> None:
        if not self._is_flushed and self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise atomic.temporary_error(error) from None
            self._is_flushed = True


def masks_of(dataset: Dataset) -> Callable[[int], list[Annotation]]:
    """What gives the masks of an image by its id, in the order of the file."""
    masks = dataset.annotations
    return (masks if isinstance(masks, Masks) else Masks(masks)).of_image


def by_image(dataset: Dataset) -> Iterator[tuple[Image, list[Annotation]]]:
    """Each image with its masks, in the order of the file."""
    of_image = masks_of(dataset)
    return ((image, of_image(image.id)) for image in dataset.images)


def _temporary() -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(prefix="ovtool-masks-"))


def _line(entry: Annotation) -> bytes:
    height, width = entry.segmentation["size"]
    content = [
        entry.id, entry.image_id, entry.category_id, height, width, entry.segmentation["counts"],
        entry.bbox, entry.area, entry.score, entry.extra,
    ]  # fmt: skip
    return json.dumps(content, separators=(",", ":"), default=dict).encode()


def _annotation(line: bytes) -> Annotation:
    id, image_id, category_id, height, width, counts, box, area, score, extra = json.loads(line)
    mask: Rle = {"size": [height, width], "counts": counts}
    return Annotation(id, image_id, category_id, mask, tuple(box), area, score, extra)

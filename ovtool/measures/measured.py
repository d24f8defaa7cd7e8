"""One prediction, measured; and the images of a prediction counted by several processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovtool.formats import atomic, parts
from ovtool.formats.parts import Part
from ovtool.methods.bootstrap import ImageCounts, Measure
from ovtool.runtime.engine import Advance
from ovtool.runtime.processes import Processes

_PARTS_OF_WORKER = 4  # so that the last worker is not waited for long


@dataclass(frozen=True)
class Measured:
    """One prediction.

    Attributes:
        result: What JSON holds of it, without intervals and images.
        measure: The measures that get intervals, as the bootstrap takes them.
        images: The true names of the images that count, in the order of `measure`.
        of_image: Name to the measure of each image, float64 (N,), NaN where there is nothing to divide by.
    """

    result: dict[str, Any]
    measure: Measure
    images: tuple[str, ...]
    of_image: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def per_image(self) -> list[dict[str, Any]]:
        """Each image with its measures, as JSON holds them."""
        return [
            {"file_name": name}
            | {measure: number(values[place]) for measure, values in self.of_image.items()}
            for place, name in enumerate(self.images)
        ]


def number(value: float) -> float | None:
    """As JSON can hold it: None for NaN."""
    return None if value != value else float(value)


def count_images(
    names: Sequence[str],
    count: Callable[[str], NDArray[Any]],
    workers: int,
    advance: Callable[..., None],
) -> ImageCounts:
    """What `count` makes of each image, in the order of the names.

    Args:
        names: Of the images, at least one.
        count: An image's name to an array (R, K), of one shape and dtype for all images.
        workers: The processes that share the images.
        advance: Called with the number of images done since its last call.
    """

    def counted(part: Part, done: Advance) -> Iterator[NDArray[Any]]:
        for name in names[part.start : part.stop]:
            yield count(name)
            done(1)

    if workers == 1:
        return ImageCounts.of(counted(Part(0, 0, len(names), len(names)), advance))
    with atomic.scratch_folder() as folder:

        def task(part: Part, done: Advance) -> None:
            own = ImageCounts.of(counted(part, done))
            try:
                (folder / str(part.index)).write_bytes(pickle.dumps(own))
            except OSError as error:
                raise atomic.temporary_error(error, folder.parent) from None

        cuts = parts.cut(len(names), -(-len(names) // (_PARTS_OF_WORKER * workers)))
        Processes(workers)(cuts, task, advance)
        stored = [pickle.loads((folder / str(part.index)).read_bytes()) for part in cuts]
        return ImageCounts.joined(stored)

"""`ovtool.Segmenter`: a model that is loaded once and segments one image after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import UsageError
from ovtool.formats import merge
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as image_inputs
from ovtool.inputs import words as word_inputs
from ovtool.inputs.images import AnyImage
from ovtool.masks import Masks
from ovtool.runtime import device as devices
from ovtool.segmenters import records
from ovtool.segmenters.prepare import as_method, prepared
from ovtool.settings.segment import Fused, Method
from ovtool.settings.shared import Compute
from ovtool.settings.words import Words

_Read = tuple[ImageItem, NDArray[np.uint8]]


class Segmenter:
    """Segments images by words; the model is loaded once, and nothing is written.

        segmenter = ovtool.Segmenter("teapot,apple", model="tiny")
        masks = segmenter("photo.jpg")
        masks["teapot"], masks.scores, masks.label_map, masks.overlay(), masks.to_coco()

        for masks in segmenter.map("photos/"):
            print(masks.scores)

    It gives what `ovtool.segment` and `ovtool segment` write with the same words and settings.
    """

    def __init__(
        self,
        words: Words | str | Sequence[str] = Words(),
        method: Method | str = Fused(),
        *,
        model: str | Path | None = None,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Loads the model and embeds the words.

        Args:
            words: The words: `"teapot,apple"`, `["teapot", "apple"]`, or `ovtool.Words(...)` for files,
                known vocabularies and the background. Without any, `Trained` takes all its classes.
            method: How pixels are named: `ovtool.Patch(...)`, `Fused(...)`, `TwoStage(...)`,
                `Trained(...)`, or the name of one of the first three.
            model: The CLIP: `"tiny"`, `"ARCH/PRETRAINED"`, `"hf-hub:ORG/NAME"` or a path. None is that
                of the environment variable OVTOOL_MODEL, else the default of the commands.
            device: Where to compute: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`. None is the best.
            precision: Number type of the networks; `"auto"` follows the device.
            threads: Threads that compute on the CPU. None is one for each core.
            batch_size: Windows or crops at once, halved when memory runs out. None is what the method
                takes.

        Raises:
            UsageError: An argument is unknown, or two do not go together.
            ModelError: The model cannot be had.
            InputError: A file is not there or is broken.
            MismatchError: A file belongs to another model.
        """
        asked = word_inputs.as_settings(words)
        if asked.classes_per_image is not None:
            raise UsageError(
                "words of each image need the images' names; give one list of words, or use "
                "ovtool.segment with classes_per_image"
            )
        compute = Compute(
            model=None if model is None else str(model),
            device=device,
            precision=precision,  # type: ignore[arg-type]  # which the class checks
            threads=threads,
        )
        devices.set_threads(compute.threads)
        self._method = as_method(method)
        self._again = partial(
            Segmenter,
            asked,
            self._method,
            model=model,
            device=device,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
        )
        self._segmenter = prepared(self._method, asked, (), (), compute, batch_size).load()
        self._encode = self._segmenter.encoder()
        self._info = self._segmenter.info()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are looked for, in order; of synonyms the first."""
        return tuple(names[0] for names in self._segmenter.words.classes)

    @property
    def method(self) -> Method:
        """How pixels are named."""
        return self._method

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or a process that it is sent to, loads the model anew."""
        return self._again, ()

    def __repr__(self) -> str:
        model: dict[str, Any] = self._info["ovtool"].get("model", {})
        return f"Segmenter({','.join(self.words)!r}, {self._method!r}, model={model.get('name')!r})"

    def __call__(self, image: AnyImage) -> Masks:
        """Segments one image.

        Args:
            image: An array (H, W, 3) uint8 in RGB order, a PIL image, or the path of an image file.

        Returns:
            The masks of its words.

        Raises:
            UsageError: The array has another shape or another type.
            TypeError: It is no image.
            InputError: The file is not there or cannot be read.
        """
        return self._masks(_read(image, "image"))

    def map(self, images: AnyImage | Iterable[AnyImage]) -> Iterator[Masks]:
        """Segments many images, one after another; the next is read while one is segmented.

        Args:
            images: Any iterable of what a call takes, which is never held as a whole; or the path of a
                folder (with all below it) or of an image.

        Yields:
            The masks of each image, in order.

        Raises:
            UsageError, TypeError, InputError: As a call, when the image's turn comes.
        """
        listed: Iterable[AnyImage]
        if isinstance(images, str | Path):
            listed = [item.path for item in image_inputs.find(images)]
        elif isinstance(images, Image.Image):
            listed = [images]
        elif isinstance(images, np.ndarray) and images.ndim == 3:
            listed = [images]
        else:
            listed = images
        return self._stream(listed)

    def _stream(self, images: Iterable[AnyImage]) -> Iterator[Masks]:
        with ThreadPoolExecutor(1) as reader:
            before: Future[_Read] | None = None
            for number, image in enumerate(images, start=1):
                coming = reader.submit(_read, image, f"image-{number}")
                if before is not None:
                    yield self._masks(before.result())
                before = coming
            if before is not None:
                yield self._masks(before.result())

    def _masks(self, read: _Read) -> Masks:
        item, rgb = read
        segmented = self._segmenter.segment(item, rgb, self._encode)
        words = self._segmenter.words
        own = words.of_image(item.name)
        labels, scores = records.labels_and_scores(segmented, own, words.only)
        record = records.record_of(item, labels, scores, words)
        return Masks(
            merge.merge_records([record], self._info, words.categories), labels, scores, rgb
        )


def _read(image: AnyImage, name: str) -> _Read:
    """An image with its name in COCO JSON: that of its file, else the one that is given."""
    if isinstance(image, str | Path):
        return ImageItem(Path(image), Path(image).name), image_inputs.pixels_of(image)
    return ImageItem(Path(name), name), image_inputs.pixels_of(image)

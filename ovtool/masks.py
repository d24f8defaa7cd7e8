"""What `ovtool.Segmenter` gives for an image: a mask for each word, to look at, to index, to keep."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import UsageError
from ovtool.formats import coco, overlays
from ovtool.inputs import images as image_inputs
from ovtool.inputs.images import AnyImage

UNLABELLED = 65535
MaskArray = NDArray[np.bool_]


class Masks(Mapping[str, MaskArray]):
    """The masks of one image, a mapping of word to mask.

        masks = segmenter("photo.jpg")
        masks["teapot"]                  # bool (H, W)
        masks.scores["teapot"]           # 0 to 1
        masks.overlay().save("photo.png")

    Every word that was asked for is a key, in the order in which it was asked for; the mask of one
    that is not seen is empty. Masks share no pixel. A synonym names the same mask as its word. In a
    notebook the object shows its overlay.
    """

    def __init__(
        self,
        dataset: coco.Dataset,
        labels: NDArray[np.int32],
        scores: Mapping[int, float],
        rgb: NDArray[np.uint8],
    ) -> None:
        """Made by `ovtool.Segmenter`.

        Args:
            dataset: The result as a data set of one image.
            labels: The index of each pixel's word, int32 (H, W), -1 where it has none.
            scores: The mean probability of each word by index.
            rgb: The image, uint8 (H, W, 3).
        """
        self._dataset, self._labels, self._rgb = dataset, labels, rgb
        names = [category.name for category in dataset.categories]
        self._scores = {name: float(scores.get(k, 0.0)) for k, name in enumerate(names)}
        self._index = {
            name: k
            for k, category in enumerate(dataset.categories)
            for name in (category.name, *category.synonyms)
        }

    @property
    def words(self) -> tuple[str, ...]:
        """The words that were asked for, in order; of synonyms the first."""
        return tuple(self._scores)

    @property
    def scores(self) -> dict[str, float]:
        """Word to score in [0, 1]: the mean probability of its pixels, 0 for a word that is not seen."""
        return dict(self._scores)

    @property
    def label_map(self) -> NDArray[np.uint16]:
        """The index of each pixel's word in `words`, uint16 (H, W); 65535 is a pixel without a word."""
        return np.where(self._labels < 0, UNLABELLED, self._labels).astype(np.uint16)

    def __getitem__(self, word: str) -> MaskArray:
        """The mask of a word, bool (H, W), True where the word is.

        Raises:
            KeyError: The word was not asked for.
        """
        if word not in self._index:
            raise KeyError(f"{word!r} was not asked for; the words are {', '.join(self.words)}")
        mask: MaskArray = self._labels == self._index[word]
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    __eq__ = object.__eq__  # arrays of truths are no truth
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        height, width = self._labels.shape
        shares = {word: float(mask.mean()) for word, mask in self.items()}
        seen = sorted(
            (word for word in shares if shares[word]), key=lambda word: shares[word], reverse=True
        )
        listed = ", ".join(f"{word} {shares[word]:.1%}" for word in seen) or "no word is seen"
        return f"Masks({width} x {height}: {listed})"

    def overlay(self, image: AnyImage | None = None) -> Image.Image:
        """The image with its masks in their words' colours, and a legend below it.

        Args:
            image: What to draw on: an array (H, W, 3) uint8, a PIL image or a path, of the size that was
                segmented. None is the image itself.

        Raises:
            UsageError: It has another size.
        """
        rgb = self._rgb if image is None else image_inputs.pixels_of(image)
        if rgb.shape[:2] != self._labels.shape:
            height, width = self._labels.shape
            raise UsageError(
                f"the image is {rgb.shape[1]} x {rgb.shape[0]} and the masks are {width} x {height}; give "
                "the image that was segmented"
            )
        drawn = overlays.overlay(rgb, self._labels, self.words, [*self._scores.values()])
        return Image.fromarray(drawn)

    def to_coco(self) -> dict[str, Any]:
        """The result as the content of a COCO JSON, as `ovtool segment` writes it: `info`, `licenses`,
        `images`, `annotations` with masks as compressed RLE, and `categories`."""
        return coco.document(self._dataset)

    def _repr_png_(self) -> bytes:
        """The overlay as PNG, which a notebook shows."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, "PNG")
        return buffer.getvalue()

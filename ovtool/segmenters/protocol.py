"""What the ways to name pixels share: `patch` and `fused` (dense), `two_stage`, `trained`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.formats.images import ImageItem
from ovtool.inputs.words import WordSet
from ovtool.methods.class_maps import ClassMap, Rows
from ovtool.runtime.device import Halving


class Segmented(NamedTuple):
    """What becomes of an image.

    Attributes:
        class_map: The class of each pixel, as an index into the words of the image.
        rows: The logits that the class map came from.
        classes: The number of classes in them; the words of the image come first, and the background
            is the last if there is one.
        heat: What heat maps show in place of probabilities, (classes, rows, W) in [0, 1].
    """

    class_map: ClassMap
    rows: Rows
    classes: int
    heat: Rows | None = None


class Segmenter(Protocol):
    """A loaded model with the words of a run, ready for one image after another."""

    @property
    def words(self) -> WordSet:
        """The words of the run, of which each image has all or some."""

    @property
    def device(self) -> torch.device:
        """Where the work is computed."""

    def encoder(self) -> Halving[Any, Tensor]:
        """The network in batches, new for each part so that parts do not depend on each other."""

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """Names the pixels of one image.

        Args:
            item: The image, whose name may choose its words and its proposals.
            rgb: Its pixels, uint8 (H, W, 3).
            encode: The network, as `encoder` gives it.
        """

    def info(self) -> dict[str, Any]:
        """The `info` of the output: all that shapes the result, and no path."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is known of a segmenter before a CLIP is loaded: bad arguments do not wait for that.

    Attributes:
        words: The words of the run.
        load: Loads the model.
    """

    words: WordSet
    load: Callable[[], Segmenter]

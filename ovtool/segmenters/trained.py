"""`trained`: the classes that a network of train-segmenter knows.

All its classes compete at each pixel, also those that are not among --classes. Pixels of these classes
and of the background have no label, unless --classes names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import UsageError
from ovtool.formats import labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import words as word_inputs
from ovtool.inputs.words import WordSet
from ovtool.methods import class_maps
from ovtool.models import segmenter as networks
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving
from ovtool.segmenters import edges, provenance
from ovtool.segmenters.protocol import Prepared, Segmented
from ovtool.settings.layers import layered
from ovtool.settings.segment import Trained
from ovtool.settings.shared import Compute
from ovtool.settings.words import Words


@dataclass(frozen=True, eq=False)
class TrainedSegmenter:
    """A trained network with the classes of a run.

    Attributes:
        trained: The network and what its file says.
        words: The classes of the run.
        order: The network's classes, those of `words` first.
        method: What was asked for.
        device: Where the work is computed.
        dtype: The number type that the network is computed in.
    """

    trained: networks.Trained
    words: WordSet
    order: tuple[int, ...]
    method: Trained
    device: torch.device
    dtype: torch.dtype

    @property
    def short_side(self) -> int:
        """The shorter side of an image as the network sees it, in pixels."""
        return self.method.short_side or self.trained.short_side

    def encoder(self) -> Halving[Any, Tensor]:
        """The network on an image and its mirror image."""

        def run(pixels: Any) -> Tensor:
            with devices.autocast(self.device, self.dtype):
                logits: Tensor = self.trained.network(pixels)
            return logits

        return devices.Halving(run, 2)

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """The class map of one image, uint8 (H, W, 3), over the classes of the run."""
        method, size = self.method, (rgb.shape[0], rgb.shape[1])
        own = networks.rows(
            self.trained.network, rgb, self.short_side, method.scales or (1.0,), method.flip, encode
        )
        own = edges.refined(own, rgb, len(self.order), method.crf)
        order = torch.tensor(self.order)

        def rows(start: int, stop: int) -> Tensor:
            logits = own(start, stop)
            return logits[order.to(logits.device)]

        kept = len(self.words.classes)
        class_map = class_maps.label_blocks(rows, size, len(self.order), kept, method.min_score)
        return Segmented(class_map, rows, len(self.order))

    def info(self) -> dict[str, Any]:
        """The `info` of the output."""
        trained = self.trained
        settled = {"segmenter": trained.weights, "short_side": self.short_side}
        more = {
            **provenance.of_only(self.words),
            "architecture": trained.architecture,
            "precision": provenance.of_precision(self.dtype),
        }
        model = None
        if trained.model is not None and trained.fingerprint is not None:
            model = {"name": trained.model, "fingerprint": trained.fingerprint}
        _, origins = layered(self.method)
        return provenance.info(self.method, origins, settled, more, model)


def prepared(
    method: Trained, words: Words, compute: Compute, batch_size: int | None = None
) -> Prepared:
    """The network, loaded since its classes are the words of the run.

    Raises:
        UsageError: Words that it does not know, or settings of a CLIP, are given.
        InputError: The file is not there or is broken.
        MismatchError: It is a file of another kind, or stands on another CLIP than the model.
    """
    _refuse(words, batch_size)
    device = devices.choose(compute.device)
    dtype = devices.precision(compute.precision, device)
    trained = networks.load(method.segmenter, device, compute.model)
    word_set, order = classes_of(trained, words)
    segmenter = TrainedSegmenter(trained, word_set, order, method, device, dtype)
    return Prepared(word_set, lambda: segmenter)


def _refuse(words: Words, batch_size: int | None) -> None:
    """Raises UsageError where options are given that name other words, or that only a CLIP takes."""
    given = {
        "--vocabulary": words.vocabulary,
        "--classes-per-image": words.classes_per_image,
        "--background": words.background,
        "--batch-size": batch_size,
    }
    flags = [flag for flag, value in given.items() if value is not None]
    if flags:
        raise UsageError(
            f"{flags[0]} means nothing to --segmenter, which knows its own classes; leave it out "
            "(--classes chooses among them)"
        )


def classes_of(trained: networks.Trained, words: Words) -> tuple[WordSet, tuple[int, ...]]:
    """The classes of a run, and the network's classes with those of the run first.

    Args:
        trained: The network.
        words: Some of its classes; none means all but the background.

    Raises:
        UsageError: The network does not know a class.
        InputError: The file of classes cannot be read.
    """
    names = trained.names
    if words.classes is None and words.classes_file is None:
        order = [index for index in range(len(names)) if index != trained.background]
        classes: tuple[tuple[str, ...], ...] = tuple((names[index],) for index in order)
    else:
        classes = word_inputs.of_classes(words).classes
        place = {name.casefold(): k for k, name in enumerate(names)}
        order = []
        for synonyms in classes:
            known = [place[word.casefold()] for word in synonyms if word.casefold() in place]
            if not known:
                raise UsageError(
                    f"the segmenter knows no class '{synonyms[0]}'; it knows {labelled.shortened(names)}"
                )
            order.append(known[0])
    others = [index for index in range(len(names)) if index not in order]
    return WordSet(classes).writing(words.only), (*order, *others)

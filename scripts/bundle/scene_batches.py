"""Batches of collage scenes for training: images, labels and captions, a function of (seed, step)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from restyle import restyle
from torch.utils.data import IterableDataset

from ovtool.datasets import art, collage
from ovtool.datasets.captions import caption
from ovtool.datasets.nouns import GROUNDS, table

# Large single objects, partly cut off: most tokens per object for the least arithmetic.
CLOSE = replace(collage.SINGLE, sides=(0.6, 1.0), visible=0.7)
MIDDLE = replace(collage.LAW, objects=(1, 3), sides=(0.25, 0.70), visible=0.6)


@dataclass(frozen=True)
class SceneBatch:
    """pixels: uint8 (B, size, size, 3); nouns: float32 (B, N) and grounds: float32 (B, G), each row
    summing to one over what the image shows; captions: one an image."""

    pixels: torch.Tensor
    nouns: torch.Tensor
    grounds: torch.Tensor
    captions: list[str]


def drawing_bank(side: int, styles: tuple[str, ...]) -> dict[str, list[Image.Image]]:
    """The training drawings of some styles, `side` pixels at most, as the scene law takes them."""
    bank = {}
    for name, drawings in art.train_drawings(styles).items():
        bank[name] = [Image.fromarray(drawing) for drawing in drawings]
        for drawing in bank[name]:
            drawing.thumbnail((side, side), Image.Resampling.BOX)
    return bank


class SceneBatches(IterableDataset[SceneBatch]):
    """Batches from step `start` on, for ever; `stage(step)` says law and image size of a step.

    Drawings are of `styles`, each restyled unless `restyled` is false. With several workers each makes every n-th batch, so the order does not depend on their number.
    """

    def __init__(
        self,
        seed: int,
        start: int,
        batch_size: int,
        stage: Callable[[int], tuple[collage.SceneLaw, int]],
        styles: tuple[str, ...] = tuple(art.TRAIN_STYLES),
        restyled: bool = True,
    ) -> None:
        self.seed, self.start, self.batch_size, self.stage = seed, start, batch_size, stage
        self.styles, self.restyle = styles, restyle if restyled else None

    def __iter__(self) -> Iterator[SceneBatch]:
        torch.set_num_threads(1)
        bank = drawing_bank(96, self.styles)
        worker = torch.utils.data.get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while True:
            yield self._batch(step, bank)
            step += stride

    def _batch(self, step: int, bank: collage.Drawings) -> SceneBatch:
        law, size = self.stage(step)
        noun_index = {noun.name: index for index, noun in enumerate(table())}
        pixels = np.empty((self.batch_size, size, size, 3), np.uint8)
        nouns = np.zeros((self.batch_size, len(noun_index)), np.float32)
        grounds = np.zeros((self.batch_size, len(GROUNDS)), np.float32)
        captions = []
        for row in range(self.batch_size):
            rng = collage.scene_generator("train", self.seed, step * self.batch_size + row)
            scene = collage.compose(
                rng, law, bank, collage.SPLIT_CODES["train"], size, self.restyle
            )
            pixels[row] = scene.pixels
            for name in scene.objects:
                nouns[row, noun_index[name]] = 1
            for index, name in enumerate(scene.grounds):
                grounds[row, GROUNDS.index(name)] = (scene.ground_map == index).mean()
            captions.append(caption(rng, scene.objects, scene.grounds))
        nouns /= nouns.sum(1, keepdims=True)
        return SceneBatch(
            torch.from_numpy(pixels), torch.from_numpy(nouns), torch.from_numpy(grounds), captions
        )

"""What `semples.py` measures: seeds and pseudo masks of the collage against its truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, max_pool2d

from ovtool.datasets import registry
from ovtool.datasets.nouns import COOCCUR_NOUNS, GROUNDS, class_names, table
from ovtool.formats import cams, label_maps
from ovtool.methods import bootstrap, metrics, pseudo_masks
from ovtool.methods.bootstrap import ImageCounts, Measure
from ovtool.methods.pseudo_masks import Background
from ovtool.settings.evaluate import MeanIou
from ovtool.stages import evaluate

CLASSES = tuple(COOCCUR_NOUNS)  # numbers 1 to 20; 0 is the background
HOME = {noun.name: noun.ground for noun in table() if noun.name in CLASSES}
PAIRED = tuple(name for name in CLASSES if HOME[name] is not None)
NEAREST = 5
AROUND = 8  # pixels from an object to the ground that it lies on

Figures = dict[str, float]


def pairs() -> torch.Tensor:
    """The ground of each class, an index of GROUNDS: int64 (1 + 20,), -1 for none."""
    results = [-1]
    for name in CLASSES:
        ground = HOME[name]
        results.append(-1 if ground is None else GROUNDS.index(ground))
    return torch.tensor(results)


def truth_of(data: registry.DataSet, file_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The class of each pixel, int64 (H, W), 0 where there is none, and its ground, -1 on objects."""
    split = data.images.name
    folder = data.images.parents[1] / "label_maps" / split
    labels = torch.from_numpy(label_maps.read(folder / f"{Path(file_name).stem}.png")).long()
    is_ground = labels >= len(CLASSES)
    return torch.where(is_ground, 0, labels + 1), torch.where(is_ground, labels - len(CLASSES), -1)


def false_foreground(seed: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Pixels that a seed calls a class and the truth calls background (0): bool, of their shape. Where the
    truth is below 0 it says nothing."""
    return (seed > 0) & (truth == 0)


def paired_share(
    false: torch.Tensor, seed: torch.Tensor, ground: torch.Tensor, pairs: torch.Tensor
) -> tuple[int, int]:
    """Of the false foreground, how many pixels lie on the ground that goes with the class, and how many
    could: (on the paired ground, all of classes that have one).

    false: bool (H, W). seed: int64 (H, W), classes from 1. ground: int64 (H, W). pairs: int64 (C + 1,), the
    ground of each class, -1 for none.
    """
    home = pairs[seed.clamp(min=0)]
    counted = false & (home >= 0)
    return int((counted & (ground == home)).sum()), int(counted.sum())


@dataclass(frozen=True)
class Counted:
    """What the figures of seeds need of each of N images.

    Attributes:
        classes: of the mean IoU, background first.
        pixels: numbers of pixels, float64 (N,) each. `foreground` is called a class; of it `false` is background,
            `on_paired` the ground that goes with the class, and `could` false, of a class that has such a ground.
            `home` and `away` are the bare ground that an object lies on, where that is the ground of its class
            and where it is another; of it `home_called` and `away_called` are called this class.
    """

    classes: ImageCounts
    pixels: Mapping[str, NDArray[np.float64]]

    def share(self, part: str, whole: str) -> Measure:
        """The share that one number of pixels is of another, as a measure named `share`."""
        return bootstrap.ratio("share", self.pixels[part], self.pixels[whole])


def counted(file: Path, data: registry.DataSet, background: Background | None = None) -> Counted:
    """The numbers of maps as seeds, each image's background at Otsu's threshold unless given."""
    results = cams.read(file)
    names = {each.id: each.name for each in results.categories}
    count = len(CLASSES) + 1
    confusions, rows = [], []
    for image in results.images:
        maps = results.of(image.id)[None]
        maps = interpolate(maps, (image.height, image.width), mode="bilinear")[0]
        local, _ = pseudo_masks.labels(maps, background or Background())
        numbers = [CLASSES.index(names[one]) + 1 for one in image.category_ids]
        seed = torch.tensor([0, *numbers])[local]
        true, ground = truth_of(data, image.file_name)
        confusions.append(bootstrap.image_counts(metrics.confusion(seed, true, count)))
        false = false_foreground(seed, true)
        on_paired, could = paired_share(false, seed, ground, pairs())
        row = {
            "foreground": int((seed > 0).sum()),
            "false": int(false.sum()),
            "on_paired": on_paired,
            "could": could,
        }
        rows.append(row | grounds_called(seed, true, ground, pairs()))
    pixels = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    return Counted(ImageCounts.of(confusions), pixels)


def grounds_called(
    seed: torch.Tensor, true: torch.Tensor, ground: torch.Tensor, pairs: torch.Tensor
) -> dict[str, int]:
    """Of the bare ground that each object lies on, how much is called its class: where it is the ground of the
    class, and where it is another (`Counted`).

    An object lies on the ground of most pixels around it, within `AROUND` pixels. The whole of this ground in the
    image counts. Classes without a ground of their own are left out.

    seed, true, ground: int64 (H, W). pairs: int64 (C + 1,).
    """
    numbers = dict.fromkeys(("home", "home_called", "away", "away_called"), 0)
    for one in true.unique().tolist():
        home = int(pairs[one])
        own = (true == one).float()[None, None]
        near = max_pool2d(own, 2 * AROUND + 1, stride=1, padding=AROUND)[0, 0] > 0
        around = ground[near & (ground >= 0)]
        if home < 0 or not len(around):
            continue
        under = ground == around.mode().values
        place = "home" if around.mode().values == home else "away"
        numbers[place] += int(under.sum())
        numbers[f"{place}_called"] += int((under & (seed == one)).sum())
    return numbers


def seeds(file: Path, data: registry.DataSet, background: Background | None = None) -> Figures:
    """The figures of maps as seeds, each image's background at Otsu's threshold unless given.

    miou: over 20 classes and background, where one that is predicted and nowhere true counts as 0;
    miou_truth: over those of the truth alone. false: the share of what is called a class that is
    background. paired: of this false foreground, the share on the ground that goes with the class.
    grabbed: the share of what is called a class that is background of its paired ground.
    """
    results = counted(file, data, background)
    means = bootstrap.mean_ious(results.classes)(np.ones((1, len(results.classes))))
    sums = {name: values.sum() for name, values in results.pixels.items()}
    return {
        "miou": float(means["miou_union"][0]),
        "miou_truth": float(means["miou"][0]),
        "false": float(sums["false"] / max(1, sums["foreground"])),
        "paired": float(sums["on_paired"] / max(1, sums["could"])),
        "grabbed": float(sums["on_paired"] / max(1, sums["foreground"])),
    }


def masks(file: Path, data: registry.DataSet) -> Figures:
    """mIoU of masks over 20 classes and background; what no mask covers is background."""
    results = evaluate.run(file, data.instances, MeanIou(with_background=True))
    return {"miou": results["miou_union"], "miou_truth": results["miou"]}


def nearest_hits(nearest: dict[str, list[tuple[str, float]]]) -> Figures:
    """For how many of the classes that have one the paired ground is among the nearest words."""
    results = {name: [word for word, _ in words[:NEAREST]] for name, words in nearest.items()}
    hits = [HOME[name] in results[name] for name in PAIRED]
    return {"found": sum(hits) / len(hits)}


def other_hits(nearest: Mapping[str, Sequence[tuple[str, float]]]) -> float:
    """How often the ground of another class is among the nearest words, over classes and such grounds: what
    the hits of `nearest_hits` are if prompts say the same of every class."""
    homes = {HOME[name] for name in PAIRED}
    shares = []
    for name in PAIRED:
        words = [word for word, _ in nearest[name][:NEAREST]]
        others = homes - {HOME[name]}
        shares.append(sum(ground in words for ground in others) / len(others))
    return sum(shares) / len(shares)


def write_words(file: Path) -> Path:
    """All nouns and grounds of the table, a word a line."""
    if not file.exists():
        file.write_text("".join(f"{name}\n" for name in class_names()))
    return file

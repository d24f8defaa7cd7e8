"""What `semples.py` measures: seeds and pseudo masks of the collage against its truth."""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from ovtool.datasets import registry
from ovtool.datasets.nouns import COOCCUR_NOUNS, GROUNDS, class_names, table
from ovtool.formats import cams, label_maps
from ovtool.methods import metrics, pseudo_masks
from ovtool.methods.pseudo_masks import Background
from ovtool.settings.evaluate import MeanIou
from ovtool.stages import evaluate

CLASSES = tuple(COOCCUR_NOUNS)  # numbers 1 to 20; 0 is the background
HOME = {noun.name: noun.ground for noun in table() if noun.name in CLASSES}
PAIRED = tuple(name for name in CLASSES if HOME[name] is not None)
NEAREST = 5

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


def seeds(file: Path, data: registry.DataSet, background: Background | None = None) -> Figures:
    """The figures of maps as seeds, each image's background at Otsu's threshold unless given.

    miou: over 20 classes and background, where one that is predicted and nowhere true counts as 0;
    miou_truth: over those of the truth alone. false: the share of what is called a class that is
    background. paired: of this false foreground, the share on the ground that goes with the class.
    grabbed: the share of what is called a class that is background of its paired ground.
    """
    results = cams.read(file)
    names = {each.id: each.name for each in results.categories}
    count = len(CLASSES) + 1
    confusion = np.zeros((count, count + 1), np.int64)
    foreground = false_pixels = on_paired = could = 0
    for image in results.images:
        maps = results.of(image.id)[None]
        maps = interpolate(maps, (image.height, image.width), mode="bilinear")[0]
        local, _ = pseudo_masks.labels(maps, background or Background())
        numbers = [CLASSES.index(names[one]) + 1 for one in image.category_ids]
        seed = torch.tensor([0, *numbers])[local]
        true, ground = truth_of(data, image.file_name)
        confusion += metrics.confusion(seed, true, count)
        false = false_foreground(seed, true)
        on, all_paired = paired_share(false, seed, ground, pairs())
        foreground += int((seed > 0).sum())
        false_pixels += int(false.sum())
        on_paired, could = on_paired + on, could + all_paired
    return {
        "miou": metrics.scores(confusion).miou_union,
        "miou_truth": metrics.scores(confusion).miou_truth,
        "false": false_pixels / max(1, foreground),
        "paired": on_paired / max(1, could),
        "grabbed": on_paired / max(1, foreground),
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


def write_words(file: Path) -> Path:
    """All nouns and grounds of the table, a word a line."""
    if not file.exists():
        file.write_text("".join(f"{name}\n" for name in class_names()))
    return file

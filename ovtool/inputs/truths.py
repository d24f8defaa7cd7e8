"""The truth of the probes: images with masks, and the words that compete in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets import label_files, nouns, registry, vocabularies
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, file_matching, labelled
from ovtool.formats import images as image_files
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import ImageItem
from ovtool.formats.labelled import LabelledImages
from ovtool.inputs.words import words_per_image
from ovtool.settings.shared import Source

if TYPE_CHECKING:  # `evaluate` reads no image, and starts several times as fast without it
    from torch import Tensor

STUFF = frozenset({"ground", "stuff"})  # supercategories


def files(
    data_set: str | None, coco_file: Path | None, images: Path | None
) -> tuple[Path, Path, Path | None]:
    """The COCO JSON of the truth, the folder of its images, and the word lists that come with it."""
    if (data_set is None) == (coco_file is None):
        raise UsageError(
            "give a data set such as collage:test, its folder, or --coco FILE --images DIR"
        )
    if coco_file is not None:
        return coco_file, file_matching.folder_of(images, coco_file), None
    if images is not None:
        raise UsageError("--images is the folder of --coco FILE")
    named = data_set or ""
    data = registry.of_source(named)
    if data is None and Path(named).exists():
        raise InputError(f"{named} is no folder of a data set; give --coco {named} --images DIR")
    data = data or registry.locate(named)  # which says what it could be
    lists = data.classes_per_image
    return data.masks(), data.images, lists if lists is not None and lists.exists() else None


class CompetingWords:
    """The words that compete in each image, and the truth over them.

    Attributes:
        truth: the label maps.
        classes: the names of each class. Classes of the truth have its indices; words of the lists that
            are no class of the truth have higher indices, and are wrong wherever they are predicted.
        of_image: file name to the classes of its list; empty without lists.
        all_names: every name of the classes of the run.
        mean_count: how many classes compete in an image, on average.
    """

    def __init__(self, truth: LabelledImages, lists: Path | None, images: Sequence[str]) -> None:
        self.truth = truth
        self.classes = list(truth.classes)
        index = {name.casefold(): k for k, names in enumerate(self.classes) for name in names}
        self.of_image: Mapping[str, list[int]] = {}
        if lists is not None:
            table = words_per_image(lists, images)
            self.of_image = {
                name: [
                    self._number(index, vocabularies.split_synonyms(entry)) for entry in table[name]
                ]
                for name in images
            }
        everything = (name for names in self.classes for name in names)
        self.all_names = tuple(dict.fromkeys(everything))
        self._place = {name: place for place, name in enumerate(self.all_names)}
        counts = [len(competing) for competing in self.of_image.values()] or [len(self.classes)]
        self.mean_count = sum(counts) / len(counts)

    def _number(self, index: dict[str, int], names: Sequence[str]) -> int:
        """The class of a word with its synonyms, a new one where the truth has none."""
        keys = [name.casefold() for name in names]
        if known := [index[key] for key in keys if key in index]:
            return known[0]
        self.classes.append(tuple(names))
        index.update(dict.fromkeys(keys, len(self.classes) - 1))
        return len(self.classes) - 1

    def competing(self, image: str) -> list[int]:
        """The classes that compete in an image."""
        return list(dict.fromkeys(self.of_image.get(image, range(len(self.classes)))))

    def rows(self, image: str) -> tuple[list[int], list[int]]:
        """The names that compete, as indices into `all_names`, and the place of each name's class in
        `competing`."""
        places, owner = [], []
        for place, k in enumerate(self.competing(image)):
            places += [self._place[name] for name in self.classes[k]]
            owner += [place] * len(self.classes[k])
        return places, owner

    def counted(self, image: str) -> NDArray[np.int32]:
        """The true labels, -1 where the class is not among the image's words."""
        labels = self.truth.decode(image)
        return np.where(np.isin(labels, self.competing(image)), labels, -1).astype(np.int32)


@dataclass(frozen=True)
class Probed:
    """The images of a probe, their masks and words.

    Attributes:
        name: the data set, or the name of the COCO JSON without its folder.
        source: the path of the COCO JSON, for messages.
        items: the images.
        words: the words that compete, and the truth over them.
        groups: name to the numbers of its classes (`CompetingWords`).
    """

    name: str
    source: str
    items: tuple[ImageItem, ...]
    words: CompetingWords
    groups: Mapping[str, frozenset[int]]

    def read(self, item: ImageItem) -> tuple[NDArray[np.uint8], Tensor]:
        """An image, uint8 (H, W, 3), and its labels, int64 (H, W), -1 where the class is none of the
        image's words. Raises InputError where their sizes differ."""
        import torch

        rgb, labels = item.rgb(), self.words.counted(item.name)
        if rgb.shape[:2] != labels.shape:
            raise InputError(
                f"{item.path} has another size than its masks in {self.source}; give the images that they were made for"
            )
        return rgb, torch.from_numpy(labels).long()


def open_probed(
    data_set: str | None, source: Source | None = None, classes_per_image: Path | None = None
) -> Probed:
    """Opens images with masks, and the words that compete in each.

    Groups of classes are `all`; `things` and `stuff`, by the masks' supercategory (`ground` or `stuff`)
    or `isthing`; and `base` and `new`, of things all of which are nouns of the collage.

    Args:
        data_set: a data set with masks, `NAME[:SPLIT]` or the folder of its one split; None where `source`
            names a COCO JSON.
        source: a COCO JSON with masks and the folder of its images, and their greatest number.
        classes_per_image: the words that compete in each image, JSON; a data set may bring its own;
            without any, all categories of the truth compete.

    Raises:
        UsageError: neither a data set nor a COCO JSON is named, or both are.
        InputError: a file is broken, or holds no masks.
    """
    source = source or Source()
    data = None if data_set is None else registry.of_source(data_set)
    if data is not None and source.coco is None and data.has_label_files:
        truth = label_files.without_background(label_files.opened(data))
        file, folder, listed = Path(truth.source), data.images, None
        categories = [coco.Category(k, names[0]) for k, names in enumerate(truth.classes)]
    else:
        file, folder, listed = files(data_set, source.coco, source.images)
        dataset = coco.read(file, root=folder)
        if not dataset.annotations:
            raise InputError(f"{file} holds no masks; give a file of masks to probe")
        truth, categories = labelled.from_dataset(dataset, str(file)), list(dataset.categories)
    names = truth.names[: source.limit]
    words = CompetingWords(truth, classes_per_image or listed, names)
    items = tuple(ImageItem(path_of(folder, name), name, exif=source.exif) for name in names)
    if source.exif == "upright":
        image_files.warn_of_turned(items, "masks")
    name = file.name if data_set is None or Path(data_set).exists() else data_set
    return Probed(name, str(file), items, words, _groups(categories))


def is_stuff(category: coco.Category) -> bool:
    """Whether a category is of stuff, by `isthing` or by its supercategory; others are of things."""
    return category.supercategory in STUFF or category.extra.get("isthing") == 0


def _groups(categories: Sequence[coco.Category]) -> dict[str, frozenset[int]]:
    everything = frozenset(range(len(categories)))
    stuff = frozenset(index for index, category in enumerate(categories) if is_stuff(category))
    groups = {"all": everything, "things": everything - stuff, "stuff": stuff}
    base = {noun.name: noun.base for noun in nouns.table()}
    names = {index: categories[index].name for index in everything - stuff}
    if stuff and all(name in base for name in names.values()):
        groups["base"] = frozenset(index for index, name in names.items() if base[name])
        groups["new"] = frozenset(index for index, name in names.items() if not base[name])
    return {name: members for name, members in groups.items() if members}

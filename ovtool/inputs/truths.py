"""The truth of the probes: images with masks, and the words that compete in each."""

from __future__ import annotations

import dataclasses
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
from ovtool.inputs.words import WordSet, words_per_image
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


def competing(truth: LabelledImages, lists: Path | None, images: Sequence[str]) -> WordSet:
    """The words that compete in each image: all classes of the truth, or those of its list.

    Classes of the truth have its indices; words of the lists that are none of them have higher indices, and are
    wrong wherever they are predicted.
    """
    classes = list(truth.classes)
    if lists is None:
        return WordSet(tuple(classes))
    index = {name.casefold(): k for k, names in enumerate(classes) for name in names}
    table = words_per_image(lists, images)
    per_image: dict[str, tuple[int, ...]] = {}
    for image in images:
        numbers: dict[int, None] = {}
        for names in map(vocabularies.split_synonyms, table[image]):
            keys = [name.casefold() for name in names]
            known = [index[key] for key in keys if key in index]
            if not known:
                known = [len(classes)]
                classes.append(names)
                index.update(dict.fromkeys(keys, known[0]))
            numbers[known[0]] = None
        per_image[image] = tuple(numbers)
    return WordSet(tuple(classes), per_image=per_image)


@dataclass(frozen=True)
class Probed:
    """The images of a probe, their masks and words.

    Attributes:
        name: the data set, or the name of the COCO JSON without its folder.
        source: the path of the COCO JSON, for messages.
        items: the images.
        labels: the true label maps.
        words: the words that compete in each image (`competing`).
        groups: name to the numbers of its classes.
    """

    name: str
    source: str
    items: tuple[ImageItem, ...]
    labels: LabelledImages
    words: WordSet
    groups: Mapping[str, frozenset[int]]

    @property
    def words_an_image(self) -> float:
        """How many classes compete in an image, on average."""
        counts = [len(self.words.of_image(item.name)) for item in self.items]
        return sum(counts) / max(1, len(counts))

    def read(self, item: ImageItem) -> tuple[NDArray[np.uint8], Tensor]:
        """An image, uint8 (H, W, 3), and its labels, int64 (H, W), -1 where the class is none of the
        image's words. Raises InputError where their sizes differ."""
        import torch

        rgb, labels = item.rgb(), self.labels.decode(item.name)
        if rgb.shape[:2] != labels.shape:
            raise InputError(
                f"{item.path} has another size than its masks in {self.source}; give the images that they were made for"
            )
        counted = np.where(np.isin(labels, self.words.of_image(item.name)), labels, -1)
        return rgb, torch.from_numpy(counted).long()


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
        if data_set is not None:  # in the order of the other commands; COCO's own JSON has none
            truth = dataclasses.replace(truth, names=tuple(sorted(truth.names)))
    names = truth.names[: source.limit]
    words = competing(truth, classes_per_image or listed, names)
    items = tuple(ImageItem(path_of(folder, name), name, exif=source.exif) for name in names)
    if source.exif == "upright":
        image_files.warn_of_turned(items, "masks")
    name = file.name if data_set is None or Path(data_set).exists() else data_set
    return Probed(name, str(file), items, truth, words, _groups(categories))


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

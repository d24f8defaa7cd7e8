"""A prediction and the truth that it is measured by: opened, and their images matched.

Images are matched by file name (`datasets.matching.match_images`). Images of the truth that the
prediction lacks are refused, counted as empty, or left out, as `--missing` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovtool.datasets import label_files, registry, vocabularies
from ovtool.datasets.matching import match_images
from ovtool.errors import InputError
from ovtool.formats import coco, labelled
from ovtool.formats.file_matching import image_stem
from ovtool.formats.labelled import LabelledImages
from ovtool.formats.mask_store import masks_of
from ovtool.settings import protocols


@dataclass(frozen=True, eq=False)
class MasksByName(Mapping[str, list[coco.Annotation]]):
    """The masks of images by their file names; those of an image are read when they are asked for.

    Attributes:
        ids: the id of each image.
        of_image: its masks by its id.
    """

    ids: Mapping[str, int]
    of_image: Callable[[int], list[coco.Annotation]]

    def __getitem__(self, name: str) -> list[coco.Annotation]:
        return self.of_image(self.ids[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self.ids


@dataclass(frozen=True, eq=False)
class LabelledPair:
    """Label maps of a prediction and of its truth.

    Attributes:
        truth: the true label maps.
        predicted: the predicted ones.
        names: predicted image name to true image name.
        absent: true images with no prediction.
        empty: those of them that count as unlabelled.
    """

    truth: LabelledImages
    predicted: LabelledImages
    names: Mapping[str, str]
    absent: Sequence[str]
    empty: Sequence[str]

    @property
    def images(self) -> list[str]:
        """The true names of the images that count, sorted."""
        return sorted([*self.names.values(), *self.empty])

    @property
    def predicted_name(self) -> dict[str, str]:
        """True image name to predicted image name, of the images that have a prediction."""
        return {true: own for own, true in self.names.items()}

    def counts(self) -> dict[str, int]:
        """How many images count, and how many do not, as results say it."""
        return {
            "images": len(self.names) + len(self.empty),
            "images_missing": len(self.absent),
            "images_without_truth": len(self.predicted.names) - len(self.names),
        }

    def check_size(self, name: str, own: tuple[int, ...], true: tuple[int, ...]) -> None:
        """Raises InputError where a prediction (H, W) of an image has another size than its truth."""
        if own != true:
            sizes = " and ".join(f"{w} x {h}" for h, w in (own, true))
            raise InputError(
                f"{name}: prediction and truth differ in size ({sizes} pixels); "
                f"predict on images of the size that {self.truth.source} has"
            )

    def words(self, path: Path) -> dict[str, list[str]]:
        """The words (and their synonyms) that the prediction of each true image could choose from.

        Args:
            path: a JSON file, file name to list of words.

        Raises:
            InputError: it is no JSON object of lists of words, or lacks images.
        """
        table = labelled.read_classes_per_image(path)
        by_stem = {image_stem(name): words for name, words in table.items()}
        known: dict[str, list[str]] = {}
        unknown: list[str] = []
        for predicted, name in [*self.names.items(), *((name, name) for name in self.empty)]:
            own = table.get(name, table.get(predicted, by_stem.get(image_stem(name))))
            if own is None:
                unknown.append(name)
            else:
                known[name] = [
                    synonym for word in own for synonym in vocabularies.split_synonyms(word)
                ]
        if unknown:
            raise InputError(
                f"{path} has no words for {len(unknown)} images (the first is '{unknown[0]}'); "
                "list words for every image"
            )
        return known


def truth_file(ground_truth: str, instances: bool, or_maps: bool = False) -> str:
    """What holds a truth, for `open_truth` or `open_masks`: for a data set, by name or as a folder that `data make`
    wrote, its COCO JSON of instances or of all pixels, or its name where label maps hold these; else what was
    given. With `or_maps` label maps are taken for instances where a data set has nothing else.

    Raises:
        UsageError: the data set has no such split.
        InputError: its files are not there, or the folder has several splits.
    """
    data_set = registry.of_source(ground_truth)
    if data_set is None:
        return ground_truth
    return (
        data_set.name
        if data_set.has_label_files and (or_maps or not instances)
        else str(data_set.masks(instances))
    )


def open_truth(
    source: str, protocol: str | None = None, has_segments: bool = False
) -> LabelledImages:
    """The label maps of a truth: those of a data set that has some, by its name, else of any kind of file.

    Args:
        source: the file, the folder or the name.
        protocol: the published way to measure whose classes the truth is to have.
        has_segments: whether the masks of a panoptic data set are needed one by one.

    Raises:
        UsageError: the truth has no class of the protocol.
        InputError: files are missing or broken.
    """
    data_set = registry.of_source(source) if registry.is_name(source) else None
    if data_set is None:
        truth = labelled.open_source(source)
    else:
        truth = label_files.opened(data_set, has_segments)
    if protocol is not None:
        truth = label_files.of_protocol(truth, protocols.PROTOCOLS[protocol])
    return truth


def images_folder(ground_truth: str) -> Path | None:
    """The folder of a data set's images; None where the truth is no data set."""
    data_set = registry.of_source(ground_truth)
    return None if data_set is None else data_set.images


def open_labelled(
    prediction: str,
    ground_truth: str,
    missing: str,
    protocol: str | None = None,
    has_segments: bool = False,
) -> LabelledPair:
    """Opens label maps of any kind of file, the truth as `open_truth` does.

    Raises:
        UsageError: the truth has no class of the protocol.
        InputError: a file is broken, or images of the truth have no prediction and `missing` is
            `refuse`.
    """
    truth = open_truth(ground_truth, protocol, has_segments)
    return pair(truth, labelled.open_source(prediction, truth), missing)


def pair(truth: LabelledImages, predicted: LabelledImages, missing: str) -> LabelledPair:
    """Brings the images of two together. Raises InputError for images of the truth that have no prediction
    where `missing` is `refuse`."""
    names = match_images(truth, predicted)
    present = set(names.values())
    absent = [name for name in truth.names if name not in present]
    if absent and missing == "refuse":
        raise InputError(
            f"{predicted.source} lacks {len(absent)} of the {len(truth.names)} images of "
            f"{truth.source} (the first is '{absent[0]}'); predict them, or give --missing empty "
            "to count them as wrong or --missing skip to leave them out"
        )
    return LabelledPair(truth, predicted, names, absent, absent if missing == "empty" else [])


@dataclass(frozen=True)
class MaskPair:
    """Masks of a prediction and of its truth, by the file names of the images that count.

    Attributes:
        datasets: the data sets of truth and prediction.
        truth: the true masks.
        proposed: the proposed masks, without the images that have no prediction.
        absent: the number of true images with no prediction.
        extra: the number of predicted images with no truth.
    """

    datasets: tuple[coco.Dataset, coco.Dataset]
    truth: MasksByName
    proposed: MasksByName
    absent: int
    extra: int


def open_masks(prediction: str, ground_truth: str, missing: str) -> MaskPair:
    """Opens the masks of two COCO JSONs, or folders of parts.

    Raises:
        InputError: a file is broken; images differ in size; or images of the truth have no prediction
            and `missing` is `refuse`.
    """
    truth = coco.read(ground_truth)
    proposals = coco.read(prediction, truth=truth)
    predicted = {image.file_name: image for image in proposals.images}
    absent = [image.file_name for image in truth.images if image.file_name not in predicted]
    if absent and missing == "refuse":
        raise InputError(
            f"{prediction} lacks {len(absent)} of the {len(truth.images)} images of {ground_truth} "
            f"(the first is '{absent[0]}'); propose for them, or give --missing empty to count them "
            "as not found or --missing skip to leave them out"
        )
    for image in truth.images:
        own = predicted.get(image.file_name, image)
        if (own.width, own.height) != (image.width, image.height):
            raise InputError(
                f"{image.file_name}: prediction and truth differ in size ({own.width} x {own.height} and "
                f"{image.width} x {image.height} pixels); propose on images of the truth's size"
            )
    true, proposed = _by_name(truth), _by_name(proposals)
    extra = len(set(proposed) - set(true))
    if missing == "skip":
        there = {name: id for name, id in true.ids.items() if name in proposed}
        true = MasksByName(there, true.of_image)
    return MaskPair((truth, proposals), true, proposed, len(absent), extra)


def _by_name(dataset: coco.Dataset) -> MasksByName:
    return MasksByName({i.file_name: i.id for i in dataset.images}, masks_of(dataset))

"""Masks from whatever file or folder holds them, as one data set: what `convert` reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ovtool.datasets import label_files, registry, vocabularies
from ovtool.errors import InputError, UsageError
from ovtool.formats import (
    coco,
    coco_checks,
    colour_maps,
    cvat,
    label_maps,
    labelled,
    mask_shards,
    panoptic,
    panoptic_files,
    parts,
    rle,
    yolo,
)
from ovtool.formats.coco import Dataset
from ovtool.formats.json_sections import Entries
from ovtool.formats.labelled import LabelledImages
from ovtool.formats.mask_store import Masks

VOC_RESULTS = "results/VOC2012/Segmentation"
VOC_BACKGROUND = "background"


def read(
    source: str,
    images: Path | None = None,
    ground_truth: str | None = None,
    colours: Path | None = None,
) -> Dataset:
    """The masks of a file or folder, whose format is told from what it holds.

    Args:
        source: A COCO JSON (of masks, results or panoptic segments; `-` is stdin), CVAT's XML, a shard or a folder of
            them, parts, label maps, YOLO's labels, a submission to VOC, or a data set by name or folder.
        images: The folder of the images; of panoptic segments that of the PNGs, where they are not beside the JSON.
        ground_truth: Where a list of results has its images and categories from.
        colours: The table of label maps in RGB.

    Raises:
        UsageError: A list of results without its ground truth.
        InputError: It is not there, is none of these, or is broken.
    """
    path = Path(source)
    data = None if source == "-" else registry.of_source(source)
    if data is not None:
        return _data_set(data)
    if source != "-" and not path.exists():
        raise InputError(f"no such file, folder or data set: {source}")
    if source != "-" and path.is_dir() and not parts.is_parts_folder(path):
        return _folder(path, images, colours)
    if source != "-" and cvat.is_cvat(path):
        return cvat.read(path)
    if mask_shards.is_shards(path):
        return mask_shards.read(path)
    if source != "-" and path.is_dir():
        return coco.read(path)
    return _json(source, images, ground_truth)


def _data_set(data: registry.DataSet) -> Dataset:
    """Of a data set its COCO JSON, else its panoptic segments, else a mask for each class of an image."""
    if data.panoptic is not None:
        source, folder = data.panoptic
        return panoptic.read(source, coco_checks.load_long(source)[1], folder)
    if data.maps:
        return _of_maps(label_files.without_background(label_files.opened(data)), data.images)
    return coco.read(data.masks())


def masks_file(source: str) -> Path:
    """The COCO JSON of a data set by name or folder, else the file itself."""
    data = registry.of_source(source)
    return Path(source) if data is None else data.masks()


def images_folder(source: str) -> Path | None:
    """The folder of the images of a data set, or of YOLO's labels; None where it is not known."""
    if source == "-":
        return None
    data = registry.of_source(source)
    if data is not None:
        return data.images
    return yolo.images_folder(Path(source)) if yolo.is_yolo(Path(source)) else None


def is_coloured(source: str) -> bool:
    """Whether a source is a folder of label maps whose classes are colours: it is of no other kind, and has no
    names of classes."""
    folder = Path(source)
    others = (labelled.CLASSES_FILE, VOC_RESULTS, "annotations")
    is_other = any((folder / name).exists() for name in others) or mask_shards.is_shards(folder)
    is_other = is_other or yolo.is_yolo(folder)
    return source != "-" and folder.is_dir() and not is_other and not parts.is_parts_folder(folder)


def _json(source: str, images: Path | None, ground_truth: str | None) -> Dataset:
    where, content = coco_checks.load_long(source)
    if panoptic_files.is_panoptic(content):
        beside = panoptic_files.images_folder(Path(source))
        return panoptic.read(Path(source), content, beside if beside.is_dir() else images)
    if isinstance(content, list | Entries) and ground_truth is None:
        raise UsageError(
            f"{where} is a list of results; give its images and classes with --ground-truth"
        )
    truth = None if ground_truth is None else coco.read(masks_file(ground_truth))
    return coco.of_json(where, content, truth=truth)


def _folder(folder: Path, images: Path | None, colours: Path | None) -> Dataset:
    if yolo.is_yolo(folder):
        return yolo.read(folder, images)
    if mask_shards.is_shards(folder):
        return mask_shards.read(folder)
    results = folder / VOC_RESULTS
    if results.is_dir():
        return _voc(results, images)
    if colours is not None and is_coloured(str(folder)):
        return _of_maps(colour_maps.open_folder(folder, colour_maps.read_table(colours)), images)
    return _of_maps(labelled.open_source(str(folder)), images)


def _voc(results: Path, images: Path | None) -> Dataset:
    """The masks of a submission to VOC, its background left out."""
    voc = vocabularies.named("voc20")
    paths = labelled.label_maps_by_stem(results)
    names = {name.rpartition("/")[2]: path for name, path in paths.items()}
    maps = LabelledImages(
        str(results),
        classes=((VOC_BACKGROUND,), *voc.classes),
        names=tuple(names),
        decode=lambda name: label_maps.read(names[name]),
        by_stem=True,
        has_values=True,
        files=tuple(names.values()),
    )
    dataset = _of_maps(maps, images)
    categories = [replace(entry, id=entry.id - 1) for entry in dataset.categories[1:]]
    kept = (entry for entry in dataset.annotations if entry.category_id > 1)
    masks = Masks(
        replace(entry, id=number, category_id=entry.category_id - 1)
        for number, entry in enumerate(kept, start=1)
    )
    return replace(dataset, categories=categories, annotations=masks)


def _of_maps(maps: LabelledImages, folder: Path | None) -> Dataset:
    """A mask for each class of each label map; images are named by `folder`, else by the maps themselves."""
    endings = {} if folder is None else labelled.images_of(maps, folder)
    images: list[coco.Image] = []
    annotations = Masks()
    for number, name in enumerate(maps.names, start=1):
        labels = maps.decode(name)
        if labels.size and labels.max() >= len(maps.classes):
            raise InputError(
                f"{maps.source}: {name} holds the label {labels.max()}, but {len(maps.classes)} classes are "
                "named; complete their names"
            )
        file_name = endings[name].name if name in endings else f"{name}.png"
        images.append(coco.Image(number, file_name, labels.shape[1], labels.shape[0]))
        for index, mask in rle.encode_label_map(labels, range(len(maps.classes))).items():
            annotations.append(coco.annotation(len(annotations) + 1, number, index + 1, mask, None))
    categories = [
        coco.Category(number, words[0], synonyms=tuple(words[1:]))
        for number, words in enumerate(maps.classes, start=1)
    ]
    return Dataset({}, images, annotations, categories)

"""A data set in a folder, whole: its annotation files, images and label maps, as `check` and `info` go through it."""

from dataclasses import dataclass
from pathlib import Path

from ovtool.datasets import registry
from ovtool.formats import image_search, labelled
from ovtool.formats.images import ImageItem


@dataclass(frozen=True)
class DataFolder:
    """What a folder of a data set holds.

    layout: `COCO` (as `data make` writes it, too) or `VOC`.
    splits: the names of its splits.
    annotations: the annotation files, JSON or XML, each with the folder that its file names start from.
    images: the image files, without label maps.
    label_maps: the label maps, PNG.
    """

    layout: str
    splits: tuple[str, ...]
    annotations: tuple[tuple[Path, Path], ...]
    images: tuple[ImageItem, ...]
    label_maps: tuple[Path, ...]


def opened(folder: Path) -> DataFolder:
    """The files of a data set's folder; none of them is read. Raises InputError where a folder of images holds
    none."""
    if (folder / "JPEGImages").is_dir():
        return _voc(folder)
    splits = registry.splits_in(folder)
    homes = {name: files.images for name, files in splits.items()}
    existing = [str(home) for home in dict.fromkeys(homes.values()) if home.is_dir()]
    return DataFolder(
        "COCO",
        tuple(splits),
        tuple(
            (path, homes.get(path.stem.partition("_")[2], folder))
            for path in sorted(folder.glob("annotations/*.json"))
        ),
        tuple(item for home in existing for item in image_search.find_images([home])),
        tuple(labelled.label_map_files(folder / "label_maps")),
    )


def _voc(folder: Path) -> DataFolder:
    home = folder / "JPEGImages"
    lists = folder.glob("ImageSets/Segmentation/*.txt")
    return DataFolder(
        "VOC",
        tuple(sorted(path.stem for path in lists)),
        tuple((path, home) for path in sorted(folder.glob("Annotations/*.xml"))),
        tuple(image_search.find_images([str(home)])),
        tuple(labelled.label_map_files(folder / "SegmentationClass")),
    )

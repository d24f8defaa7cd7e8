"""Data sets by name: `NAME[:SPLIT]` to the files it is made of.

`collage` is made in the cache at its first use; `coco`, `coco14` and `voc` lie where detectron2
keeps them, below `$DETECTRON2_DATASETS` (`./datasets` without it).
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovtool.datasets.collage import SPLIT_CODES
from ovtool.errors import InputError, UsageError
from ovtool.formats import cache


@dataclass(frozen=True)
class DataSet:
    """Where the files of a data set lie; None for what it does not have.

    images: the folder that file names start from.
    instances, semantic, captions: COCO JSON files.
    classes_per_image: JSON, file name to list of words.
    objects: a folder of VOC's XML files, one an image, with the names of its objects.
    file_names: those of the split, where the folder holds other images too.
    """

    name: str
    images: Path
    instances: Path | None = None
    semantic: Path | None = None
    captions: Path | None = None
    classes_per_image: Path | None = None
    objects: Path | None = None
    file_names: tuple[str, ...] | None = None

    def masks(self, only_instances: bool = False) -> Path:
        """The COCO JSON of its masks: of whole classes where it has them, unless those of single objects are
        wanted. Raises InputError where it has none."""
        masks = self.instances if only_instances else self.semantic or self.instances
        if masks is None or not masks.exists():
            reason = f"{masks} is not there" if masks else "name another data set"
            raise InputError(f"{self.name} has no masks with names; {reason}")
        return masks


# name: (splits, the default split, a description)
DATA_SETS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "collage": (
        tuple(SPLIT_CODES),
        "demo",
        "emoji art on textured grounds: masks, captions, word lists; needs no download but for train",
    ),
    "coco": (
        ("train2017", "val2017"),
        "val2017",
        "COCO 2017 with its captions, below $DETECTRON2_DATASETS/coco",
    ),
    "coco14": (
        ("train", "val"),
        "val",
        "COCO 2014, the split of weakly supervised work, below $DETECTRON2_DATASETS/coco",
    ),
    "voc": (
        ("train", "train_aug", "val", "trainval"),
        "val",
        "Pascal VOC 2012, its segmentation splits, below $DETECTRON2_DATASETS/VOC2012",
    ),
}
# How many images each split of `collage` has when it is used by name, at seed 7 and 256 pixels.
COLLAGE_IMAGES = {"train": 2000, "val": 200, "test": 200, "demo": 24}


def is_name(text: str) -> bool:
    """Whether the text is a data set's name, with or without a split."""
    return text.partition(":")[0] in DATA_SETS


def split_name(text: str) -> tuple[str, str]:
    """The data set and the split that a name means. Raises UsageError for unknown ones."""
    name, _, split = text.partition(":")
    if name not in DATA_SETS:
        raise UsageError(f"unknown data set '{name}'; choose from {', '.join(DATA_SETS)}")
    splits, default, _ = DATA_SETS[name]
    if split and split not in splits:
        raise UsageError(f"{name} has no split '{split}'; choose from {', '.join(splits)}")
    return name, split or default


def locate(text: str) -> DataSet:
    """The files of a data set; `collage` is made where it is not there yet.

    Raises UsageError for an unknown name, InputError where its files are not.
    """
    name, split = split_name(text)
    if name == "voc":
        return _voc(split)
    if name == "coco14":
        return _coco(text=f"coco14:{split}", folder=f"{split}2014")
    return _collage(split) if name == "collage" else _coco(text=f"coco:{split}", folder=split)


def of_source(text: str) -> DataSet | None:
    """The data set that a source names: by its name, where no file has that, or as the folder of its one split,
    as `data make` writes it. None for other files and folders. Raises as `locate` and `in_folder`."""
    path = Path(text)
    if is_name(text) and not path.exists():
        return locate(text)
    return in_folder(path) if (path / "annotations").is_dir() else None


def image_id(data_set: DataSet, file_name: str) -> int | None:
    """The id that a data set gives an image of its own, so that results can be scored against its annotations
    as they are: COCO and `collage` write it in the file name. None where it has none, as VOC."""
    numbered = data_set.name.partition(":")[0] in ("coco", "coco14", "collage")
    digits = re.fullmatch(r"(?:COCO_\w+2014_)?(\d+)", PurePosixPath(file_name).stem)
    return int(digits[1]) if numbered and digits else None


def collage_in(folder: Path, split: str) -> DataSet:
    """The files of a collage data set that lies in `folder`."""
    annotations = folder / "annotations"
    return DataSet(
        name=f"collage:{split}",
        images=folder / "images" / split,
        instances=annotations / f"instances_{split}.json",
        semantic=annotations / f"semantic_{split}.json",
        captions=annotations / f"captions_{split}.json",
        classes_per_image=annotations / f"classes_{split}.json",
    )


def in_folder(folder: Path) -> DataSet:
    """The files of the one split of a data set in a folder. Raises InputError for none, or several."""
    splits = splits_in(folder)
    if len(splits) != 1:
        there = (
            f"the splits {', '.join(splits)}" if splits else "no annotations/instances_SPLIT.json"
        )
        raise InputError(f"{folder} has {there}; name the JSON of one split in place of the folder")
    return next(iter(splits.values()))


def splits_in(folder: Path) -> dict[str, DataSet]:
    """The splits of a data set in a folder, by name, laid out as `data make` and COCO lay it out:
    `images/SPLIT` or `SPLIT`, and `annotations/instances_SPLIT.json`, `captions_SPLIT.json`, ..."""
    names = {path.stem.partition("_")[2] for path in folder.glob("annotations/*_*.json")}
    splits = {}
    for name in sorted(names):
        files = collage_in(folder, name)
        if not files.images.is_dir():
            files = dataclasses.replace(files, name=str(folder), images=folder / name)
        splits[name] = files
    return splits


def cached_collage(split: str) -> DataSet:
    """The files of `collage:SPLIT` as they lie in the cache, made or not."""
    from ovtool.datasets import collage_files

    spec = collage_files.CollageSpec(split, COLLAGE_IMAGES[split])
    return collage_in(cache.folder() / "collage" / collage_files.digest(spec), split)


def is_made(files: DataSet) -> bool:
    """Whether a collage data set is whole: its word lists are written last."""
    return files.classes_per_image is not None and files.classes_per_image.exists()


def _collage(split: str) -> DataSet:
    from ovtool.datasets import collage_files

    files = cached_collage(split)
    if not is_made(files):
        spec = collage_files.CollageSpec(split, COLLAGE_IMAGES[split])
        collage_files.make(spec, files.images.parents[1])
    return files


def _root() -> Path:
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def _coco(text: str, folder: str) -> DataSet:
    root = _root() / "coco"
    images = root / folder
    if not images.is_dir():
        raise InputError(f"{text} is not at {images}; put COCO there, or set DETECTRON2_DATASETS")
    annotations = root / "annotations"
    return DataSet(
        name=text,
        images=images,
        instances=annotations / f"instances_{folder}.json",
        captions=annotations / f"captions_{folder}.json",
    )


def _voc(split: str) -> DataSet:
    """Pascal VOC 2012 as its archive unpacks it, in a folder VOC2012 or VOCdevkit/VOC2012. The list of
    `train_aug`, of the SBD authors, is no part of it: it goes beside the others."""
    places = [_root() / "VOC2012", _root() / "VOCdevkit" / "VOC2012"]
    root = next((place for place in places if place.is_dir()), places[0])
    if not root.is_dir():
        raise InputError(
            f"voc:{split} is not at {root}; put Pascal VOC 2012 there, or set DETECTRON2_DATASETS"
        )
    lists = root / "ImageSets" / "Segmentation"
    named = [lists / f"{name}.txt" for name in dict.fromkeys((split, split.replace("_", "")))]
    listed = next((path for path in named if path.is_file()), None)
    if listed is None:
        raise InputError(f"voc:{split} needs the list of its images at {named[0]}; put it there")
    # some lists hold paths of images and masks in place of ids
    ids = [Path(line.split()[0]).stem for line in listed.read_text().splitlines() if line.strip()]
    return DataSet(
        name=f"voc:{split}",
        images=root / "JPEGImages",
        objects=root / "Annotations",
        file_names=tuple(f"{name}.jpg" for name in ids),
    )

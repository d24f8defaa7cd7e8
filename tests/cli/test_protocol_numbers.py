"""What `evaluate --protocol` measures, by numpy alone: three images of random labels in the layout of each data set.

The numbers are counted as mmsegmentation does (`IoUMetric`: a histogram over all images, the mean over the classes of
truth or prediction). What a value of a label map means is taken from the data sets' tools, not from our reader:
`reduce_zero_label` of mmsegmentation for VOC20, Pascal Context 59 and ADE20K; GroupViT's convert_coco_object.py, in
which stuff and pixels in doubt are background; cityscapesScripts' labels.py; R // 10 * 256 + G of ADE20K's toolkit.
"""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks
from scipy.io import savemat

from ovtool.cli.errors import run
from ovtool.datasets import label_files
from ovtool.settings.protocols import PROTOCOLS
from tests.datasets import sets

SIZE = (7, 9)
STEMS = ("2008_000001", "2008_000002", "2008_000003")
ROAD_TO_BICYCLE = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
THINGS = [k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def voc(root, stem, values):
    sets.image(root / "VOC2012" / "JPEGImages" / f"{stem}.jpg")
    save(root / "VOC2012" / "SegmentationClass" / f"{stem}.png", values.astype(np.uint8))
    for split in ("train", "val"):
        sets.text(root / "VOC2012" / "ImageSets" / "Segmentation" / f"{split}.txt", *STEMS)
    return f"{stem}.jpg"


def context(root, stem, values):
    home = root / "VOCdevkit" / "VOC2010"
    sets.image(home / "JPEGImages" / f"{stem}.jpg")
    save(home / "SegmentationClassContext" / f"{stem}.png", values.astype(np.uint8))
    sets.text(home / "ImageSets" / "SegmentationContext" / "val.txt", *STEMS)
    return f"{stem}.jpg"


def context_459(root, stem, values):
    home = root / "VOCdevkit" / "VOC2010"
    sets.image(home / "JPEGImages" / f"{stem}.jpg")
    (home / "trainval").mkdir(exist_ok=True)
    savemat(home / "trainval" / f"{stem}.mat", {"LabelMap": values.astype(np.uint16)})
    sets.text(home / "pascalcontext_val.txt", *STEMS)
    sets.text(home / "labels.txt", *(f"{k}: thing {k}" for k in range(1, 460)))
    return f"{stem}.jpg"


def ade(root, stem, values):
    home = root / "ADEChallengeData2016"
    sets.image(home / "images" / "validation" / f"{stem}.jpg")
    save(home / "annotations" / "validation" / f"{stem}.png", values.astype(np.uint8))
    return f"{stem}.jpg"


def ade_full(root, stem, values):
    home = root / "ADE20K_2021_17_01"
    names = np.empty(3688, dtype=object)
    names[:] = [f"thing {k}" for k in range(1, 3689)]
    home.mkdir(parents=True, exist_ok=True)
    savemat(home / "index_ade20k.mat", {"index": {"objectnames": names}})
    folder = home / "images" / "ADE" / "validation" / "urban"
    sets.image(folder / f"{stem}.jpg")
    save(
        folder / f"{stem}_seg.png",
        np.stack([values // 256 * 10, values % 256, values * 0 + 3], 2).astype(np.uint8),
    )
    return f"urban/{stem}.jpg"


def stuff(root, stem, values):
    sets.image(root / "coco" / "val2017" / f"{stem}.jpg")
    save(root / "coco" / "stuffthingmaps" / "val2017" / f"{stem}.png", values.astype(np.uint8))
    return f"{stem}.jpg"


def cityscapes(root, stem, values):
    home = root / "cityscapes"
    sets.image(home / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png")
    save(home / "gtFine" / "val" / "ulm" / f"{stem}_gtFine_labelIds.png", values.astype(np.uint8))
    return f"ulm/{stem}_leftImg8bit.png"


def coco(root, stem, values):
    """instances_val2014.json with the runs of each mask, column by column; 0 is no mask."""
    path = root / "coco" / "annotations" / "instances_val2014.json"
    content = {"images": [], "annotations": [], "categories": []}
    if path.exists():
        content = json.loads(path.read_text())
    number, name = STEMS.index(stem) + 1, f"COCO_val2014_{STEMS.index(stem) + 1:012d}.jpg"
    sets.image(root / "coco" / "val2014" / name)
    content["categories"] = [
        {"id": k, "name": label_files.vocabulary("coco80").names[place]}
        for place, k in enumerate(THINGS)
    ]
    content["images"].append({"id": number, "file_name": name, "width": 9, "height": 7})
    for k in np.unique(values[values > 0]).tolist():
        code = masks.encode(np.asfortranarray((values == k).astype(np.uint8)))
        own = {"size": [7, 9], "counts": code["counts"].decode()}
        box, area = masks.toBbox(code).tolist(), int(masks.area(code))
        mark = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": k}
        content["annotations"].append(
            {**mark, "segmentation": own, "bbox": box, "area": area, "iscrowd": 0}
        )
    sets.text(path, json.dumps(content))
    return name


def less_one(values):
    """mmsegmentation's reduce_zero_label: 0 and 255 are not counted, the rest moves down."""
    return np.where((values == 0) | (values == 255), -1, values - 1)


def zero_last(count):
    """The class `background` comes last here, and first in mmsegmentation."""
    return lambda values: np.where(values == 255, -1, np.where(values == 0, count, values - 1))


def placed(numbers, rest=-1):
    places = {number: k for k, number in enumerate(numbers)}
    return np.vectorize(lambda value: places.get(int(value), rest))


# of each protocol: what writes the data set, the values of its maps, their classes, and how many classes there are
CASES = {
    "voc20": (voc, [*range(21), 255], less_one, 20),
    "voc21": (voc, [*range(21), 255], zero_last(20), 21),
    "voc-train-seed": (voc, [*range(21), 255], zero_last(20), 21),
    "pc59": (context, range(60), less_one, 59),
    "pc60": (context, range(60), zero_last(59), 60),
    "pc459": (context_459, range(1, 460), lambda values: values - 1, 459),
    "ade150": (ade, range(151), less_one, 150),
    "ade847": (ade_full, [2978, 312, 2420, 1, 2, 3], placed([2978, 312, 2420]), 847),
    "coco-stuff171": (
        stuff,
        [*(k - 1 for k in THINGS), *range(91, 182), 255],
        lambda values: placed([*THINGS, *range(92, 183)])(values + 1),
        171,
    ),
    "coco-object81": (
        stuff,
        [*(k - 1 for k in THINGS), *range(91, 182), 255],
        lambda values: placed(THINGS, rest=80)(values + 1),
        81,
    ),
    "cityscapes19": (cityscapes, range(34), placed(ROAD_TO_BICYCLE), 19),
    "coco14-val": (coco, [0, *THINGS], placed(THINGS, rest=80), 81),
}


def test_there_is_a_case_of_every_protocol():
    assert set(CASES) == set(PROTOCOLS)


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_a_protocol(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write, values, classes, count = CASES[name]
    monkeypatch.setattr(sets, "SIZE", SIZE)
    has_background = PROTOCOLS[name].background == "counted"
    rng = np.random.default_rng(3)
    few = rng.choice(list(values), size=8)  # so that truth and prediction meet
    histogram = np.zeros((count, count), int)
    content = {"images": [], "annotations": [], "categories": []}
    for number, stem in enumerate(STEMS, start=1):
        raw = rng.choice(few, size=SIZE)
        file_name = write(tmp_path, stem, raw)
        truth = classes(raw)
        known = np.unique(truth[truth >= 0])
        guess = np.where(
            rng.random(SIZE) < 0.5, np.maximum(truth, 0), rng.choice([*known, 0], size=SIZE)
        )
        counted = truth >= 0
        np.add.at(histogram, (truth[counted], guess[counted]), 1)
        content["images"].append({"id": number, "file_name": file_name, "height": 7, "width": 9})
        for k in np.unique(guess).tolist():
            if has_background and k == count - 1:
                continue  # what no mask covers
            code = masks.encode(np.asfortranarray((guess == k).astype(np.uint8)))
            own = {"size": list(SIZE), "counts": code["counts"].decode()}
            mark = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": k}
            content["annotations"].append(
                {**mark, "segmentation": own, "score": 0.5, "iscrowd": 0,
                 "bbox": masks.toBbox(code).tolist(), "area": int(masks.area(code))}
            )  # fmt: skip
    words = label_files.vocabulary(PROTOCOLS[name].vocabulary).names
    content["categories"] = [{"id": k, "name": word} for k, word in enumerate(words)]
    assert len(words) == count - has_background
    predicted = tmp_path / "predicted.json"
    predicted.write_text(json.dumps(content))

    assert run(["evaluate", str(predicted), "--protocol", name, "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    hits, true, union = (
        np.diag(histogram),
        histogram.sum(1),
        histogram.sum(0) + histogram.sum(1) - np.diag(histogram),
    )
    iou = hits / np.maximum(union, 1)
    assert 0 < iou[union > 0].mean() < 1
    assert result["miou_union"] == pytest.approx(iou[union > 0].mean(), abs=1e-12)
    assert result["miou"] == pytest.approx(iou[true > 0].mean(), abs=1e-12)
    assert result["pixels"] == histogram.sum() and result["images"] == 3

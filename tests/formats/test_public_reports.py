"""Files as they stand in public reports about tools like this one; `tests/cases/README.md` lists them."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovtool.errors import InputError
from ovtool.formats import coco, coco_repair, file_matching, images
from ovtool.formats.file_matching import Names


def read(tmp_path, data):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    return path, coco.read(path)


def one_image(**annotation):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 1, "name": "cow"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **annotation}],
    }


def test_cocoapi_638_the_truth_scored_against_itself_is_not_one(tmp_path):
    """Ids from 0, and a box that holds two corners in place of a corner and a size."""
    squares = [[100, 100, 200, 100, 200, 200, 100, 200], [10, 10, 30, 10, 30, 30, 10, 30]]
    boxes, areas = ([100, 100, 200, 200], [10, 10, 30, 30]), (10000.0, 400.0)
    _, dataset = read(
        tmp_path,
        {
            "categories": [{"id": 1, "name": "binary", "supercategory": "binary"}],
            "images": [{"id": 0, "file_name": "test.png", "width": 300, "height": 300}],
            "annotations": [
                {"id": k, "image_id": 0, "category_id": 1, "iscrowd": 0, "bbox": boxes[k],
                 "area": areas[k], "segmentation": [squares[k]]}
                for k in range(2)
            ],
        },
    )  # fmt: skip
    assert dataset.repairs == {coco_repair.ANNOTATION_IDS: 1, coco_repair.BOXES: 2}
    assert [one.bbox for one in dataset.annotations] == [(100, 100, 100, 100), (10, 10, 20, 20)]
    coco.write(dataset, tmp_path / "written.json")
    coco.write_results(dataset, tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "written.json")
        counted = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    assert counted.stats[0] == pytest.approx(1.0)


def test_rectlabel_219_a_polygon_outside_a_list(tmp_path):
    _, dataset = read(tmp_path, one_image(segmentation=[2, 1, 12, 1, 12, 7, 2, 7], iscrowd=0))
    assert dataset.annotations[0].area == 10 * 6


def test_cvat_8470_runs_as_a_list_with_iscrowd_0(tmp_path):
    mask = np.zeros((10, 20), np.uint8)
    mask[1:7, 2:12] = 1
    flat = mask.ravel(order="F")
    runs = np.diff(np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1, [flat.size])))
    segmentation = {"size": [10, 20], "counts": [int(run) for run in runs]}
    _, dataset = read(tmp_path, one_image(segmentation=segmentation, iscrowd=0))
    assert (coco_mask.decode(dataset.annotations[0].segmentation) == mask).all()
    assert "iscrowd" not in dataset.annotations[0].extra


@pytest.mark.parametrize(
    ("name", "expected"), [("images\\cb06-a.png", "images/cb06-a.png"), ("a.png", "a.png")]
)
def test_label_studio_7294_backslashes_of_windows(tmp_path, name, expected):
    data = one_image(segmentation=[[2, 1, 12, 1, 12, 7, 2, 7]])
    data["images"][0]["file_name"] = name
    _, dataset = read(tmp_path, data)
    assert dataset.images[0].file_name == expected


def test_label_studio_7294_names_that_leave_their_folder(tmp_path):
    data = one_image(segmentation=[[2, 1, 12, 1, 12, 7, 2, 7]])
    data["images"][0]["file_name"] = "..\\..\\label-studio\\media\\upload\\4\\a.png"
    with pytest.raises(InputError, match="leaves the folder of the images"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("wanted", "there", "pairs"),
    [
        # milesial/Pytorch-UNet 187: a name that begins another
        (["image2"], ["image2.jpg", "image21.jpg"], {"image2": "image2.jpg"}),
        # bnsreenu/digitalsreeni-image-annotator 45: a name within another
        (["bee", "honeybee"], ["honeybee.tif", "bee.tif"],
         {"bee": "bee.tif", "honeybee": "honeybee.tif"}),
        # open-edge-platform/anomalib 871: dots, and letters of the ending at the end of the stem
        (["0020.bm", "0021.pn"], ["0020.bm.png", "0021.pn.png"],
         {"0020.bm": "0020.bm.png", "0021.pn": "0021.pn.png"}),
    ],
)  # fmt: skip
def test_names_that_are_alike(wanted, there, pairs):
    assert file_matching.match(Names("maps", wanted, bare=True), Names("images", there)) == pairs


def test_labelme_1529_pixels_and_labels_of_a_turned_photograph(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 16, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = np.array(ImageOps.exif_transpose(image))
    assert (images.read_rgb(tmp_path / "a.png") == upright).all()
    assert (images.read_rgb(tmp_path / "a.png", exif="stored") == pixels).all()

"""COCO files as exporters write them: read with their own ids, and right by pycocotools' own count."""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovtool.errors import InputError
from ovtool.formats import coco, coco_checks, coco_repair

LEFT = np.zeros((60, 80), np.uint8)
LEFT[10:50, 5:35] = 1  # 40 x 30 = 1200 pixels
RIGHT = np.zeros((60, 80), np.uint8)
RIGHT[20:30, 50:70] = 1  # 10 x 20 = 200 pixels


def segmentation(mask: np.ndarray) -> dict[str, Any]:
    """A mask as pycocotools encodes it."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [60, 80], "counts": rle["counts"].decode()}


def exported() -> dict[str, Any]:
    """What pycocotools takes as it is: ids with gaps, an id of 0 among the categories."""
    return {
        "images": [
            {"id": 139, "file_name": "a.jpg", "width": 80, "height": 60},
            {"id": 7, "file_name": "b.jpg", "width": 80, "height": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 139, "category_id": 0, "segmentation": segmentation(LEFT),
             "area": 1200, "bbox": [5, 10, 30, 40], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 90, "segmentation": segmentation(RIGHT),
             "area": 200, "bbox": [50, 20, 20, 10], "iscrowd": 0},
        ],
        "categories": [{"id": 0, "name": "road"}, {"id": 90, "name": "toothbrush"}],
    }  # fmt: skip


def save(folder: Path, data: object, name: str = "x.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def average_precision(truth: Path, results: Any) -> float:
    """COCOeval's AP of masks, as its own command prints it."""
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO(truth)
        counted = COCOeval(true, true.loadRes(results), "segm")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return float(counted.stats[0])


@pytest.mark.parametrize(("id", "kept"), [(0, [0, 90]), (1, [1, 90]), (90, [1, 90])])
def test_the_twin_of_a_category_that_no_annotation_has_is_left_out(
    tmp_path: Path, id: int, kept: list[int]
) -> None:
    """Roboflow lists a project `road` and its class `road`; in a split without it no annotation has either."""
    data = exported()
    data["categories"][0]["supercategory"] = "none"
    data["categories"].insert(1, {"id": 1, "name": "road", "supercategory": "road"})
    data["annotations"][0]["category_id"] = id
    dataset = coco.read(save(tmp_path, data))
    assert [category.id for category in dataset.categories] == kept
    assert dataset.repairs == {coco_repair.TWINS: 1}


def test_two_categories_of_one_name_that_annotations_have_are_refused(tmp_path: Path) -> None:
    data = exported()
    data["categories"][1] |= {"name": "road", "supercategory": "none"}
    with pytest.raises(InputError, match="id 90: name 'road' is that of id 0 as well"):
        coco.read(save(tmp_path, data))


@pytest.mark.parametrize("is_listed", [False, True])
def test_polygons_of_points(tmp_path: Path, is_listed: bool) -> None:
    points = [[5, 10], [35, 10], [35.0, 50], [5, 50]]
    data = exported()
    data["annotations"][0]["segmentation"] = [points] if is_listed else points
    dataset = coco.read(save(tmp_path, data))
    official = coco_mask.merge(coco_mask.frPyObjects([[5, 10, 35, 10, 35, 50, 5, 50]], 60, 80))
    assert dataset.annotations[0].segmentation["counts"] == official["counts"].decode()
    assert dataset.annotations[0].area == 1200 and dataset.repairs == {coco_repair.POINTS: 1}


def test_our_list_of_results_scores_against_the_official_file_without_any_mapping(
    tmp_path: Path,
) -> None:
    truth = save(tmp_path, exported())
    dataset = coco.read(truth)
    coco.write_results(dataset, tmp_path / "results.json")
    assert average_precision(truth, str(tmp_path / "results.json")) == pytest.approx(1.0)
    entries = json.loads((tmp_path / "results.json").read_text())
    assert [(one["image_id"], one["category_id"], one["score"]) for one in entries] == [
        (139, 0, 1.0),
        (7, 90, 1.0),
    ]
    again = coco.read(tmp_path / "results.json", truth=dataset)
    assert [one.area for one in again.annotations] == [1200.0, 200.0]


def test_loaded_results_have_the_areas_of_masks_not_of_boxes(tmp_path: Path) -> None:
    data = exported()
    ring = LEFT.copy()
    ring[12:48, 7:33] = 0  # 1200 - 36 * 26 = 264 pixels in a box of 1200
    data["annotations"][0] |= {"segmentation": segmentation(ring), "area": 264}
    truth = save(tmp_path, data)
    coco.write_results(coco.read(truth), tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(truth).loadRes(str(tmp_path / "results.json"))
    assert [int(one["area"]) for one in loaded.dataset["annotations"]] == [264, 200]


def test_ids_survive_reading_and_writing(tmp_path: Path) -> None:
    dataset = coco.read(save(tmp_path, exported()))
    coco.write(dataset, tmp_path / "y.json")
    written = json.loads((tmp_path / "y.json").read_text())
    assert [one["id"] for one in written["images"]] == [139, 7]
    assert [one["id"] for one in written["categories"]] == [0, 90]
    scored = [{**one, "score": 1.0} for one in written["annotations"]]
    assert average_precision(tmp_path / "x.json", scored) == pytest.approx(1.0)
    assert not dataset.repairs


def test_images_from_zero_stay_and_annotations_count_from_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = exported()
    data["images"][1]["id"] = data["annotations"][1]["image_id"] = 0
    data["annotations"][0]["id"], data["annotations"][1]["id"] = 1, 0
    dataset = coco.read(save(tmp_path, data))
    assert [image.id for image in dataset.images] == [139, 0]
    assert [(one.id, one.image_id) for one in dataset.annotations] == [(1, 139), (2, 0)]
    assert dataset.repairs == {coco_repair.ANNOTATION_IDS: 1}
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert "numbered again" in caplog.text and "x.json" in caplog.text


def test_whole_floats_and_digits_are_integers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = exported()
    data["images"][0] |= {"id": "000000000139", "width": 80.0}
    for entry in data["annotations"]:
        entry["image_id"], entry["category_id"] = (
            str(entry["image_id"]),
            float(entry["category_id"]),
        )
        entry["id"], entry["iscrowd"] = float(entry["id"]), False
    data["categories"][1]["id"] = 90.0
    dataset = coco.read(save(tmp_path, data))
    assert dataset == coco.read(save(tmp_path, exported(), "plain.json"))
    # 2 of the image, 4 of each annotation, 1 of a category
    assert dataset.repairs == {coco_repair.NUMBERS: 11}
    assert len(caplog.records) == 1 and "11 numbers" in caplog.text


@pytest.mark.parametrize("value", [1.5, "one", "1.0", True, float(2**60)])
def test_what_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    data = exported()
    data["categories"][1]["id"] = value
    with pytest.raises(InputError, match="not an integer"):
        coco.read(save(tmp_path, data))


def test_digits_that_become_one_id_are_refused(tmp_path: Path) -> None:
    data = exported()
    data["images"][0]["id"], data["images"][1]["id"] = "7", 7
    with pytest.raises(InputError, match="id 7 is there twice"):
        coco.read(save(tmp_path, data))


@pytest.mark.parametrize("area", [0, 1, 4800.0, None])
def test_areas_and_boxes_are_those_of_the_masks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, area: float | None
) -> None:
    data = exported()
    data["annotations"][0]["area"] = area
    data["annotations"][1]["bbox"] = [20, 50, 10, 20]  # y before x
    dataset = coco.read(save(tmp_path, data))
    assert [one.area for one in dataset.annotations] == [LEFT.sum(), RIGHT.sum()]
    assert [one.bbox for one in dataset.annotations] == [(5, 10, 30, 40), (50, 20, 20, 10)]
    wrong = {} if area is None else {coco_repair.AREAS: 1}
    assert dataset.repairs == wrong | {coco_repair.BOXES: 1}
    assert len(caplog.records) == 1 and "1 box that was not" in caplog.text


def test_the_area_of_a_polygon_is_no_fault(tmp_path: Path) -> None:
    data = exported()
    corners = [5.3, 10.2, 35.4, 10.4, 35.1, 49.8, 5.6, 49.6]
    x, y = np.array(corners[::2]), np.array(corners[1::2])
    shoelace = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    data["annotations"][0] |= {
        "segmentation": [corners], "area": shoelace, "bbox": [5.3, 10.2, 30.1, 39.6]
    }  # fmt: skip
    assert not coco.read(save(tmp_path, data)).repairs


def test_boxes_beside_masks_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = exported()
    data["annotations"][0]["segmentation"] = []
    path = save(tmp_path, data)
    dataset = coco.read(path)
    assert [one.id for one in dataset.annotations] == [2]
    assert "1 annotation with a box and no mask is left out" in caplog.text
    assert [one.bbox for one in coco.read(path, need_masks=False).annotations][0] == (5, 10, 30, 40)
    data["annotations"].pop()
    with pytest.raises(InputError, match="segmentation"):  # boxes alone are no masks
        coco.read(save(tmp_path, data))


def test_a_polygon_outside_a_list_is_read(tmp_path: Path) -> None:
    data = exported()
    corners = [5, 10, 35, 10, 35, 50, 5, 50]
    data["annotations"][0]["segmentation"] = corners
    dataset = coco.read(save(tmp_path, data))
    with contextlib.redirect_stdout(io.StringIO()):
        data["annotations"][0]["segmentation"] = [corners]
        theirs = COCO(save(tmp_path, data, "listed.json"))
    assert dataset.annotations[0].area == theirs.annToMask(theirs.loadAnns([1])[0]).sum()
    assert dataset.repairs == {coco_repair.FLAT: 1}


def test_results_with_boxes_and_text_ids(tmp_path: Path) -> None:
    truth = coco.read(save(tmp_path, exported()))
    results = [
        {"image_id": "139", "category_id": 0.0, "score": 0.5, "segmentation": segmentation(LEFT)},
        {"image_id": 7, "category_id": 90, "score": 0.5, "bbox": [1, 2, 3, 4]},
    ]
    found = coco.read(save(tmp_path, results, "results.json"), truth=truth)
    assert [(one.image_id, one.category_id) for one in found.annotations] == [(139, 0)]
    assert found.repairs == {coco_repair.NUMBERS: 2, coco_repair.BOX_ONLY: 1}


def test_wrong_measures_can_be_listed(tmp_path: Path) -> None:
    entry = {"id": 7, "area": 0, "bbox": [20, 50, 10, 20]}
    found = coco.annotation(7, 1, 1, coco.read(save(tmp_path, exported())).annotations[1].segmentation, None)  # fmt: skip
    said = coco_checks.wrong_measures(entry, found.area, found.bbox, "x.json: annotations id 7")
    assert len(said) == 2 and all(line.startswith("x.json: annotations id 7: ") for line in said)
    assert "area is 0" in said[0] and "200" in said[0]
    assert "[50.0, 20.0, 20.0, 10.0]" in said[1]
    assert coco_checks.wrong_measures({"area": 200}, 200.0, found.bbox, "x") == []


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
@pytest.mark.parametrize("value", [True, 5, 0.5, "x", {"x": 1}, [1], [[]], None])
def test_a_section_of_another_kind_is_refused(tmp_path: Path, section: str, value: object) -> None:
    path = tmp_path / "a.json"
    sections = {"images": [], "categories": [{"id": 1, "name": "cow"}], "annotations": []}
    path.write_text(json.dumps({**sections, section: value}))
    with pytest.raises(InputError, match=f"{section}|no image"):
        coco.read(path)


def in_other_notations():
    """The mask of rows 1 to 6 and columns 2 to 11, of 10 x 20 pixels, as exporters write it."""
    polygon = [2, 1, 12, 1, 12, 7, 2, 7]
    array = np.zeros((10, 20), np.uint8)
    array[1:7, 2:12] = 1
    counts = coco_mask.encode(np.asfortranarray(array))["counts"]
    rle = {"size": [10, 20], "counts": counts.decode()}
    return array, {
        "bytes as Python writes them": {**rle, "counts": str(counts)},
        "an RLE in a list": [rle],
        "a size of texts": {**rle, "size": ["10", "20"]},
        "polygons in a list": [[polygon]],
        "a text of JSON": json.dumps([polygon]),
        "a text of an RLE": json.dumps(rle),
        "numbers as texts": [[str(side) for side in polygon]],
        "points as objects": [[{"x": x, "y": y} for x, y in zip(*[iter(polygon)] * 2, strict=True)]],
    }  # fmt: skip


@pytest.mark.parametrize("name", in_other_notations()[1])
def test_masks_in_other_notations(name, tmp_path):
    array, masks = in_other_notations()
    data = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": masks[name]}],
        "categories": [{"id": 1, "name": "cow"}],
    }
    (tmp_path / "t.json").write_text(json.dumps(data))
    dataset = coco.read(tmp_path / "t.json")
    assert dataset.repairs == {coco_repair.NOTATION: 1}
    assert np.array_equal(coco_mask.decode(dataset.annotations[0].segmentation), array)


def test_bytes_with_a_backslash():
    fixed, repairs = coco_repair.repaired_results(
        [{"segmentation": {"size": [9, 9], "counts": str(rb"0\\1a")}, "score": "0.25", "bbox": ["1", "2.5", "3", "4"]}]
    )  # fmt: skip
    assert fixed == [
        {"segmentation": {"size": [9, 9], "counts": "0\\\\1a"}, "score": 0.25, "bbox": [1, 2.5, 3, 4]}
    ]  # fmt: skip
    assert repairs == {coco_repair.TEXTS: 2, coco_repair.NOTATION: 1}


@pytest.mark.parametrize("mask", ["cow", "[1, 2", [], [[]], [None], [["a", "b"]], 3, None, [{}]])
def test_what_is_no_mask_in_any_notation_stays(mask):
    entry = {"id": 1, "segmentation": mask, "score": "high", "bbox": ["a"]}
    assert coco_repair.repaired_results([entry])[0] == [entry]

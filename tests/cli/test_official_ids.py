"""What is written of official images and words is scored by COCO's own tools as it is, without a mapping."""

import contextlib
import io
import json

import numpy as np
from PIL import Image
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovtool.cli.errors import run

OFFICIAL = {
    "person": 1,
    "stop sign": 13,
    "cow": 21,
    "hair drier": 89,
    "toothbrush": 90,
}  # of COCO's list
IMAGES = {397133: "000000397133.png", 37777: "000000037777.png"}


def average_precision(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = truth
        true.createIndex()
        counted = COCOeval(true, true.loadRes(results), "segm")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return counted.stats[0]


def test_segments_are_scored_against_the_official_annotations(desk, tmp_path):
    folder = tmp_path / "val2017"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in IMAGES.values():
        Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / name)
    listed = [
        {"id": number, "file_name": name, "width": 64, "height": 48}
        for number, name in IMAGES.items()
    ]
    (tmp_path / "images.json").write_text(
        json.dumps({"images": listed, "annotations": [], "categories": []})
    )
    line = ["segment", "--coco", str(tmp_path / "images.json"), "--images", str(folder)]
    line += ["--vocabulary", "coco80", "--model", "tiny", "--method", "patch", "-o", "o.json"]
    assert run(line) == 0
    written = json.loads((desk / "o.json").read_text())
    assert [image["id"] for image in written["images"]] == list(IMAGES)
    ids = {category["name"]: category["id"] for category in written["categories"]}
    assert len(ids) == 80 and {name: ids[name] for name in OFFICIAL} == OFFICIAL
    assert {entry["image_id"] for entry in written["annotations"]} == IMAGES.keys()
    truth = {  # the same masks as a person would have drawn them, under official ids
        "images": listed,
        "categories": written["categories"],
        "annotations": [
            {
                "id": number,
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "segmentation": entry["segmentation"],
                "area": float(rle_tools.area(entry["segmentation"])),
                "bbox": rle_tools.toBbox(entry["segmentation"]).tolist(),
                "iscrowd": 0,
            }
            for number, entry in enumerate(written["annotations"], start=1)
        ],
    }
    assert average_precision(truth, written["annotations"]) == 1.0
    assert run([*line[:-1], "r.json", "--format", "results"]) == 0
    assert average_precision(truth, str(desk / "r.json")) == 1.0  # loadRes reads the file itself
    moved = [{**entry, "image_id": 1} for entry in written["annotations"]]
    assert (
        not {entry["image_id"] for entry in moved} & IMAGES.keys()
    )  # the old way: nothing to score


def test_names_in_another_spelling_are_matched_and_said(desk, capsys):
    """traffic_light is traffic light, as in the case of the same name; and no class in common is an error."""
    mask = rle_tools.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))
    mask = {"size": mask["size"], "counts": mask["counts"].decode()}

    def document(name):
        return {
            "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask, "iscrowd": 0,
                 "area": 16.0, "bbox": [0, 0, 4, 4]},
            ],
            "categories": [{"id": 1, "name": name}],
        }  # fmt: skip

    for file, name in (("p", "traffic_light"), ("t", "traffic light"), ("o", "zebra")):
        (desk / f"{file}.json").write_text(json.dumps(document(name)))
    assert run(["evaluate", "p.json", "--ground-truth", "t.json", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["miou"] == 1.0
    assert "matched by their spelling: 'traffic_light' is 'traffic light'" in said.err
    assert run(["evaluate", "o.json", "--ground-truth", "t.json"]) == 2
    assert "did you mean --metric recall?" in capsys.readouterr().err

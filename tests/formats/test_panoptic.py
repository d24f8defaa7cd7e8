"""COCO's panoptic JSON as exporters write it; the PNGs are made by hand, the masks counted by numpy."""

import json
import re
from copy import deepcopy

import numpy as np
import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import coco_checks, panoptic, panoptic_maps, rle
from ovtool.stages import check

IDS = np.array([[7, 7, 300, 300], [7, 7, 300, 0], [7, 7, 0, 0]])
SEGMENTS = [
    {"id": 7, "category_id": 1, "area": 6, "bbox": [0, 0, 2, 3], "iscrowd": 0},
    {"id": 300, "category_id": 5, "area": 3, "bbox": [2, 0, 2, 2], "iscrowd": 0},
]
CONTENT = {
    "images": [{"id": 139, "file_name": "139.jpg", "width": 4, "height": 3}],
    "annotations": [{"image_id": 139, "file_name": "139.png", "segments_info": SEGMENTS}],
    "categories": [{"id": 1, "name": "cow", "isthing": 1}, {"id": 5, "name": "sky", "isthing": 0}],
}


def written(folder, content, ids=IDS, name="139.png"):
    """A panoptic JSON with one PNG."""
    (folder / "p").mkdir(exist_ok=True)
    colours = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "p" / name)
    (folder / "p.json").write_text(json.dumps(content))
    return folder / "p.json"


def changed(entry=None, segment=None, **sections):
    content = deepcopy(CONTENT) | sections
    content["annotations"][0]["segments_info"][0].update(segment or {})
    content["annotations"][0].update(entry or {})
    return content


def masks_of(path):
    dataset = panoptic.read(path, coco_checks.load_long(path)[1])
    masks = {
        mask.category_id: rle.decode(mask.segmentation, 3, 4).tolist()
        for mask in dataset.annotations
    }
    return masks, dict(dataset.repairs)


ENTRY = {"image_id": 139.0, "file_name": "panoptic_val\\139.png"}
REPAIRED = [
    (changed(), {}),
    (changed(segment={"id": 7.0, "category_id": "1", "iscrowd": False}), {"numbers": 3}),
    (changed(ENTRY), {"numbers": 1, "names of PNGs": 1}),
    (changed({"file_name": "139.jpg"}), {"names of PNGs": 1}),
    (changed({"file_name": "elsewhere/0139.png"}), {"names of PNGs": 1}),
    (changed(segment={"area": 99, "bbox": [9, 9, 9, 9]}), {"areas": 1, "boxes": 1}),
    (
        changed({"segments_info": [*SEGMENTS, {"id": 8, "category_id": 1}]}),
        {"segments without a pixel": 1},
    ),
]


@pytest.mark.parametrize(("content", "repairs"), REPAIRED)
def test_what_is_repaired(content, repairs, tmp_path):
    masks, done = masks_of(written(tmp_path, content))
    assert masks == {1: (IDS == 7).tolist(), 5: (IDS == 300).tolist()}
    assert done == repairs


def test_what_need_not_be_said_is_not_missed(tmp_path):
    content = deepcopy(CONTENT)
    content["annotations"][0]["segments_info"] = [
        {"id": own["id"], "category_id": own["category_id"]} for own in SEGMENTS
    ]
    assert masks_of(written(tmp_path, content))[1] == {}
    del content["annotations"][0]["file_name"]
    assert masks_of(written(tmp_path, content))[1] == {"names of PNGs": 1}


def test_ids_from_0_are_read_where_the_area_says_that_black_is_a_segment(tmp_path):
    content = deepcopy(CONTENT)
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = 0
    content["categories"][0]["id"] = 0
    segments = content["annotations"][0]["segments_info"]
    segments[0] |= {"id": 0, "category_id": 0}
    full = np.where(IDS == 7, 0, 300)
    segments[1] |= {"area": 6, "bbox": [2, 0, 2, 3]}
    masks, repairs = masks_of(written(tmp_path, content, full))
    assert masks == {0: (full == 0).tolist(), 5: (full == 300).tolist()}
    assert repairs == {"segments with the id 0": 1}
    maps = panoptic_maps.opened(tmp_path / "p.json", tmp_path / "p")
    assert np.array_equal(maps.decode("139.jpg"), (full == 300).astype(int))
    segments[0]["area"] = 5
    said = "p/139.png 6 pixels of that colour, which is that of no"
    with pytest.raises(InputError, match=said):
        masks_of(written(tmp_path, content, full))
    with pytest.raises(InputError, match=said):
        panoptic_maps.opened(tmp_path / "p.json", tmp_path / "p").decode("139.jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed({"image_id": 4}), "image_id 4 is not in images"),
        (changed(info="of mine"), "info is 'of mine', not an object; make it"),
        (changed(licenses=[3]), "licenses is .3., not a list of objects"),
        (changed({"segments_info": None}), "has no list segments_info"),
        (changed(segment={"id": -1}), "a segment with the id -1; give each one of its own"),
        (changed(segment={"id": 300}), "a segment with the id 300; give each one of its own"),
        (changed(segment={"id": 7.5}), "a segment with the id 7.5; give"),
        (changed(segment={"category_id": 9}), "segment 7: category_id 9 is not in categories"),
        (changed(segment={"id": 8}), "has pixels of the segment 7, which"),
        (changed({"file_name": 3}), "file_name is 3; name the PNG"),
        (changed({"file_name": "."}), "file_name is '.'; name the PNG"),
        (changed({"file_name": "\\"}), "file_name is .*; name the PNG"),
        (changed(segment={"iscrowd": 3}), "segment 7: iscrowd is 3"),
        (changed({"file_name": "x" * 5000}, images=[CONTENT["images"][0] | {"file_name": "a.jpg"}]), "has a name of more than 255 letters"),
    ],
)  # fmt: skip
def test_what_is_refused(content, said, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=said) as caught:
        masks_of(path)
    assert len(str(caught.value)) < 500
    assert re.search(said, "\n".join(check.run(path)[0]["defects"]))


def test_missing_pngs_are_counted(tmp_path):
    content = deepcopy(CONTENT)
    content["images"] += [content["images"][0] | {"id": k, "file_name": f"{k}.jpg"} for k in (1, 2)]
    content["annotations"] += [{"image_id": k, "segments_info": []} for k in (1, 2)]
    path = written(tmp_path, content)
    for read in (masks_of, lambda path: panoptic_maps.opened(path, tmp_path / "p")):
        with pytest.raises(InputError, match="lacks 2 of the 3 PNG files of .*, such as 1.png"):
            read(path)


def test_label_maps_are_repaired_alike(tmp_path, caplog):
    path = written(tmp_path, changed(ENTRY, {"id": 7.0}))
    maps = panoptic_maps.opened(path, tmp_path / "p")
    labels = maps.decode("139.jpg")
    assert np.array_equal(labels, np.select([IDS == 7, IDS == 300], [0, 1], -1))
    assert "2 numbers that were floats or texts are now integers" in caplog.text


def test_check_says_all_and_fix_repairs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = changed(ENTRY, {"area": 99, "category_id": 1.0})
    content["annotations"].append({"image_id": 8, "file_name": "8.png", "segments_info": []})
    written(tmp_path, content)
    assert run(["check", "p.json"]) == 1
    said = capsys.readouterr().err
    assert "annotations[0] segment 7: area is 99, but the mask has 6 pixels" in said
    assert "annotations[1]: image_id 8 is not in images" in said
    assert "2 numbers that were floats or texts are now integers" in said
    assert run(["check", "p.json", "--fix", "-o", "q.json"]) == 1
    del content["annotations"][1]
    written(tmp_path, content)
    assert run(["check", "p.json", "--fix", "-o", "q.json", "--dry-run"]) == 0
    assert not (tmp_path / "q.json").exists()
    assert run(["check", "p.json", "--fix", "-o", "q.json"]) == 0
    capsys.readouterr()
    assert run(["check", "q.json"]) == 0 and capsys.readouterr().err == ""
    entry = json.loads((tmp_path / "q.json").read_text())["annotations"][0]
    colours = np.asarray(Image.open(tmp_path / "q" / entry["file_name"]), np.int64)
    pixels = colours @ np.array([1, 256, 65536])
    areas = {own["category_id"]: own["area"] for own in entry["segments_info"]}
    assert areas == {1: 6, 5: 3}
    for own in entry["segments_info"]:
        assert np.array_equal(pixels == own["id"], IDS == {1: 7, 5: 300}[own["category_id"]])
    assert run(["check", "p.json", "--fix", "-o", "q.json"]) == 1  # it is there
    (tmp_path / "q.json").unlink()
    with pytest.raises(
        OutputExistsError, match="q is not empty"
    ):  # no fault of the file that is read
        check.run(["p.json"], fix=True, out="q.json")

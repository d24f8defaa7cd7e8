"""COCO JSON: what is written, what is read, and every defect with its message."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from ovtool.errors import InputError
from ovtool.formats import coco, rle

MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:7] = True


def dataset() -> coco.Dataset:
    mask = rle.encode(MASK)
    return coco.Dataset(
        info={"ovtool": {"command": "segment", "rate": 1e-7}},
        images=[
            coco.Image(1, "a/é.jpg", 8, 6, {"license": 3}),
            coco.Image(2, "b.jpg", 8, 6),
        ],
        annotations=[
            coco.annotation(1, 1, 2, mask, 0.123456789, span=[3, 9], cosine=0.33333333),
            coco.annotation(2, 2, 1, mask, None),
        ],
        categories=[
            coco.Category(1, "teapot", "", ("pot",)),
            coco.Category(2, "apple", "food", (), {"frequency": "r"}),
        ],
    )


def raw() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 3, "segmentation": dict(rle.encode(MASK))}
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }


def save(folder: Path, data: object) -> Path:
    path = folder / "x.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    coco.write(dataset(), path)
    again = coco.read(path)
    assert again.images == dataset().images and again.categories == dataset().categories
    assert again.annotations[0].score == 0.123457
    assert again.annotations[0].extra == {"span": [3, 9], "cosine": 0.333333}
    assert again.annotations[0].bbox == (2.0, 1.0, 5.0, 3.0) and again.annotations[0].area == 15.0
    assert again.annotations[1].score is None
    assert again.info["ovtool"]["rate"] == 1e-7
    first = path.read_bytes()
    coco.write(again, path)
    assert path.read_bytes() == first and first.endswith(b"}\n")


def test_the_file_is_what_coco_tools_expect(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    coco.write(dataset(), path)
    data = json.loads(path.read_text())
    assert list(data) == ["info", "licenses", "images", "annotations", "categories"]
    assert data["annotations"][0]["iscrowd"] == 0 and "score" not in data["annotations"][1]
    assert data["categories"][0]["synonyms"] == ["pot"]
    assert list(data["annotations"][0])[:4] == ["id", "image_id", "category_id", "segmentation"]
    theirs = COCO(path)
    assert (theirs.annToMask(theirs.loadAnns([1])[0]) == MASK).all()


def test_numpy_numbers_can_be_written(tmp_path: Path) -> None:
    data = dataset()
    entry = coco.annotation(1, 1, 1, rle.encode(MASK), float(np.float32(0.5)), w=np.float64(0.25))
    coco.write(coco.Dataset({}, data.images, [entry], data.categories), tmp_path / "x.json")
    assert coco.read(tmp_path / "x.json").annotations[0].extra == {"w": 0.25}


def test_stdin_and_stdout(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    coco.write(dataset(), tmp_path / "x.json")
    coco.write(dataset(), "-")
    out = capfdbinary.readouterr().out
    assert out == (tmp_path / "x.json").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(out)))
    assert coco.read("-").images == dataset().images


def test_all_encodings_become_compressed_rle(tmp_path: Path) -> None:
    data = raw()
    runs = [12 + 1, *[3, 3] * 5][:-1] + [6 * 8 - 13 - 3 * 5 - 3 * 4]
    listed = {"size": [6, 8], "counts": runs}
    polygon = [[2, 1, 7, 1, 7, 4, 2, 4]]
    data["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 3, "segmentation": s, "iscrowd": int(i == 2)}
        for i, s in enumerate([dict(rle.encode(MASK)), listed, polygon], start=1)
    ]
    annotations = coco.read(save(tmp_path, data)).annotations
    assert [a.segmentation for a in annotations] == [rle.encode(MASK)] * 3
    assert [a.area for a in annotations] == [15.0] * 3
    assert [dict(a.extra) for a in annotations] == [{}, {"iscrowd": 1}, {}]


def test_info_and_licenses_are_filled_in(tmp_path: Path) -> None:
    found = coco.read(save(tmp_path, raw()))
    assert found.info == {} and list(found.licenses) == []
    assert found.annotations[0].bbox == (2.0, 1.0, 5.0, 3.0)


def test_masks_may_be_left_out_where_none_are_needed(tmp_path: Path) -> None:
    data = raw()
    del data["annotations"][0]["segmentation"]
    path = save(tmp_path, data)
    found = coco.read(path, need_masks=False).annotations[0]
    assert rle.area(found.segmentation) == 0 and found.segmentation["size"] == [6, 8]
    del data["annotations"]
    assert coco.read(save(tmp_path, data), need_masks=False).annotations == []


def test_a_byte_order_mark_is_no_defect(tmp_path: Path) -> None:
    assert coco.read(save(tmp_path, "\ufeff" + json.dumps(raw()))).images


def change(*steps: Any) -> Any:
    """A function that sets (or, for ..., deletes) a value deep in the raw data."""
    *path, last, value = steps

    def apply(data: dict[str, Any]) -> None:
        for step in path:
            data = data[step]
        if value is ...:
            del data[last]
        elif last == "+":
            data.append(value)  # type: ignore[attr-defined]
        else:
            data[last] = value

    return apply


A, IM, C = ("annotations", 0), ("images", 0), ("categories", 0)
IMAGE = {"id": 1, "file_name": "b.jpg", "width": 8, "height": 6}
DEFECTS = {
    "no images": (change("images", ...), "no section images"),
    "no annotations": (change("annotations", ...), "no section annotations"),
    "no categories": (change("categories", ...), "no section categories"),
    "section is no list": (change("images", {}), r"images is \{\}, not a list"),
    "entry is no object": (change("annotations", 0, 5), r"annotations\[0\] is 5, not an object"),
    "info is no object": (change("info", [1]), "info is .* not an object"),
    "licenses are numbers": (change("licenses", [3]), "licenses is .3., not a list of objects"),
    "licenses is no list": (change("licenses", {"a": 1}), "licenses is .* not a list"),
    "image id twice": (change("images", "+", IMAGE), "images: id 1 is there twice .entries 0 and 1"),
    "annotation id below 0": (change(*A, "id", -1), r"annotations\[0\]: id is -1, .* start at 1"),
    "category id below 0": (change(*C, "id", -1), r"categories\[0\]: id is -1"),
    "image id below 0": (change(*IM, "id", -1), r"images\[0\]: id is -1"),
    "no id": (change(*A, "id", ...), r"annotations\[0\] has no id"),
    "id is a text": (change(*IM, "id", "1a"), r"id is '1a', not an integer"),
    "id is a float": (change(*IM, "id", 1.5), "id is 1.5, not an integer"),
    "id is true": (change(*IM, "id", True), "id is True, not an integer"),
    "unknown image": (change(*A, "image_id", 9), "annotations id 7: image_id 9 is not in images"),
    "no image": (change(*A, "image_id", ...), "annotations id 7: image_id is missing"),
    "image_id is a text": (change(*A, "image_id", "x"), "image_id is 'x'; give it the integer"),
    "image_id is a list": (change(*A, "image_id", [1]), r"image_id is \[1\]"),
    "unknown category": (change(*A, "category_id", 9), "category_id 9 is not in categories"),
    "null segmentation": (change(*A, "segmentation", None), "id 7: segmentation is None"),
    "no segmentation": (change(*A, "segmentation", ...), "id 7: segmentation is missing"),
    "empty segmentation": (change(*A, "segmentation", []), r"id 7: segmentation is \[\]"),
    "wrong size": (change(*A, "segmentation", "size", [8, 6]), r"id 7: RLE size is \[8, 6\].*6, 8"),
    "corrupt": (change(*A, "segmentation", "counts", "oo"), "id 7: RLE counts are corrupt"),
    "short": (change(*A, "segmentation", "counts", "11"), "id 7: RLE counts .* do not add up"),
    "bbox of three": (change(*A, "bbox", [1, 2, 3]), r"id 7: bbox is \[1, 2, 3\]"),
    "bbox below 0": (change(*A, "bbox", [1, 2, 3, -4]), "id 7: bbox"),
    "area is a text": (change(*A, "area", "large"), "id 7: area is 'large'"),
    "score is a text": (change(*A, "score", "high"), "id 7: score is 'high'"),
    "score is huge": (change(*A, "score", 10**400), "id 7: score is 1000"),
    "iscrowd is 2": (change(*A, "iscrowd", 2), "id 7: iscrowd is 2"),
    "leaves the root": (change(*IM, "file_name", "a/../../b"), "images id 1: file_name .* leaves"),
    "absolute": (change(*IM, "file_name", "/etc/a.jpg"), "images id 1: .* is absolute"),
    "backslash": (change(*IM, "file_name", "a\\b/c.jpg"), "images id 1: .* backslash"),
    "leaves by backslashes": (change(*IM, "file_name", "..\\b.jpg"), "images id 1: .* leaves"),
    "drive": (change(*IM, "file_name", "C:/b.jpg"), "images id 1: .* drive"),
    "a folder": (change(*IM, "file_name", "a/"), "names no file"),
    "no file name": (change(*IM, "file_name", ...), "images id 1: file_name is missing"),
    "file name twice": (change("images", "+", IMAGE | {"id": 2, "file_name": "a.jpg"}),
                        "images id 2: file_name 'a.jpg' is that of id 1"),
    "no width": (change(*IM, "width", ...), "images id 1: width is missing"),
    "width 0": (change(*IM, "width", 0), "images id 1: width is 0"),
    "width is a float": (change(*IM, "width", 8.5), "images id 1: width is 8.5"),
    "category twice": (change("categories", "+", {"id": 4, "name": "cat"}),
                       "categories id 4: name 'cat' is that of id 3"),
    "no name": (change(*C, "name", ...), "categories id 3: name is missing"),
    "blank name": (change(*C, "name", " "), "categories id 3: name is ' '"),
    "synonyms are a text": (change(*C, "synonyms", "pot"), "categories id 3: synonyms"),
    "supercategory is a number": (change(*C, "supercategory", 4), "id 3: supercategory is 4"),
    "NaN score": (change(*A, "score", float("nan")), "annotations id 7: score is NaN"),
    "NaN in bbox": (change(*A, "bbox", [0, float("inf"), 1, 1]), r"id 7: bbox\[1\] is Infinity"),
    "NaN elsewhere": (change("info", {"x": {"y": float("nan")}}), "info x.y is NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_defects(tmp_path: Path, name: str) -> None:
    apply, message = DEFECTS[name]
    data = copy.deepcopy(raw())
    apply(data)
    path = save(tmp_path, data)
    with pytest.raises(InputError, match=message) as error:
        coco.read(path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(str(path)) and len(text) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"images": [\n  {"id": 1,}\n]}', "not JSON: .* line 2, column 1[12]"),
        ("[1, 2", "not JSON: .* line 1"),
        ('"text"', "not a COCO object"),
        ("[]", "bare list of results"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"images": [1e999', "not JSON"),
    ],
)
def test_not_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        coco.read(save(tmp_path, text))
    assert "\n" not in str(error.value) and "x.json" in str(error.value)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        coco.read(tmp_path / "none.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="not JSON: no UTF-8 text at byte 0"):
        coco.read(tmp_path / "x.json")


def test_root(tmp_path: Path) -> None:
    path = save(tmp_path, raw())
    with pytest.raises(InputError, match="no folder"):
        coco.read(path, root=tmp_path / "images")
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"holds none of the images .* such as a\.jpg"):
        coco.read(path, root=tmp_path / "images")
    (tmp_path / "images" / "a.jpg").touch()
    assert coco.read(path, root=tmp_path / "images").images


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"annotations": [coco.annotation(0, 1, 1, rle.encode(MASK), 1.0)]}, "ids start at 1"),
        ({"annotations": [coco.annotation(1, 5, 1, rle.encode(MASK), 1.0)]}, "image_id 5 is not"),
        ({"annotations": [coco.annotation(1, 1, 5, rle.encode(MASK), 1.0)]}, "category_id 5 is"),
        ({"annotations": [coco.annotation(1, 1, 1, rle.encode(MASK.T), 1.0)]}, "has size"),
        (
            {"annotations": [coco.annotation(1, 1, 1, rle.encode(MASK), float("nan"))]},
            "id 1: score is nan",
        ),
        (
            {"annotations": [coco.annotation(1, 1, 1, rle.encode(MASK), 1.0, x=float("inf"))]},
            "JSON",
        ),
        ({"images": [coco.Image(1, "../a.jpg", 8, 6)]}, "leaves"),
        ({"images": [coco.Image(1, "bad\udcff.jpg", 8, 6)], "annotations": []}, "as JSON"),
        ({"categories": [coco.Category(1, "a"), coco.Category(2, "a")]}, "name 'a' is that of"),
    ],
)
def test_nothing_wrong_is_written(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    good = dataset()
    fields = {"images": good.images, "annotations": [], "categories": good.categories} | bad
    with pytest.raises(InputError, match=message):
        coco.write(coco.Dataset({}, **fields), tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_results_become_a_data_set(tmp_path: Path) -> None:
    truth = dataset()
    entry = {"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": dict(rle.encode(MASK)),
             "bbox": [0, 0, 8, 6]}  # fmt: skip
    found = coco.read(save(tmp_path, [entry, entry]), truth=truth)
    assert [a.id for a in found.annotations] == [1, 2]
    assert found.annotations[0].bbox == (2.0, 1.0, 5.0, 3.0)  # the mask's, not the entry's
    assert found.images == truth.images
    assert coco.read_results([], truth).annotations == []
    for key, value, message in [
        ("score", ..., "entry 0 has no score"),
        ("image_id", 9, "entry 0: image_id 9 is not in images"),
        ("segmentation", None, "entry 0: segmentation is None"),
    ]:
        bad = {k: v for k, v in (entry | {key: value}).items() if v is not ...}
        with pytest.raises(InputError, match=message):
            coco.read_results([bad], truth)
    with pytest.raises(InputError, match="entry 0 is 5"):
        coco.read_results([5], truth)

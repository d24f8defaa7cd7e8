"""`ovtool check`: silence and 0 for good files, a line for each defect and 1 for bad ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ovtool.cli.app import app
from ovtool.cli.errors import run
from ovtool.errors import InputError
from ovtool.formats import coco, label_maps, merge, parts, rle, tensors
from ovtool.stages import check, info

MASK = rle.encode(np.eye(3, 4, dtype=bool))


def check_files(*files):
    done = CliRunner().invoke(app, ["check", *map(str, files)])
    assert done.stdout == ""
    return done.exit_code, done.stderr.splitlines()


def good_coco():
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": k, "file_name": f"{k}.png", "width": 4, "height": 3} for k in (1, 2)],
        "categories": [{"id": 1, "name": "cow", "supercategory": ""}],
        "annotations": [
            {
                "id": k,
                "image_id": 1,
                "category_id": 1,
                "segmentation": dict(MASK),
                "bbox": [0.0, 0.0, 3.0, 3.0],
                "area": 3.0,
                "iscrowd": 0,
            }
            for k in (1, 2, 3)
        ],
    }


@pytest.fixture
def good(tmp_path):
    """A good file of every kind."""
    files = {kind: tmp_path / kind for kind in ("masks", "results", "words", "tensors", "captions")}
    files["masks"].write_text(json.dumps(good_coco()))
    result = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": MASK}
    files["results"].write_text(json.dumps([result]))
    files["words"].write_text(json.dumps({"a.png": ["cow"]}))
    captions = [{"id": 1, "image_id": 2, "caption": "a cow"}]
    files["captions"].write_text(json.dumps({**good_coco(), "annotations": captions}))
    tensors.save(files["tensors"], {"x": torch.zeros(3)}, {"kind": "cams"})
    files["maps"] = tmp_path / "maps"
    files["maps"].mkdir()
    label_maps.write(files["maps"] / "a.png", np.array([[0, 1, -1]]), 2)
    label_maps.write_classes(files["maps"] / "classes.txt", ["cow", "sky"])
    files["map"] = files["maps"] / "a.png"
    files["pictures"] = tmp_path / "pictures"
    files["pictures"].mkdir()
    Image.new("RGB", (30, 20)).save(files["pictures"] / "a.jpg")
    files["picture"] = files["pictures"] / "a.jpg"
    files["parts"] = tmp_path / "x.parts"
    write_parts(files["parts"], [dict(MASK)])
    return files


def write_parts(folder, segmentations):
    start = merge.preface({}, [coco.Category(1, "cow")])
    store = parts.PartStore(folder, "d1", {}, start)
    entries = [{"category_id": 1, "segmentation": s, "score": 0.5} for s in segmentations]
    store.write(parts.cut(1, 1)[0], [parts.image_record("a.png", 3, 4, entries)])


def test_good_files_are_0_and_silence(good):
    assert check_files(*good.values()) == (0, [])


def test_verbose_names_good_files_and_json_lists_all(good):
    done = CliRunner().invoke(app, ["check", "-v", *map(str, good.values())])
    assert done.exit_code == 0
    assert len(done.stderr.splitlines()) == len(good)
    assert f"{good['masks']}: COCO masks, no defect found" in done.stderr
    done = CliRunner().invoke(app, ["check", "--json", str(good["masks"]), "none"])
    assert done.exit_code == 1
    one, other = json.loads(done.stdout)["files"]
    assert one == {"file": str(good["masks"]), "kind": "COCO masks", "defects": []}
    assert other["kind"] is None and "no such file" in other["defects"][0]


def test_good_and_bad_together_are_1_and_only_the_bad_are_named(good, tmp_path):
    status, lines = check_files(good["masks"], tmp_path / "none", good["maps"])
    assert status == 1 and len(lines) == 1
    assert lines[0].startswith("error: no such file") and "none" in lines[0]


def with_change(change):
    content = good_coco()
    change(content)
    return content


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c.pop("images"), ["no section images"]),
        (lambda c: c.pop("annotations"), ["no section annotations"]),
        (lambda c: c.pop("categories"), ["no section categories"]),
        (lambda c: c["images"][1].update(id=1), ["images", "id 1", "twice"]),
        (lambda c: c["annotations"][1].update(id=3), ["annotations", "id 3", "twice"]),
        (lambda c: c["annotations"][0].update(id=0), ["annotations[0]", "start at 1"]),
        (lambda c: c["images"][0].update(file_name="../a.png"), ["images id 1", "leaves"]),
        (lambda c: c["images"][0].update(file_name="/a.png"), ["images id 1", "absolute"]),
        (lambda c: c["annotations"][1].update(image_id=9), ["annotations id 2", "image_id 9"]),
        (lambda c: c["annotations"][1].pop("category_id"), ["annotations id 2", "category_id"]),
        (
            lambda c: c["annotations"][2]["segmentation"].update(size=[3, 5]),
            ["annotations id 3", "[3, 5]", "[3, 4]"],
        ),
        (
            lambda c: c["annotations"][2]["segmentation"].update(counts="11"),
            ["annotations id 3", "corrupt"],
        ),
        (lambda c: c.update(info=[]), []),
        (lambda c: c.update(licenses="none"), ["licenses"]),
    ],
)
def test_each_defect_of_a_coco_file_is_found(tmp_path, change, words):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(with_change(change)))
    status, lines = check_files(path)
    if not words:  # an empty info of another type is as good as none
        assert (status, lines) == (0, [])
        return
    assert status == 1 and len(lines) == 1, lines
    for word in [str(path), *words]:
        assert word in lines[0]


def test_several_defects_are_several_lines(tmp_path):
    def change(content):
        content["annotations"][0]["image_id"] = 7
        content["annotations"][2]["segmentation"]["size"] = [1, 1]

    path = tmp_path / "x.json"
    path.write_text(json.dumps(with_change(change)))
    status, lines = check_files(path)
    assert status == 1 and len(lines) == 2
    assert "annotations id 1" in lines[0] and "annotations id 3" in lines[1]

    def change_sections(content):
        content["images"][0]["width"] = 0
        content["categories"][0]["name"] = " "

    path.write_text(json.dumps(with_change(change_sections)))
    assert len(check_files(path)[1]) == 2


def test_what_must_be_repaired_hides_no_wrong_area_or_box(tmp_path):
    """Ids that are floats or texts, and an image that is not there: one run says all."""
    data = good_coco()
    for image in data["images"]:
        image["id"] = float(image["id"])
    data["annotations"][0]["id"] = "0"
    data["annotations"][1] |= {"area": 70, "bbox": [0, 0, 30, 30]}
    data["annotations"][2] |= {"image_id": "9"}
    (tmp_path / "x.json").write_text(json.dumps(data))
    status, lines = check_files(tmp_path / "x.json")
    assert status == 1 and len(lines) == 5
    for part in ("images[0]: id is 1.0", "annotations[0]: id is '0'", "id 2: area is 70, but the"):
        assert sum(part in line for line in lines) == 1
    assert sum("annotations id 2: bbox is [0, 0, 30, 30]" in line for line in lines) == 1
    assert sum("annotations id 3: image_id 9 is not in images" in line for line in lines) == 1


def test_a_wrong_area_or_box_is_a_defect(tmp_path):
    def change(content):
        content["annotations"][0].update(area=0)
        content["annotations"][2].update(bbox=[7, 8, 3, 3])

    path = tmp_path / "x.json"
    path.write_text(json.dumps(with_change(change)))
    status, lines = check_files(path)
    assert status == 1 and len(lines) == 2
    assert "annotations id 1: area is 0, but the mask has 3 pixels" in lines[0]
    assert "annotations id 3: bbox is [7, 8, 3, 3], but that of the mask is [0.0, 0.0," in lines[1]


def test_fix_writes_what_can_be_repaired(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(content):
        del content["info"], content["licenses"]
        content["annotations"][0].update(area=0, id=0)
        content["annotations"][1].update(category_id=1.0)
        del content["annotations"][2]["iscrowd"], content["annotations"][2]["segmentation"]

    source = tmp_path / "x.json"
    source.write_text(json.dumps(with_change(change)))
    before = source.read_bytes()
    command = ["check", "x.json", "--fix", "-o", "y.json"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("y.json was repaired: ") and "in memory" not in done.stderr
    for words in (
        "1 number that was",
        "1 annotation with a box",
        "1 area that was",
        "1 annotation id",
    ):
        assert words in done.stderr
    assert source.read_bytes() == before
    assert check_files("y.json") == (0, [])
    written = json.loads((tmp_path / "y.json").read_text())
    assert [entry["id"] for entry in written["annotations"]] == [1, 2]
    assert [entry["area"] for entry in written["annotations"]] == [3, 3]

    assert CliRunner().invoke(app, command).exit_code == 1  # y.json exists
    again = CliRunner().invoke(app, ["check", "y.json", "--fix", "-o", "-"])
    assert again.stdout == (tmp_path / "y.json").read_text()
    assert again.stderr == "-: there was nothing to repair\n"


def test_fix_writes_nothing_where_a_defect_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = json.dumps(with_change(lambda c: c["annotations"][0].update(image_id=9)))
    (tmp_path / "x.json").write_text(text)
    done = CliRunner().invoke(app, ["check", "x.json", "--fix", "-o", "y.json"])
    assert done.exit_code == 1 and "image_id 9" in done.stderr
    assert not (tmp_path / "y.json").exists()
    for line in ("x.json --fix", "x.json -o y.json", "x.json x.json --fix -o y.json"):
        assert run(["check", *line.split()]) == 2


def test_a_voc_folder_is_checked(tmp_path):
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    (tmp_path / "Annotations" / "a.xml").write_text("<a><object><name>cow</name></object></a>")
    label_maps.write(tmp_path / "SegmentationClass" / "a.png", np.array([[0, -1]]), 2)
    facts = info.run(tmp_path)
    assert (facts["layout"], facts["splits"]) == ("VOC", ["val"])
    assert (facts["images"], facts["label_maps"], facts["annotations"]) == (1, 1, 1)
    assert check_files(tmp_path) == (0, [])
    (tmp_path / "Annotations" / "a.xml").write_text("<a><object><name> </name></object>")
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"")
    status, lines = check_files(tmp_path)
    assert status == 1 and len(lines) == 2
    assert "a.xml is no XML" in lines[0] and "a.jpg" in lines[1]
    (tmp_path / "Annotations" / "a.xml").write_text("<a><object><name> </name></object></a>")
    assert "1 of its objects have no name" in check_files(tmp_path)[1][0]


def truncated(path, data):
    path.write_bytes(data[: len(data) // 2])


def test_other_broken_files(good, tmp_path):
    truncated(good["tensors"], good["tensors"].read_bytes())
    truncated(good["picture"], good["picture"].read_bytes())
    truncated(good["masks"], good["masks"].read_bytes())
    good["words"].write_text('{"a.png": []}')
    good["results"].write_text('[{"image_id": 1, "score": 0.5}, 3]')
    good["captions"].write_text('{"images": [], "annotations": [{"id": 1, "caption": "a"}]}')
    label_maps.write_classes(good["maps"] / "classes.txt", ["cow"])
    for name, count, words in [
        ("tensors", 1, "truncated"),
        ("picture", 1, "truncated"),
        ("pictures", 1, "a.jpg"),
        ("masks", 1, "not JSON"),
        ("words", 1, "'a.png'"),
        ("results", 2, "entry 0 has no category_id, segmentation"),
        ("captions", 1, "image_id"),
        ("maps", 1, "label 1"),
        ("map", 1, "label 1"),
    ]:
        status, lines = check_files(good[name])
        assert (status, len(lines)) == (1, count), (name, lines)
        assert words in lines[0]


def test_numbers_that_are_none_are_found(tmp_path):
    path = tmp_path / "x.safetensors"
    bad = torch.tensor([1.0, float("nan")])
    tensors.save(
        path, {"good": torch.zeros(2), "bad": bad, "whole": torch.ones(2).int()}, {"kind": "cams"}
    )
    (report,) = check.run(path)
    assert len(report["defects"]) == 1 and "tensor bad holds NaN" in report["defects"][0]


def test_parts_with_a_broken_mask_or_a_hole(tmp_path):
    broken = {"size": [3, 4], "counts": "11"}
    write_parts(tmp_path / "a.parts", [dict(MASK), broken])
    status, lines = check_files(tmp_path / "a.parts")
    assert status == 1 and "annotations id 2" in lines[0] and "corrupt" in lines[0]
    part = tmp_path / "a.parts" / "part-00000.jsonl"
    part.rename(part.with_name("part-00001.jsonl"))
    status, lines = check_files(tmp_path / "a.parts")
    assert status == 1 and "part-00000.jsonl is missing" in lines[0]


def test_a_folder_of_label_maps_without_one_is_a_defect(tmp_path):
    (tmp_path / "classes.txt").write_text("cow\n")
    Image.new("L", (4, 3)).save(tmp_path / "a.jpg")
    status, lines = check_files(tmp_path)
    assert status == 1 and lines == [
        f"error: {tmp_path} holds no label map; put a PNG there for each image"
    ]


@pytest.mark.parametrize(
    "program, content",
    [
        ("LabelMe", {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageData": None}),
        ("Label Studio", [{"id": 1, "data": {"image": "a.png"}, "annotations": []}]),
        ("VIA", {"a.png1234": {"filename": "a.png", "size": 1234, "regions": []}}),
        ("Supervisely", {"tags": [], "size": {"height": 3, "width": 4}, "objects": []}),
    ],
)
def test_an_annotation_of_another_program_is_named(tmp_path, program, content):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    said = f"{path} is an annotation of {program}; export COCO JSON with masks there, and give that"
    assert check_files(path) == (1, [f"error: {said}"])
    with pytest.raises(InputError, match=f"is an annotation of {program}"):
        coco.read(path)
    path.write_text(json.dumps({**good_coco(), "data": {}}))
    assert check_files(path) == (0, [])


def test_masks_of_0_and_255_are_no_labels(tmp_path, capsys):
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "classes.txt").write_text("background\ncow\n")
    for name in "ab":
        Image.fromarray(np.uint8([[0, 255], [0, 0]])).save(folder / f"{name}.png")
    assert run(["check", str(folder)]) == 1
    assert "255 is a pixel without a label; where it is of the class 'cow', write 1" in (
        capsys.readouterr().err
    )
    Image.fromarray(np.uint8([[0, 255], [1, 0]])).save(folder / "b.png")
    assert run(["check", str(folder)]) == 0


def test_each_label_map_of_a_folder_is_read_once(tmp_path, monkeypatch):
    for name in ("a", "b"):
        label_maps.write(tmp_path / f"{name}.png", np.array([[0, 1, 2]]), 3)
    label_maps.write_classes(tmp_path / "classes.txt", ["cow", "sky"])
    read, paths = label_maps.read, []
    monkeypatch.setattr(label_maps, "read", lambda path: (paths.append(path.name), read(path))[1])
    (report,) = check.run(tmp_path)
    assert paths == ["a.png", "b.png"]
    assert len(report["defects"]) == 2 and "holds the label 2" in report["defects"][0]

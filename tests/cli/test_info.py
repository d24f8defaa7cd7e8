"""`ovtool info`: every kind of file told from its content, and what is not ovtool's refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ovtool.cli.app import app
from ovtool.cli.errors import run
from ovtool.formats import coco, label_maps, merge, parts, rle, tensors
from ovtool.stages import info

MADE_BY = {"version": "0.1.0", "command": "segment", "settings": {"method": "patch"}}


def masks(failures=()):
    images = [coco.Image(1, "a.png", 4, 3), coco.Image(2, "b.png", 4, 3)]
    categories = [coco.Category(1, "cow"), coco.Category(2, "sky")]
    mask = rle.encode(np.eye(3, 4, dtype=bool))
    annotations = [
        coco.annotation(1, 1, 2, mask, 0.25),
        coco.annotation(2, 1, 1, mask, 0.5),
        coco.annotation(3, 1, 2, mask, 0.75),
    ]
    tool = {**MADE_BY, "failures": list(failures)}
    return coco.Dataset({"ovtool": tool}, images, annotations, categories)


def test_coco_masks(tmp_path):
    failure = {"file_name": "c.png", "reason": "truncated"}
    coco.write(masks([failure]), tmp_path / "x.json")
    facts = info.run(str(tmp_path / "x.json"))
    assert facts["kind"] == "COCO masks"
    assert (facts["images"], facts["annotations"], facts["categories"]) == (2, 3, 2)
    assert facts["images_with_annotations"] == 1
    assert facts["annotations_of"] == {"sky": 2, "cow": 1}
    assert facts["scores"] == {"lowest": 0.25, "highest": 0.75}
    assert facts["made_by"] == MADE_BY
    assert facts["failures"] == [failure]


@pytest.mark.parametrize(
    "content, kind, some",
    [
        (
            {"images": [], "annotations": [{"caption": "a cow"}]},
            "COCO captions",
            {"annotations": 1},
        ),
        ([{"image_id": 3, "category_id": 1}] * 2, "COCO results", {"annotations": 2}),
        (
            {"a.jpg": ["cow", "sky"], "b.jpg": ["cow"]},
            "classes per image",
            {"images": 2, "words": 2, "words_an_image": {"fewest": 1, "most": 2}},
        ),
        ({"metric": "miou", "miou": 0.5}, "scores", {"miou": 0.5}),
        ({"images": 3, "annotations": "many", "info": 1}, "COCO masks", {"images": 0}),
    ],
)
def test_other_json(tmp_path, content, kind, some):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    facts = info.run(str(path))
    assert facts["kind"] == kind
    assert facts.items() >= some.items()


def test_safetensors_are_not_loaded(tmp_path, monkeypatch):
    path = tmp_path / "x"
    header = {"kind": "cams", "model": "tiny", "fingerprint": "00ff", "settings": {"alpha": 1}}
    tensors.save(path, {"cam/1": torch.zeros(2, 3, 4, dtype=torch.float16)}, header)
    monkeypatch.setattr(tensors, "load", None)
    facts = info.run(str(path))
    assert (facts["kind"], facts["kind_of_tensors"]) == ("safetensors", "cams")
    assert (facts["tensors"], facts["numbers"]) == (1, 24)
    assert facts["first_tensors"] == {"cam/1": "F16 [2, 3, 4]"}
    assert facts["model"] == "tiny" and facts["made_by"]["settings"] == {"alpha": 1}


def test_label_maps(tmp_path):
    labels = np.array([[0, 0, 1, -1]], dtype=np.int32)
    label_maps.write(tmp_path / "a.png", labels, 2)
    alone = info.run(str(tmp_path / "a.png"))
    assert (alone["kind"], alone["height"], alone["width"]) == ("label map", 1, 4)
    assert alone["shares"] == {"unlabelled": 0.25, "0": 0.5, "1": 0.25}
    label_maps.write_classes(tmp_path / "classes.txt", ["cow", "sky"])
    named = info.run(str(tmp_path / "a.png"))
    assert named["shares"] == {"unlabelled": 0.25, "cow": 0.5, "sky": 0.25}
    folder = info.run(str(tmp_path))
    assert (
        folder.items() >= {"kind": "label maps", "label_maps": 1, "names": ["cow", "sky"]}.items()
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_picture_is_no_label_map(tmp_path, mode):
    picture = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3)).convert(mode)
    picture.save(tmp_path / "a.png")
    assert info.run(str(tmp_path / "a.png")).items() >= {"kind": "image", "height": 3}.items()
    assert (
        info.run(str(tmp_path)).items() >= {"kind": "images", "images": 1, "label_maps": 0}.items()
    )


def test_images_and_label_maps_of_a_folder_are_counted_apart(tmp_path):
    for name in ("a.jpg", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    label_maps.write(tmp_path / "sub" / "a.png", np.zeros((3, 4), int), 2)
    facts = info.run(tmp_path)
    assert (facts["kind"], facts["images"], facts["label_maps"]) == ("images", 3, 1)


def test_parts(tmp_path):
    whole = masks()
    start = merge.preface({"ovtool": MADE_BY}, whole.categories)
    store = parts.PartStore(tmp_path / "x.parts", "d1", {"method": "patch"}, start)
    one, two = parts.cut(3, 2)
    store.write(one, [parts.image_record(f"{k}.png", 3, 4, []) for k in range(2)])
    store.write(two, [parts.failure_record("2.png", "truncated")])
    facts = info.run(str(tmp_path / "x.parts"))
    assert facts["kind"] == "parts" and facts["made_by"] == MADE_BY
    assert (facts["images"], facts["failures"], facts["digest"]) == (2, 1, "d1")


def test_lines_for_people_and_json_for_programs(tmp_path):
    path = tmp_path / "x.json"
    coco.write(masks(), path)
    plain = CliRunner().invoke(app, ["info", str(path)])
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[:3] == [f"file: {path}", "kind: COCO masks", "images: 2"]
    assert "  command: segment" in plain.stdout.splitlines()
    assert "    method: patch" in plain.stdout.splitlines()
    as_json = CliRunner().invoke(app, ["info", str(path), "--json"])
    assert json.loads(as_json.stdout) == info.run(str(path))
    piped = CliRunner().invoke(app, ["info", "-", "--json"], input=path.read_text())
    assert json.loads(piped.stdout) == {**info.run(str(path)), "file": "-"}


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("none", None, ["no such file", "none"]),
        ("x.json", b"", ["x.json"]),
        ("x.json", b'{"images": [', ["not JSON", "line 1"]),
        ("x.json", b'{"colour": 1}', ["nothing that ovtool knows", "colour"]),
        ("x.safetensors", b"\x00" * 5, ["truncated or not a safetensors file"]),
        ("x.bin", b"\x10" + b"\x00" * 7 + b'{"a":1}', ["truncated or not a safetensors file"]),
        ("x.png", b"\x89PNG\r\n\x1a\n", ["x.png"]),
        ("x.txt", b"hello", ["not an image"]),
    ],
)
def test_what_is_not_ovtools_is_one_line_and_status_1(tmp_path, name, data, words, capsys):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert run(["info", str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    for word in words:
        assert word in said.err

"""A file of the wrong kind is named for what it is, with the command that reads it."""

import gzip
import json

import numpy as np
import pytest

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, images, label_maps, tensors, wrong_kind


def made_by(path, command):
    """A COCO JSON as a command writes it, empty."""
    info = {"ovtool": {"command": command}}
    path.write_text(json.dumps({"info": info, "images": [], "annotations": [], "categories": []}))
    return path


def test_pairs_in_place_of_maps(tmp_path):
    path = made_by(tmp_path / "pairs.json", "mine-pairs")
    with pytest.raises(InputError) as caught:
        tensors.load(path, "cams")
    assert str(caught.value) == (
        f"{path} is a COCO JSON of pairs, which ovtool tune-prompts reads; needed here: class activation "
        "maps, made by ovtool cam"
    )


def test_maps_in_place_of_a_head_and_of_json(tmp_path):
    path = tmp_path / "maps.safetensors"
    tensors.save(path, {"a": np.zeros((2, 2), np.float32)}, {"kind": "cams"})
    with pytest.raises(MismatchError) as caught:
        tensors.load(path, ("pacl", "proposer"))
    what = f"{path} holds class activation maps, which ovtool refine reads; needed here: "
    assert str(caught.value) == (
        f"{what}a PACL head, made by ovtool train-pacl or a proposer, made by ovtool train-proposer"
    )
    with pytest.raises(InputError) as said:
        coco.read(path)
    assert str(said.value) == f"{what}JSON"


def test_what_ovtool_did_not_write(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"x\.json is JSON; needed here: a segmenter"):
        tensors.load(path, "segmenter")
    made_by(path, "another")
    with pytest.raises(InputError, match=r"x\.json is a COCO JSON; needed here: a segmenter"):
        tensors.load(path, "segmenter")
    path.write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        tensors.load(path, "segmenter")


def test_a_long_json_is_told_without_reading_all_of_it(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    made_by(path, "mine-pairs")
    told = [wrong_kind.of_json(path)]
    monkeypatch.setattr(wrong_kind, "_LONG", 10)
    told.append(wrong_kind.of_json(path))
    assert told == ["is a COCO JSON of pairs, which ovtool tune-prompts reads"] * 2
    head, _, rest = path.read_text().partition('"annotations"')
    path.write_text(head + '"annotations"' + rest.replace("[", "[ broken ", 1))
    assert wrong_kind.of_json(path) == told[0]  # behind the images nothing is looked at
    path.write_text('[1, {"a": 2}, 3, 4]')
    assert wrong_kind.of_json(path) == "is JSON"
    path.write_text("[cow, horse, sheep]")
    assert wrong_kind.of_json(path) is None


BEGINNINGS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "fetch it with git lfs"),
    "page": (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
    "gzip": (gzip.compress(b"{}"), "is an archive; unpack it"),
    "utf16": ("{}".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_file_that_is_not_what_its_name_says(name, tmp_path):
    content, said = BEGINNINGS[name]
    for ending, read in (
        ("json", coco.read),
        ("jpg", images.read_rgb),
        ("safetensors", lambda path: tensors.load(path, "pacl")),
    ):
        path = tmp_path / f"x.{ending}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read(path)


def test_lists_of_words_as_powershell_writes_them(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("cow\r\nmaïs\r\n".encode("utf-16"))
    assert label_maps.read_classes(path) == ["cow", "maïs"]
    path.write_bytes(gzip.compress(b"cow"))
    with pytest.raises(InputError, match="is an archive; unpack it"):
        label_maps.read_classes(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"imgHeight": 9, "imgWidth": 9, "objects": []}, "holds polygons of Cityscapes; give"),
        ([{"data_row": {}, "projects": {}}], "is an annotation of Labelbox; export COCO JSON"),
        ({"version": "2.0", "item": {}, "annotations": []}, "is an annotation of V7 Darwin"),
        ({"info": {}, "categories": {}, "items": []}, "is an annotation of Datumaro"),
        ([{"name": "a.jpg", "labels": []}], "is an annotation of Scalabel"),
        ({"name": "v1", "dataset": {"samples": []}}, "is an annotation of Segments.ai"),
        ({"image": {}, "annotations": []}, "holds masks of one image, as SA-1B has them"),
        ([{"segmentation": {}, "predicted_iou": 0.9}], "holds a list of SAM's masks of one image"),
    ],
)
def test_annotations_of_more_programs_are_named(content, said, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        coco.read(tmp_path / "x.json")


def test_what_looks_like_another_program_in_a_section_of_coco_is_none(tmp_path):
    data = {"info": {"name": "v1", "dataset": "x"}, "images": [], "annotations": []}
    (tmp_path / "x.json").write_text(json.dumps(data | {"categories": []}))
    assert not coco.read(tmp_path / "x.json").images

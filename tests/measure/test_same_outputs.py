"""The comparison of what two versions make sees what changed, and not what says how it was made."""

import importlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.formats import label_maps, tensors

SCRIPTS = Path(__file__).parents[2] / "scripts" / "measure"


@pytest.fixture(scope="module")
def script():
    """`scripts/measure/same_outputs.py`, which is no part of the package."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("same_outputs")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def compared(script, tmp_path):
    """Writes a file on both sides by two functions of its path, and compares the folders."""

    def compare(name, old, new, plots=()):
        folders = [tmp_path / "old", tmp_path / "new"]
        for folder, write in zip(folders, (old, new), strict=True):
            folder.mkdir(exist_ok=True)
            write(folder / name)
        return script.compare.folder_differences(*folders, plots=plots)

    return compare


def coco_file(score=0.5, version="1", categories=("cow",)):
    document = {
        "info": {"ovtool": {"version": version, "settings": {"rate": version}}},
        "licenses": [],
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "score": score}],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, start=1)],
    }
    return lambda path: path.write_text(json.dumps(document))


def tensor_file(value, kind="pacl", **settings):
    weight = torch.zeros(3, 2)
    weight[1, 1] = value
    header = {"kind": kind, "settings": settings}
    return lambda path: tensors.save(path, {"bias": torch.ones(2), "weight": weight}, header)


def image_file(value, mode="RGB"):
    pixels = np.zeros((5, 4, 3), np.uint8)
    pixels[2, 3, 1] = value
    return lambda path: Image.fromarray(pixels).convert(mode).save(path)


def test_equal_files_have_no_difference(compared):
    assert compared("a.json", coco_file(), coco_file()) == []
    assert compared("b.safetensors", tensor_file(1), tensor_file(1)) == []
    assert compared("c.png", image_file(9), image_file(9)) == []
    assert compared("d.txt", lambda path: path.touch(), lambda path: path.touch()) == []


def test_a_changed_annotation_is_seen_and_provenance_is_not(compared):
    assert compared("x.json", coco_file(), coco_file(version="2")) == []
    assert compared("x.json", coco_file(), coco_file(score=0.50001)) == [
        "x.json: annotations[0].score is 0.5 in old, 0.50001 in new"
    ]
    assert compared("x.json", coco_file(), coco_file(categories=("cow", "ox"))) == [
        "x.json: categories has 1 and 2 entries"
    ]


def test_a_changed_number_of_an_answer_is_seen(compared):
    def answer(miou, model):
        document = {"rows": [{"miou": miou, "pacl": model}], "ovtool": {"model": model}}
        return lambda path: path.write_text(json.dumps(document))

    assert compared("answer.json", answer(0.25, "a"), answer(0.25, "b")) == []
    assert compared("answer.json", answer(float("nan"), "a"), answer(float("nan"), "a")) == []
    assert compared("answer.json", answer(0.25, "a"), answer(None, "a")) == [
        "answer.json: rows[0].miou is 0.25 in old, null in new"
    ]


def test_a_changed_tensor_is_seen_and_settings_are_not(compared):
    assert compared("x.safetensors", tensor_file(1), tensor_file(1, rate=2)) == []
    assert compared("x.safetensors", tensor_file(1), tensor_file(1.5)) == [
        "x.safetensors: weight differs by up to 0.5"
    ]
    assert compared("x.safetensors", tensor_file(1), tensor_file(1, "segmenter")) == [
        "x.safetensors: the kind is pacl in old, segmenter in new"
    ]


def test_tensors_are_compared_to_the_bit_whatever_their_type(compared):
    def stored(value, dtype):
        return lambda path: tensors.save(
            path, {"x": torch.tensor([value], dtype=dtype)}, {"kind": "k"}
        )

    name = "x.safetensors"
    assert compared(name, stored(1, torch.bfloat16), stored(1, torch.bfloat16)) == []
    assert compared(name, stored(1, torch.bfloat16), stored(1.01, torch.bfloat16)) == [
        f"{name}: x differs"
    ]
    assert compared(name, stored(1, torch.float32), stored(1, torch.float16)) == [
        f"{name}: x is F32 (1,) in old, F16 (1,) in new"
    ]


def test_the_images_and_categories_of_maps_are_seen(compared):
    maps = [tensor_file(1, "cams", images=[{"id": 1, "category_ids": [n]}]) for n in (1, 2)]
    assert compared("x.safetensors", *maps) == [
        "x.safetensors: header images[0].category_ids[0] is 1 in old, 2 in new"
    ]


def test_a_changed_pixel_is_seen_unless_it_is_of_a_plot(compared):
    assert compared("x.png", image_file(9), image_file(10)) == ["x.png: 1 of 20 pixels differ"]
    assert compared("x.png", image_file(9), image_file(10), plots=["x.png"]) == []
    assert compared("x.png", image_file(9), image_file(9, "L")) == [
        "x.png: RGB of (4, 5) in old, L of (4, 5) in new"
    ]


def test_a_changed_label_is_seen(compared):
    labels = np.zeros((3, 4), np.int32)
    changed = labels.copy()
    changed[0, 0] = -1
    old, new = (lambda path, one=one: label_maps.write(path, one, 3) for one in (labels, changed))
    assert compared("x.png", old, old) == []
    assert compared("x.png", old, new) == ["x.png: 1 of 12 pixels differ"]


def test_a_file_of_one_side_is_seen(compared, tmp_path):
    assert compared("a.txt", lambda path: path.touch(), lambda path: None) == [
        "a.txt is made by the old side only"
    ]


def test_flags_are_spelled_as_a_side_knows_them(script):
    case = script.Case("x", "refine c.safetensors --apply crf --lr 1 -o x.json")
    assert script.spelled(case, frozenset({"--apply", "--steps", "--lr"})) == case.words
    assert script.spelled(case, frozenset({"--steps", "--rate"})) == [
        "refine", "c.safetensors", "--steps", "crf", "--rate", "1", "-o", "x.json",
    ]  # fmt: skip
    propose = script.Case("x", "propose a.png --save-embeddings e --proposer tiny")
    assert "--embeddings" in script.spelled(propose, frozenset({"--embeddings"}))


def test_flags_are_read_from_plain_help_and_from_panels(script):
    text = io.StringIO()
    print(
        "  Reads what --proposals names.\n  -o, --output FILE  Where to, with --resume.", file=text
    )
    print(
        "│ *  --labels      SPEC  Which classes.│\n│    --flip              Mirrored.  │", file=text
    )
    assert script.LISTED.findall(text.getvalue()) == ["--output", "--labels", "--flip"]


def test_a_case_brings_the_cases_that_it_reads(script):
    names = [case.name for case in script.selected(["refine-prompts-fit"])]
    assert names == ["data-make", "cam-gradcam", "tune-background", "refine-prompts-fit"]
    with pytest.raises(SystemExit, match="no case begins"):
        script.selected(["nothing"])


def test_cases_have_names_of_their_own_and_read_what_was_made_before(script):
    made = set()
    for case in script.CASES:
        assert case.name not in made
        assert case.needs <= made, case.name
        made.add(case.name)


def test_a_failure_on_both_sides_is_no_equality(script, tmp_path):
    sides = [script.Side(name, tmp_path / name, None, {}) for name in ("old", "new")]
    for side in sides:
        (side.work / "x").mkdir(parents=True)
    case = script.Case("x", "cam")
    fine, broken = script.Result(0, "done"), script.Result(1, "error: no")
    assert script.case_differences(case, sides, [fine, fine]) == []
    assert "on both sides" in script.case_differences(case, sides, [broken, broken])[0]
    assert "exit status 0 in old" in script.case_differences(case, sides, [fine, broken])[0]

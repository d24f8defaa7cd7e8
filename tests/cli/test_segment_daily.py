"""`ovtool segment` for daily use: cut-outs, and words that compete without being written."""

import json

import numpy as np
import pytest
from PIL import Image

import ovtool
from ovtool.cli.errors import run
from ovtool.formats import coco, rle
from ovtool.formats import images as image_files
from ovtool.outputs import drawn_files

WORDS = "cow,apple,polar bear"


def masks_of(path):
    """(file name, word) to mask."""
    dataset = coco.read(path)
    images = {image.id: image for image in dataset.images}
    words = {category.id: category.name for category in dataset.categories}
    return {
        (images[entry.image_id].file_name, words[entry.category_id]): rle.decode(
            entry.segmentation, images[entry.image_id].height, images[entry.image_id].width
        )
        for entry in dataset.annotations
    }


def test_a_cut_out_is_the_box_of_its_mask():
    rgb = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    mask = np.zeros((5, 6), bool)
    mask[1, 2:4] = mask[3, 2] = True
    cut = drawn_files.cut_out(rgb, mask)
    assert cut.shape == (3, 2, 4) and cut.dtype == np.uint8
    assert (cut[..., 3] == np.where(mask[1:4, 2:4], 255, 0)).all()
    assert (cut[0, :, :3] == rgb[1, 2:4]).all() and not cut[1].any() and not cut[2, 1].any()


def test_a_cut_out_for_each_word_and_image(desk, photos, capsys):
    line = ["segment", str(photos), "--classes", WORDS, "-o", "o.json", "--cut-outs", "cut"]
    assert run(line) == 0
    assert "o.json, cut" in capsys.readouterr().err
    masks = masks_of("o.json")
    places = {"cow": "001-cow", "apple": "002-apple", "polar bear": "003-polar-bear"}
    expected = set()
    for (name, word), mask in masks.items():
        path = desk / "cut" / name.rpartition(".")[0] / f"{places[word]}.png"
        expected.add(path)
        with Image.open(path) as image:
            assert image.mode == "RGBA"
            cut = np.asarray(image)
        assert (cut[..., 3] == 255).sum() == mask.sum()
        rgb = image_files.read_rgb(photos / name)
        assert (cut[cut[..., 3] == 255][:, :3] == rgb[mask]).all()
    assert expected and set((desk / "cut").rglob("*.png")) == expected
    # a search of folders takes none of them for an image
    capsys.readouterr()
    assert run(["segment", "cut", "--classes", WORDS, "-o", "again.json"]) == 1


def test_cut_outs_need_an_empty_folder_of_their_own(desk, photos, fails):
    line = ["segment", photos, "--classes", WORDS, "-o", "o.json", "--cut-outs"]
    assert "cut-outs need a folder each" in fails(2, *line, "x", "--overlays", "x")
    (desk / "full").mkdir()
    (desk / "full" / "x.png").touch()
    assert "full is not empty" in fails(1, *line, "full")


@pytest.mark.parametrize("method", ["patch", "fused"])
def test_only_some_words_are_written_and_the_others_compete(desk, photos, method):
    line = ["segment", str(photos), "--classes", WORDS, "--method", method]
    assert run([*line, "-o", "all.json"]) == 0
    some = ["--only", "Cow", "--only", "polar_bear", "--cut-outs", "cut", "--heatmaps", "heat"]
    assert run([*line, "-o", "some.json", *some]) == 0
    expected = {key: mask for key, mask in masks_of("all.json").items() if key[1] != "apple"}
    masks = masks_of("some.json")
    assert masks.keys() == expected.keys()
    assert all((masks[key] == expected[key]).all() for key in masks)
    names = {path.name for path in (desk / "heat").rglob("*.png")}
    assert names == {"001-cow.png", "003-polar-bear.png"}
    assert {path.name for path in (desk / "cut").rglob("*.png")} <= names
    content = json.loads((desk / "some.json").read_text())
    assert content["info"]["ovtool"]["settings"]["only"] == ["cow", "polar bear"]
    assert len(content["categories"]) == 3


def test_a_word_that_is_not_looked_for_is_refused(desk, photos, fails):
    line = ["segment", photos, "--classes", WORDS, "-o", "o.json", "--only", "tree"]
    said = fails(2, *line)
    assert "--only 'tree' is none of the words that are looked for" in said
    assert "cow, apple, polar bear" in said


def test_only_in_python(desk, photos):
    words = ovtool.Words(classes=WORDS, only=("apple",))
    masks = ovtool.Segmenter(words, method="patch", model="tiny")(photos / "a.png")
    every = ovtool.Segmenter(WORDS, method="patch", model="tiny")(photos / "a.png")
    assert not masks["cow"].any() and not masks["polar bear"].any()
    assert (masks["apple"] == every["apple"]).all()

"""Label maps, categories and names that are odd or wrong, in every metric of `evaluate`, in `report` and in
`convert`: a right answer or one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.cli.errors import run
from ovtool.formats import cams, coco, label_maps, rle

SIDE = 12
OF_PIXELS = ("miou", "boundary-iou", "panoptic")
OF_MASKS = ("ap", "recall")
ODD = (
    "salt, pepper",
    'the "big" one',
    "it's \\ a / slash",
    "two\nlines",
    "🐮 cow",
    "שלום עולם",
    "\u202eright to left",
    "<script>alert(1)</script>",
    "tab\there",
)


def blocks(classes, seed=0):
    """A label map with a band for each class, cut by a column of another."""
    labels = (np.arange(SIDE) * classes // SIDE)[:, None].repeat(SIDE, 1)
    labels[:, seed % SIDE] = labels[::-1, 0]
    return labels.astype(np.int32)


def dataset(maps, names, ids=None, score=None):
    ids = ids or range(1, len(names) + 1)
    images = [
        coco.Image(k, f"{k}.png", labels.shape[1], labels.shape[0])
        for k, labels in enumerate(maps, start=1)
    ]
    entries = []
    for image, labels in zip(images, maps, strict=True):
        for k, mask in rle.encode_label_map(labels, range(len(names))).items():
            entries.append(coco.annotation(len(entries) + 1, image.id, ids[k], mask, score))
    categories = [coco.Category(id, name) for id, name in zip(ids, names, strict=True)]
    return coco.Dataset({}, images, entries, categories)


def write_maps(folder, maps, names):
    folder.mkdir()
    for k, labels in enumerate(maps, start=1):
        label_maps.write(folder / f"{k}.png", labels, max(len(names), int(labels.max()) + 1))
    label_maps.write_classes(folder / "classes.txt", names)


def measured(capsys, *words):
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


MAIN = {
    "miou": "miou",
    "boundary-iou": "boundary_miou",
    "panoptic": "pq",
    "ap": "ap",
    "recall": "average_recall",
}


# --- labels ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", OF_PIXELS)
@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_values_beyond_the_classes(desk, fails, metric, side):
    write_maps(desk / "beyond", [blocks(4)], ("ant", "bee", "cow"))
    write_maps(desk / "whole", [blocks(3)], ("ant", "bee", "cow"))
    files = ("beyond", "whole") if side == "prediction" else ("whole", "beyond")
    said = fails(1, "evaluate", files[0], "--ground-truth", files[1], "--metric", metric)
    assert said == (
        "beyond: 1 holds the label 3, but there are only 3 classes; complete classes.txt, or for the truth "
        "give --ignore-label"
    )


@pytest.mark.parametrize("metric", [*OF_PIXELS, *OF_MASKS])
def test_sizes_that_differ(desk, fails, metric):
    names = ("ant", "bee", "cow")
    coco.write(dataset([blocks(3)], names), desk / "truth.json")
    coco.write(dataset([blocks(3)[:, 1:]], names, score=0.5), desk / "narrow.json")
    said = fails(1, "evaluate", "narrow.json", "--ground-truth", "truth.json", "--metric", metric)
    assert said.startswith(
        "1.png: prediction and truth differ in size (11 x 12 and 12 x 12 pixels)"
    )


def test_maps_of_another_size_are_no_seeds(desk, fails):
    truth = dataset([blocks(2), blocks(2, 1)], ("ant", "bee"))
    coco.write(truth, desk / "truth.json")
    images = [cams.CamImage(k, f"{k}.png", SIDE, SIDE + k - 1, (1, 2)) for k in (1, 2)]
    maps = {k: torch.zeros(2, 3, 3) for k in (1, 2)}
    cams.write(desk / "maps.safetensors", images, truth.categories, maps, {})
    line = ("evaluate", "maps.safetensors", "--ground-truth", "truth.json", "--metric", "seeds")
    assert "2.png: prediction and truth differ in size (13 x 12 and 12 x 12" in fails(1, *line)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_images_are_no_label_maps(desk, fails, mode):
    write_maps(desk / "truth", [blocks(2)], ("ant", "bee"))
    write_maps(desk / "own", [blocks(2)], ("ant", "bee"))
    coloured = np.array(Image.fromarray(blocks(2).astype(np.uint8)).convert(mode))
    coloured[0, 0, -1] = 9  # another colour, or an opacity; without it the map is grey and read
    Image.fromarray(coloured).save(desk / "own" / "1.png")
    said = fails(1, "evaluate", "own", "--ground-truth", "truth")
    assert "a label map has one class index a pixel" in said


# --- categories ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", [*OF_PIXELS, *OF_MASKS])
def test_ids_with_gaps_and_in_another_order_are_right(desk, capsys, metric):
    names, maps = ("ant", "bee", "cow"), [blocks(3), blocks(3, 5)]
    coco.write(dataset(maps, names, score=0.5), desk / "plain.json")
    coco.write(dataset(maps, names, (3, 17, 90)), desk / "gaps.json")
    turned = dataset(maps, names, (90, 17, 5))
    own = sorted(turned.categories, key=lambda category: category.id)
    coco.write(replace(turned, categories=own), desk / "turned.json")
    for truth in ("gaps.json", "turned.json"):
        line = ("evaluate", "plain.json", "--ground-truth", truth, "--metric", metric)
        result, _ = measured(capsys, *line)
        assert result[MAIN[metric]] == pytest.approx(1)
        if "classes" in result:
            assert {row["name"] for row in result["classes"]} == set(names)


@pytest.mark.parametrize("metric", [*OF_PIXELS, *OF_MASKS])
def test_a_name_that_is_there_twice(desk, fails, metric):
    coco.write(dataset([blocks(2)], ("ant", "bee"), score=0.5), desk / "own.json")
    content = json.loads((desk / "own.json").read_text())
    content["categories"][1]["name"] = "ant"
    (desk / "twice.json").write_text(json.dumps(content))
    said = fails(1, "evaluate", "own.json", "--ground-truth", "twice.json", "--metric", metric)
    assert "twice.json" in said and "ant" in said


def test_a_name_that_is_there_twice_in_another_spelling(desk, fails):
    coco.write(dataset([blocks(2)], ("polar bear", "Polar  Bear")), desk / "truth.json")
    coco.write(dataset([blocks(2)], ("polar bear", "cow")), desk / "own.json")
    for metric in (*OF_PIXELS, "ap"):
        said = fails(1, "evaluate", "own.json", "--ground-truth", "truth.json", "--metric", metric)
        assert said == "truth.json: the class 'Polar Bear' is there twice; rename one of them"


def test_a_line_of_classes_that_is_there_twice(desk, fails):
    write_maps(desk / "maps", [blocks(2)], ("ant", "bee"))
    (desk / "maps" / "classes.txt").write_text("ant\nbee\nant\n")
    said = fails(1, "evaluate", "maps", "--ground-truth", "maps")
    assert said == "maps/classes.txt: 'ant' is on line 1 and again on line 3"


# --- names ---------------------------------------------------------------------------------------------------
@pytest.fixture
def odd(desk):
    """odd.json and truth.json of the same masks, whose names are odd; images/ with their images."""
    maps = [blocks(len(ODD)), blocks(len(ODD), 3)]
    coco.write(dataset(maps, ODD, score=0.5), desk / "odd.json")
    coco.write(dataset(maps, ODD), desk / "truth.json")
    (desk / "images").mkdir()
    for k in (1, 2):
        Image.new("RGB", (SIDE, SIDE), (k, 2, 3)).save(desk / "images" / f"{k}.png")
    return desk


@pytest.mark.parametrize("metric", [*OF_PIXELS, "ap"])
def test_odd_names_are_measured_and_stay_in_their_line(odd, capsys, metric):
    line = ("evaluate", "odd.json", "--ground-truth", "truth.json", "--metric", metric)
    result, table = measured(capsys, *line)
    assert [row["name"] for row in result["classes"]] == list(ODD)
    assert result[MAIN[metric]] == pytest.approx(1)
    rows = table.split("\n\n")[0].splitlines()
    assert len(rows) == 1 + len(ODD)
    assert not set("\u202e\t\x1b") & set(table)
    assert any("🐮 cow" in row for row in rows) and any("שלום" in row for row in rows)


def test_odd_names_are_novel_and_ignored(odd, capsys):
    (odd / "novel.txt").write_text("🐮 cow\nשלום עולם\n", encoding="utf-8")
    line = (
        "evaluate",
        "odd.json",
        "--ground-truth",
        "truth.json",
        "--ignore-label",
        'the "big" one',
    )
    result, _ = measured(capsys, *line, "--novel", "novel.txt")
    assert {row["name"] for row in result["classes"] if row["novel"]} == {"🐮 cow", "שלום עולם"}
    assert 'the "big" one' not in {row["name"] for row in result["classes"]}
    result, _ = measured(capsys, *line, "--novel", "salt\\, pepper,🐮 cow")
    assert {row["name"] for row in result["classes"] if row["novel"]} == {"salt, pepper", "🐮 cow"}


def test_odd_names_are_text_in_a_report(odd, capsys):
    assert run(["evaluate", "odd.json", "--ground-truth", "truth.json", "-o", "scores.json"]) == 0
    files = ["odd.json", "scores.json", "--ground-truth", "truth.json", "--images", "images"]
    assert run(["report", *files, "-o", "r.html"]) == 0
    page = (odd / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "🐮 cow" in page and "שלום עולם" in page and "the &#34;big&#34; one" in page


def test_odd_names_of_images(desk, capsys):
    names = ("salt, pepper.png", 'the "big" one.png', "🐮.png", "שלום.png", "a 'b'.png")
    maps = [blocks(2, k) for k in range(len(names))]
    for file, score in (("own.json", 0.5), ("truth.json", None)):
        plain = dataset(maps, ("ant", "bee"), score=score)
        images = [replace(image, file_name=names[image.id - 1]) for image in plain.images]
        coco.write(replace(plain, images=images), desk / file)
    line = ("evaluate", "own.json", "--ground-truth", "truth.json", "--per-image")
    result, table = measured(capsys, *line)
    assert {row["file_name"] for row in result["per_image"]} == set(names)
    assert all(name in table for name in names)


def test_odd_names_survive_conversion(odd, capsys):
    for kind, file in (("coco", "again.json"), ("coco-results", "list.json")):
        assert run(["convert", "odd.json", "--to", kind, "-o", file]) == 0
    assert [c.name for c in coco.read(odd / "again.json").categories] == list(ODD)
    result, _ = measured(capsys, "evaluate", "list.json", "--ground-truth", "truth.json")
    assert result["miou"] == pytest.approx(1)

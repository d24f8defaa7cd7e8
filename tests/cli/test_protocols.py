"""A published measure is two commands: `segment --protocol` and `evaluate --protocol`, on a small VOC."""

import json

import numpy as np
import pytest
import torch

from ovtool.cli.errors import run
from ovtool.formats import cams, coco, rle
from ovtool.inputs import images
from tests.datasets import sets


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    return tmp_path / "sets"


def predicted(path, name, rows):
    """A prediction of one image: each row of pixels has a class or None."""
    names = [word for word in dict.fromkeys(rows) if word]
    categories = [coco.Category(k, word) for k, word in enumerate(names, start=1)]
    image = coco.Image(1, name, sets.SIZE[1], sets.SIZE[0])
    masks = []
    for category in categories:
        mask = np.repeat([[word == category.name] for word in rows], sets.SIZE[1], axis=1)
        masks.append(coco.annotation(len(masks) + 1, 1, category.id, rle.encode(mask), 0.9))
    coco.write(coco.Dataset({}, [image], masks, categories), path)
    return str(path)


def measured(capsys, *line):
    capsys.readouterr()
    assert run([*map(str, line), "--json", "-q"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("make", "name", "classes"), sets.MADE)
def test_a_prediction_that_is_right_is_all_right(make, name, classes, desk, tmp_path, capsys):
    """Each data set as the truth of `evaluate`, by its name."""
    make(desk)
    (item,) = images.find([name])
    file = predicted(tmp_path / "p.json", item.name, classes)
    result = measured(capsys, "evaluate", file, "--ground-truth", name)
    counted = [word for word in classes if word]
    assert result["miou"] == result["miou_union"] == 1 and result["images"] == 1
    assert result["pixels"] == len(counted) * sets.SIZE[1]
    assert {row["name"] for row in result["classes"]} == set(counted)


def test_what_a_protocol_counts(desk, tmp_path, capsys):
    """Rows of background, boat, person and in doubt. As VOC20 the first is not counted: boat is all right, person
    all wrong. As VOC21 it is, where `boat` is half wrong, and person is named background."""
    sets.voc(desk)
    file = predicted(tmp_path / "p.json", "2007_000001.jpg", ["boat", "ship", None, "boat"])
    result = measured(capsys, "evaluate", file, "--protocol", "voc20")
    assert result["miou"] == 0.5 and result["pixels"] == 12 and result["pixels_not_counted"] == 12
    result = measured(capsys, "evaluate", file, "--protocol", "voc21")
    assert result["miou"] == pytest.approx((0 + 0.5 + 0) / 3) and result["pixels"] == 18
    assert result["protocol"]["background"] == "counted"
    assert result["ovtool"]["settings"]["protocol"] == "voc21"
    assert result["ovtool"]["settings"]["ground_truth"] == "voc:val"
    capsys.readouterr()
    assert run(["evaluate", file, "--protocol", "voc21"]) == 0
    assert "protocol voc21: the classes of voc20 on voc:val; background is a class too" in (
        capsys.readouterr().out
    )


def test_a_truth_of_ones_own_is_measured_by_a_protocol_too(desk, tmp_path, capsys):
    """Label maps of ones own with classes.txt, and COCO's masks, where what no mask covers is background."""
    folder = tmp_path / "maps"
    sets.label_map(folder / "a.png", sets.rows(0, 1, 2, 255))
    sets.text(folder / "classes.txt", "background", "boat", "person")
    file = predicted(tmp_path / "p.json", "a.jpg", ["boat", "boat", None, "boat"])
    line = ["evaluate", file, "--ground-truth", folder, "--protocol"]
    assert measured(capsys, *line, "voc21")["miou"] == pytest.approx(0.5 / 3)
    assert measured(capsys, *line, "voc20")["miou"] == 0.5
    truth = predicted(tmp_path / "t.json", "a.jpg", [None, "boat", "person", None])
    result = measured(capsys, "evaluate", file, "--ground-truth", truth, "--protocol", "coco14-val")
    assert result["pixels"] == 24 and result["miou"] == pytest.approx((0 + 6 / 18 + 0) / 3)


def test_segment_and_evaluate_by_one_protocol(desk, capsys):
    sets.voc(desk)
    line = ["segment", "voc:val", "--protocol", "voc20", "--recipe", "naclip", "--model", "tiny"]
    assert run([*line, "-o", "voc.json"]) == 0
    assert "protocol voc20: the classes of voc20 on voc:val" in capsys.readouterr().err
    made = json.loads(open("voc.json").read())
    assert [category["id"] for category in made["categories"]] == list(range(1, 21))
    assert made["categories"][3]["name"] == "ship"
    method = made["info"]["ovtool"]["settings"]["method"]
    assert (method["protocol"], method["short_side"], method["window"]) == ("voc20", 336, None)
    assert made["info"]["ovtool"]["settings"]["origins"]["window"] == "protocol"
    result = measured(capsys, "evaluate", "voc.json", "--protocol", "voc20")
    assert 0 <= result["miou"] <= 1 and result["images"] == 1


def test_a_data_set_that_is_not_there(desk, tmp_path, capsys):
    file = predicted(tmp_path / "p.json", "a.jpg", ["boat"] * 4)
    assert run(["evaluate", file, "--protocol", "voc20"]) == 1
    assert "voc:val is not at" in capsys.readouterr().err
    assert run(["segment", "voc:val", "--protocol", "voc21", "--model", "tiny"]) == 1
    assert "VOC2012" in capsys.readouterr().err
    sets.voc(desk)
    assert run(["segment", "voc:val", "--protocol", "pc459", "--model", "tiny"]) == 1
    assert "the names of pc459 are read from the data set's own file" in capsys.readouterr().err


def test_seeds_are_measured_on_a_data_set_of_label_maps(desk, tmp_path, capsys):
    """Rows of background, boat, person and in doubt, and maps that are right where the map of boat is cut at .5."""
    sets.voc(desk)
    lists = desk / "VOC2012" / "ImageSets" / "Segmentation"
    sets.text(lists / "train.txt", "2007_000001", "2007_000002")
    rows = torch.tensor([[0.2, 0.9, 0.0, 0.9], [0.0, 0.0, 0.9, 0.9]])[:, :, None].repeat(1, 1, 6)
    listed = [
        cams.CamImage(k, f"2007_00000{k}.jpg", sets.SIZE[0], sets.SIZE[1], (4, 15)) for k in (1, 2)
    ]
    words = [coco.Category(4, "boat"), coco.Category(15, "person")]
    file = tmp_path / "c.safetensors"
    cams.write(file, listed, words, {1: rows, 2: rows}, {"method": "gradcam"})
    line = ["evaluate", file, "--metric", "seeds", "--protocol", "voc-train-seed"]
    result = measured(capsys, *line)
    assert result["miou"] == 1 and result["images"] == 2 and result["pixels"] == 36
    assert result["protocol"]["data_set"] == "voc:train"


def test_segments_of_a_panoptic_data_set_are_measured_one_by_one(desk, tmp_path, capsys):
    sets.coco(desk)
    file = predicted(tmp_path / "p.json", "000000000139.jpg", ["boat", "boat", "sea", None])
    line = ["evaluate", file, "--ground-truth", "coco-panoptic", "--metric", "panoptic"]
    result = measured(capsys, *line)
    assert result["pq"] == 1 and result["pq_things"] == 1 and result["segments"] == 2

"""What the reproduction of SemPLeS measures, on maps whose score is known."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS
from ovtool.formats import cams, coco
from ovtool.methods import bootstrap

ROOT = Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "scripts" / "reproduce" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scores = load("semples_scores")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four pictures of the preset."""
    folder = tmp_path_factory.mktemp("cooccur")
    collage_files.make(collage_files.CollageSpec("demo", 4, 1, 64, "cooccur"), folder)
    return registry.collage_in(folder, "demo")


def written(data, path, map_of):
    """A file with the map `map_of(true, ground, number)` of each class of each picture."""
    dataset = coco.read(data.instances)
    images, maps = [], {}
    for image in dataset.images:
        ids = sorted({one.category_id for one in dataset.annotations if one.image_id == image.id})
        images.append(cams.CamImage(image.id, image.file_name, 64, 64, tuple(ids)))
        true, ground = scores.truth_of(data, image.file_name)
        maps[image.id] = torch.stack([map_of(true, ground, number).float() for number in ids])
    cams.write(path, images, dataset.categories, maps, {"method": "test"})
    return path


def test_the_truth_is_that_of_the_masks(data):
    dataset = coco.read(data.instances)
    for image in dataset.images:
        true, ground = scores.truth_of(data, image.file_name)
        named = {one.category_id for one in dataset.annotations if one.image_id == image.id}
        assert {*true.unique().tolist()} - {0} == named
        assert ((ground >= 0) == (true == 0)).all() and ground.max() < len(GROUNDS)


def test_perfect_maps_score_all(data, tmp_path):
    file = written(data, tmp_path / "x.safetensors", lambda true, ground, k: true == k)
    perfect = {"miou": 1.0, "miou_truth": 1.0, "false": 0.0, "paired": 0.0, "grabbed": 0.0}
    assert scores.seeds(file, data) == perfect


def test_maps_that_take_the_paired_ground_are_caught(data, tmp_path):
    home = scores.pairs()
    file = written(
        data, tmp_path / "x.safetensors", lambda true, ground, k: (true == k) | (ground == home[k])
    )
    found = scores.seeds(file, data)
    assert found["miou"] < 0.9 and found["paired"] == 1.0
    assert found["grabbed"] == found["false"] > 0.2
    away = written(
        data, tmp_path / "y.safetensors",
        lambda true, ground, k: (true == k) | ((ground >= 0) & (ground != home[k])),
    )  # fmt: skip
    found = scores.seeds(away, data)
    assert found["grabbed"] < 0.2 * found["false"]  # only through the other class of a picture


def test_every_class_has_a_ground_of_its_own():
    assert len(scores.CLASSES) == 20
    assert all(
        (scores.pairs()[1:] >= 0) == torch.tensor([n in scores.PAIRED for n in scores.CLASSES])
    )
    assert len(scores.PAIRED) >= 16


def test_the_paired_ground_among_the_nearest():
    nearest = {name: [(scores.HOME[name], 0.9)] for name in scores.PAIRED}
    assert scores.nearest_hits(nearest) == {"found": 1.0}
    assert scores.other_hits(nearest) == 0.0
    everywhere = {name: [(ground, 0.5) for ground in ("water", "grass")] for name in scores.PAIRED}
    homes = {scores.HOME[name] for name in scores.PAIRED}
    wanted = [
        len({"water", "grass"} - {scores.HOME[name]}) / (len(homes) - 1) for name in scores.PAIRED
    ]
    assert scores.other_hits(everywhere) == pytest.approx(sum(wanted) / len(wanted))
    late = [("cow", 0.9)] * scores.NEAREST
    nearest |= {scores.PAIRED[0]: [*late, (scores.HOME[scores.PAIRED[0]], 0.1)]}
    assert scores.nearest_hits(nearest)["found"] == pytest.approx(1 - 1 / len(scores.PAIRED))


def test_false_foreground_on_the_paired_ground():
    seed = torch.tensor([[1, 1, 2, 0]])
    truth = torch.tensor([[0, 1, 0, 0]])
    ground = torch.tensor([[5, 5, 5, 5]])
    false = scores.false_foreground(seed, truth)
    assert false.tolist() == [[True, False, True, False]]
    pairs = torch.tensor([-1, 5, 6])
    assert scores.paired_share(false, seed, ground, pairs) == (1, 2)
    assert scores.paired_share(false, seed, ground, torch.tensor([-1, 5, -1])) == (1, 1)


def test_the_ground_under_an_object_is_counted_by_whether_it_is_its_own():
    """Class 1 lies on ground 5, its own; class 2 on ground 6, and its own is 5; class 3 has none."""
    true = torch.zeros(20, 60, dtype=torch.int64)
    ground = torch.full((20, 60), 5)
    ground[:, 30:] = 6
    for number, place in ((1, slice(2, 6)), (2, slice(50, 54)), (3, slice(40, 42))):
        true[8:12, place] = number
        ground[8:12, place] = -1
    seed = true.clone()
    seed[0:2, :30], seed[0, 30:], seed[1, 30:] = 1, 2, 3
    found = scores.grounds_called(seed, true, ground, torch.tensor([-1, 5, 5, -1]))
    assert found["home"] == 30 * 20 - 16 and found["home_called"] == 60
    assert found["away"] == 30 * 20 - 16 - 8 and found["away_called"] == 30


def test_shares_of_pixels_have_intervals_over_images(data, tmp_path):
    home = scores.pairs()
    file = written(
        data, tmp_path / "x.safetensors", lambda true, ground, k: (true == k) | (ground == home[k])
    )
    counted = scores.counted(file, data)
    measure = counted.share("on_paired", "foreground")
    grabbed = bootstrap.intervals(measure, len(counted.classes))["share"]
    assert grabbed.value == pytest.approx(scores.seeds(file, data)["grabbed"])
    assert grabbed.low <= grabbed.value <= grabbed.high
    assert all(len(values) == 4 for values in counted.pixels.values())
    pixels = counted.pixels
    assert (pixels["on_paired"] <= pixels["could"]).all()
    assert (pixels["could"] <= pixels["false"]).all() and (pixels["home_called"] > 0).any()

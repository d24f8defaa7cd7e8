"""`--proposer merging`: candidates of two trees, ranked by a network."""

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.cli.errors import run
from ovtool.errors import InputError, MismatchError, ModelError
from ovtool.formats import coco, tensors
from ovtool.models import objectness, photo
from ovtool.proposers import by_name, merging
from ovtool.settings.propose import Propose


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of bundled weights that are random."""
    torch.manual_seed(0)
    monkeypatch.setattr(photo.sources, "bundled_folder", lambda: tmp_path)
    stem = photo.stem(pretrained=False)
    network = objectness.Objectness(8)
    with torch.no_grad():
        network.basis.normal_(std=0.02)
    state = {f"visual.stem.{name}": value for name, value in stem.state_dict().items()}
    tensors.save(tmp_path / "photo.safetensors", state, {"kind": "clip"})
    objectness.save(tmp_path / "photo_objectness.safetensors", network, stem, {"seed": 0})
    return tmp_path


def cups() -> np.ndarray:
    """Two discs on a ground, uint8 (96, 128, 3)."""
    rgb = np.full((96, 128, 3), (60, 90, 60), np.uint8)
    ys, xs = np.indices(rgb.shape[:2])
    rgb[(ys - 40) ** 2 + (xs - 40) ** 2 < 400] = (200, 40, 40)
    rgb[(ys - 60) ** 2 + (xs - 95) ** 2 < 300] = (240, 240, 200)
    return rgb


def test_regions_of_two_sets_of_superpixels_keep_their_masks():
    rng = np.random.default_rng(0)
    cuts = [
        np.sort(rng.integers(0, n, (20, 30)), axis=None).reshape(20, 30).astype(np.int32)
        for n in (7, 11)
    ]
    cuts[1] = cuts[1].T.reshape(20, 30).copy()
    cuts = [
        np.unique(cut, return_inverse=True)[1].reshape(cut.shape).astype(np.int32) for cut in cuts
    ]
    parts = [rng.random((4, cut.max() + 1)) < 0.5 for cut in cuts]
    together = merging._together(cuts, parts)
    expected = [members[cut] for cut, part in zip(cuts, parts, strict=True) for members in part]
    assert np.array_equal(together.masks(), expected)
    assert np.array_equal(np.unique(together.superpixels), np.arange(together.members.shape[1]))


def test_discs_are_among_the_candidates(folder):
    stem, network, _ = objectness.load(objectness.bundled(), torch.device("cpu"))
    rgb = cups()
    seen = objectness.describe(stem, network, torch.from_numpy(rgb)).numpy()
    assert seen.shape == (objectness.TEXTURE + objectness.MEANING, 96, 128)
    made = merging.candidates(rgb, seen, 0.01)
    assert made.features.shape == (len(made.regions.members), objectness.FEATURES)
    assert np.isfinite(made.features).all()
    masks = made.regions.masks()
    assert (masks.mean((1, 2)) >= 0.01).all()
    for colour in ((200, 40, 40), (240, 240, 200)):
        true = (rgb == colour).all(-1)
        ious = (masks & true).sum((1, 2)) / (masks | true).sum((1, 2))
        assert ious.max() > 0.9


def test_the_bounds_hold_and_the_best_come_first(folder):
    rgb = cups()
    loose = by_name.load(Propose(proposer="merging", nms=1, min_area=0))(rgb)
    assert 0 < loose.quality.min() and (np.diff(loose.quality) <= 0).all()
    few = by_name.load(Propose(proposer="merging", max_proposals=5, min_area=0.01))(rgb)
    assert len(few.quality) <= 5 and (few.masks().mean((1, 2)) >= 0.01).all()
    flat = few.masks().reshape(len(few.quality), -1).astype(int)
    inside = flat @ flat.T
    sizes = inside.diagonal()
    ious = inside / (sizes[:, None] + sizes - inside) - np.eye(len(sizes))
    assert ious.max() <= 0.75


def test_a_large_image_is_reduced_and_its_masks_enlarged(folder):
    rgb = np.asarray(Image.fromarray(cups()).resize((960, 720)))
    found = by_name.load(Propose(proposer="merging", max_proposals=3))(rgb)
    assert found.superpixels.shape == (720, 960) and found.soft is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (300, 2)])
def test_flat_and_tiny_images(folder, shape):
    rgb = np.full((*shape, 3), 77, np.uint8)
    found = by_name.load(Propose(proposer="merging", min_area=0))(rgb)
    assert found.superpixels.shape == shape and len(found.quality) >= 1


def test_the_command_says_what_ranked(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(cups()).save("cups.png")
    assert run("propose cups.png --proposer merging --max-proposals 4 -o p.json".split()) == 0
    settings = coco.read("p.json").info["ovtool"]["settings"]
    assert (settings["proposer"], settings["nms"]) == ("merging", 0.75)
    assert len(settings["weights"]) == 16


def test_weights_that_do_not_fit(folder):
    path = folder / "photo_objectness.safetensors"
    header, content = tensors.load(path, objectness.KIND)
    tensors.save(path, {"mean": content["mean"]}, header)
    with pytest.raises(InputError, match="does not hold a whole network"):
        by_name.load(Propose(proposer="merging"))
    tensors.save(path, content, {**header, "stem": "0" * 16})
    with pytest.raises(MismatchError, match="belongs to another stem"):
        by_name.load(Propose(proposer="merging"))
    (folder / "photo.safetensors").unlink()
    with pytest.raises(ModelError, match="'photo' is not installed"):
        by_name.load(Propose(proposer="merging"))


def test_a_region_twice_as_likely_comes_first(folder):
    """The order is that of the network's answers, whatever the order of the candidates."""
    network = objectness.Objectness(8).eval()
    members = np.eye(6, dtype=bool)
    cut = merging.Regions(np.arange(6, dtype=np.int32)[None], members, np.zeros(6, np.float32))
    features = np.random.default_rng(0).normal(size=(6, objectness.FEATURES)).astype(np.float32)
    found = merging.ranked(merging.Candidates(cut, features), network, Propose(proposer="merging"))
    with torch.no_grad():
        expected = network(torch.from_numpy(features)).sigmoid().numpy()
    order = np.argsort(-expected)
    assert np.array_equal(found.members, members[order])
    assert np.allclose(found.quality, expected[order])

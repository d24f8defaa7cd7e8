"""`--proposer merging`: candidates of two trees, ranked by a network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.cli.errors import run
from ovtool.errors import InputError, MismatchError, ModelError
from ovtool.formats import coco, tensors
from ovtool.methods import region_features
from ovtool.models import build, dense_scores, objectness, photo, text
from ovtool.models import clip as door
from ovtool.models.efficientnet import LITE2
from ovtool.proposers import by_name, merging
from ovtool.settings.propose import Propose

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 64, "patch_size": 16, "width": 32, "head_width": 8, "layers": 1, "mlp_ratio": 2.0, "hidden": 12,
        "stem": {"widths": LITE2.widths, "depths": LITE2.depths},
    },
    "text_cfg": {"context_length": 8, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1, "table": 140},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of bundled weights that are random."""
    torch.manual_seed(0)
    monkeypatch.setattr(photo.sources, "bundled_folder", lambda: tmp_path)
    model = photo.from_config(CONFIG)
    network = objectness.Objectness(8)
    with torch.no_grad():
        network.basis.normal_(std=0.02)
    (tmp_path / "photo.json").write_text(json.dumps({"model_cfg": CONFIG}))
    fingerprint = build.fingerprint(model)
    header = {"kind": "clip", "fingerprint": fingerprint}
    tensors.save(tmp_path / "photo.safetensors", model.state_dict(), header)
    objectness.save(tmp_path / "photo_objectness.safetensors", network, fingerprint, {"seed": 0})
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
    sight, network, _ = objectness.load(objectness.bundled(), torch.device("cpu"))
    rgb = cups()
    seen = objectness.describe(sight, network, torch.from_numpy(rgb))
    assert seen.looks.shape == (objectness.TEXTURE + objectness.MEANING, 96, 128)
    assert seen.scores.shape == (objectness.WORDS, 30, 40)
    made = merging.candidates(rgb, seen, 0.01)
    assert made.features.shape == (len(made.regions.members), objectness.FEATURES)
    assert np.isfinite(made.features).all()
    masks = made.regions.masks()
    assert (masks.mean((1, 2)) >= 0.01).all()
    for colour in ((200, 40, 40), (240, 240, 200)):
        true = (rgb == colour).all(-1)
        ious = (masks & true).sum((1, 2)) / (masks | true).sum((1, 2))
        assert ious.max() > 0.9


def test_scores_are_those_of_photo_without_its_blocks():
    """The bundled model's blocks leave patches nearly as they are."""
    clip = door.load("photo")
    sight = objectness.sight(clip.model)
    rgb = torch.from_numpy(cups())
    seen = objectness.describe(sight, objectness.Objectness(8), rgb)
    words = {row: word for word, row in clip.table.rows.items() if row < objectness.WORDS}
    embedded = text.embed_words(clip, [words[row] for row in range(len(words))], cache=False)
    pixels = dense_scores.prepare(clip, rgb, objectness.SHORT_SIDE)
    expected = clip.logit_scale * (door.patch_features(clip, pixels)[0] @ embedded.T)
    torch.testing.assert_close(seen.scores, expected.permute(2, 0, 1), atol=0.5, rtol=0)


@pytest.mark.parametrize("has_words", [True, False])
def test_words_pull_together_what_looks_unlike(has_words):
    """Of two halves of a thing one is nearer in colour to the ground, and joins it first unless words say otherwise."""
    rgb = np.full((64, 64, 3), (140, 100, 60), np.uint8)
    rgb[16:48, 16:32], rgb[16:48, 32:48] = (195, 80, 60), (175, 120, 60)
    looks = torch.zeros(objectness.TEXTURE + objectness.MEANING, 64, 64)
    scores = torch.zeros(objectness.WORDS, 16, 16)
    if has_words:
        scores[100], scores[0, 4:12, 4:12] = 10, 20
    made = merging.candidates(rgb, objectness.Seen(looks, scores), 0.01)
    whole = np.zeros((64, 64), bool)
    whole[16:48, 16:48] = True
    masks = made.regions.masks()
    ious = (masks & whole).sum((1, 2)) / (masks | whole).sum((1, 2))
    assert bool(ious.max() > 0.9) == has_words
    if has_words:  # what is inside is a thing, and what is around is none
        named = made.features[ious.argmax(), -region_features.NAMED :]
        assert named[0] > 0.9 and named[5] < 0.1


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
    assert (settings["proposer"], settings["nms"], settings["min_area"]) == (
        "merging",
        0.75,
        0.0003,
    )
    assert len(settings["weights"]) == 16


def test_weights_that_do_not_fit(folder):
    path = folder / "photo_objectness.safetensors"
    header, content = tensors.load(path, objectness.KIND)
    tensors.save(path, {"mean": content["mean"]}, header)
    with pytest.raises(InputError, match="does not hold a whole network"):
        by_name.load(Propose(proposer="merging"))
    tensors.save(path, content, {**header, "photo": "0" * 16})
    with pytest.raises(MismatchError, match="belongs to another 'photo'"):
        by_name.load(Propose(proposer="merging"))
    (folder / "photo.safetensors").unlink()
    with pytest.raises(ModelError, match="'photo' is not in .*; install ovtool again"):
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

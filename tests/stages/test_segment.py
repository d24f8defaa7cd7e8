"""The story of `segment` with a small CLIP at random weights, against slow versions of its steps."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch.nn.functional import interpolate

from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.formats import coco, image_search, label_maps, parts, rle
from ovtool.formats import images as pictures
from ovtool.inputs.words import WordSet
from ovtool.methods import class_maps, region_scores, regions
from ovtool.models import clip as clips
from ovtool.models import dense_scores, text
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.runtime import device as devices
from ovtool.segmenters import dense, records
from ovtool.settings.segment import Patch
from ovtool.settings.shared import Compute


@pytest.fixture
def go(photos, tmp_path, loads_small, segmenting):
    """Segments the three images; returns the outcome and its label maps by name."""

    def segmented(inputs=None, name="o.json", **options):
        out = tmp_path / name
        outcome = segmenting(inputs or photos, out=out, **options)
        return outcome, coco.read(out)

    return segmented


def label_map(dataset, name):
    """The labels of an image: category ids from 0, -1 for none."""
    (image,) = (i for i in dataset.images if i.file_name == name)
    labels = np.full((image.height, image.width), -1)
    for entry in dataset.annotations:
        if entry.image_id == image.id:
            mask = rle.decode(entry.segmentation, image.height, image.width)
            assert (labels[mask] == -1).all()  # words share no pixel
            labels[mask] = entry.category_id - 1
    return labels


def slow_probabilities(clip, rgb, names, owner, scale=None):
    """Softmax of the best name of each class, patch by patch and then pixel by pixel: (C, H, W)."""
    pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), None)
    features = clips.patch_features(clip, pixels)[0]
    embedded = text.embed_words(clip, names, cache=False)
    classes = []
    for owned in sorted(set(owner)):
        own = [embedded[n] for n, k in enumerate(owner) if k == owned]
        classes.append(torch.stack([(features * word).sum(-1) for word in own]).amax(0))
    logits = torch.stack(classes)[None] * (clip.logit_scale if scale is None else scale)
    full = interpolate(logits, size=rgb.shape[:2], mode="bilinear")[0]
    return full.softmax(0).numpy()


def test_patch_is_the_best_word_of_each_pixel(go, photos, loads_small):
    _, dataset = go(classes="cow|bull,teapot,sky", background="wall,grass", method="patch")
    names = ["cow", "bull", "teapot", "sky", "wall", "grass"]
    for image in dataset.images:
        rgb = pictures.read_rgb(photos / image.file_name)
        expected = slow_probabilities(loads_small, rgb, names, [0, 0, 1, 2, 3, 3])
        best = expected.argmax(0)
        best[best == 3] = -1
        assert (label_map(dataset, image.file_name) == best).mean() > 0.999
        for entry in (a for a in dataset.annotations if a.image_id == image.id):
            k = entry.category_id - 1
            assert entry.score == pytest.approx(expected[k][best == k].mean(), abs=1e-3)


def test_without_background_every_pixel_has_a_word(go):
    _, dataset = go(classes="cow,teapot", background="none")
    for image in dataset.images:
        assert (label_map(dataset, image.file_name) >= 0).all()


def test_a_least_score_leaves_pixels_unlabelled(go, photos, loads_small):
    options = {"classes": "cow,teapot", "background": "none", "method": "patch"}
    _, dataset = go(min_score=0.502, logit_scale=1.0, **options)
    rgb = pictures.read_rgb(photos / "a.png")
    expected = slow_probabilities(loads_small, rgb, ["cow", "teapot"], [0, 1], 1.0)
    best = np.where(expected.max(0) >= 0.502, expected.argmax(0), -1)
    assert 0 < (best == -1).mean() < 1
    assert (label_map(dataset, "a.png") == best).mean() > 0.99
    _, empty = go(min_score=0.99, logit_scale=1.0, name="e.json", **options)
    assert empty.annotations == [] and len(empty.images) == 3


def test_a_logit_scale_of_zero_is_a_logit_scale(go):
    _, dataset = go(classes="cow,teapot", background="none", logit_scale=0.0, method="patch")
    assert {entry.score for entry in dataset.annotations} == {0.5}


def fuse_by_hand(probabilities, found):
    """The class probabilities of each superpixel, from those of each pixel (C, H, W)."""
    logits = torch.from_numpy(probabilities).log()
    superpixels = torch.from_numpy(found.superpixels).long()
    means, areas = region_scores.superpixel_means(
        lambda start, stop: logits[:, start:stop], superpixels, len(logits)
    )
    members, quality = torch.from_numpy(found.members), torch.from_numpy(found.quality)
    return region_scores.fuse(means, areas, members, quality)


def test_fused_gives_each_superpixel_one_word(go, photos, loads_small):
    _, dataset = go(classes="cow,teapot,sky", background="wall")
    for image in dataset.images:
        rgb = pictures.read_rgb(photos / image.file_name)
        found = regions.propose_regions(rgb)
        expected = slow_probabilities(loads_small, rgb, ["cow", "teapot", "sky", "wall"], range(4))
        fused = fuse_by_hand(expected, found)
        best = fused.argmax(1).numpy()[found.superpixels]
        best[best == 3] = -1
        assert (label_map(dataset, image.file_name) == best).mean() > 0.99


def test_fused_takes_regions_from_a_file(go, photos, tmp_path):
    masks = np.zeros((2, 40, 64), bool)
    masks[0, :, :20], masks[1, :, 20:] = True, True
    entries = [coco.annotation(n + 1, 1, 1, rle.encode(masks[n]), 1.0) for n in range(2)]
    image, category = coco.Image(1, "a.png", 64, 40), coco.Category(1, "object")
    coco.write(coco.Dataset({}, [image], entries, [category]), tmp_path / "p.json")
    outcome, dataset = go(photos / "a.png", classes="cow,sky", proposals=tmp_path / "p.json")
    labels = label_map(dataset, "a.png")
    assert len(np.unique(labels[:, :20])) == len(np.unique(labels[:, 20:])) == 1
    settings = outcome.dataset.info["ovtool"]["settings"]["method"]
    assert len(settings["proposals"]) == 16 and settings["proposer"] is None


@pytest.mark.parametrize("method", ["patch", "fused"])
def test_the_name_of_the_whole_image_raises_its_word(go, photos, loads_small, method):
    names, clip = ["cow", "bull", "teapot", "wall", "grass"], loads_small
    options = {"segments": (0,), "proposals": None} if method == "fused" else {}
    _, dataset = go(
        photos / "a.png", classes="cow|bull,teapot", background="wall,grass", method=method,
        logit_scale=0, image_prior=3.0, **options,
    )  # fmt: skip
    pixels = dense_scores.prepare(
        clip, torch.from_numpy(pictures.read_rgb(photos / "a.png")), clip.image_size
    )
    cosines = text.embed_words(clip, names, cache=False) @ clips.encode_images(clip, pixels)[0]
    best = torch.stack([cosines[:2].max(), cosines[2], cosines[3:].max()]) * clip.logit_scale
    expected = (3 * best.softmax(0)).softmax(0)
    winner = int(expected.argmax())  # of the whole image, since no patch says anything
    labels = label_map(dataset, "a.png")
    assert (labels == (-1 if winner == 2 else winner)).all()
    if winner < 2:
        (entry,) = dataset.annotations
        assert entry.score == pytest.approx(float(expected[winner]), abs=1e-2)


def test_segments_take_the_place_of_proposals(go, photos, loads_small, monkeypatch):
    monkeypatch.setattr(regions, "propose_regions", None)
    outcome, dataset = go(classes="cow,teapot,sky", background="wall", segments=(30, 90))
    method = outcome.dataset.info["ovtool"]["settings"]["method"]
    assert method["segments"] == [30, 90] and method["proposer"] is None
    for image in dataset.images:
        rgb = pictures.read_rgb(photos / image.file_name)
        names = ["cow", "teapot", "sky", "wall"]
        logits = torch.from_numpy(slow_probabilities(loads_small, rgb, names, range(4))).log()
        total = np.zeros(logits.shape)
        for scale in (30, 90):
            (cut,) = regions.superpixels(rgb2lab(rgb).astype(np.float32), (scale,))
            for segment in range(cut.max() + 1):
                total[:, cut == segment] += logits[:, cut == segment].mean(1, keepdim=True).numpy()
        best = total.argmax(0)
        best[best == 3] = -1
        assert (label_map(dataset, image.file_name) == best).mean() > 0.99


def test_what_the_model_recommends_is_taken_and_named(go, photos, small, monkeypatch):
    own = {
        "fused": {"scales": [0.5, 1], "segments": [60], "crf": "clip-es", "image_prior": 2},
        "words": {"background": "wall,person"},
    }
    monkeypatch.setattr(clips, "load", lambda *_: dataclasses.replace(small, recommended=own))
    outcome, _ = go(photos / "a.png", classes="man,cow")
    settings = outcome.dataset.info["ovtool"]["settings"]
    assert {name: settings["method"][name] for name in own["fused"]} == own["fused"]
    assert {name: settings["origins"][name] for name in own["fused"]} == dict.fromkeys(
        own["fused"], "model"
    )
    assert settings["background"] == ["wall"]  # a man is a person
    outcome, _ = go(photos / "a.png", name="p.json", classes="cow", proposer="regions", crf="none")
    settings = outcome.dataset.info["ovtool"]["settings"]
    assert settings["method"]["segments"] is None and settings["method"]["proposer"] == "regions"
    assert settings["method"]["crf"] == "none" and settings["origins"]["crf"] == "given"


def test_words_of_each_image(go, tmp_path):
    lists = {"a.png": ["sky", "cow"], "b.jpg": ["teapot"], "deep/c.png": ["cow", "teapot|pot"]}
    (tmp_path / "w.json").write_text(json.dumps({**lists, "deep/c.png": ["cow", "teapot"]}))
    _, dataset = go(classes_per_image=tmp_path / "w.json", label_maps=tmp_path / "maps")
    assert [c.name for c in dataset.categories] == ["sky", "cow", "teapot"]
    allowed = {"a.png": {0, 1}, "b.jpg": {2}, "deep/c.png": {1, 2}}
    for name, expected in allowed.items():
        labels = label_map(dataset, name)
        assert set(np.unique(labels)) <= expected  # no background beside lists
        stem = name.rsplit(".", 1)[0]
        assert np.array_equal(label_maps.read(tmp_path / f"maps/{stem}.png"), labels)


def test_provenance_says_what_the_model_chose_and_names_no_path(go, tmp_path, loads_small):
    outcome, _ = go(classes="cow", method="patch", window=40, overlays=tmp_path / "seen")
    made_by = outcome.dataset.info["ovtool"]
    assert made_by["model"] == {"name": "small", "fingerprint": loads_small.fingerprint}
    settings = made_by["settings"]
    assert settings["method"] == {
        "class": "Patch",
        "last_block": loads_small.default_last_block,
        "short_side": dense_scores.default_short_side(loads_small),
        "window": 32,
        "stride": 16,
        "patch_stride": 16,
        "scales": [1.0],
        "flip": False,
        "logit_scale": pytest.approx(loads_small.logit_scale, abs=1e-6),
        "image_prior": None,
        "crf": None,
        "pacl": None,
        "templates": "one",
        "min_score": 0.0,
        "max_entropy": None,
    }
    assert settings["origins"] == {
        "window": "given",
        **dict.fromkeys(("last_block", "short_side", "stride", "patch_stride"), "model"),
        "logit_scale": "model",
    }
    assert (settings["precision"], settings["batch_size"]) == ("float32", 8)
    assert (
        "proposer" not in str(settings) and str(tmp_path) not in (tmp_path / "o.json").read_text()
    )
    assert outcome.files == {"overlays": str(tmp_path / "seen")}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "magic"}, "unknown method 'magic'; give one of 'patch', 'fused', 'two-stage'"),
        ({"stride": 16}, "--stride is the step of --window; give that too"),
        (
            {"window": 32, "stride": 33},
            "--stride 33 is more than --window 32: pixels would be miss",
        ),
        (
            {"segments": (60,), "proposer": "regions"},
            "--segments take the place of --proposer; leave one of them out",
        ),
        ({"segments": (0, 60)}, "--segments 0 means none; leave the 0 or the other scales out"),
        ({"proposer": "magic"}, "unknown proposer 'magic'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"model": "ViT-B-16/none"}, "has no weights called 'none'"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_model_loads(go, options, message, monkeypatch):
    monkeypatch.setattr(clips, "load", None)
    with pytest.raises(UsageError, match=message):
        go(classes="cow", **options)


def test_what_is_in_the_way_is_told_before_the_model_loads(go, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "load", None)
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen/x").touch()
    with pytest.raises(OutputExistsError, match="seen is not empty"):
        go(classes="cow", overlays=tmp_path / "seen")
    with pytest.raises(InputError, match="no such file: .*gone.json"):
        go(classes="cow", proposals=tmp_path / "gone.json")
    with pytest.raises(OutputExistsError, match="seen is not empty"):  # there is nothing to resume
        go(classes="cow", overlays=tmp_path / "seen", resume=True)
    (tmp_path / "o.json").touch()
    with pytest.raises(OutputExistsError, match="o.json exists"):
        go(classes="cow")


def test_a_dry_run_loads_no_model_and_writes_nothing(photos, tmp_path, monkeypatch, segmenting):
    monkeypatch.setattr(clips, "load", None)
    places = {kind: tmp_path / kind for kind in ("label_maps", "overlays", "heatmaps")}
    outcome = segmenting(photos, tmp_path / "o.json", classes="cow", dry_run=True, **places)
    assert outcome.planned == 3 and list(outcome.files) == list(places)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def starve(monkeypatch, most):
    patch_features = clips.patch_features

    def hungry(clip, crops, last_block=None):
        if len(crops) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return patch_features(clip, crops, last_block)

    monkeypatch.setattr(clips, "patch_features", hungry)


def test_parts_whose_batches_were_halved_say_so_and_people_are_told_once(
    go, monkeypatch, caplog, tmp_path
):
    options = {"classes": "cow,teapot", "method": "patch", "window": 32, "stride": 16}
    go(name="two.json", batch_size=2, **options)
    monkeypatch.setattr(parts.PartStore, "remove", lambda store: None)
    devices._say_halved.cache_clear()
    starve(monkeypatch, 3)
    with caplog.at_level(logging.WARNING, "ovtool"):
        go(part_size=1, **options)
    notes = [
        json.loads(path.read_text().splitlines()[-1])["note"]
        for path in sorted((tmp_path / "o.json.parts").iterdir())
    ]
    assert notes == 3 * [{"batch_size": 2}]
    assert caplog.messages == [f"out of memory: the batch size is now {n}" for n in (4, 2)]
    halved, two = (coco.read(tmp_path / name) for name in ("o.json", "two.json"))
    assert halved.annotations == two.annotations


def test_a_part_that_had_its_memory_has_no_note(photos, loads_small):
    looked_for, compute = WordSet((("cow",), ("sky",))), Compute(device="cpu")
    loaded = dense.load(Patch(window=32), looked_for, None, compute)
    made = records.part_output(image_search.find_images([str(photos)]), loaded, DrawnFiles(()))
    assert len(list(made.records)) == 3 and made.note == {}


def test_the_scores_of_all_pixels_are_never_held_at_once(go, monkeypatch):
    """847 words at 2048 x 2048 would be 14 GB."""
    monkeypatch.setattr(class_maps, "MAX_BLOCK_ELEMENTS", 1 << 9)
    largest = []
    label_blocks = class_maps.label_blocks

    def watched(rows, size, *rest):
        def seen(start, stop):
            block = rows(start, stop)
            largest.append(block.numel())
            return block

        return label_blocks(seen, size, *rest)

    monkeypatch.setattr(class_maps, "label_blocks", watched)
    for n, options in enumerate(({"method": "patch"}, {"method": "patch", "window": 32}, {})):
        go(classes="cow,teapot,sky,tv", background="none", name=f"{n}.json", **options)
    assert max(largest) <= 1 << 9 and len(largest) > 100

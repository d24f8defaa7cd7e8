"""The images beside the JSON: where they go, what they must not replace, what is in them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.formats import colours, label_maps, labelled, overlays
from ovtool.formats import images as image_files
from ovtool.formats.images import ImageItem
from ovtool.outputs import drawn_files
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.runtime import runs
from ovtool.settings.segment import Drawn

NAMES = ("cow", "polar bear", "ice/cream")


def item(name, folder=Path("/nowhere")):
    return ImageItem(folder / name, name)


def test_places_are_named_from_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = DrawnFiles(NAMES, Drawn(label_maps=Path("maps"), overlays=tmp_path / "out/seen"))
    assert drawn.places == {"label_maps": "maps", "overlays": str(tmp_path / "out/seen")}
    assert runs.places_from("out/x.json", drawn.places) == {
        "label_maps": "../maps",
        "overlays": "seen",
    }
    assert DrawnFiles(NAMES, overlay_file=Path("x.png")).places == {"overlay": "x.png"}


def test_folders_must_be_empty_or_new(tmp_path):
    new, old = (
        DrawnFiles(NAMES, Drawn(label_maps=tmp_path / "a/b")),
        DrawnFiles(NAMES, Drawn(overlays=tmp_path / "old")),
    )
    (tmp_path / "old").mkdir()
    for drawn in (new, old):
        drawn.check([item("x.jpg")], overwrite=False)
    assert not (tmp_path / "a").exists()
    (tmp_path / "old/x.png").touch()
    old.check([item("x.jpg")], overwrite=True)
    with pytest.raises(OutputExistsError, match="old is not empty; .* or give --overwrite"):
        old.check([item("x.jpg")], overwrite=False)


def test_names_of_classes_alone_do_not_fill_a_folder(tmp_path):
    """A run of which every image failed leaves them, and may be tried again."""
    drawn = DrawnFiles(NAMES, Drawn(label_maps=tmp_path / "maps"))
    drawn.prepare()
    assert label_maps.read_classes(tmp_path / "maps/classes.txt") == list(NAMES)
    drawn.check([item("x.jpg")], overwrite=False)


def test_names_of_other_classes_are_not_replaced(tmp_path):
    (tmp_path / "classes.txt").write_text("the words of someone else\n")
    drawn = DrawnFiles(NAMES, Drawn(label_maps=tmp_path))
    with pytest.raises(OutputExistsError, match="classes.txt names other classes"):
        drawn.check([item("x.jpg")], overwrite=False)
    drawn.check([item("x.jpg")], overwrite=True)


def test_the_one_overlay_is_not_overwritten(tmp_path):
    drawn = DrawnFiles(NAMES, overlay_file=tmp_path / "x.overlay.png")
    drawn.check([item("x.jpg")], overwrite=False)
    drawn.overlay_file.touch()
    with pytest.raises(OutputExistsError, match="x.overlay.png exists"):
        drawn.check([item("x.jpg")], overwrite=False)


def test_no_image_replaces_another(tmp_path):
    one = DrawnFiles(NAMES, Drawn(label_maps=tmp_path / "maps"))
    with pytest.raises(UsageError, match="a.jpg and a.png would both be drawn as .*maps/a.png"):
        one.check([item("a.jpg"), item("b/a.png"), item("a.png")], overwrite=True)
    one.check([item("a.jpg"), item("b/a.png")], overwrite=True)
    two = DrawnFiles(NAMES, Drawn(label_maps=tmp_path / "x", overlays=tmp_path / "y/../x"))
    with pytest.raises(UsageError, match="need a folder each"):
        two.check([item("a.jpg")], overwrite=True)


def test_what_is_drawn_of_images_of_one_stem_has_names_that_differ(tmp_path, scene):
    items = [item(name) for name in ("x/a.bmp", "x/a.avif", "a.bmp", "b.jpg")]
    folders = Drawn(label_maps=tmp_path / "maps", overlays=tmp_path / "seen")
    drawn = DrawnFiles(NAMES, folders, doubled=drawn_files.doubled_stems(items))
    drawn.check(items, overwrite=False)
    drawn.prepare()
    for number, image in enumerate(items):
        labels = np.full((20, 30), number - 1, np.int32)
        drawn.write(image, scene[0], labels, {})
    names = {"x/a.bmp.png", "x/a.avif.png", "a.png", "b.png"}
    for folder in (tmp_path / "maps", tmp_path / "seen"):
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
        assert there == names
    assert label_maps.read(tmp_path / "maps" / "x" / "a.avif.png")[0, 0] == 0
    found = labelled.open_source(str(tmp_path / "maps"))  # and they are read as what they are of
    for image in items:
        path = tmp_path / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    matched = labelled.images_of(found, tmp_path / "images")
    assert {name: image.name for name, image in matched.items()} == {
        "x/a.bmp": "x/a.bmp", "x/a.avif": "x/a.avif", "a": "a.bmp", "b": "b.jpg",
    }  # fmt: skip


def test_label_maps_have_the_colours_of_overlays(tmp_path, scene):
    rgb, labels = scene
    drawn = DrawnFiles(NAMES, Drawn(label_maps=tmp_path / "maps"))
    drawn.prepare()
    drawn.write(item("a.jpg"), rgb, labels, {})
    with Image.open(tmp_path / "maps" / "a.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)[: len(NAMES)].tolist()
    assert palette == [list(colour) for colour in colours.class_colours(NAMES)]


def test_no_image_that_is_read_is_replaced(tmp_path, photos):
    items = [item(name, photos) for name in ("b.jpg", "a.png")]
    for drawn in (
        DrawnFiles(NAMES, Drawn(overlays=photos)),
        DrawnFiles(NAMES, overlay_file=photos / "b.jpg"),
    ):
        with pytest.raises(UsageError, match="is an image that is read; draw it in another folder"):
            drawn.check(items, overwrite=True)
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(UsageError, match="link/a.png is an image that is read"):
        DrawnFiles(NAMES, Drawn(overlays=tmp_path / "link")).check(items, overwrite=True)


def test_folders_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/deep"):
        with pytest.raises(InputError, match="cannot write .* is a file; name another"):
            DrawnFiles(NAMES, Drawn(heatmaps=folder)).check([item("x.jpg")], overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot write .*new: no permission to write in"):
        DrawnFiles(NAMES, Drawn(heatmaps=tmp_path / "new")).check([item("x.jpg")], overwrite=False)


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / "seen/deep/.a.png.0123456789ab.tmp", tmp_path / ".x.png.ba9876543210.tmp"]
    kept = [tmp_path / "seen/.notes.tmp", tmp_path / "seen/deep/a.tmp", tmp_path / ".y.png.tmp"]
    (tmp_path / "seen/deep").mkdir(parents=True)
    for path in left + kept:
        path.touch()
    DrawnFiles(NAMES, Drawn(overlays=tmp_path / "seen"), tmp_path / "x.png").prepare()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    labels = random.integers(-1, 3, (20, 30)).astype(np.int32)
    return random.integers(0, 256, (20, 30, 3), np.uint8), labels


def test_label_maps_and_overlays(tmp_path, scene):
    rgb, labels = scene
    drawn = DrawnFiles(
        NAMES, Drawn(label_maps=tmp_path / "maps", overlays=tmp_path / "seen"), tmp_path / "one.png"
    )
    drawn.prepare()
    drawn.write(item("deep/a.b.jpg"), rgb, labels, {0: 0.5, 1: 0.25, 2: 0.0})
    assert np.array_equal(label_maps.read(tmp_path / "maps/deep/a.b.png"), labels)
    seen = image_files.read_rgb(tmp_path / "seen/deep/a.b.png")
    assert np.array_equal(seen, overlays.overlay(rgb, labels, NAMES, [0.5, 0.25, 0.0]))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "seen/deep/a.b.png").read_bytes()


@pytest.mark.parametrize("held", [1, 2 * 20 * 30 * 2, 1 << 29])
def test_heat_maps_hold_each_words_probability(tmp_path, scene, held, monkeypatch):
    monkeypatch.setattr(drawn_files, "MAX_HEAT_BYTES", held)
    rgb, _ = scene
    logits = torch.randn(4, 20, 30, generator=torch.Generator().manual_seed(1))
    drawn = DrawnFiles(("ant", *NAMES), Drawn(heatmaps=tmp_path / "heat"))
    drawn.prepare()
    drawn.write_heatmaps(item("a.jpg"), rgb, lambda i, j: logits[:, i:j], 4, np.array([1, 2, 3]))
    folder = tmp_path / "heat/a"
    assert sorted(path.name for path in folder.iterdir()) == [
        "002-cow.png",
        "003-polar-bear.png",
        "004-ice-cream.png",
    ]
    probability = logits.softmax(0).to(torch.float16).float().numpy()
    for path, expected in zip(sorted(folder.iterdir()), probability, strict=False):
        assert np.array_equal(image_files.read_rgb(path), overlays.heatmap(rgb, expected))


def test_nothing_is_written_that_was_not_asked_for(tmp_path, scene):
    rgb, labels = scene
    drawn = DrawnFiles(NAMES)
    drawn.check([item("a.jpg"), item("a.png")], overwrite=False)
    drawn.prepare()
    drawn.write(item("a.jpg"), rgb, labels, {})
    drawn.write_heatmaps(item("a.jpg"), rgb, None, 3, [0])
    assert list(tmp_path.iterdir()) == []


def test_more_than_254_classes_make_16_bit_label_maps(tmp_path):
    labels = np.arange(-1, 299).reshape(15, 20).astype(np.int32)
    drawn = DrawnFiles([f"thing {n}" for n in range(299)], Drawn(label_maps=tmp_path / "maps"))
    drawn.prepare()
    drawn.write(item("a.jpg"), np.zeros((15, 20, 3), np.uint8), labels, {})
    with Image.open(tmp_path / "maps/a.png") as found:
        assert found.mode.startswith("I")
    assert np.array_equal(label_maps.read(tmp_path / "maps/a.png"), labels)

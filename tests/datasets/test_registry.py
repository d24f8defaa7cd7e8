"""Data sets by name."""

import json

import pytest

from ovtool import __version__
from ovtool.datasets import collage_files, registry
from ovtool.datasets.collage_files import CollageSpec
from ovtool.errors import InputError, UsageError


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A cache of its own, and data sets of three images."""
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    for split in registry.COLLAGE_IMAGES:
        monkeypatch.setitem(registry.COLLAGE_IMAGES, split, 3)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("collage", True),
        ("collage:test", True),
        ("coco:val2017", True),
        ("photos", False),
        ("collage/a.jpg", False),
        ("", False),
    ],
)
def test_is_name(text, known):
    assert registry.is_name(text) is known


def test_names_alone_mean_the_default_split():
    assert registry.split_name("collage") == ("collage", "demo")
    assert registry.split_name("collage:") == ("collage", "demo")
    assert registry.split_name("collage:test") == ("collage", "test")
    assert registry.split_name("coco") == ("coco", "val2017")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ade",
            "unknown data set 'ade'; choose from collage, coco, coco14, coco-panoptic, coco-stuff, "
            "coco-stuff-only, ade20k, ade20k-full, pascal-context, pascal-context-459, voc, lvis, cityscapes, camvid",
        ),
        ("collage:tset", "collage has no split 'tset'; choose from train, val, test, demo"),
        ("coco:test", "coco has no split 'test'; choose from train2017, val2017"),
    ],
)
def test_unknown_names(text, message):
    for function in (registry.split_name, registry.locate):
        with pytest.raises(UsageError) as caught:
            function(text)
        assert str(caught.value) == message


def test_every_split_of_collage_has_a_size():
    assert set(registry.COLLAGE_IMAGES) == set(registry.DATA_SETS["collage"].splits)
    assert registry.COLLAGE_IMAGES["test"] == 200


def test_collage_is_made_at_first_use_and_only_then(small, monkeypatch):
    assert not registry.is_made(registry.cached_collage("demo"))
    files = registry.locate("collage")
    assert files == registry.cached_collage("demo") and registry.is_made(files)
    assert files.images.is_relative_to(small)
    assert len(list(files.images.iterdir())) == 3
    assert len(json.loads(files.classes_per_image.read_text())) == 3
    for path in (files.instances, files.semantic, files.captions):
        info = json.loads(path.read_text())["info"]["ovtool"]
        assert info["settings"] == {
            "split": "demo",
            "images": 3,
            "seed": 7,
            "size": 256,
            "preset": None,
        }

    def refuse(*arguments):
        raise AssertionError("made twice")

    monkeypatch.setattr(collage_files, "make", refuse)
    assert registry.locate("collage:demo") == files
    files.classes_per_image.unlink()  # as a run that was cut off leaves it
    with pytest.raises(AssertionError, match="made twice"):
        registry.locate("collage")


def test_the_cache_tells_sets_apart(monkeypatch):
    specs = [
        CollageSpec(),
        CollageSpec("val"),
        CollageSpec(images=2),
        CollageSpec(seed=1),
        CollageSpec(size=64),
        CollageSpec(preset="single"),
    ]
    digests = [collage_files.digest(spec) for spec in specs]
    assert len(set(digests)) == len(specs)
    assert digests[1].startswith("val-")
    monkeypatch.setattr(collage_files, "__version__", __version__ + ".1")
    assert collage_files.digest(specs[0]) != digests[0]  # another version may draw otherwise


def test_collage_without_its_training_art(small):
    with pytest.raises(InputError, match="scripts/bundle/fetch_art"):
        registry.locate("collage:train")
    assert not small.exists()


def test_coco_where_detectron2_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(InputError) as caught:
        registry.locate("coco")
    assert str(caught.value) == (
        f"coco:val2017 is not at {tmp_path / 'coco' / 'val2017'}; unpack train2017.zip, val2017.zip and "
        f"annotations_trainval2017.zip of cocodataset.org in {tmp_path / 'coco'}, or set DETECTRON2_DATASETS"
    )
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    files = registry.locate("coco")
    assert files.images == tmp_path / "coco" / "val2017"
    assert files.captions == tmp_path / "coco" / "annotations" / "captions_val2017.json"
    assert files.semantic is None and files.classes_per_image is None
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="datasets/coco/train2017"):
        registry.locate("coco:train2017")


def test_images_of_a_data_set_have_its_ids(small):
    files = registry.locate("collage:demo")
    listed = json.loads(files.instances.read_text())["images"]
    assert len(listed) == 3
    for image in listed:
        assert registry.image_id(files, image["file_name"]) == image["id"]
    coco, voc = (registry.DataSet(name, files.images) for name in ("coco:val2017", "voc:val"))
    assert registry.image_id(coco, "000000000139.jpg") == 139
    assert registry.image_id(coco, "COCO_val2014_000000000042.jpg") == 42
    assert registry.image_id(coco, "photo.jpg") is None
    assert registry.image_id(voc, "2007_000032.jpg") is None

"""The collage world on disk: files that agree with one another, and the same bytes every time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ovtool.cli.app import app
from ovtool.datasets import collage, collage_files
from ovtool.datasets.collage_files import CollageSpec
from ovtool.datasets.nouns import COOCCUR_NOUNS, GROUNDS, class_names
from ovtool.formats import coco, label_maps, rle
from ovtool.settings.data import Scenes
from ovtool.settings.shared import Run
from ovtool.stages import check, info
from ovtool.stages import data_make as data_make_stage

SPEC = CollageSpec("test", 36, 7, 48)  # more than one block of work
NAMES = [f"{number:06d}" for number in range(1, 37)]


def digests(folder):
    """The bytes of all files, by relative name."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(SPEC, folder)
    return folder


@pytest.fixture(scope="module")
def semantic(made):
    return coco.read(made / "annotations" / "semantic_test.json", root=made / "images" / "test")


@pytest.fixture(scope="module")
def instances(made):
    return coco.read(made / "annotations" / "instances_test.json", root=made / "images" / "test")


@pytest.fixture(scope="module")
def scenes():
    return list(collage_files.scenes(SPEC))


def masks(dataset):
    """For each image the name of each annotation's category, and its mask."""
    names = {category.id: category.name for category in dataset.categories}
    found = {image.id: [] for image in dataset.images}
    for one in dataset.annotations:
        mask = rle.decode(one.segmentation, SPEC.size, SPEC.size)
        found[one.image_id].append((names[one.category_id], mask))
    return found


def test_the_files(made):
    assert set(digests(made)) == {
        *(f"images/test/{name}.jpg" for name in NAMES),
        *(f"label_maps/test/{name}.png" for name in NAMES),
        "label_maps/test/classes.txt",
        *(
            f"annotations/{kind}_test.json"
            for kind in ("instances", "semantic", "captions", "classes")
        ),
    }


def test_every_file_is_whole_and_right(made):
    sources = [*(made / "annotations").iterdir(), made / "images", made / "label_maps" / "test"]
    kinds = {}
    for source in sources:
        (report,) = check.run(str(source))
        assert report["defects"] == []
        kinds[source.name] = report["kind"]
    assert kinds == {
        "instances_test.json": "COCO masks",
        "semantic_test.json": "COCO masks",
        "captions_test.json": "COCO captions",
        "classes_test.json": "classes per image",
        "images": "images",
        "test": "label maps",
    }


def test_the_folder_is_checked_file_by_file(made, tmp_path):
    facts = info.run(made)
    assert (facts["kind"], facts["layout"], facts["splits"]) == ("data set", "COCO", ["test"])
    assert facts["images"] == facts["label_maps"] == len(NAMES)
    assert "semantic_test.json" in facts["annotations"]
    assert check.run(made)[0]["defects"] == []
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    side = coco.read(made / "annotations" / "semantic_test.json").images[0].width
    first, second, third = (f"{name}.jpg" for name in NAMES[:3])
    cut = copy / "images" / "test" / first
    cut.write_bytes(cut.read_bytes()[:-400])
    (copy / "images" / "test" / second).unlink()
    with Image.open(copy / "images" / "test" / third) as image:
        image.resize((40, 30)).save(copy / "images" / "test" / third)
    (copy / "label_maps" / "test" / f"{NAMES[0]}.png").write_bytes(b"no image")
    (report,) = check.run(copy)
    text = "\n".join(report["defects"])
    assert f"{first}" in text and "truncated" in text
    for kind in ("instances", "semantic", "captions"):
        absent = f"{kind}_test.json lists 1 images that are not in {copy}/images/test: {second}"
        assert absent in text
        assert (
            f"{kind}_test.json: {third} is {side} x {side} there, but the image has 40 x 30" in text
        )
    assert f"{NAMES[0]}.png" in text
    assert len(report["defects"]) == 3 * 2 + 2


def test_categories_are_those_of_the_table(instances, semantic):
    assert tuple(category.name for category in semantic.categories) == class_names()
    assert [category.id for category in semantic.categories] == list(range(1, 222))
    objects = tuple(c.name for c in semantic.categories if c.supercategory == "object")
    assert tuple(category.name for category in instances.categories) == objects
    assert {c.name for c in semantic.categories if c.supercategory == "ground"} == set(GROUNDS)


def test_images_are_the_scenes(made, scenes, semantic):
    assert [image.file_name for image in semantic.images] == [f"{name}.jpg" for name in NAMES]
    for name, scene in zip(NAMES, scenes, strict=True):
        with Image.open(made / "images" / "test" / f"{name}.jpg") as picture:
            assert picture.size == (48, 48) and picture.mode == "RGB"
            difference = np.asarray(picture).astype(int) - scene.pixels
        assert np.abs(difference).mean() < 6  # no more than JPEG takes


def test_semantic_masks_cover_the_image_once(semantic):
    for found in masks(semantic).values():
        assert (np.sum([mask for _, mask in found], 0) == 1).all()
        assert len({name for name, _ in found}) == len(found)  # one mask per class


def test_instances_are_the_objects_of_the_scenes(instances, scenes):
    for scene, found in zip(scenes, masks(instances).values(), strict=True):
        assert [name for name, _ in found] == list(scene.objects)
        for number, (_, mask) in enumerate(found):
            assert np.array_equal(mask, scene.object_map == number)


def test_instances_lie_within_the_semantic_mask_of_their_class(instances, semantic):
    by_class = {image: dict(found) for image, found in masks(semantic).items()}
    for image, found in masks(instances).items():
        assert (np.sum([mask for _, mask in found], 0) <= 1).all()
        for name, mask in found:
            assert mask.any() and not (mask & ~by_class[image][name]).any()
        objects = [mask for name, mask in by_class[image].items() if name not in GROUNDS]
        assert np.array_equal(np.any(objects, 0), np.any([mask for _, mask in found], 0))


def test_a_search_of_the_whole_folder_takes_the_images_alone(made):
    from ovtool.formats import image_search

    items = image_search.find_images([str(made)])
    assert {item.name for item in items} == {
        path.relative_to(made).as_posix() for path in (made / "images").rglob("*.jpg")
    }


def test_label_maps_say_what_the_semantic_masks_say(made, semantic):
    folder = made / "label_maps" / "test"
    assert tuple(label_maps.read_classes(folder / "classes.txt")) == class_names()
    for name, found in zip(NAMES, masks(semantic).values(), strict=True):
        labels = label_maps.read(folder / f"{name}.png")
        for word, mask in found:
            assert np.array_equal(labels == class_names().index(word), mask)


def test_twenty_words_for_each_image(made, semantic):
    listed = json.loads((made / "annotations" / "classes_test.json").read_text())
    assert list(listed) == [f"{name}.jpg" for name in NAMES]
    for words, found in zip(listed.values(), masks(semantic).values(), strict=True):
        assert len(words) == len(set(words)) == 20
        assert {name for name, _ in found} < set(words) < set(class_names())
        assert words == sorted(words, key=class_names().index)  # the order gives nothing away
    assert len({word for words in listed.values() for word in words}) > 150


def test_five_captions_for_each_image(made, scenes):
    captions = json.loads((made / "annotations" / "captions_test.json").read_text())
    assert [image["file_name"] for image in captions["images"]] == [f"{name}.jpg" for name in NAMES]
    entries = captions["annotations"]
    assert [entry["id"] for entry in entries] == list(range(1, 5 * len(NAMES) + 1))
    told = 0
    for number, scene in enumerate(scenes, start=1):
        texts = " ".join(e["caption"] for e in entries if e["image_id"] == number)
        assert sum(e["image_id"] == number for e in entries) == 5
        told += any(name in texts for name in scene.objects)
    assert told > 0.9 * len(scenes)


def test_provenance_is_in_every_coco_file(made):
    for kind in ("instances", "semantic", "captions"):
        info = json.loads((made / "annotations" / f"{kind}_test.json").read_text())["info"]
        assert info["ovtool"]["settings"] == {
            "split": "test",
            "images": 36,
            "seed": 7,
            "size": 48,
            "preset": None,
        }


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_again_whatever_the_workers(made, tmp_path, workers):
    seen = []
    collage_files.make(SPEC, tmp_path, workers, seen.append)
    assert digests(tmp_path) == digests(made)
    assert sum(seen) == 36 and len(seen) == 2


def test_other_arguments_other_bytes(made, tmp_path):
    collage_files.make(CollageSpec("test", 36, 8, 48), tmp_path)
    ours, theirs = digests(made), digests(tmp_path)
    same = [name for name in ours if ours[name] == theirs[name]]
    assert same == ["label_maps/test/classes.txt"]


def test_fewer_images_are_the_first_of_more(made, tmp_path):
    collage_files.make(CollageSpec("test", 3, 7, 48), tmp_path)
    for name in NAMES[:3]:
        for file in (f"images/test/{name}.jpg", f"label_maps/test/{name}.png"):
            assert (tmp_path / file).read_bytes() == (made / file).read_bytes()


def test_presets(tmp_path):
    collage_files.make(CollageSpec("test", 6, 7, 48, "cooccur"), tmp_path / "cooccur")
    names = label_maps.read_classes(tmp_path / "cooccur" / "label_maps" / "test" / "classes.txt")
    assert tuple(names) == (*COOCCUR_NOUNS, *GROUNDS)
    collage_files.make(CollageSpec("val", 6, 7, 48, "single"), tmp_path / "single")
    single = coco.read(tmp_path / "single" / "annotations" / "instances_val.json")
    assert [one.image_id for one in single.annotations] == [1, 2, 3, 4, 5, 6]


def test_the_semantic_map_puts_objects_on_grounds():
    scene = collage.Scene(
        pixels=np.zeros((2, 2, 3), np.uint8),
        objects=("cow", "duck"),
        object_map=np.array([[-1, 0], [1, -1]], np.int16),
        grounds=("sky", "grass"),
        ground_map=np.array([[0, 0], [1, 1]], np.int16),
    )
    names = ("duck", "cow", "grass", "sky")
    assert collage_files.semantic_map(scene, names).tolist() == [[3, 1], [0, 2]]


# --- the command -----------------------------------------------------------------------------------


def data_make(folder, *options):
    return CliRunner().invoke(app, ["data", "make", "collage", str(folder), *options])


def test_the_command_makes_the_same_files(made, tmp_path):
    folder = tmp_path / "new" / "set"
    done = data_make(folder, "--split", "test", "--count", "36", "--size", "48", "--json")
    assert done.exit_code == 0, done.stderr
    assert digests(folder) == digests(made)
    told = json.loads(done.stdout)
    assert told["data_set"] == "collage:test" and told["settings"]["seed"] == 7
    files = told["files"]
    assert set(files) == {
        "images",
        "instances",
        "semantic",
        "captions",
        "classes_per_image",
        "label_maps",
    }
    assert all(Path(path).exists() for path in files.values())
    assert done.stderr == f"collage:test: made 36 images of 48 x 48 in {folder}\n"


def test_overwrite_replaces_the_split_and_touches_nothing_else(tmp_path):
    folder = tmp_path / "set"
    options = ("--size", "48", "--workers", "1", "-q")
    assert data_make(folder, "--count", "4", "--seed", "1", *options).exit_code == 0
    (folder / "images" / "val").mkdir()
    others = [
        folder / "notes.txt",
        folder / "images" / "demo" / "cat.jpg",
        folder / "images" / "val" / "000001.jpg",
    ]
    for other in others:
        other.write_text("mine")
    again = data_make(folder, "--count", "2", *options)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == ""  # the error is printed by the frame; see tests/cli
    assert len(list((folder / "label_maps" / "demo").glob("*.png"))) == 4
    assert data_make(folder, "--count", "2", "--overwrite", *options).exit_code == 0
    assert [path.read_text() for path in others] == ["mine"] * 3
    for other in others:
        other.unlink()
    (folder / "images" / "val").rmdir()
    fresh = tmp_path / "fresh"
    assert data_make(fresh, "--count", "2", *options).exit_code == 0
    assert digests(folder) == digests(fresh)


def test_a_dry_run_writes_nothing(tmp_path):
    done = data_make(tmp_path / "set", "--count", "5", "--dry-run", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["dry_run"] is True
    assert "would make 5 images" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Interrupt:
    """A progress bar that someone presses Ctrl-C at."""

    def __call__(self, total, description):
        return self

    def __enter__(self):
        return self.advance

    def __exit__(self, *error):
        pass

    def advance(self, n=1):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("workers", "most"), [(1, 32), (2, 320)])
def test_a_run_that_is_cut_off_leaves_no_annotations(tmp_path, workers, most):
    """Neither its own nor those of the set that it was to replace; and it stops soon."""
    collage_files.make(CollageSpec("demo", 2, 7, 48), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        data_make_stage.run(
            "collage",
            tmp_path,
            Scenes(count=960, size=32, workers=workers),
            run=Run(overwrite=True),
            progress=Interrupt(),
        )
    assert list((tmp_path / "annotations").iterdir()) == []
    assert 32 <= len(list((tmp_path / "images" / "demo").iterdir())) <= most


def test_a_run_cut_off_while_it_writes_annotations_leaves_none(tmp_path, monkeypatch):
    def stop(*arguments):
        assert (tmp_path / "annotations" / "semantic_demo.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(label_maps, "write_classes", stop)
    with pytest.raises(KeyboardInterrupt):
        data_make_stage.run("collage", tmp_path, Scenes(count=2, size=48))
    assert list((tmp_path / "annotations").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_ctrl_c_ends_all_workers_with_one_line(tmp_path):
    command = [sys.executable, "-m", "ovtool", "data", "make", "collage", str(tmp_path / "set")]
    process = subprocess.Popen(
        [*command, "--count", "64", "--size", "320", "--workers", "4"],  # two of them idle
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        pictures = tmp_path / "set" / "images" / "demo"
        deadline = time.monotonic() + 200
        while not (pictures.exists() and any(pictures.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert list((tmp_path / "set" / "annotations").iterdir()) == []

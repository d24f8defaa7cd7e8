"""The pipelines of `examples/`: each runs, does nothing the second time, and goes on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.datasets import sets

ROOT = Path(__file__).parent.parent
PIPELINES = sorted((ROOT / "examples").glob("*.mk"))
SMALL = ("COUNT=3", "SIZE=64", "STEPS=2", "BATCH=2")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Starts make on a pipeline, by its stem, in a folder that all tests share."""
    folder = tmp_path_factory.mktemp("pipelines")
    program = folder / "ovtool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ovtool "$@"\n')
    program.chmod(0o755)
    places = {"PYTHONPATH": str(ROOT), "OVTOOL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("OVTOOL_")}

    def started(stem, *options):
        line = [
            "make",
            "-f",
            ROOT / "examples" / f"{stem}.mk",
            f"OVTOOL={program}",
            *SMALL,
            *options,
        ]
        return subprocess.Popen(
            [*map(str, line)],
            cwd=folder,
            env={**own, **places},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    started.folder, started.environment = folder, {**own, **places}
    return started


def done(process):
    """Exit status and output of a run of make."""
    said, _ = process.communicate(timeout=1800)
    return process.returncode, said


def files(folder):
    """What a pipeline makes, without its data and the curves of trainings: name to time and bytes."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.glob("[!.]*")
        if path.suffix in (".json", ".safetensors")
    }


def test_there_is_one_for_each_system():
    assert [path.stem for path in PIPELINES] == ["ovseg", "pacl", "semples"]
    for path in PIPELINES:
        text = path.read_text()
        assert ".DELETE_ON_ERROR:" in text and text.count("--update") >= 4


@needs_make
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_make_accepts_it(stem, make):
    status, said = done(make(stem, "--dry-run", "WORK=dry"))
    assert status == 0, said
    assert said.count("ovtool ") >= 5 and not (make.folder / "dry").exists()


@needs_make
@pytest.mark.parametrize(
    ("options", "has"),
    [
        ((), True),
        (("OVTOOL_MODEL=ViT-B-16/openai",), False),
        (("OVTOOL_MODEL=photo", "PROPOSER=sam"), False),
        (("OVTOOL_MODEL=photo", "PROPOSER=own.safetensors"), True),
    ],
)
def test_embeddings_are_asked_of_proposers_that_have_them(options, has, make):
    """Of the default proposers that of `tiny` has some, and `propose` refuses to write those of another."""
    status, said = done(make("ovseg", "--dry-run", "WORK=dry", "DATA=voc", *options))
    assert status == 0, said
    assert said.count("--save-embeddings ") == 2 * has and said.count("--embeddings ") == has
    assert said.count("--proposer ") == 2 * any("PROPOSER" in option for option in options)


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_a_pipeline_runs_once_and_again_where_an_input_is_newer(stem, make):
    status, said = done(make(stem))
    assert status == 0, said
    work = make.folder / stem
    made = files(work)
    assert 0 <= json.loads(made["scores.json"][1])["miou"] <= 1
    status, said = done(make(stem))
    assert status == 0 and "up to date" not in said.replace("'all'", "")
    assert files(work) == made
    image = next((work / "scenes/images/demo").iterdir())
    image.touch()
    status, said = done(make(stem))
    assert status == 0, said
    again = files(work)
    assert again["scores.json"][0] > made["scores.json"][0]
    # the same images give the same bytes
    assert {name: content for name, (_, content) in again.items()} == {
        name: content for name, (_, content) in made.items()
    }


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_a_pipeline_that_was_killed_goes_on(stem, make):
    """After `test_a_pipeline_runs_once_and_again_...`, whose bytes it must give."""
    work = make.folder / f"{stem}-killed"
    process = make(stem, f"WORK={work.name}")
    until = time.monotonic() + 600
    while not [
        *work.glob("[!.]*.safetensors"),
        *work.glob("[!.]*.json"),
    ]:  # the first output of several
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (work / "scores.json").exists()
    status, said = done(make(stem, f"WORK={work.name}"))
    assert status == 0, said
    whole, killed = files(make.folder / stem), files(work)
    assert {name: content for name, (_, content) in killed.items()} == {
        name: content for name, (_, content) in whole.items()
    }


@needs_make
@pytest.mark.slow
def test_shards_at_once_give_the_bytes_of_one_process(make):
    for options in (("WORK=whole",), ("WORK=shards", "SHARDS=2", "-j2")):
        status, said = done(make("ovseg", "PART=2", *options))
        assert status == 0, said
    whole, shards = files(make.folder / "whole"), files(make.folder / "shards")
    assert {name: content for name, (_, content) in shards.items()} == {
        name: content for name, (_, content) in whole.items()
    }
    status, said = done(make("ovseg", "PART=2", "WORK=shards", "SHARDS=2", "-j2"))
    assert status == 0 and files(make.folder / "shards") == shards
    image = next((make.folder / "shards" / "scenes/images/demo").iterdir())
    image.touch()
    status, said = done(make("ovseg", "PART=2", "WORK=shards", "SHARDS=2", "-j2"))
    assert status == 0, said
    again = files(make.folder / "shards")
    assert again["scores.json"][0] > shards["scores.json"][0]
    assert not list((make.folder / "shards").glob("*.shard-*"))
    # what is newer and changes nothing: shards that are up to date leave no parts to merge
    (make.folder / "shards" / "scenes/annotations/classes_demo.json").touch()
    line = ("PART=2", "WORK=shards", "SHARDS=2", "-j2", "shards/proposals.json")
    status, said = done(make("ovseg", *line))
    assert status == 0 and "proposals.json is up to date" in said, said
    now = files(make.folder / "shards")["proposals.json"]
    assert now[1] == again["proposals.json"][1] and now[0] > again["proposals.json"][0]


def public_data(scenes, root):
    """COCO and VOC in their own layouts, of the images and captions of a collage. Label maps and labels are made up:
    the pipelines are to run, and learn nothing."""
    names = sorted(path.name for path in (scenes / "images/demo").glob("*.jpg"))
    annotations = root / "coco" / "annotations"
    annotations.mkdir(parents=True)
    for split in ("train2017", "val2017"):
        shutil.copytree(scenes / "images/demo", root / "coco" / split)
        for kind in ("captions", "instances"):
            shutil.copy(
                scenes / f"annotations/{kind}_demo.json", annotations / f"{kind}_{split}.json"
            )
    for name in names:
        labels = sets.rows(255, 20, 20, 123).repeat(16, 0).repeat(11, 1)[:, :64]
        stem, home = name.removesuffix(".jpg"), root / "VOC2012"
        sets.label_map(root / "coco" / "stuffthingmaps" / "val2017" / f"{stem}.png", labels)
        labels = sets.rows(0, 12, 15, 255).repeat(16, 0).repeat(11, 1)[:, :64]
        sets.label_map(home / "SegmentationClass" / f"{stem}.png", labels)
        objects = "".join(f"<object><name>{word}</name></object>" for word in ("dog", "person"))
        sets.text(home / "Annotations" / f"{stem}.xml", f"<annotation>{objects}</annotation>")
    shutil.copytree(scenes / "images/demo", root / "VOC2012" / "JPEGImages")
    for split in ("train", "val"):
        stems = [name.removesuffix(".jpg") for name in names]
        sets.text(root / "VOC2012" / "ImageSets" / "Segmentation" / f"{split}.txt", *stems)


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "data", "protocol"),
    [("ovseg", "coco", "coco-stuff171"), ("pacl", "voc", "voc20"), ("semples", "voc", "voc21")],
)
def test_a_pipeline_runs_on_public_data_sets(stem, data, protocol, make):
    root = make.folder / "sets"
    if not root.exists():
        line = [
            make.folder / "ovtool",
            "data",
            "make",
            "collage",
            "scenes",
            "--count",
            "3",
            "--size",
            "64",
        ]
        subprocess.run([*map(str, line)], cwd=make.folder, env=make.environment, check=True)
        public_data(make.folder / "scenes", root)
    work = f"WORK={stem}-{data}"
    status, said = done(make(stem, f"DATA={data}", work, f"DETECTRON2_DATASETS={root}"))
    assert status == 0, said
    scores = json.loads((make.folder / f"{stem}-{data}" / "scores.json").read_text())
    assert scores["protocol"]["name"] == protocol and scores["images"] == 3
    assert f"protocol {protocol}: " in said


@needs_make
def test_a_data_set_that_is_not_there_is_said_by_the_first_command(make):
    line = ("DATA=voc", "WORK=none", "DETECTRON2_DATASETS=/nowhere", "-j1")
    status, said = done(make("semples", *line))
    assert status != 0 and "voc:train is not at /nowhere/VOC2012/JPEGImages" in said

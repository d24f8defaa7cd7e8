"""`ovtool probe` on files, end to end, with the bundled model."""

import inspect
import json
from pathlib import Path

import pytest

from ovtool.cli import probe as command
from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.stages import probe_oracle as stage

stage_run = stage.run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small collages."""
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(collage_files.CollageSpec("demo", 2, 1, 64), folder)
    return registry.collage_in(folder, "demo")


@pytest.fixture
def parsed(monkeypatch):
    """What the command hands to the stage."""
    seen = {}

    def record(data_set, **options):
        seen.update(options, data_set=data_set)
        return {"rows": [], "images": 0, "masks": 0, "words_an_image": 0}

    monkeypatch.setattr(stage, "run", record)
    return seen


def test_the_command_and_its_function_have_the_same_defaults(parsed):
    assert run(["probe", "oracle"]) == 0
    del parsed["progress"]
    own = inspect.signature(stage_run).parameters.items()
    assert parsed == {name: p.default for name, p in own if name != "progress"}


def test_every_option_reaches_the_function(parsed):
    arguments = {
        "coco_file": ("--coco", Path("i.json")),
        "images": ("--images", Path("i")),
        "classes_per_image": ("--classes-per-image", Path("w.json")),
        "model": ("--model", "tiny"),
        "device": ("--device", "cpu"),
        "precision": ("--precision", "float16"),
        "batch_size": ("--batch-size", 3),
        "templates": ("--templates", "vild"),
        "prompts": ("--prompts", "none"),
        "crop_size": ("--crop-size", 96),
        "proposer": ("--proposer", "regions"),
        "proposals_file": ("--proposals", Path("p.json")),
        "limit": ("--limit", 7),
    }
    line = [str(part) for pair in arguments.values() for part in pair]
    assert run(["probe", "oracle", "voc", *line]) == 0
    del parsed["progress"]
    assert parsed == {name: value for name, (_, value) in arguments.items()} | {"data_set": "voc"}
    assert len(inspect.signature(command.oracle).parameters) == len(arguments) + 2  # with json


def test_the_table_of_a_data_set(desk, data, monkeypatch, capsys):
    monkeypatch.setattr(registry, "locate", lambda name: data)
    options = ["--proposer", "regions", "--prompts", "none", "--json"]
    assert run(["probe", "oracle", "collage:demo", *options]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0].split() == "mIoU % pixels right % masks right %".split()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "true masks named by CLIP, masked crops",
        "true masks named by CLIP, unmasked crops",
        "proposals named by truth",
    ]
    assert lines[-1].startswith("2 images, ") and lines[-1].endswith(" 20 words an image")
    found = json.loads(said.out)
    assert found["rows"][0]["accuracy"] == float(f"{found['rows'][0]['accuracy']}")
    Path("oracle.json").write_text(said.out)
    assert run(["info", "oracle.json"]) == 0
    again = ["--coco", str(data.semantic), "--images", str(data.images), "--proposals"]
    assert (
        run(["probe", "oracle", *again, str(data.semantic), "--prompts", "none", "--limit", "1"])
        == 0
    )
    assert "proposals named by truth" in (last := capsys.readouterr().err) and "100.00" in last


def test_bad_input_is_told_in_one_line(fails, data):
    assert "give a data set such as collage:test" in fails(2, "probe", "oracle")
    assert "unknown data set 'pets'" in fails(2, "probe", "oracle", "pets")
    assert "--coco needs --images DIR" in fails(2, "probe", "oracle", "--coco", data.semantic)
    images = ["--coco", data.semantic, "--images", data.images]
    said = fails(1, "probe", "oracle", *images, "--prompts", "gone.safetensors")
    assert said == "no such file: gone.safetensors"

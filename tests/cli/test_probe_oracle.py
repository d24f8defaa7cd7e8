"""`ovtool probe oracle` on files, end to end, with the bundled model."""

import json
from pathlib import Path

import pytest

from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.models import clip as clips
from ovtool.settings.probe import Oracle
from ovtool.settings.shared import Compute, Run, Source
from ovtool.stages import probe_oracle as stage


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small collages."""
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(collage_files.CollageSpec("demo", 2, 1, 64), folder)
    return registry.collage_in(folder, "demo")


EMPTY = {"rows": [], "images": 0, "masks": 0, "words_an_image": 0}


def test_every_option_reaches_the_function(handed):
    seen = handed(stage, EMPTY)
    line = (
        "probe oracle voc --classes-per-image w.json --prompts none --crop-size 96 --templates vild"
    )
    line += " --proposer regions --coco i.json --images i --limit 7 --batch-size 3 --model tiny"
    line += " --device cpu --precision float16 --threads 2"
    assert run(line.split()) == 0
    assert seen == {
        "data_set": "voc",
        "oracle": Oracle(
            classes_per_image="w.json",
            prompts="none",
            crop_size=96,
            proposer="regions",
            templates="vild",
        ),
        "source": Source(coco="i.json", images="i", limit=7),
        "run": Run(batch_size=3),
        "compute": Compute(model="tiny", device="cpu", precision="float16", threads=2),
    }
    assert run("probe oracle --proposals p.json".split()) == 0
    assert seen["data_set"] is None and seen["oracle"] == Oracle(proposals="p.json")


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
    assert "proposals named by truth" in (last := capsys.readouterr().out) and "100.00" in last


def test_a_folder_and_its_files_are_alike(desk, data, capsys):
    own = ["--proposer", "regions", "--prompts", "none", "--json", "-q"]
    lists = ["--classes-per-image", str(data.classes_per_image)]
    files = ["--coco", str(data.semantic), "--images", str(data.images), *lists]
    said = []
    for given in ([str(data.images.parents[1])], files):
        assert run(["probe", "oracle", *given, *own]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0]["rows"] == said[1]["rows"] and said[0]["words_an_image"] == 20
    assert said[0]["ovtool"]["settings"]["data_set"] == "semantic_demo.json"


@pytest.mark.parametrize("probe", ["oracle", "alignment", "coherence", "classify"])
def test_a_dry_run_counts_images_and_words(probe, desk, data, capsys, monkeypatch):
    monkeypatch.setattr(clips, "load", None)  # no model is loaded
    folder = data.images.parents[1]
    assert run(["probe", probe, str(folder), "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "would probe 2 images, 20 words an image, and print the answer\n"
    assert json.loads(said.out) == {"images": 2, "words_an_image": 20, "dry_run": True}
    assert not list(desk.iterdir())


def test_bad_input_is_told_in_one_line(fails, data):
    assert "give a data set such as collage:test" in fails(2, "probe", "oracle")
    assert "give --coco" in fails(1, "probe", "oracle", data.semantic)
    said = fails(1, "probe", "oracle", data.images.parent)
    assert "is no folder of a data set" in said
    assert "unknown data set 'pets'" in fails(2, "probe", "oracle", "pets")
    assert "--coco needs --images DIR" in fails(2, "probe", "oracle", "--coco", data.semantic)
    images = ["--coco", data.semantic, "--images", data.images]
    said = fails(1, "probe", "oracle", *images, "--prompts", "gone.safetensors")
    assert said == "no such file: gone.safetensors"

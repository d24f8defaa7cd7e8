"""`ovtool probe alignment`, `coherence` and `classify` on files, end to end, with the bundled model."""

import inspect
import json
from pathlib import Path

import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import tensors
from ovtool.stages import probe_alignment, probe_classify, probe_coherence

STAGES = {"alignment": probe_alignment, "coherence": probe_coherence, "classify": probe_classify}
RUNS = {name: stage.run for name, stage in STAGES.items()}
EMPTY = {
    "rows": [],
    "images": 0,
    "patches": {"all": 0},
    "mixed": 0,
    "ignored": 0,
    "words_an_image": 0,
    "labels_an_image": 0,
}
OPTIONS = {
    "coco_file": ("--coco", Path("i.json")),
    "images": ("--images", Path("i")),
    "classes_per_image": ("--classes-per-image", Path("w.json")),
    "model": ("--model", "tiny"),
    "device": ("--device", "cpu"),
    "precision": ("--precision", "float16"),
    "batch_size": ("--batch-size", 3),
    "templates": ("--templates", "vild"),
    "pacl": ("--pacl", "none"),
    "last_block": ("--last-block", "sclip"),
    "layers": ("--layers", "2,3"),
    "pairs": ("--pairs", 9),
    "short_side": ("--short-side", 96),
    "window": ("--window", 64),
    "stride": ("--stride", 32),
    "seed": ("--seed", 5),
    "limit": ("--limit", 7),
    "picture": ("--picture", Path("p.png")),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three small collages."""
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(collage_files.CollageSpec("demo", 3, 1, 96), folder)
    return registry.collage_in(folder, "demo")


@pytest.mark.parametrize("name", STAGES)
def test_every_option_reaches_the_function_and_has_its_default(name, monkeypatch):
    seen = {}

    def record(data_set, **options):
        seen.update(options, data_set=data_set)
        row = {
            "name": "x",
            "top1": {},
            "map": {},
            "accuracy": {"all": None},
            "within": None,
            "across": None,
        }
        return {**EMPTY, "rows": [row]}

    monkeypatch.setattr(STAGES[name], "run", record)
    own = inspect.signature(RUNS[name]).parameters
    assert run(["probe", name]) == 0
    del seen["progress"]
    assert seen == {key: p.default for key, p in own.items() if key != "progress"}
    given = {key: value for key, value in OPTIONS.items() if key in own}
    line = [str(part) for pair in given.values() for part in pair]
    flags = ["--overwrite", *(["--count-mixed"] if "count_mixed" in own else [])]
    assert run(["probe", name, "voc", *line, *flags]) == 0
    del seen["progress"]
    expected = {key: value for key, (_, value) in given.items()} | {"data_set": "voc"}
    expected |= {"overwrite": True} | ({"count_mixed": True} if "count_mixed" in own else {})
    assert seen == expected and set(seen) == set(own) - {"progress"}


FIRST_ROW = {"alignment": "last block clip", "coherence": "block 1", "classify": "class token"}


@pytest.mark.parametrize("name", STAGES)
def test_the_table_and_the_picture_of_a_data_set(desk, data, monkeypatch, capsys, name):
    monkeypatch.setattr(registry, "locate", lambda given: data)
    more = ["--pairs", "300"] if name == "coherence" else []
    line = ["probe", name, "collage:demo", "--json", "--picture", "p.png", *more]
    assert run(line) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert any(each.startswith(FIRST_ROW[name]) for each in lines)
    assert lines[-1].startswith("3 images")
    found = json.loads(said.out)
    assert found["metric"] == name and len(found["rows"]) >= 1
    assert Image.open("p.png").size == (960, 600)
    Path("found.json").write_text(said.out)
    assert run(["info", "found.json"]) == 0
    capsys.readouterr()
    assert run(line) == 1
    assert "p.png" in capsys.readouterr().err


@pytest.mark.parametrize("name", STAGES)
def test_bad_input_is_told_in_one_line(fails, data, tmp_path, name):
    assert "give a data set such as collage:test" in fails(2, "probe", name)
    assert "unknown data set 'nowhere'" in fails(2, "probe", name, "nowhere")
    images = ["--coco", data.semantic, "--images", data.images]
    assert "no such file" in fails(1, "probe", name, *images, "--pacl", "gone.safetensors")
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**json.loads(data.semantic.read_text()), "annotations": []}))
    given = ["--coco", bare, "--images", data.images]
    assert "holds no masks: a probe needs them" in fails(1, "probe", name, *given)
    head = tmp_path / "head.safetensors"
    tensors.save(head, {}, {"kind": "pacl", "model": "other", "fingerprint": "0" * 16})
    assert "was made with other" in fails(2, "probe", name, *images, "--pacl", head)


def test_segment_refuses_what_does_not_fit(fails, photos, tmp_path):
    line = ["segment", photos, "--classes", "cow", "--method", "patch"]
    head = tmp_path / "head.safetensors"
    tensors.save(head, {}, {"kind": "pacl", "model": "other", "fingerprint": "0" * 16})
    assert "was made with other" in fails(2, *line, "--pacl", head)
    tensors.save(head, {}, {"kind": "cams"})
    assert "is of kind cams, but pacl is needed here" in fails(2, *line, "--pacl", head)
    assert "no such file: gone; --pacl is a file of train-pacl" in fails(1, *line, "--pacl", "gone")
    said = fails(2, *line, "--patch-stride", "5")
    assert said.startswith("--patch-stride 5 does not divide the patches of tiny, of 16 pixels")
    assert "is no list of sizes of 0.1 to 10" in fails(2, *line, "--scales", "big")
    assert "greater than or equal to 0" in fails(2, *line, "--max-entropy", "-1")

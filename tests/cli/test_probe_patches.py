"""`ovtool probe alignment`, `coherence` and `classify` on files, end to end, with the bundled model."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import tensors
from ovtool.settings import option
from ovtool.settings.probe import Alignment, Classify, Coherence
from ovtool.settings.shared import Compute, Run, Source
from ovtool.stages import probe_alignment, probe_classify, probe_coherence

STAGES = {"alignment": probe_alignment, "coherence": probe_coherence, "classify": probe_classify}
EMPTY = {
    "rows": [],
    "images": 0,
    "patches": {"all": 0},
    "mixed": 0,
    "ignored": 0,
    "words_an_image": 0,
    "labels_an_image": 0,
}
ROW = {
    "name": "x",
    "top1": {},
    "map": {},
    "accuracy": {"all": None},
    "intervals": {"all": {"low": None, "high": None}},
    "within": None,
    "across": None,
}
VIEWS = {
    "short_side": ("--short-side", 96),
    "window": ("--window", 64),
    "stride": ("--stride", 32),
}
WORDS = {
    "classes_per_image": ("--classes-per-image", "w.json"),
    "templates": ("--templates", "vild"),
    "pacl": ("--pacl", "none"),
}
OPTIONS = {
    "alignment": {
        **WORDS,
        **VIEWS,
        "last_block": ("--last-block", "sclip"),
        "count_mixed": ("--count-mixed", True),
    },
    "coherence": {
        **VIEWS,
        "pacl": ("--pacl", "none"),
        "layers": ("--layers", "2,3"),
        "backbone": ("--backbone", "photo"),
        "sample": ("--sample", 9),
        "seed": ("--seed", 5),
    },
    "classify": WORDS,
}
SETTINGS = {"alignment": Alignment, "coherence": Coherence, "classify": Classify}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three small collages."""
    folder = tmp_path_factory.mktemp("collage")
    collage_files.make(collage_files.CollageSpec("demo", 3, 1, 96), folder)
    return registry.collage_in(folder, "demo")


@pytest.mark.parametrize("name", STAGES)
def test_every_option_reaches_the_function(name, handed):
    seen = handed(STAGES[name], {**EMPTY, "rows": [ROW]})
    own = OPTIONS[name]
    assert set(own) == set(option.fields(SETTINGS[name]))
    flags = [[flag, *([] if value is True else [str(value)])] for flag, value in own.values()]
    line = f"probe {name} voc --coco i.json --images i --limit 7 --plot p.png --overwrite"
    line += " --model tiny --device cpu --precision float16 --threads 2"
    batch = ["--batch-size", "3"] if name == "alignment" else []
    assert run([*line.split(), *batch, *(word for words in flags for word in words)]) == 0
    assert seen == {
        "data_set": "voc",
        name: SETTINGS[name](**{field: value for field, (_, value) in own.items()}),
        "plot": Path("p.png"),
        "source": Source(coco="i.json", images="i", limit=7),
        "run": Run(overwrite=True, batch_size=3 if batch else None),
        "compute": Compute(model="tiny", device="cpu", precision="float16", threads=2),
    }
    assert run(["probe", name]) == 0
    assert seen["data_set"] is None and seen["plot"] is None
    assert (seen[name], seen["run"], seen["compute"]) == (SETTINGS[name](), Run(), Compute())


def test_old_names_of_flags_are_answered_with_the_new_ones(fails):
    said = fails(2, "probe", "coherence", "collage:test", "--pairs", "9")
    assert said.startswith("--pairs is now --sample; give that instead")
    for name in STAGES:
        said = fails(2, "probe", name, "collage:test", "--picture", "p.png")
        assert said.startswith("--picture is now --plot; give that instead")


FIRST_ROW = {"alignment": "last block clip", "coherence": "block 1", "classify": "class token"}


@pytest.mark.parametrize("name", STAGES)
def test_the_table_and_the_picture_of_a_data_set(desk, data, monkeypatch, capsys, name):
    monkeypatch.setattr(registry, "locate", lambda given: data)
    more = ["--sample", "300"] if name == "coherence" else []
    line = ["probe", name, "collage:demo", "--json", "--plot", "p.png", *more]
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
    assert "holds no masks; give a file of masks" in fails(1, "probe", name, *given)
    head = tmp_path / "head.safetensors"
    tensors.save(head, {}, {"kind": "pacl", "model": "other", "fingerprint": "0" * 16})
    assert "was made with other" in fails(2, "probe", name, *images, "--pacl", head)


def test_segment_refuses_what_does_not_fit(fails, photos, tmp_path):
    line = ["segment", photos, "--classes", "cow", "--method", "patch"]
    head = tmp_path / "head.safetensors"
    tensors.save(head, {}, {"kind": "pacl", "model": "other", "fingerprint": "0" * 16})
    assert "was made with other" in fails(2, *line, "--pacl", head)
    tensors.save(head, {}, {"kind": "cams"})
    said = fails(2, *line, "--pacl", head)
    assert said.endswith(
        "holds class activation maps, which ovtool refine reads; needed here: a PACL head, made by "
        "ovtool train-pacl"
    )
    assert "no such file: gone; --pacl is a file of train-pacl" in fails(1, *line, "--pacl", "gone")
    said = fails(2, *line, "--patch-stride", "5")
    assert said.startswith("--patch-stride 5 does not divide the patches of tiny, of 16 pixels")
    said = fails(2, *line, "--scales", "big")
    assert said.startswith("--scales 'big' is not allowed; give a number")
    assert "out of range; give 0 or more" in fails(2, *line, "--max-entropy", "-1")

"""Folders of Hugging Face's `datasets`, saved by the library itself and unpacked."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.datasets import hugging_face
from ovtool.errors import InputError
from ovtool.formats import labelled
from tests.datasets import sets


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A data set of two splits, as `DatasetDict.save_to_disk` writes it."""
    library = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)

    arrow = pytest.importorskip("pyarrow")

    def file(array, kind):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, kind)
        return {"bytes": buffer.getvalue(), "path": None}

    def rows(seed):
        picture = np.random.default_rng(seed).integers(0, 255, (*sets.SIZE, 3), dtype=np.uint8)
        labels = sets.rows(0, 2, 1, 255).astype(np.uint8)
        return {"image": [file(picture, "JPEG")], "annotation": [file(labels, "PNG")],
                "captions": [["A boat.", "A red boat."]]}  # fmt: skip

    kinds = library.Features({"image": library.Image(), "annotation": library.Image(),
                              "captions": [library.Value("string")]})  # fmt: skip
    made = {}
    for seed, name in enumerate(("train", "val")):
        table = library.table.InMemoryTable(arrow.table(rows(seed), schema=kinds.arrow_schema))
        info = library.DatasetInfo(features=kinds)
        made[name] = library.Dataset(table, info=info, fingerprint=name)
    library.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_folder_is_unpacked(saved, capsys):
    assert run(["data", "make", "saved", "set", "--split", "val", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.endswith(
        "saved:val: made 1 images in set\n"
        "its values have no names; write them in set/label_maps/val/classes.txt\n"
    )
    assert json.loads(said.out)["files"] == {
        "images": "set/images/val", "label_maps": "set/label_maps/val",
        "captions": "set/annotations/captions_val.json",
    }  # fmt: skip
    truth = labelled.open_source("set/label_maps/val")
    assert truth.classes == (("value 0",), ("value 1",), ("value 2",))
    assert truth.decode("000000")[:, 0].tolist() == [0, 2, 1, -1]
    captions = json.loads((saved.parent / "set/annotations/captions_val.json").read_text())
    assert [entry["caption"] for entry in captions["annotations"]] == ["A boat.", "A red boat."]
    line = [
        "evaluate",
        "set/label_maps/val",
        "--ground-truth",
        "set/label_maps/val",
        "--json",
        "-q",
    ]
    assert run(line) == 0 and json.loads(capsys.readouterr().out)["miou"] == 1


def test_what_cannot_be_unpacked(saved, capsys):
    assert run(["data", "make", "saved", "set"]) == 2
    assert "has several splits; give --split, one of train, val" in capsys.readouterr().err
    assert run(["data", "make", "saved", "set", "--split", "val", "--count", "3"]) == 2
    assert "give no option but --split" in capsys.readouterr().err
    for file in (saved / "val").glob("*.arrow"):
        file.write_bytes(b"no rows")
    assert run(["data", "make", "saved", "set", "--split", "val"]) == 1
    assert "is no folder of datasets that can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "splits",
    [["../../out"], ["/out"], [".."], ["a/b"], [""], [5], [], 1, "x/y", ["a\x1b[31m"]],
    ids=repr,
)
def test_a_split_leads_to_no_other_folder(tmp_path, monkeypatch, capsys, splits):
    monkeypatch.chdir(tmp_path)
    sets.text(tmp_path / "saved/dataset_dict.json", json.dumps({"splits": splits}))
    assert run(["data", "make", "saved", "set"]) == 1
    assert capsys.readouterr().err == (
        "error: saved/dataset_dict.json lists no splits by plain names; save the data set again\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_broken_cells(tmp_path):
    with pytest.raises(InputError, match="^set: row 3 "):
        hugging_face._as_png(b"GIF89a" + bytes(20), "set: row 3")
    assert list(hugging_face._texts({"a": 1})) == list(hugging_face._texts(7)) == []
    assert list(hugging_face._texts(["a", None, " "])) == ["a"]


def test_the_extra_that_was_never_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it raises ImportError
    sets.text(tmp_path / "saved" / "state.json", "{}")
    assert run(["data", "make", "saved", "set"]) == 1
    assert "pip install 'ovtool[datasets]'" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_folder_of_parquet_files_is_said_to_be_saved_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets" / "data").mkdir(parents=True)
    assert run(["data", "make", "pets", "set"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: pets is no folder that datasets saved; `datasets.load_dataset('pets')"
    )

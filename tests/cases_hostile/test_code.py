"""Nothing that comes with a model runs, and nothing asks: a planted file at every door that takes one."""

import json
import pickle
import shutil
import sys

import numpy as np
import pytest

from ovtool.models import sources


class Planted:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def pickled(path):
    """A pickle that leaves a file, in the way that torch writes one and plain."""
    import torch

    torch.save({"state_dict": Planted()}, path)


def plain(path):
    path.write_bytes(pickle.dumps({"state_dict": Planted()}))


def folder(path, kind):
    """A model of transformers' layout whose code is in its folder."""
    path.mkdir()
    auto = {
        name: "planted.Planted"
        for name in ("AutoConfig", "AutoModel", "AutoImageProcessor", "AutoTokenizer")
    }
    (path / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": auto}))
    (path / "preprocessor_config.json").write_text(json.dumps({"auto_map": auto}))
    (path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    (path / "planted.py").write_text("open('ran', 'w')\nclass Planted: pass\n")
    pickled(path / "pytorch_model.bin")


SEGMENT = "segment images --classes cow -o o.json"
DOORS = {
    "--model": f"{SEGMENT} --model {{}}",
    "--prompts": f"{SEGMENT} --method two-stage --prompts {{}}",
    "--pacl": f"{SEGMENT} --method patch --pacl {{}}",
    "--segmenter": f"{SEGMENT} --method trained --segmenter {{}}",
    "--proposer": "propose images -o o.json --proposer {}",
    "refine": "refine {} --images images -o o.json",
    "info": "info {}",
    "check": "check {}",
}  # fmt: skip


@pytest.mark.parametrize("make", [pickled, plain])
@pytest.mark.parametrize("door", DOORS)
def test_pickles_are_not_unpickled(desk, does, monkeypatch, door, make):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    make(desk / "x.pt")
    shutil.copy(sources.bundled_folder() / "tiny.json", desk / "x.json")
    status, said = does(DOORS[door].format("x.pt"))
    assert status in (1, 2) and said.count("error: ") == 1
    assert not (desk / "ran").exists()
    assert not any(word in said for word in ("weights_only", "trust", "unsafe", "allowlist"))


@pytest.mark.parametrize("kind", ["maskformer", "sam", "planted"])
@pytest.mark.parametrize(
    "line", ["propose images -o o.json --proposer {}:{}", f"{SEGMENT} --model {{1}}"]
)
def test_code_in_the_folder_of_a_model_does_not_run(desk, does, monkeypatch, kind, line):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    monkeypatch.syspath_prepend(desk)
    folder(desk / "evil", kind)
    name = kind if kind != "planted" else "maskformer"
    status, said = does(line.format(name, "./evil"))
    assert status in (1, 2) and "error: " in said
    assert not (desk / "ran").exists() and "planted" not in sys.modules
    assert "trust" not in said


def test_checkpoints_and_maps_are_not_unpickled(desk, does):
    from ovtool.errors import InputError
    from ovtool.training.checkpoints import Checkpoint

    pickled(desk / "x.checkpoint")
    with pytest.raises(InputError, match="is broken or no checkpoint"):
        Checkpoint(desk / "x.checkpoint", "d").load()
    (desk / "maps").mkdir()
    np.save(desk / "maps/1.npy", np.array([Planted()], dtype=object), allow_pickle=True)
    (desk / "labels.txt").write_text("1.png cow\n")
    line = "cam --method maps --from-maps maps --labels labels.txt --images images -o o.safetensors"
    status, said = does(line)
    assert status == 1 and "is pickled" in said and not (desk / "ran").exists()

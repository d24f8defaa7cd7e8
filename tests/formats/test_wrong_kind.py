"""A file of the wrong kind is named for what it is, with the command that reads it."""

import json

import numpy as np
import pytest

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, tensors


def made_by(path, command):
    """A COCO JSON as a command writes it, empty."""
    info = {"ovtool": {"command": command}}
    path.write_text(json.dumps({"info": info, "images": [], "annotations": [], "categories": []}))
    return path


def test_pairs_in_place_of_maps(tmp_path):
    path = made_by(tmp_path / "pairs.json", "mine-pairs")
    with pytest.raises(InputError) as caught:
        tensors.load(path, "cams")
    assert str(caught.value) == (
        f"{path} is a COCO JSON of pairs, which ovtool tune-prompts reads; needed here: class activation "
        "maps, made by ovtool cam"
    )


def test_maps_in_place_of_a_head_and_of_json(tmp_path):
    path = tmp_path / "maps.safetensors"
    tensors.save(path, {"a": np.zeros((2, 2), np.float32)}, {"kind": "cams"})
    with pytest.raises(MismatchError) as caught:
        tensors.load(path, ("pacl", "proposer"))
    what = f"{path} holds class activation maps, which ovtool refine reads; needed here: "
    assert str(caught.value) == (
        f"{what}a PACL head, made by ovtool train-pacl or a proposer, made by ovtool train-proposer"
    )
    with pytest.raises(InputError) as said:
        coco.read(path)
    assert str(said.value) == f"{what}JSON"


def test_what_ovtool_did_not_write(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"x\.json is JSON; needed here: a segmenter"):
        tensors.load(path, "segmenter")
    made_by(path, "another")
    with pytest.raises(InputError, match=r"x\.json is a COCO JSON; needed here: a segmenter"):
        tensors.load(path, "segmenter")
    path.write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        tensors.load(path, "segmenter")

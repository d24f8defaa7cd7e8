"""safetensors with one key: same bytes each time, and clear words for every wrong file."""

import functools
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ovtool.errors import InputError, MismatchError
from ovtool.formats import atomic, tensors
from ovtool.formats.json_sections import Entries

HEADER = {"kind": "pacl", "model": "tiny", "fingerprint": "0123", "settings": {"b": 1, "a": "é"}}


def some() -> dict[str, tensors.Array]:
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "z": base.T,
        "a": base[1],
        "tied": base,
        "half": base.half(),
        "brain": base.bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "flags": torch.tensor([True, False]),
        "numpy": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "wide": np.arange(6, dtype=np.float32)[::2],
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors.save(path, some(), HEADER)
    header, found = tensors.load(path, "pacl")
    assert header == {**HEADER, "format": 1} == tensors.read_header(path)
    assert found.keys() == some().keys()
    for name, array in some().items():
        expected = torch.from_numpy(array.copy()) if isinstance(array, np.ndarray) else array
        assert found[name].dtype == expected.dtype and torch.equal(found[name], expected)
    assert tensors.names(path)["brain"] == ("BF16", (3, 4))
    assert tensors.load(path, ("cams", "pacl"))[0]["kind"] == "pacl"


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    names = (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
    )
    every = {f'{name}/é"\n\x7f\x01': torch.arange(3, dtype=getattr(torch, name)) for name in names}
    given = {**some(), **every}
    whole = {
        name: torch.from_numpy(array.copy()) if isinstance(array, np.ndarray) else array.clone()
        for name, array in given.items()
    }
    whole = {name: tensor.contiguous() for name, tensor in sorted(whole.items())}
    text = atomic.canonical_json({**HEADER, "format": 1})
    expected = safetensors.torch.save(whole, metadata={"ovtool": text})
    path = tmp_path / "x.safetensors"
    tensors.save(path, given, HEADER)
    assert path.read_bytes() == expected
    again = tmp_path / "y.safetensors"
    read = tensors.stored(path, "pacl")[1]
    tensors.save(again, {**read, "tied": Entries(lambda: iter(read["tied"].split(2)))}, HEADER)
    assert again.read_bytes() == expected


def test_few_tensors_are_held_at_once(tmp_path: Path) -> None:
    """Of a hundred tensors of 1 MB each no two are there at the same time."""
    held: set[int] = set()
    most = 0

    def read(number: int) -> torch.Tensor:
        nonlocal most
        tensor = torch.full((2**18,), float(number))
        held.add(number)
        weakref.finalize(tensor, held.discard, number)
        most = max(most, len(held))
        return tensor

    path = tmp_path / "x.safetensors"
    many: dict[str, Any] = {f"{k:02d}": functools.partial(read, k) for k in range(50)}
    many["rows"] = lambda: Entries(lambda: (read(k)[None] for k in range(50, 100)))
    tensors.save(path, tensors.Anew(many), HEADER)
    assert most <= 2
    header, found = tensors.load(path, "pacl")
    assert found["rows"].shape == (50, 2**18) and found["07"][3] == 7 and found["rows"][3, 1] == 53


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors.save(path, {"a": torch.ones(9)}, HEADER)
    read = tensors.stored(path, "pacl")[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="changed while it was read"):
        read["a"]
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        read["a"]


def test_nan_and_infinities_are_found_in_all_types(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    large = {"large": np.array([1e300]), "flag": np.array([True]), "nan": np.array([0, np.nan])}
    tensors.save(path, large, HEADER)
    assert tensors.not_finite(path) == ["nan"]
    halves = {"half": torch.tensor([1.0, torch.inf], dtype=torch.bfloat16), "one": torch.ones(1)}
    tensors.save(path, {**large, **halves}, HEADER)
    assert tensors.not_finite(path) == ["half", "nan"]


def test_the_metadata_is_one_key_of_canonical_json(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors.save(path, {}, HEADER)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {
            "ovtool": '{"fingerprint":"0123","format":1,"kind":"pacl","model":"tiny",'
            '"settings":{"a":"é","b":1}}'
        }


def test_bytes_do_not_change_between_runs(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from ovtool.formats import tensors\n"
        "names = sys.argv[2].split(',')\n"
        "header = dict(sorted({'kind': 'x', 'model': 'm', 'b': 1}.items(), reverse=names[0] == 'b'))\n"
        "tensors.save(Path(sys.argv[1]), {n: torch.full((2,), ord(n)) for n in names}, header)"
    )
    for file, names in (("1", "a,b,c"), ("2", "b,c,a")):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / file), names], check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_kind_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind"):
        tensors.save(tmp_path / "x", {}, {})
    with pytest.raises(ValueError):
        tensors.save(tmp_path / "x", {}, {"kind": "x", "settings": {"a": float("nan")}})
    assert list(tmp_path.iterdir()) == []


def write_raw(path: Path, metadata: dict[str, str] | None) -> None:
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}, metadata=metadata))


def test_wrong_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad.safetensors"
    tensors.save(good, some(), HEADER)
    data = good.read_bytes()
    for length in (0, 5, 8, 100, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:length])
        for function in (tensors.read_header, tensors.load, tensors.names):
            with pytest.raises(InputError, match=r"bad\.safetensors is truncated") as error:
                function(bad)
            assert "\n" not in str(error.value)
    bad.write_text("not a tensor file, but a longer text " * 10)
    with pytest.raises(InputError, match="not a safetensors file"):
        tensors.load(bad)
    with pytest.raises(InputError, match="no such file"):
        tensors.load(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        tensors.load(tmp_path)
    for metadata, message in [
        (None, "was not written by ovtool"),
        ({"format": "pt"}, "was not written by ovtool"),
        ({"ovtool": "{"}, "damaged"),
        ({"ovtool": "[]"}, "damaged"),
        ({"ovtool": '{"format":1}'}, "damaged"),
        ({"ovtool": json.dumps({"kind": "x", "format": 2})}, "has format 2.*upgrade"),
    ]:
        write_raw(bad, metadata)
        with pytest.raises(InputError, match=message):
            tensors.load(bad)


def test_another_kind(tmp_path: Path) -> None:
    tensors.save(tmp_path / "x", {}, HEADER)
    with pytest.raises(
        MismatchError,
        match="needed here: class activation maps, made by ovtool cam or mask prompts",
    ):
        tensors.load(tmp_path / "x", ("cams", "mask-prompts"))


def test_fingerprint() -> None:
    first = tensors.fingerprint(some())
    assert len(first) == 16 and set(first) <= set("0123456789abcdef")
    assert tensors.fingerprint(dict(reversed(some().items()))) == first
    assert tensors.fingerprint({**some(), "z": some()["z"].contiguous()}) == first
    assert tensors.fingerprint({"a": np.arange(3.0)}) == tensors.fingerprint(
        {"a": torch.arange(3.0).double()}
    )
    for change in (
        {"scalar": torch.tensor(4)},
        {"scalar": torch.tensor([3])},
        {"scalar": torch.tensor(3, dtype=torch.int32)},
        {"empty": torch.zeros(5, 0)},
        {"more": torch.zeros(0)},
    ):
        assert tensors.fingerprint({**some(), **change}) != first


def test_check_fingerprint() -> None:
    tensors.check_fingerprint(HEADER, "tiny", "0123", Path("x"))
    with pytest.raises(MismatchError) as error:
        tensors.check_fingerprint(HEADER, "ViT-B-16/openai", "4567", Path("head.safetensors"))
    for word in ("head.safetensors", "tiny (0123)", "ViT-B-16/openai (4567)", "--model tiny"):
        assert word in str(error.value)
    assert error.value.exit_code == 2
    with pytest.raises(MismatchError, match="no fingerprint"):
        tensors.check_fingerprint({"kind": "x"}, "tiny", "0123", Path("x"))

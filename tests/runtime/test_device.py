"""Devices, precision, and batches that halve."""

from collections.abc import Sequence

import pytest
import torch

from ovtool.errors import OvtoolError, UsageError
from ovtool.runtime import device


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (2, False, None, "cuda"),
        (0, True, "auto", "mps"),
        (0, False, None, "cpu"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (1, False, "cuda", "cuda"),
    ],
)
def test_choose(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, name: str | None, expected: str
) -> None:
    pretend(monkeypatch, cuda, mps)
    assert device.choose(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:", "cpu:a", "meta"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device .*choose auto, cuda"):
        device.choose(name)


@pytest.mark.parametrize(("cuda", "name"), [(0, "cuda"), (2, "cuda:2"), (0, "mps")])
def test_absent_devices(monkeypatch: pytest.MonkeyPatch, cuda: int, name: str) -> None:
    pretend(monkeypatch, cuda)
    with pytest.raises(UsageError, match=f"no device {name}; choose .*cpu"):
        device.choose(name)


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert device.precision("auto", cpu) == device.precision(None, cpu) == torch.float32
    assert device.precision("bfloat16", cpu) == torch.bfloat16
    for supported, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, s=supported: s)
        assert device.precision("auto", cuda) == expected
    with pytest.raises(UsageError, match="unknown precision 'fp16'; choose auto, float32"):
        device.precision("fp16", cpu)


def run_with_memory_for(limit: int, error: Exception, sizes: list[int]):  # type: ignore[no-untyped-def]
    def run(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise error
        return [2 * item for item in batch]

    return run


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize(
    "error", [OUT, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: x")]
)
def test_batches_halve_until_they_fit(error: Exception) -> None:
    sizes: list[int] = []
    batches = device.Halving(run_with_memory_for(3, error, sizes), 8)
    assert [x for part in batches(range(10)) for x in part] == list(range(0, 20, 2))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert batches.batch_size == 2 and batches.was_halved


def test_nothing_halves_while_memory_suffices() -> None:
    sizes: list[int] = []
    batches = device.Halving(run_with_memory_for(99, OUT, sizes), 4)
    assert len(list(batches(torch.arange(10)))) == 3 and sizes == [4, 4, 2]
    assert batches.batch_size == 4 and not batches.was_halved
    assert list(batches([])) == []


def test_a_single_item_that_does_not_fit_is_told() -> None:
    sizes: list[int] = []
    with pytest.raises(OvtoolError, match="out of memory for a single item .*--device cpu"):
        list(device.Halving(run_with_memory_for(0, OUT, sizes), 5)(range(5)))
    assert sizes == [5, 3, 2, 1]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(device.Halving(run_with_memory_for(0, RuntimeError("shapes"), []), 4)(range(5)))
    with pytest.raises(UsageError, match="--batch-size 0"):
        device.Halving(len, 0)

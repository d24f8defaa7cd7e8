"""Which device computes, in which precision, and what to do when its memory runs out."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from ovtool.errors import OvtoolError, UsageError
from ovtool.settings import devices


class Sliceable(Protocol):
    """What can be cut into batches: a list or a tensor."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> Self: ...


Items = TypeVar("Items", bound=Sliceable)
Result = TypeVar("Result")
logger = logging.getLogger("ovtool")

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# how backends without an exception of their own say it
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory",
                 "not enough memory", "alloc_failed", "bad_alloc")  # fmt: skip


def choose(device: str | None = None) -> torch.device:
    """The device of a name; None or ``auto`` takes cuda, else mps, else cpu.

    Raises:
        UsageError: a name of no device (``gpu``), or one that this machine lacks (``cuda:7``).
    """
    here = _available()
    if device is None or device == "auto":
        return torch.device(here[0].split(":")[0])
    kind, _, number = device.partition(":")
    devices.check(device)
    if kind not in {name.split(":")[0] for name in here} or (number and device not in here):
        raise UsageError(f"this machine has no device {device}; choose {' or '.join(here)}")
    return torch.device(device)


def set_threads(threads: int | None) -> None:
    """Sets how many threads compute on the CPU; None leaves it to torch.

    Their number can change the last bits of a sum, so it is part of every digest.
    """
    if threads is not None:
        torch.set_num_threads(threads)


def precision(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype to compute in: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    ``auto`` is bfloat16 on a GPU that computes it, float16 on an older one, float32 elsewhere.

    Raises:
        UsageError: another name.
    """
    if name is None or name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if name not in _PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; choose auto, {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]


def training_precision(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype of a training: as ``precision``, but for float16, whose range is too small for gradients.

    ``auto`` is bfloat16 on a GPU that computes it, float32 elsewhere.

    Raises:
        UsageError: another name, or ``float16``.
    """
    dtype = precision(name, device)
    if dtype != torch.float16:
        return dtype
    if name == "float16":
        raise UsageError("--precision float16 is too coarse to train in; give bfloat16 or float32")
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """A context that computes in ``dtype`` where that is a lower precision than float32."""
    if dtype in (torch.float32, torch.float64):
        return nullcontext()
    return torch.autocast(device.type, dtype)


@dataclass
class Halving(Generic[Items, Result]):
    """Runs a sequence in batches, of half the size from then on when memory runs out.

    ``for scores in Halving(model, 32)(crops): ...``. Results may differ in their last digits between
    batch sizes, so make a new object for each part, and keep ``was_halved`` in the part's note.

    Attributes:
        run: The function of one batch.
        batch_size: The size in use.
        was_halved: Whether memory ran out.

    Raises:
        UsageError: The batch size is below 1.
    """

    run: Callable[[Items], Result]
    batch_size: int
    was_halved: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} is too small; give 1 or more")

    def __call__(self, items: Items) -> Iterator[Result]:
        """The results of ``run`` on slices of ``items``, in order, none of them empty.

        ``items`` may be anything with a length and slices, such as a tensor.

        Raises:
            OvtoolError: the memory does not suffice for a single item.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.batch_size]
            try:
                result = self.run(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).split("\n")[0]
            else:
                yield result
                start += len(batch)
                continue
            self._halve(len(batch), reason)  # here the failed attempt no longer holds any memory

    def _halve(self, size: int, reason: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise OvtoolError(
                f"out of memory for a single item ({reason[:100]}); use smaller images, "
                "--precision bfloat16, or --device cpu"
            )
        self.batch_size = (size + 1) // 2
        self.was_halved = True
        _say_halved(self.batch_size)


@functools.cache  # once, however many parts it happens in
def _say_halved(batch_size: int) -> None:
    logger.warning("out of memory: the batch size is now %d", batch_size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in words for word in _MEMORY_WORDS)


def _available() -> list[str]:
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]

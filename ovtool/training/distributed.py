"""One process or many: torchrun's ranks, and the few collectives that trainings here need.

Gradients are averaged by hand after the backward pass, which also serves trainings whose backward
pass comes in pieces. Alone, every function leaves its argument as it is.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ovtool.errors import UsageError

TIMEOUT = timedelta(minutes=5)  # after which the others of a lost rank give up


@dataclass(frozen=True)
class Ranks:
    """This process's number among `world`, and the device that it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0


def alone(device: torch.device | None = None) -> Ranks:
    """One process, on a device; the CPU if none is named."""
    return Ranks(0, 1, device or torch.device("cpu"))


def is_many() -> bool:
    """Whether torchrun started this process, among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_to_speak() -> bool:
    """Whether this process is the one that speaks, before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """This process among torchrun's, or alone: gloo on CPUs, nccl on GPUs, one GPU a process."""
    if not is_many():
        yield alone(device)
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def own_rows(batch_size: int, ranks: Ranks, least: int = 1) -> range:
    """The rows of a batch that this process computes.

    Args:
        batch_size: of all processes together.
        ranks: this process among them.
        least: the rows that each process needs; batch norm needs two.

    Raises:
        UsageError: the processes cannot share the batch evenly.
    """
    own = batch_size // ranks.world
    if batch_size % ranks.world or own < least:
        rest = "" if least == 1 else f", with {least} images or more for each"
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared by {ranks.world} processes; give a multiple of "
            f"their number{rest}"
        )
    return range(ranks.rank * own, (ranks.rank + 1) * own)


def is_of_a_connection(error: BaseException) -> bool:
    """Whether an exception says that another process is gone."""
    words = str(error).lower()
    is_named = any(
        word in words for word in ("closed by peer", "reset by peer", "timed out", "gloo")
    )
    return is_named or isinstance(error, dist.DistError)


def share(module: nn.Module, ranks: Ranks) -> None:
    """Gives every rank the first one's parameters and buffers."""
    if ranks.world > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replaces each gradient by its mean over the ranks; a rank without one counts as zero."""
    if ranks.world == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= ranks.world


def sum_over_ranks(value: Tensor, ranks: Ranks) -> Tensor:
    """The sum of a tensor of one shape over the ranks, outside the graph."""
    if ranks.world == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_ranks(value: Tensor, ranks: Ranks) -> Tensor:
    """The greatest of a tensor of one shape over the ranks, elementwise, outside the graph."""
    if ranks.world == 1:
        return value
    greatest = value.detach().clone()
    dist.all_reduce(greatest, op=dist.ReduceOp.MAX)
    return greatest


def gather_rows(rows: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all ranks, as many of each, in the order of the ranks, outside the graph."""
    if ranks.world == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(ranks.world)]
    dist.all_gather(gathered, rows.detach().contiguous())
    return torch.cat(gathered)


def gather_inside(own: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all ranks, however many of each, in their order; this rank's stay inside the graph.

    A loss of all rows, times the number of ranks, then has gradients whose mean over the ranks is the gradient
    of one process.
    """
    if ranks.world == 1:
        return own
    counts = gather_objects(len(own), ranks)
    padded = own.detach().new_zeros((max(counts), *own.shape[1:]))
    padded[: len(own)] = own.detach()
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    rows = [some[:count] for some, count in zip(gathered, counts, strict=True)]
    rows[ranks.rank] = own
    return torch.cat(rows)


def gather_objects(value: Any, ranks: Ranks) -> list[Any]:
    """Plain data of all ranks, in the order of the ranks."""
    if ranks.world == 1:
        return [value]
    gathered: list[Any] = [None] * ranks.world
    dist.all_gather_object(gathered, value)
    return gathered

"""The one loader under all trainings: batches by the number of their step, made here or by other processes."""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

Batch = TypeVar("Batch", covariant=True)
Item = TypeVar("Item")


class ByStep(Protocol[Batch]):
    """What makes the batch of any step, a function of (seed, step) alone."""

    def __getitem__(self, step: int) -> Batch: ...


class _Addressed(Dataset[Item]):
    """Batches by step as torch's loader asks for them."""

    def __init__(self, batches: ByStep[Item]) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Item:
        return self.batches[step]


class Loader(Generic[Item]):
    """The batch of a step, `loader(step)`, for steps that follow each other from any first one on.

    Args:
        batches: makes a batch from the number of its step.
        steps: how many the training has; no batch is made ahead of them.
        workers: processes that make batches ahead; 0 is this process, when it is asked.
    """

    def __init__(self, batches: ByStep[Item], steps: int, workers: int = 0) -> None:
        self.batches, self.steps, self.workers = batches, steps, workers
        self._ahead: Iterator[Item] | None = None
        self._next = 0

    def __call__(self, step: int) -> Item:
        if self.workers == 0:
            return self.batches[step]
        if self._ahead is None or step != self._next:
            order = range(step, self.steps)
            loader = DataLoader(
                _Addressed(self.batches),
                batch_size=None,
                sampler=order,
                num_workers=self.workers,
                prefetch_factor=4,
            )
            self._ahead = iter(loader)
        self._next = step + 1
        return next(self._ahead)

"""Every item once an epoch: the orders and random numbers of a training, as functions of (seed, step, row)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MOST_HELD_OUT = 64


@dataclass(frozen=True)
class Epochs:
    """Which item each row of each step shows: every item once an epoch, in an order drawn by seed.

    Attributes:
        count: How many items there are.
        batch_size: Rows of a step, over all processes.
        seed: The start of every order and of every random number.
    """

    count: int
    batch_size: int
    seed: int

    def item(self, step: int, row: int) -> int:
        """The number of the item, from 0 to `count` - 1."""
        epoch, place = divmod(step * self.batch_size + row, self.count)
        return int(_order(self.seed, epoch, self.count)[place])

    def generator(self, step: int, row: int) -> np.random.Generator:
        """Random numbers of a row of a step."""
        return np.random.default_rng([self.seed, step, row, 13])


def of_step(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """The items of a step, from 0 on: every item once an epoch, in an order drawn by seed, without the rest
    that fills no batch."""
    epoch, place = divmod(step, count // batch_size)
    order = np.random.default_rng([seed, 2, epoch]).permutation(count)
    return [int(item) for item in order[place * batch_size : (place + 1) * batch_size]]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, 12]).permutation(count)


def split(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Divides items into those to learn from and those to measure on.

    Args:
        count: How many items there are.
        held_out: The share that is held out, from 0 to 1: at most `MOST_HELD_OUT` items, and one at least is left
            to learn from.
        seed: Draws them.

    Returns:
        The numbers of the items to learn from, and of those held out, both rising.
    """
    shuffled = np.random.default_rng([seed, 11]).permutation(count).tolist()
    held = min(MOST_HELD_OUT, count - 1, round(held_out * count))
    return sorted(shuffled[held:]), sorted(shuffled[:held])

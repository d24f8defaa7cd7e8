"""The one loader under all trainings: the batch of a step is the same, whoever makes it and wherever it begins."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from ovtool.batches.loader import Loader

STEPS = 7


@dataclass(frozen=True)
class Numbers:
    """Batches that are a function of (seed, step) alone, with the process that made them."""

    seed: int = 3

    def __getitem__(self, step):
        if step >= STEPS:
            raise AssertionError("no training asks for this step")
        return step, np.random.default_rng([self.seed, step]).random(4), os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_the_order_of_their_steps(workers):
    loader = Loader(Numbers(), STEPS, workers)
    batches = [loader(step) for step in range(STEPS)]
    assert [step for step, _, _ in batches] == list(range(STEPS))
    for step, values, _ in batches:
        assert np.array_equal(values, Numbers()[step][1])
    makers = {process for _, _, process in batches}
    assert len(makers) == max(1, workers) and (os.getpid() in makers) == (workers == 0)


@pytest.mark.parametrize("first", [1, 4, STEPS - 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on_from_any_step(workers, first):
    whole, later = Loader(Numbers(), STEPS, 0), Loader(Numbers(), STEPS, workers)
    expected = [whole(step)[1] for step in range(STEPS)][first:]
    assert np.array_equal(expected, [later(step)[1] for step in range(first, STEPS)])


def test_a_step_out_of_order_begins_anew_there():
    loader = Loader(Numbers(), STEPS, 1)
    assert [loader(step)[0] for step in (0, 1, 5, 6, 0, 2)] == [0, 1, 5, 6, 0, 2]

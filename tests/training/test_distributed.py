"""Rows that several processes gather: the mean of their gradients is the gradient of one process."""

import pytest

PROGRAM = """
import torch
from torch.nn.functional import cross_entropy, normalize
from ovtool.training import distributed

with distributed.joined(torch.device("cpu")) as ranks:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, generator=draw).double().requires_grad_(True)
    inputs, texts = (torch.randn(7, size, generator=draw).double() for size in (4, 5))
    rows = slice(0, 7) if ranks.world == 1 else (slice(0, 5), slice(5, 7))[ranks.rank]
    own = normalize(inputs[rows] @ weight, dim=-1)
    every = distributed.gather_inside(own, ranks)
    numbers = distributed.gather_inside(torch.arange(7)[rows], ranks)
    loss = cross_entropy(every @ texts[numbers].T, torch.arange(7))
    (loss * ranks.world).backward()
    distributed.average_gradients([weight], ranks)
    if ranks.is_first:
        print(loss.item(), *weight.grad.flatten().tolist())
"""


def test_a_loss_of_rows_of_all_ranks_has_the_gradient_of_one_process(tmp_path, in_ranks):
    script = tmp_path / "ranks.py"
    script.write_text(PROGRAM)
    found = [[float(value) for value in in_ranks(world, script).split()] for world in (1, 2)]
    assert len(found[0]) == 21 and any(found[0][1:])
    assert found[0] == pytest.approx(found[1], abs=1e-12)

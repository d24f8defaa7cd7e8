"""Gradients summed over tokens, against autograd in float64."""

import pytest
import torch

from ovtool.methods import attention_gradients


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
def test_sums_over_tokens_are_those_of_a_backward_pass(monkeypatch, cells):
    monkeypatch.setattr(attention_gradients, "_CELLS", cells)  # a row, some rows, all at once
    generator = torch.Generator().manual_seed(0)
    heads, count, width, scores = 3, 13, 5, 4
    q, k, v = torch.randn(3, heads, count, width, generator=generator, dtype=torch.float64)
    gradients = torch.randn(scores, heads, count, width, generator=generator, dtype=torch.float64)
    gradients[:, :, 0] = 0
    outputs = attention_gradients.attended(q, k, v)
    found = attention_gradients.summed(q, k, v, outputs, gradients)

    inputs = [part.clone().requires_grad_(True) for part in (q, k, v)]
    weights = (inputs[0] @ inputs[1].transpose(1, 2) / width**0.5).softmax(-1)
    mixed = weights @ inputs[2]
    torch.testing.assert_close(outputs, (mixed.detach(), (weights @ k).detach()))
    for score in range(scores):
        each = torch.autograd.grad(mixed, inputs, gradients[score], retain_graph=True)
        expected = torch.cat([part[:, 1:].sum(1).flatten() for part in each])
        torch.testing.assert_close(found[score], expected)

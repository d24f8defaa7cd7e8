"""Products by oneDNN are those of torch, and are left to torch where there are gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ovtool.methods import products


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(300,), (3, 70), (2, 9, 16), (5,), (0,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_linear_layer_is_torchs(shape, with_bias):
    x, weight, bias = drawn(*shape, 48), drawn(20, 48), drawn(20) if with_bias else None
    found, exact = (
        products.linear(x, weight, bias),
        functional.linear(x.double(), weight.double(), None if bias is None else bias.double()),
    )
    assert found.shape == (*shape, 20) and found.is_contiguous()
    torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=1e-5)


def test_rows_that_lie_apart_are_read_rightly():
    x, weight = drawn(200, 2, 48)[:, 1], drawn(20, 48)
    torch.testing.assert_close(
        products.linear(x, weight), x.contiguous() @ weight.T, rtol=1e-5, atol=1e-5
    )


def test_onednn_takes_what_is_large_and_has_no_gradients():
    x, weight = drawn(300, 48), drawn(20, 48)
    assert products.is_by_onednn(x, weight, 300) == torch.backends.mkldnn.is_available()
    assert not products.is_by_onednn(x, weight, 100)
    assert not products.is_by_onednn(x.double(), weight.double(), 300)
    weight.requires_grad_(True)
    assert not products.is_by_onednn(x, weight, 300)
    with torch.no_grad():
        assert products.is_by_onednn(x, weight, 300) == torch.backends.mkldnn.is_available()
    products.linear(x, weight).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(20, -1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_perceptron_is_its_layers():
    layers = nn.Sequential(nn.Linear(48, 30), nn.GELU(), nn.Linear(30, 48, bias=False))
    x = drawn(2, 100, 48)
    torch.testing.assert_close(products.perceptron(layers, x), layers(x), rtol=1e-5, atol=1e-5)

"""Products of matrices by oneDNN, for inference in float32 on a CPU.

Torch leaves a linear layer to MKL, which on processors of AMD with AVX-512 uses half of their width (on one core of an
EPYC 105 thousand million operations a second, where oneDNN reaches 230). Both are float32: they differ in the order of sums.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = 128  # with fewer, the weights are rearranged for too little


def is_by_onednn(x: Tensor, weight: Tensor, rows: int) -> bool:
    """Whether the product of so many rows of `x` with a weight is left to oneDNN: without gradients, on a CPU."""
    return (
        rows >= _ROWS
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: x (..., K) and weight (N, K) to (..., N)."""
    inside = weight.shape[1]
    rows = x.numel() // inside
    if not is_by_onednn(x, weight, rows):
        return functional.linear(x, weight, bias)
    places = x.reshape(1, 1, rows, inside).permute(0, 3, 1, 2)  # an image of one row
    kernel, once = weight[:, :, None, None], [1, 1]
    found = torch.mkldnn_convolution(places, kernel, bias, [0, 0], once, once, 1)
    return found.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def perceptron(layers: nn.Sequential, x: Tensor) -> Tensor:
    """What layers make of x (..., K), one after another, the linear ones as above."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = linear(x, layer.weight, layer.bias)
        else:
            x = layer(x)
    return x

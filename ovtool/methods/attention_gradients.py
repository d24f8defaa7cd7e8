"""Gradients of scores by what all patches share at the input of an attention, a row block of its weights at a time.

GradCAM asks for the mean over patches of the gradients by an attention's input, not for each of them. With weights
P = softmax(s Q K^T), output O = P V and the gradients G of a score by O, of which the first token (the class token) has
none, and dV = P^T G, the sums over all tokens j but the first are

    of values    sum_j dV_j = (sum of all dV) - dV_0
    of queries   sum_i dQ_i = s (sum_j (V_j . dV_j) K_j - sum_i (G_i . O_i) (P K)_i)
    of keys      sum_j dK_j = -dK_0 = -s sum_i P_i0 (G_i . V_0 - G_i . O_i) Q_i

the last since the rows of the gradients by logits sum to 0. So a class costs one product with P, and a backward pass
would take five.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ovtool.methods.products import linear

_CELLS = 1 << 22  # of the weights that are held at once


def attended(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What attention makes of values and of keys, O and P K, of (heads, N, d) each: the same shape each."""
    mixed = torch.empty_like(q, memory_format=torch.contiguous_format)
    keys = torch.empty_like(mixed)
    for head, rows, weights in _weights(q, k):
        both = linear(weights, torch.cat([v[head], k[head]], dim=1).T)
        mixed[head, rows], keys[head, rows] = both.chunk(2, dim=1)
    return mixed, keys


def summed(
    q: Tensor, k: Tensor, v: Tensor, outputs: tuple[Tensor, Tensor], gradients: Tensor
) -> Tensor:
    """The gradients by queries, keys and values, each summed over all tokens but the first.

    Args:
        q, k, v: (heads, N, d).
        outputs: what `attended` made of them.
        gradients: of C scores by the attended values, (C, heads, N, d), those of the first token 0.

    Returns:
        (C, 3 * heads * d): queries, keys, values.
    """
    mixed, keys = outputs
    count, heads, _, width = gradients.shape
    by_values = gradients.new_zeros(heads, count * width, q.shape[1])  # dV, transposed
    first = torch.empty_like(q[..., 0])  # P_i0
    for head, rows, weights in _weights(q, k):
        upstream = gradients[:, head, rows].transpose(1, 2).flatten(0, 1)  # (C d, rows)
        by_values[head] += linear(upstream, weights.T)
        first[head, rows] = weights[:, 0]
    values = by_values.unflatten(1, (count, width))  # (heads, C, d, N)
    scale = width**-0.5
    delta = (gradients * mixed).sum(-1)  # (C, heads, N)
    along = torch.einsum("hnd,hcdn->chn", v, values)
    of_q = torch.einsum("chn,hnd->chd", along, k) - torch.einsum("chn,hnd->chd", delta, keys)
    apart = torch.einsum("chnd,hd->chn", gradients, v[:, 0]) - delta
    of_k = -torch.einsum("hn,chn,hnd->chd", first, apart, q)
    of_v = (values.sum(-1) - values[..., 0]).transpose(0, 1)
    return torch.cat([part.flatten(1) for part in (scale * of_q, scale * of_k, of_v)], dim=1)


def _weights(q: Tensor, k: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """The rows of attention weights, (rows, N), with their head and place."""
    heads, count, width = q.shape
    step = max(1, _CELLS // count)
    for head in range(heads):
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield head, rows, linear(q[head, rows] * width**-0.5, k[head]).softmax(dim=-1)

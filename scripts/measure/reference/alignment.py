"""PACL's step as its formulas stand: all pairs of images and texts at once, and back through all of it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def step(embed: Callable[[Tensor], Tensor], tokens: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The loss of a batch, whose gradients are added to the embedder's.

    Args:
        embed: maps tokens (B, T, W) to patches (B, T, D).
        tokens: (B, T, W).
        texts: (B, D), of length 1.
        scale: what the compatibilities are multiplied by.
    """
    patches = embed(tokens)  # (B, T, D)
    cosines = torch.einsum("btd,nd->bnt", normalize(patches, dim=-1), texts)
    weights = (10.0 * cosines).softmax(-1)
    pooled = torch.einsum("bnt,btd->bnd", weights, patches)
    logits = scale * torch.einsum("bnd,nd->bn", normalize(pooled, dim=-1), texts)
    target = torch.arange(len(logits))
    loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    loss.backward()
    return loss.detach()

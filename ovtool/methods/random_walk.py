"""A random walk that spreads maps over neighbours with which a place has an affinity.

With a_ij in [0, 1] the affinity of places i and j at most a radius apart, a_ii = 1:

    T_ij = a_ij^beta / sum_i a_ij^beta,        x <- x T, taken 2^t times

The published code squares the dense T t times. A place has a few dozen neighbours, so here T is a
table of them and the steps are taken one by one: the same result from O(N) numbers, not N^2.

Source: Ahn, Cho, Kwak, Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations (CVPR 2019), section 4.4, with the affinity of colours or of attention where the paper
learns one from boundaries.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

RADIUS, BETA, DOUBLINGS = 5, 10.0, 8


@dataclass(frozen=True, eq=False)
class Transition:
    """T as a table: `sources` int64 (N, D) are the places that each may be reached from, and
    `weights`, floating (N, D), their share; where there is no such place, 0 of the place itself."""

    sources: Tensor
    weights: Tensor


def neighbours(grid: tuple[int, int], radius: int = RADIUS) -> tuple[Tensor, Tensor]:
    """The places nearer than `radius` to each place of a grid (h, w), itself the first: int64 (N, D)
    and whether they lie in the grid, bool (N, D); those that do not are the place itself."""
    reach = range(-radius + 1, radius)
    steps = [(y, x) for y in reach for x in reach if y * y + x * x < radius * radius]
    steps.sort(key=lambda step: step != (0, 0))
    height, width = grid
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows = row.reshape(-1, 1) + torch.tensor([y for y, _ in steps])
    columns = column.reshape(-1, 1) + torch.tensor([x for _, x in steps])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    own = torch.arange(height * width)[:, None]
    return torch.where(inside, rows * width + columns, own), inside


def colour_affinity(image: Tensor, sources: Tensor, deviation: float) -> Tensor:
    """exp(-|I_i - I_j|^2 / 2 deviation^2): floating (N, D), of an image (3, h, w) and the places'
    `sources` (N, D); the deviation is in the image's unit."""
    colour = image.flatten(1).T
    distance = (colour[:, None] - colour[sources]).square().sum(-1)
    return torch.exp(distance * (-0.5 / (deviation * deviation)))


def attention_affinity(attention: Tensor, sources: Tensor) -> Tensor:
    """How alike the attentions of two places are, their cosine: floating (N, D) in [0, 1].

    attention: floating (N, N), rows that are not negative; sources: int64 (N, D).
    """
    likeness = normalize(attention, dim=1)
    return (likeness @ likeness.T).gather(1, sources).clamp_(0.0, 1.0)


def transition(affinity: Tensor, sources: Tensor, inside: Tensor, beta: float = BETA) -> Transition:
    """T of the affinities (N, D), symmetric and in [0, 1], of the places that `neighbours` gives."""
    powered = affinity.pow(beta) * inside.to(affinity)
    powered[:, 0] = 1.0
    return Transition(sources, powered / powered.sum(1, keepdim=True))


@torch.no_grad()
def walk(maps: Tensor, step: Transition, doublings: int = DOUBLINGS) -> Tensor:
    """Maps (K, h, w) after 2^doublings steps, in the same shape and dtype as the transition."""
    values = maps.flatten(1).T.to(step.weights).contiguous()  # (N, K)
    for _ in range(1 << doublings):
        values = embedding_bag(step.sources, values, mode="sum", per_sample_weights=step.weights)
    return values.T.reshape(maps.shape)

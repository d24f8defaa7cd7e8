"""The five attentions against themselves written out with loops in float64."""

import math

import pytest
import torch

from ovtool.errors import UsageError
from ovtool.methods import dense_clip

GRIDS = [(1, 1), (3, 5), (6, 2)]


def heads(grid, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 1 + grid[0] * grid[1], 4)
    return [2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def slow(a, b, v, prior=None):
    """softmax(a bT / sqrt d + prior) v, number by number."""
    out = torch.zeros_like(v)
    batch, count, tokens, width = v.shape
    for n in range(batch):
        for h in range(count):
            for i in range(tokens):
                weights = []
                for j in range(tokens):
                    dot = sum(float(a[n, h, i, c] * b[n, h, j, c]) for c in range(width))
                    extra = 0.0 if prior is None else prior[i][j]
                    weights.append(math.exp(dot / math.sqrt(width) + extra))
                total = sum(weights)
                for j in range(tokens):
                    out[n, h, i] += weights[j] / total * v[n, h, j]
    return out


def slow_prior(grid, sigma=5.0):
    places = [None, *((y, x) for y in range(grid[0]) for x in range(grid[1]))]
    return [
        [
            0.0
            if p is None or r is None
            else math.exp(-((p[0] - r[0]) ** 2 + (p[1] - r[1]) ** 2) / (2 * sigma**2))
            for r in places
        ]
        for p in places
    ]


TWINS = {
    "clip": lambda q, k, v, grid: slow(q, k, v),
    "maskclip": lambda q, k, v, grid: v,
    "sclip": lambda q, k, v, grid: slow(q, q, v) + slow(k, k, v),
    "clearclip": lambda q, k, v, grid: slow(q, q, v),
    "naclip": lambda q, k, v, grid: slow(k, k, v, slow_prior(grid)),
}


@pytest.mark.parametrize("name", list(dense_clip.LAST_BLOCKS))
@pytest.mark.parametrize("grid", GRIDS)
def test_attention_is_the_published_formula(name, grid):
    q, k, v = heads(grid, seed=len(name) + grid[0])
    expected = TWINS[name](q, k, v, grid)
    got = dense_clip.attention(name, q, k, v, grid)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("grid", GRIDS)
def test_prior_peaks_at_the_patch_itself_and_spares_the_class_token(grid):
    expected = torch.tensor(slow_prior(grid, sigma=2.0))
    got = dense_clip.neighbour_prior(grid, sigma=2.0)
    torch.testing.assert_close(got, expected)
    assert torch.equal(got.diagonal()[1:], torch.ones(grid[0] * grid[1]))
    assert not got[0].any() and not got[:, 0].any()
    torch.testing.assert_close(dense_clip.neighbour_prior(grid, 1, 2, sigma=2.0), expected[1:2])


def test_naclip_in_groups_of_rows_is_naclip_at_once(monkeypatch):
    _, k, v = heads((5, 4), seed=3)
    whole = dense_clip.naclip_attention(k, v, (5, 4))
    monkeypatch.setattr(dense_clip, "MAX_PRIOR_ELEMENTS", 50)  # two rows at a time
    torch.testing.assert_close(dense_clip.naclip_attention(k, v, (5, 4)), whole)


def test_only_clip_and_sclip_keep_residual_and_mlp():
    kept = {b.name: (b.keeps_residual, b.keeps_mlp) for b in dense_clip.LAST_BLOCKS.values()}
    assert {name for name, both in kept.items() if both == (True, True)} == {"clip", "sclip"}
    assert all(both in ((True, True), (False, False)) for both in kept.values())


def test_an_unknown_last_block_is_named_with_the_choices():
    with pytest.raises(UsageError, match="unknown last block 'vv'; choose one of clip, maskclip"):
        dense_clip.last_block("vv")

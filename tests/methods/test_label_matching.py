"""Segment-label matching against its formulas, written out."""

import math

import pytest
import torch

from ovtool.errors import UsageError
from ovtool.methods import label_matching as matching
from ovtool.methods.activation_maps import min_max


def test_maps_are_normalised_one_by_one():
    raw = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    found = min_max(raw, 0.1)
    assert torch.allclose(found[0], torch.tensor([[0.0, 2.0], [1.0, 4.0]]) / 4.1)
    assert torch.equal(found[1], torch.zeros(2, 2))  # a constant map
    assert min_max(raw, matching.EPS).max() == pytest.approx(4 / 4.0001)


def test_a_pair_is_the_image_in_two_parts():
    pixels, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 4, 5)
    shown, hidden = matching.masked_pair(pixels, mask)
    assert torch.allclose(shown + hidden, pixels, atol=1e-6)
    assert torch.allclose(shown[1, 2, 3, 4], pixels[1, 2, 3, 4] * mask[1, 3, 4])


@pytest.mark.parametrize("kind", matching.SIMILARITIES)
def test_the_loss_is_that_of_the_formula(kind):
    torch.manual_seed(0)
    v_f, v_b, t = (torch.nn.functional.normalize(torch.randn(7, 5).double(), dim=1) for _ in "abc")
    slow = 0.0
    for i in range(7):
        s_f = sum(float(a * b) for a, b in zip(v_f[i], t[i], strict=True))
        s_b = sum(float(a * b) for a, b in zip(v_b[i], t[i], strict=True))
        if kind == "shifted":
            s_f, s_b = (1 + s_f) / 2, (1 + s_b) / 2
        s_f, s_b = (min(max(s, 1e-4), 0.9999) for s in (s_f, s_b))
        slow += (-math.log(s_f) - 0.75 * math.log(1 - s_b)) / 7
    both = (matching.similarity(v, t, kind) for v in (v_f, v_b))
    assert float(matching.match_loss(*both, 0.75)) == pytest.approx(slow, abs=1e-12)


def test_only_the_shifted_similarity_learns_from_an_opposite():
    for kind, learns in (("raw", False), ("shifted", True)):
        vector = torch.tensor([[-0.6, 0.8]], requires_grad=True)
        similarity = matching.similarity(vector, torch.tensor([[1.0, 0.0]]), kind)
        matching.match_loss(similarity, torch.full((1,), 0.5)).backward()
        assert bool(vector.grad.any()) is learns
    with pytest.raises(UsageError, match="unknown similarity 'cube'; choose from raw, shifted"):
        matching.similarity(torch.ones(1, 2), torch.ones(1, 2), "cube")


def test_no_pair_and_one_pair():
    empty = torch.zeros(0, requires_grad=True)
    assert matching.match_loss(empty, empty).item() == 0.0
    one = matching.match_loss(torch.tensor([0.5]), torch.tensor([0.5]), 1.0)
    assert float(one) == pytest.approx(2 * math.log(2))
    assert matching.match_loss(torch.tensor([-1.0]), torch.tensor([1.0])).isfinite()


def test_the_share_that_learns_nothing():
    assert matching.clamped_share(torch.tensor([-0.5, 0.0, 0.2, 1.0])) == 0.75
    assert matching.clamped_share(torch.zeros(0)) == 0.0

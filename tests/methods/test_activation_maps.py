"""Activation maps against slow versions of their formulas."""

import math

import torch

from ovtool.methods import activation_maps


def test_the_classic_map():
    torch.manual_seed(0)
    features, weights = torch.randn(2, 4, 3, 5).double(), torch.randn(6, 4).double()
    found = activation_maps.class_maps(features, weights)
    for b, c, y, x in ((0, 0, 0, 0), (1, 5, 2, 4), (1, 2, 1, 3)):
        slow = max(0.0, sum(float(weights[c, d] * features[b, d, y, x]) for d in range(4)))
        assert math.isclose(float(found[b, c, y, x]), slow, abs_tol=1e-12)


def test_probabilities_are_those_of_the_words_given():
    torch.manual_seed(1)
    features, text = torch.randn(3, 4).double(), torch.randn(5, 4).double()
    text /= text.norm(dim=1, keepdim=True)
    found = activation_maps.class_probabilities(features, text, 7.0)
    for b in range(3):
        cosines = [float(features[b] @ word / features[b].norm()) for word in text]
        total = sum(math.exp(7 * one) for one in cosines)
        for k, one in enumerate(cosines):
            assert math.isclose(float(found[b, k]), math.exp(7 * one) / total, rel_tol=1e-9)


def test_gradcam_weighs_channels_by_their_mean_gradient():
    torch.manual_seed(2)
    activations, gradients = torch.randn(2, 6, 3).double(), torch.randn(2, 6, 3).double()
    found = activation_maps.gradcam(activations, gradients)
    for k in range(2):
        weights = [sum(float(gradients[k, n, d]) for n in range(6)) / 6 for d in range(3)]
        for n in range(6):
            slow = max(0.0, sum(w * float(activations[k, n, d]) for d, w in enumerate(weights)))
            assert math.isclose(float(found[k, n]), slow, abs_tol=1e-12)


def test_min_max_and_constant_maps():
    maps = torch.stack([torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.full((2, 2), 3.0)])
    found = activation_maps.min_max(maps)
    assert torch.allclose(found[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]), atol=1e-6)
    assert not found[1].any()
    assert torch.allclose(activation_maps.min_max(found), found, atol=1e-6)


def test_scales_are_merged_on_one_grid():
    small, large = torch.rand(2, 3, 4), torch.rand(2, 6, 8)
    found = activation_maps.merged([small, large], (3, 4))
    assert found.shape == (2, 3, 4) and found.amin() == 0 and found.amax() > 0.999
    same = activation_maps.merged([small, small], (3, 4))
    assert torch.allclose(same, activation_maps.min_max(small), atol=1e-6)

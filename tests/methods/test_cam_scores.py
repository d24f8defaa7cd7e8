"""Seeds of maps, and where their errors lie."""

import pytest
import torch

from ovtool.methods import cam_scores

MAPS = torch.tensor([[[0.9, 0.2], [0.5, 0.1]], [[0.1, 0.3], [0.6, 0.0]]])


def test_a_seed_is_the_greatest_of_maps_and_background():
    classes = torch.tensor([4, 7])
    constant = cam_scores.background_constant(MAPS, 0.25)
    assert cam_scores.seeds(MAPS, classes, constant).tolist() == [[4, 7], [7, 0]]
    power = cam_scores.background_power(MAPS, 1.0)
    assert torch.allclose(power, torch.tensor([[0.1, 0.7], [0.4, 0.9]]))
    assert cam_scores.seeds(MAPS, classes, power).tolist() == [[4, 0], [7, 0]]
    assert torch.allclose(cam_scores.background_power(MAPS, 2.0), power**2)


def test_an_image_without_maps_is_background():
    none = torch.zeros(0, 2, 3)
    background = cam_scores.background_constant(none, 0.5)
    assert cam_scores.seeds(none, torch.zeros(0), background).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_otsu_parts_two_heaps():
    values = torch.cat([torch.full((300,), 0.1), torch.full((100,), 0.8)])
    assert 0.1 < cam_scores.otsu(values) < 0.8
    assert 0 < cam_scores.otsu(torch.full((10,), 0.5)) < 1
    torch.manual_seed(0)
    mixed = torch.cat([0.2 + 0.05 * torch.randn(5000), 0.7 + 0.05 * torch.randn(800)]).clamp(0, 1)

    def within(threshold):
        groups = (mixed[mixed < threshold], mixed[mixed >= threshold])
        return sum(float(one.var(correction=0)) * len(one) for one in groups if len(one))

    best = min(within(k / 256) for k in range(1, 256))
    assert within(cam_scores.otsu(mixed)) == pytest.approx(best, rel=1e-6)


def test_false_foreground_on_the_paired_ground():
    seed = torch.tensor([[1, 1, 2, 0]])
    truth = torch.tensor([[0, 1, 0, 0]])
    ground = torch.tensor([[5, 5, 5, 5]])
    false = cam_scores.false_foreground(seed, truth)
    assert false.tolist() == [[True, False, True, False]]
    pairs = torch.tensor([-1, 5, 6])
    assert cam_scores.paired_share(false, seed, ground, pairs) == (1, 2)
    assert cam_scores.paired_share(false, seed, ground, torch.tensor([-1, 5, -1])) == (1, 1)

"""Pseudo masks: the background's score, the labels, and pixels in doubt."""

import pytest
import torch

from ovtool.methods import pseudo_masks
from ovtool.methods.pseudo_masks import DOUBT, Background


@pytest.fixture
def maps():
    return torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slow(maps, score, confidence):
    """The labels, pixel by pixel."""
    classes, height, width = maps.shape
    found = torch.empty(height, width, dtype=torch.int64)
    shares = torch.empty(height, width, dtype=maps.dtype)
    for y in range(height):
        for x in range(width):
            values = [float(score[y, x]), *(float(maps[k, y, x]) for k in range(classes))]
            best = max(values)
            shares[y, x] = best / sum(values)
            found[y, x] = values.index(best) if best / sum(values) >= confidence else -1
    return found, shares


@pytest.mark.parametrize("confidence", [0.0, 0.45])
@pytest.mark.parametrize(
    "background, score",
    [
        (Background("constant", 0.6), lambda m: torch.full_like(m[0], 0.6)),
        (Background("power", 2.0), lambda m: (1 - m.max(0).values) ** 2),
        (Background("rest"), lambda m: (1 - m.sum(0)).clamp(min=0)),
    ],
)
def test_the_best_score_takes_the_pixel(maps, background, score, confidence):
    found, shares = pseudo_masks.labels(maps, background, confidence)
    wanted, wanted_shares = slow(maps, score(maps), confidence)
    assert torch.equal(found, wanted) and len(wanted.unique()) > 2
    assert (DOUBT in wanted) == (confidence > 0)
    torch.testing.assert_close(shares, wanted_shares)


def test_otsu_parts_a_image_by_its_own_maps():
    blob = torch.full((1, 8, 8), 0.15)
    blob[0, 2:5, 2:6] = 0.55
    found, _ = pseudo_masks.labels(blob, Background())
    assert torch.equal(found == 1, blob[0] > 0.5)
    faint, _ = pseudo_masks.labels(blob / 2, Background())  # no constant fits both
    assert torch.equal(faint, found)


def test_no_class_and_constant_maps_are_background():
    empty, share = pseudo_masks.labels(torch.zeros(0, 4, 4), Background())
    assert not empty.any() and (share == 1).all()
    flat, _ = pseudo_masks.labels(torch.zeros(2, 4, 4), Background())
    assert not flat.any()


def test_probabilities_leave_the_rest_to_the_background():
    maps = torch.tensor([[[0.02, 0.97, 0.5]], [[0.01, 0.02, 0.45]]])
    found, _ = pseudo_masks.labels(maps, Background("rest"), 0.95)
    assert found.tolist() == [[0, 1, DOUBT]]


def test_otsu_parts_two_heaps():
    values = torch.cat([torch.full((300,), 0.1), torch.full((100,), 0.8)])
    assert 0.1 < pseudo_masks.otsu(values) < 0.8
    assert 0 < pseudo_masks.otsu(torch.full((10,), 0.5)) < 1
    torch.manual_seed(0)
    mixed = torch.cat([0.2 + 0.05 * torch.randn(5000), 0.7 + 0.05 * torch.randn(800)]).clamp(0, 1)

    def within(threshold):
        groups = (mixed[mixed < threshold], mixed[mixed >= threshold])
        return sum(float(one.var(correction=0)) * len(one) for one in groups if len(one))

    best = min(within(k / 256) for k in range(1, 256))
    assert within(pseudo_masks.otsu(mixed)) == pytest.approx(best, rel=1e-6)

"""PAMR against a slow version of itself in float64, and its properties."""

import numpy as np
import pytest
import torch

from ovtool.methods import pixel_adaptive


def slow(image, maps, iterations, distances):
    image, maps = image.numpy().astype(np.float64), maps.numpy().astype(np.float64)
    _, height, width = image.shape

    def at(values, y, x):
        return values[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    steps = [(d * a, d * b) for d in distances for a in (-1, 0, 1) for b in (-1, 0, 1)]
    around = [step for step in steps if step != (0, 0)]
    for _ in range(iterations):
        refined = np.empty_like(maps)
        for y in range(height):
            for x in range(width):
                samples = np.stack([at(image, y + a, x + b) for a, b in steps])
                sigma = samples.std(0, ddof=1)
                k = np.array([
                    np.mean(-np.abs(image[:, y, x] - at(image, y + a, x + b)) / (1e-8 + 0.1 * sigma))
                    for a, b in around
                ])  # fmt: skip
                alpha = np.exp(k - k.max())
                alpha /= alpha.sum()
                others = np.stack([at(maps, y + a, x + b) for a, b in around])
                refined[:, y, x] = alpha @ others
        maps = refined
    return torch.from_numpy(maps)


@pytest.mark.parametrize("distances", [(1,), (1, 2, 4)])
def test_equals_the_slow_version(distances):
    random = torch.Generator().manual_seed(0)
    image, maps = torch.rand(3, 7, 9, generator=random), torch.rand(2, 7, 9, generator=random)
    found = pixel_adaptive.pamr(image, maps, 3, distances)
    wanted = slow(image, maps, 3, distances)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def test_keeps_constants_and_ranges_and_no_unit_matters():
    random = torch.Generator().manual_seed(1)
    image, maps = torch.rand(3, 40, 50, generator=random), torch.rand(2, 40, 50, generator=random)
    maps[1] = 0.3
    found = pixel_adaptive.pamr(image, maps)
    torch.testing.assert_close(found[1], maps[1])
    assert maps[0].min() <= found[0].min() and found[0].max() <= maps[0].max()
    torch.testing.assert_close(pixel_adaptive.pamr(255 * image, maps), found, rtol=1e-3, atol=1e-4)


def test_maps_move_to_the_edges_of_the_image():
    image = torch.zeros(3, 32, 32)
    image[:, :, 16:] = 1.0
    image += 0.02 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    maps = torch.zeros(1, 32, 32)
    maps[:, :, 19:] = 1.0  # three pixels off
    found = pixel_adaptive.pamr(image, maps)[0]
    assert found[:, 16:19].mean() > 0.5 > 10 * found[:, 13:16].mean()


def test_one_pixel_and_flat_images():
    flat = torch.full((3, 1, 1), 0.5)
    ones = torch.ones(1, 1, 1)
    torch.testing.assert_close(pixel_adaptive.pamr(flat, ones), ones)
    maps = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3))
    assert pixel_adaptive.pamr(torch.zeros(3, 6, 6), maps).isfinite().all()

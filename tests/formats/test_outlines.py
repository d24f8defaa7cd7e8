"""A mask as one polygon, and the polygon as the mask."""

import numpy as np
import pytest
from scipy import ndimage

from ovtool.formats import outlines


def blobs(seed):
    """A mask of random pixels, or of smooth blobs with holes."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    mask = random.random((height, width)) < random.random()
    if seed % 2:
        mask = ndimage.zoom(mask.astype(float), 3, order=1) > 0.5
    return mask


@pytest.mark.parametrize("seed", range(40))
def test_the_polygon_of_a_part_draws_the_part(seed):
    mask = blobs(seed)
    touching, count = ndimage.label(mask, np.ones((3, 3)))
    drawn = np.zeros_like(mask)
    for number in range(1, count + 1):
        part = touching == number
        polygon = outlines.joined(outlines.pieces(part))
        assert np.array_equal(outlines.drawn(polygon, *mask.shape), part)
        drawn |= part
    assert np.array_equal(drawn, mask)
    assert len(outlines.pieces(mask)) == ndimage.label(mask)[1]


def test_parts_are_joined_by_the_shortest_lines():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:5] = mask[2:5, 10:14] = mask[12:18, 10:14] = True
    mask[14, 12] = False  # a hole
    pieces = outlines.pieces(mask)
    drawn = outlines.drawn(outlines.joined(pieces), *mask.shape)
    assert (drawn & mask).sum() == mask.sum()
    assert (drawn & ~mask).sum() == 5 + 7  # columns 5 to 9, rows 5 to 11
    assert not drawn[14, 12]


def test_a_mask_without_pixels_has_no_polygon():
    assert outlines.pieces(np.zeros((4, 5), bool)) == []


def test_a_pixel_is_a_polygon_of_it_alone():
    mask = np.zeros((4, 5), bool)
    mask[3, 4] = True
    (polygon,) = outlines.pieces(mask)
    assert len(polygon) >= 3 and np.array_equal(np.unique(polygon, axis=0), [[4, 3]])
    assert np.array_equal(outlines.drawn(polygon, 4, 5), mask)

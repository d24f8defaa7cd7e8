"""Masked crops against a slow version that goes pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ovtool.methods.masked_crops import masked_crops, nearest, tight_boxes


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(3, 20, 31, generator=generator, dtype=torch.float64)
    masks = torch.zeros(4, 20, 31, dtype=torch.bool)
    masks[0, 3:9, 5:25] = torch.rand(6, 20, generator=generator) > 0.4
    masks[1] = True
    masks[2, 19, 30] = True
    masks[3, 0, 4], masks[3, 11, 2] = True, True
    return pixels, masks


def slow_box(mask):
    rows, columns = np.nonzero(mask.numpy())
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_boxes_are_tight(scene):
    _, masks = scene
    assert tight_boxes(masks).tolist() == [slow_box(mask) for mask in masks]
    assert tight_boxes(masks[1:2]).tolist() == [[0, 0, 20, 31]]


def test_an_empty_mask_has_no_box_and_no_crop(scene):
    pixels, masks = scene
    masks[1] = False
    assert tight_boxes(masks)[1].tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="mask 1 is empty"):
        masked_crops(pixels, masks, 16)


def test_masks_of_another_size_are_refused(scene):
    pixels, masks = scene
    with pytest.raises(ValueError, match="masks"):
        masked_crops(pixels, masks[:, :-1], 16)


def test_no_mask_gives_no_crop(scene):
    pixels, masks = scene
    crops, squeezed = masked_crops(pixels, masks[:0], 16)
    assert crops.shape == (0, 3, 16, 16) and squeezed.shape == (0, 16, 16)


def test_crops_are_filled_then_squeezed(scene):
    pixels, masks = scene
    crops, squeezed = masked_crops(pixels, masks, 16)
    open_crops, same = masked_crops(pixels, masks, 16, fill=False)
    assert torch.equal(squeezed, same) and crops.dtype == torch.float64
    for index, mask in enumerate(masks):
        top, left, bottom, right = slow_box(mask)
        cut = pixels[:, top:bottom, left:right]
        inside = mask[top:bottom, left:right]
        filled = torch.where(inside, cut, 0.0)
        for found, source in ((crops, filled), (open_crops, cut)):
            expected = interpolate(source[None], size=(16, 16), mode="bicubic")[0]
            assert torch.allclose(found[index], expected, atol=1e-12)
        small = Image.fromarray(inside.numpy()).resize((16, 16), Image.Resampling.NEAREST)
        assert np.array_equal(squeezed[index].numpy(), np.asarray(small))


def test_a_mask_of_the_same_size_stays_as_it_is():
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    assert torch.equal(nearest(mask, 16), mask)
    pixels = torch.randn(3, 16, 16, dtype=torch.float64)
    mask[:] = True
    assert torch.allclose(masked_crops(pixels, mask[None], 16)[0][0], pixels, atol=1e-12)

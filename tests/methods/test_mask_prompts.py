"""Mask prompts against the formulas of the paper, in float64."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from ovtool.methods import mask_prompts
from ovtool.methods.mask_prompts import MaskPrompts


@pytest.mark.parametrize("size, patch", [((32, 48), 16), ((28, 28), 14), ((5, 15), 5)])
def test_patch_masks_are_the_ceiling_of_the_average_pooled_mask(size, patch):
    generator = torch.Generator().manual_seed(5)
    masks = torch.rand(6, *size, generator=generator) > 0.9
    masks[:, : patch + 1] = False  # the first row of patches, and a row of pixels of the next
    masks[0], masks[1] = False, True
    masks[2] = False
    masks[2, -1, -1] = True  # one pixel keeps its patch
    expected = avg_pool2d(masks.double(), patch).ceil().flatten(1)
    assert set(expected.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(mask_prompts.patch_masks(masks, patch).double(), expected)


def test_masks_must_be_whole_patches():
    with pytest.raises(ValueError, match="17 x 16 pixels"):
        mask_prompts.patch_masks(torch.ones(1, 17, 16, dtype=torch.bool), 16)


def test_replaced_is_the_formula():
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    prompts = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    shown = torch.rand(3, 7, generator=generator) > 0.5
    mask = shown.double()[..., None]
    expected = tokens * mask + prompts * (1 - mask)
    assert torch.equal(mask_prompts.replaced(tokens, shown, prompts), expected)


@pytest.mark.parametrize(
    "depth, grid, width, count", [(3, (14, 14), 768, 451_584), (3, (16, 16), 1024, 786_432)]
)
def test_as_many_parameters_as_the_paper_has(depth, grid, width, count):
    """ViT-B/16 and ViT-L/14 at depth 3."""
    made = mask_prompts.initial(depth, grid, width, torch.Generator().manual_seed(0))
    assert made.values.numel() == count and len(made.values) == depth
    assert made.values.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(made.values.mean().item()) < 1e-4


def test_prompts_are_resized_bilinearly():
    """Against a slow bilinear interpolation with half-pixel centres."""
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(2, 6, 3, generator=generator)
    made = mask_prompts.resized(MaskPrompts(values, (2, 3)), (5, 4))
    assert made.grid == (5, 4) and made.values.shape == (2, 20, 3)

    def weights(new, old):
        place = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        return (1 - (place[:, None] - torch.arange(old)).abs()).clamp(min=0)

    square = values.reshape(2, 2, 3, 3)
    expected = torch.einsum("yi,xj,dijc->dyxc", weights(5, 2), weights(4, 3), square)
    assert torch.allclose(made.values, expected.reshape(2, 20, 3), atol=1e-6)
    same = MaskPrompts(values, (2, 3))
    assert mask_prompts.resized(same, (2, 3)) is same

"""Class tokens of regions against loops in float64."""

import pytest
import torch

from ovtool.methods import region_tokens


@pytest.mark.parametrize("size, grid", [((10, 14), (3, 4)), ((4, 4), (2, 2)), ((3, 5), (6, 7))])
def test_a_patch_is_a_mask_s_if_the_mask_has_a_pixel_of_it(size, grid):
    generator = torch.Generator().manual_seed(2)
    masks = torch.rand(5, *size, generator=generator) > 0.85
    masks[0] = False
    masks[0, -1, -1] = True
    found = region_tokens.grid_masks(masks, grid)
    assert found.shape == (5, grid[0] * grid[1]) and found[0].any()
    for n, mask in enumerate(masks):
        for i in range(grid[0]):
            for j in range(grid[1]):
                top, bottom = i * size[0] // grid[0], -(-(i + 1) * size[0] // grid[0])
                left, right = j * size[1] // grid[1], -(-(j + 1) * size[1] // grid[1])
                expected = bool(mask[top:bottom, left:right].any())
                assert bool(found[n, i * grid[1] + j]) == expected
    assert region_tokens.grid_masks(masks[:0], grid).shape == (0, grid[0] * grid[1])


def test_a_region_attends_to_itself_and_its_patches():
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, own_k, own_v = random(2, 3, 4), random(2, 3, 4), random(2, 3, 4)
    k, v = random(2, 6, 4), random(2, 6, 4)
    masks = torch.rand(3, 6, generator=generator) > 0.5
    masks[0], masks[1] = True, False
    masks[1, 2] = True
    found = region_tokens.attention(q, (own_k, own_v), k, v, masks)
    for head in range(2):
        for n in range(3):
            keys = torch.cat([k[head][masks[n]], own_k[head, n][None]])
            values = torch.cat([v[head][masks[n]], own_v[head, n][None]])
            expected = (keys @ q[head, n] / 2).softmax(0) @ values
            assert torch.allclose(found[head, n], expected, atol=1e-12)

"""GradCAM on image towers: one backward pass for all classes is one for each."""

import pytest
import torch
from torch.nn.functional import normalize

from ovtool.methods import activation_maps
from ovtool.models import gradcam


@pytest.fixture(params=["native", "siglip"])
def tower(request):
    return request.getfixturevalue(request.param)


def words(clip, count):
    generator = torch.Generator().manual_seed(3)
    return normalize(torch.randn(count, clip.embed_dim, generator=generator), dim=-1)


def test_one_pass_gives_what_one_pass_for_each_class_gives(tower, pixels):
    picture, text = pixels(64, 96)[:1], words(tower, 6)
    together = gradcam.maps(tower, picture, text, 3)
    assert together.shape == (3, 4, 6) and 0 <= together.min() and together.max() <= 1
    tokens = gradcam.last_block_input(tower, picture)
    for k in range(3):
        activations, gradients = gradcam.class_gradients(tower, tokens, text, [k])
        alone = activation_maps.gradcam(activations, gradients).unflatten(1, (4, 6))
        assert torch.allclose(together[k], activation_maps.min_max(alone)[0], atol=1e-4)
    assert together[0].any() and not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_gradient_is_that_of_the_whole_tower(native, pixels):
    """The last block, the mean of its patches and the softmax, by a small step in one activation."""
    text, picture = words(native, 4), pixels(48, 48)[:1]
    tokens = gradcam.last_block_input(native, picture)
    block = native.model.visual.transformer.resblocks[-1]
    _, gradients = gradcam.class_gradients(native, tokens, text, [2])
    entered = block.ln_1(tokens)

    def score(normed):
        x = tokens + block.ls_1(block.attention(q_x=normed))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        feature = native.model.visual.ln_post(x[:, 1:]).mean(1) @ native.model.visual.proj
        return (native.logit_scale * normalize(feature, dim=-1) @ text.T).softmax(-1)[0, 2]

    for place in ((1, 0), (4, 7), (9, 31)):
        step = torch.zeros_like(entered)
        step[0, place[0], place[1]] = 1e-2
        slope = float(score(entered + step) - score(entered - step)) / 2e-2
        assert float(gradients[0, place[0] - 1, place[1]]) == pytest.approx(
            slope, rel=0.05, abs=2e-5
        )


def test_the_mean_of_gradients_is_made_without_them(native, pixels):
    text, tokens = words(native, 6), gradcam.last_block_input(native, pixels(64, 96)[:1])
    wanted, each = gradcam.class_gradients(native, tokens, text, [0, 3])
    activations, mean = gradcam.mean_gradients(native, native.model.visual, tokens, text, [0, 3])
    torch.testing.assert_close(activations, wanted)
    torch.testing.assert_close(mean, each.mean(1, keepdim=True), rtol=1e-4, atol=1e-9)


def test_no_gradient_is_left_behind(native, pixels):
    gradcam.maps(native, pixels(48, 48)[:1], words(native, 3), 2)
    assert all(one.grad is None for one in native.model.parameters())

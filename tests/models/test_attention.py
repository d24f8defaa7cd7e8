"""The mean attention of a tower's last blocks against what the blocks themselves report."""

import pytest
import torch

from ovtool.errors import UsageError
from ovtool.models import attention
from ovtool.models import clip as clips


def reported(clip, pixels, blocks):
    """The attention weights that torch's own attention gives, block by block."""
    visual, found = clip.model.visual, []
    layers = list(visual.transformer.resblocks)

    def keep(layer, given):
        normed = layer.ln_1(given[0])
        _, weights = layer.attn(normed, normed, normed, need_weights=True)
        found.append(weights[0, 1:, 1:])

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers[-blocks:]]
    with torch.no_grad():
        clips.encode_images(clip, pixels)
    for hook in hooks:
        hook.remove()
    return torch.stack(found).mean(0)


@pytest.mark.parametrize(("size", "blocks"), [((48, 48), 1), ((32, 64), 2), ((80, 48), 3)])
def test_equals_the_reported_weights(native, pixels, size, blocks):
    picture = pixels(*size)[:1]
    found = attention.mean_attention(native, picture, blocks)
    places = size[0] * size[1] // 256
    assert found.shape == (places, places) and found.dtype == torch.float32
    torch.testing.assert_close(found, reported(native, picture, blocks))


def test_two_thirds_of_the_blocks_by_default(native, pixels):
    picture = pixels(48, 48)[:1]  # the tower has three blocks
    wanted = attention.mean_attention(native, picture, 2)
    assert torch.equal(attention.mean_attention(native, picture), wanted)


def test_a_tower_that_hides_its_attention_is_refused(siglip):
    with pytest.raises(UsageError, match="the attention of small-siglip cannot be seen: it takes"):
        attention.mean_attention(siglip, torch.zeros(1, 3, 64, 64))

"""Patches that overlap: where they are, what they hold, and how much memory their attention takes."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize

from ovtool.errors import UsageError
from ovtool.methods import dense_clip
from ovtool.models import clip as clips
from ovtool.models import towers


@pytest.mark.parametrize("stride", [8, 4])
@pytest.mark.parametrize("size", [(48, 48), (64, 96)])
def test_patches_at_whole_steps_begin_as_the_plain_ones(native, pixels, stride, size):
    visual, finer = native.model.visual, 16 // stride
    plain = towers._embed(visual, pixels(*size))
    fine = towers._embed(visual, pixels(*size), stride)
    h, w = towers.grid_size(pixels(*size), 16, stride)
    assert (h, w) == tuple((side - 16) // stride + 1 for side in size)
    chosen = fine[:, 1:].unflatten(1, (h, w))[:, ::finer, ::finer].flatten(1, 2)
    torch.testing.assert_close(chosen, plain[:, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fine[:, 0], plain[:, 0])


def test_positions_between_whole_steps_lie_between(native):
    visual = native.model.visual
    visual = type("Tower", (), {"positional_embedding": visual.positional_embedding.clone()})
    visual.grid_size, visual.patch_size = (3, 3), (16, 16)
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    visual.positional_embedding[1:, 0], visual.positional_embedding[1:, 1] = y.ravel(), x.ravel()
    fine = towers.positions(visual, (5, 5), 2)[1:, :2].unflatten(0, (5, 5))
    expected = torch.arange(5.0) / 2
    # cubic interpolation of a line that stops at the border overshoots by a tenth of a step
    torch.testing.assert_close(fine[:, 2, 0], expected, rtol=0, atol=0.1)
    torch.testing.assert_close(fine[2, :, 1], expected, rtol=0, atol=0.1)


def slow_features(clip, pixels, stride, name):
    """Patches cut out one by one, each block written down with its attention matrix."""
    visual = clip.model.visual
    grid = towers.grid_size(pixels, 16, stride)
    cut = pixels.unfold(2, 16, stride).unfold(3, 16, stride)  # (B, 3, h, w, 16, 16)
    x = torch.einsum("bchwij,ocij->bhwo", cut, visual.conv1.weight).flatten(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    placed = towers.positions(visual, grid, 16 // stride)
    x = visual.ln_pre(torch.cat([first, x], 1) + placed)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        y = block.ln_1(x)
        attended, _ = block.attn(y, y, y, need_weights=True)
        x = x + attended
        x = x + block.mlp(block.ln_2(x))
    y = last.ln_1(x)
    q, k, v = (y @ last.attn.in_proj_weight.T + last.attn.in_proj_bias).chunk(3, -1)
    heads = [part.unflatten(-1, (last.attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v)]
    mixed = heads[2]
    if name == "naclip":
        k = heads[1]
        omega = dense_clip.neighbour_prior(grid, sigma=dense_clip.NACLIP_SIGMA * 16 / stride)
        mixed = (k @ k.mT / k.shape[-1] ** 0.5 + omega).softmax(-1) @ heads[2]
    x = last.attn.out_proj(mixed.transpose(1, 2).flatten(2))
    found = visual.ln_post(x[:, 1:]) @ visual.proj
    return normalize(found, dim=-1).unflatten(1, grid)


@pytest.mark.parametrize("name", ["maskclip", "naclip"])
def test_features_are_those_of_the_tower_written_down(native, pixels, name):
    clip = clips.with_patch_stride(native, 8)
    with torch.no_grad():
        expected = slow_features(native, pixels(48, 64), 8, name)
    found = clips.patch_features(clip, pixels(48, 64), name)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.shape[1:3] == (5, 7)


@pytest.mark.parametrize("name", list(dense_clip.LAST_BLOCKS))
def test_every_last_block_reads_a_finer_grid(native, pixels, name):
    found = clips.patch_features(clips.with_patch_stride(native, 4), pixels(48, 48), name)
    assert found.shape == (2, 9, 9, 24) and found.isfinite().all()
    plain = clips.patch_features(native, pixels(48, 48), name)
    assert torch.equal(clips.patch_features(clips.with_patch_stride(native, 16), pixels(48, 48), name), plain)  # fmt: skip
    # a finer map of the same picture: alike where the patches are the same, and not the same
    corner = (found[:, ::4, ::4] * plain).sum(-1)
    assert corner.mean() > 0.6 and corner.max() < 1 - 1e-6


def test_whole_pictures_and_layers(native, pixels):
    fine = clips.with_patch_stride(native, 8)
    assert torch.equal(clips.encode_images(fine, pixels(48, 48)), clips.encode_images(native, pixels(48, 48)))  # fmt: skip
    layers = clips.layer_tokens(fine, pixels(48, 48), [2, 0, -1])
    assert [each.shape for each in layers] == [(2, 5, 5, 32)] * 3
    assert torch.equal(layers[0], layers[2]) and not torch.equal(layers[0], layers[1])
    own = towers.block_tokens(native.model.visual, pixels(48, 48), (5, 5), "clip", 8)
    torch.testing.assert_close(layers[0].flatten(1, 2), own)
    for block in (0, 1):
        (alone,) = clips.layer_tokens(native, pixels(48, 48), [block])
        torch.testing.assert_close(alone, clips.layer_tokens(native, pixels(48, 48), [block])[0])


def test_layers_of_a_timm_tower_are_its_own(siglip, pixels):
    images = pixels(64, 64)
    (last,) = clips.layer_tokens(siglip, images, [-1])
    expected = siglip.model.visual.trunk.forward_features(images).unflatten(1, (4, 4))
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("stride", [3, 32, 5])
def test_a_step_that_does_not_divide_the_patch_is_refused(native, stride):
    with pytest.raises(UsageError) as error:
        clips.with_patch_stride(native, stride)
    assert str(error.value) == (
        f"--patch-stride {stride} does not divide the patches of small, of 16 pixels; give 1, 2, 4, 8 or 16"
    )


def test_a_timm_tower_has_no_finer_grid(siglip):
    assert clips.with_patch_stride(siglip, 16).patch_stride == 16
    with pytest.raises(UsageError, match="--patch-stride needs a tower of open_clip's own, and that of small-siglip"):  # fmt: skip
        clips.with_patch_stride(siglip, 8)


MEASURE = """
import resource, open_clip, torch
from ovtool.models import clip as clips
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
vision = dict(image_size=224, patch_size=16, width=768, head_width=64, layers=2)
text = dict(context_length=8, vocab_size=50, width=32, heads=2, layers=1)
clip = clips.from_model(open_clip.CLIP(512, vision, text), "wide")
clip = clips.with_patch_stride(clip, 4)
before = peak()
found = clips.patch_features(clip, torch.randn(1, 3, 224, 224), BLOCK)
assert found.shape == (1, 53, 53, 512)
print(peak() - before, peak())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maskclip", "naclip", "clip"])
def test_2809_patches_of_a_vit_b_fit_in_2_gb(name):
    """Two blocks as wide as those of ViT-B/16: a block's peak does not depend on how many there are. The
    ten blocks left out are 284 MB of weights."""
    script = MEASURE.replace("BLOCK", repr(name))
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # fmt: skip
    more, peak = map(float, found.stdout.split())
    assert peak + 284 < 2000
    assert more < 300  # all weights of one block's attention would be 379 MB

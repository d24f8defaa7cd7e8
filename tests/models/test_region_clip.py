"""Regions through small CLIPs: the fast path against the plain one, prompts, class tokens of regions."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, normalize

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import tensors
from ovtool.methods import mask_prompts, masked_crops
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import clip as clips
from ovtool.models import masked_tower, region_clip
from ovtool.models.region_clip import encode_regions

LAYERS = 3


@pytest.fixture(scope="module")
def picture():
    random = np.random.default_rng(4)
    masks = np.zeros((5, 40, 70), bool)
    masks[0, 5:30, 10:40] = random.random((25, 30)) > 0.5
    masks[1] = True
    masks[2, :, 3:5] = True
    masks[3, 0, 0] = masks[3, 39, 69] = True  # two corners: blank patches between
    masks[4, 10:39, 20:60] = np.tri(29, 40, 5, bool)
    return random.integers(0, 256, (40, 70, 3), np.uint8), masks


@pytest.fixture
def exact(build, native_config):
    """The small native CLIP in float64."""
    return clips.from_model(build(native_config), "small", dtype=torch.float64)


def prompts_of(depth, grid=(3, 3), width=32, dtype=torch.float64):
    made = mask_prompts.initial(depth, grid, width, torch.Generator().manual_seed(depth))
    return MaskPrompts(40 * made.values.to(dtype), grid)


def slow(clip, rgb, masks, prompts):
    """Section 3.3 of the paper, token by token, crop by crop, in the tower's own blocks."""
    visual, patch = clip.model.visual, clip.patch_size
    pixels = clips.normalise(clip, torch.from_numpy(rgb)[None])[0]
    crops, squeezed = masked_crops.masked_crops(pixels, torch.from_numpy(masks), clip.image_size)
    embedded = []
    for crop, mask in zip(crops, squeezed, strict=True):
        shown = avg_pool2d(mask[None, None].double(), patch).ceil().flatten()
        tokens = visual.conv1(crop[None])[0].flatten(1).T
        for place in range(len(tokens)):
            if not shown[place]:
                tokens[place] = prompts.values[0, place]
        x = torch.cat([visual.class_embedding[None], tokens]) + visual.positional_embedding
        x = visual.ln_pre(x)[None]
        for done, block in enumerate(visual.transformer.resblocks, start=1):
            x = block(x)
            for place in range(len(tokens)):
                if done < len(prompts.values) and not shown[place]:
                    x[0, 1 + place] = prompts.values[done, place]
        embedded.append(visual.ln_post(x[0, 0]) @ visual.proj)
    return normalize(torch.stack(embedded), dim=1)


@pytest.mark.parametrize("depth", [1, 2, LAYERS])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_prompts_are_those_of_the_paper(exact, picture, depth, batch_size):
    rgb, masks = picture
    expected = slow(exact, rgb, masks, prompts_of(depth))
    found = encode_regions(exact, rgb, masks, prompts=prompts_of(depth), batch_size=batch_size)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-6
    bare = encode_regions(exact, rgb, masks)
    moved = (found - bare).abs().amax(1)
    assert (moved[[3, 4]] > 1e-3).all() and moved[1] < 1e-6  # no patch of mask 1 is blank


def shown_alone(clip, rgb, masks):
    """The tower over the class token and the patches of the mask, crop by crop."""
    visual = clip.model.visual
    pixels = clips.normalise(clip, torch.from_numpy(rgb)[None])[0]
    crops, squeezed = masked_crops.masked_crops(pixels, torch.from_numpy(masks), clip.image_size)
    embedded = []
    for crop, mask in zip(crops, squeezed, strict=True):
        shown = avg_pool2d(mask[None, None].double(), clip.patch_size).flatten() > 0
        tokens = torch.cat([visual.class_embedding[None], visual.conv1(crop[None])[0].flatten(1).T])
        x = tokens + visual.positional_embedding
        x = visual.ln_pre(x[torch.cat([torch.tensor([True]), shown])])[None]
        for block in visual.transformer.resblocks:
            x = block(x)
        embedded.append(visual.ln_post(x[0, 0]) @ visual.proj)
    return normalize(torch.stack(embedded), dim=1)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_blank_patches_can_be_left_out(exact, picture, batch_size):
    rgb, masks = picture
    encode = region_clip.encoder(exact, None, batch_size, drop_blank=True)
    found = encode_regions(exact, rgb, masks, encode=encode)
    assert (found - shown_alone(exact, rgb, masks)).abs().max() < 1e-6
    whole = encode_regions(exact, rgb, masks)
    moved = (found - whole).abs().amax(1)
    assert (moved[[3, 4]] > 1e-3).all() and moved[1] < 1e-6  # no patch of mask 1 is blank


@pytest.mark.parametrize("depth", [0, 1, 2, LAYERS])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_fast_path_is_exact(exact, picture, depth, dtype, bound):
    clip = clips.from_model(copy.deepcopy(exact.model), "small", dtype=dtype)
    rgb, masks = picture
    crops = region_clip.crops(clip, rgb, torch.from_numpy(masks), 48)
    assert set(crops.foreground.sum(1).tolist()) > {9}  # crops with and without blank patches
    prompts = prompts_of(depth, dtype=dtype) if depth else None
    visual = clip.model.visual
    plain = masked_tower.embed_plain(visual, crops.pixels, crops.foreground, prompts)
    fast = masked_tower.embed(visual, crops.pixels, crops.foreground, prompts)
    assert (normalize(plain, dim=1) - normalize(fast, dim=1)).abs().max() < bound


@pytest.mark.parametrize("depth", [1, LAYERS])
def test_the_fast_path_has_the_same_gradients(exact, picture, depth):
    rgb, masks = picture
    crops = region_clip.crops(exact, rgb, torch.from_numpy(masks), 48)
    gradients = []
    for embed in (masked_tower.embed_plain, masked_tower.embed):
        visual = copy.deepcopy(exact.model.visual).requires_grad_(True)
        values = prompts_of(depth).values.requires_grad_(True)
        out = embed(visual, crops.pixels, crops.foreground, MaskPrompts(values, (3, 3)))
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        gradients.append([values.grad, *(one.grad for one in visual.parameters())])
    assert gradients[0][0].abs().min(-1)[0].max() > 0
    for plain, fast in zip(*gradients, strict=True):
        assert torch.allclose(plain, fast, rtol=1e-8, atol=1e-8)


def test_nothing_masked_is_the_picture_itself(native):
    rgb = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    whole = np.ones((1, 48, 48), bool)
    expected = clips.encode_images(native, clips.normalise(native, torch.from_numpy(rgb)[None]))
    prompts = prompts_of(3, dtype=torch.float32)
    for given in (None, prompts):
        found = encode_regions(native, rgb, whole, prompts=given)
        assert (found - expected).abs().max() < 1e-6


def test_crops_of_another_size_take_resized_prompts(exact, picture):
    rgb, masks = picture
    made = prompts_of(2)
    found = encode_regions(exact, rgb, masks, prompts=made, crop_size=64)
    larger = mask_prompts.resized(made, (4, 4))
    crops = region_clip.crops(exact, rgb, torch.from_numpy(masks), 64)
    plain = masked_tower.embed_plain(exact.model.visual, crops.pixels, crops.foreground, larger)
    assert (found - normalize(plain, dim=1)).abs().max() < 1e-6
    with pytest.raises(UsageError, match="--crop-size 50: small has patches of 16 pixels"):
        encode_regions(exact, rgb, masks, crop_size=50)


def test_no_region_and_regions_without_a_fill(native, picture):
    rgb, masks = picture
    assert encode_regions(native, rgb, masks[:0]).shape == (0, 24)
    unmasked = encode_regions(native, rgb, masks, fill=False)
    masked = encode_regions(native, rgb, masks)
    assert (unmasked - masked).abs().amax(1)[[0, 3, 4]].min() > 1e-3
    assert (unmasked - masked)[1].abs().max() < 1e-6


def test_any_clip_embeds_crops_but_takes_no_prompts(siglip, picture):
    rgb, masks = picture
    found = encode_regions(siglip, rgb, masks)
    crops = region_clip.crops(siglip, rgb, torch.from_numpy(masks), 64)
    expected = clips.encode_images(siglip, crops.pixels)
    assert (found - expected).abs().max() < 1e-5
    with pytest.raises(UsageError, match=r"mask prompts need a vision transformer \(ViT\)"):
        encode_regions(siglip, rgb, masks, prompts=prompts_of(1))
    with pytest.raises(UsageError, match="--region-features tokens needs"):
        region_clip.encode_region_tokens(siglip, rgb, masks)


# --- class tokens of regions -------------------------------------------------------------------


def slow_tokens(clip, rgb, masks, short_side):
    """A pass for each region: its class token behind all others, an attention mask between them."""
    from ovtool.methods import region_tokens
    from ovtool.models import dense_scores, towers

    visual = clip.model.visual
    pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), short_side)
    grid = towers.grid_size(pixels, clip.patch_size)
    embedded = []
    for patches in region_tokens.grid_masks(torch.from_numpy(masks), grid):
        x = towers._embed(visual, pixels)
        count = x.shape[1]
        x = torch.cat([x, x[:, :1]], dim=1)
        unseen = torch.zeros(count + 1, count + 1, dtype=torch.bool)
        unseen[:count, count] = True  # nothing sees the region
        unseen[count, 0] = True  # and it does not see the picture's own class token
        unseen[count, 1:count] = ~patches
        blocked = torch.zeros(unseen.shape, dtype=x.dtype).masked_fill(unseen, -torch.inf)
        for block in visual.transformer.resblocks:
            x = block(x, attn_mask=blocked)
        embedded.append(visual.ln_post(x[0, count]) @ visual.proj)
    return normalize(torch.stack(embedded), dim=1)


def test_tokens_of_regions_are_what_the_docstring_says(exact, picture):
    rgb, masks = picture
    found = region_clip.encode_region_tokens(exact, rgb, masks, short_side=64)
    assert (found - slow_tokens(exact, rgb, masks, 64)).abs().max() < 1e-6


def test_a_region_of_all_patches_is_the_whole_picture(native):
    rgb = np.random.default_rng(2).integers(0, 256, (48, 48, 3), np.uint8)
    whole = np.ones((1, 48, 48), bool)
    expected = clips.encode_images(native, clips.normalise(native, torch.from_numpy(rgb)[None]))
    found = region_clip.encode_region_tokens(native, rgb, whole, short_side=48)
    assert (found - expected).abs().max() < 1e-6


def test_an_empty_region_has_no_token(native, picture):
    rgb, masks = picture
    with pytest.raises(ValueError, match="empty"):
        region_clip.encode_region_tokens(native, rgb, masks & False)


# --- files ----------------------------------------------------------------------------------------


def test_prompts_and_tower_come_back(exact, picture, tmp_path):
    rgb, masks = picture
    clip = clips.from_model(copy.deepcopy(exact.model), "small")
    tower = copy.deepcopy(clip.model.visual)
    with torch.no_grad():
        tower.conv1.weight.mul_(1.5)
    made = prompts_of(2, dtype=torch.float32)
    path = tmp_path / "p.safetensors"
    region_clip.save_prompts(path, clip, made, tower, {"depth": 2})
    tuned, prompts = region_clip.with_prompts(clip, path)
    assert torch.equal(prompts.values, made.values) and prompts.grid == (3, 3)
    expected = {name: value.half().float() for name, value in tower.state_dict().items()}
    assert all(torch.equal(v, expected[k]) for k, v in tuned.model.visual.state_dict().items())
    assert torch.equal(clip.model.visual.conv1.weight, exact.model.visual.conv1.weight.float())
    assert tuned.model.token_embedding is clip.model.token_embedding
    other = encode_regions(tuned, rgb, masks) - encode_regions(clip, rgb, masks)
    assert other.abs().max() > 1e-3
    region_clip.save_prompts(path, clip, made, None, {})
    assert region_clip.with_prompts(clip, path)[0] is clip
    region_clip.save_prompts(path, clip, None, tower, {})
    assert region_clip.with_prompts(clip, path)[1] is None


def test_prompts_of_another_grid_are_resized_and_that_is_said(native, tmp_path, monkeypatch):
    made = prompts_of(2, grid=(4, 4), dtype=torch.float32)
    path = tmp_path / "p.safetensors"
    region_clip.save_prompts(path, native, made, None, {})
    messages = []
    monkeypatch.setattr(
        region_clip._logger, "warning", lambda text, *given: messages.append(text % given)
    )
    for _ in range(2):
        _, prompts = region_clip.with_prompts(native, path)
    assert torch.equal(prompts.values, mask_prompts.resized(made, (3, 3)).values)
    (said,) = messages
    assert "tuned on a grid of 4 x 4 patches and are resized to 3 x 3" in said


def test_prompts_of_another_model_are_refused(native, exact, tmp_path, build, native_config):
    path = tmp_path / "p.safetensors"
    other = clips.from_model(build(native_config, seed=9), "other")
    region_clip.save_prompts(path, other, prompts_of(1, dtype=torch.float32), None, {})
    with pytest.raises(MismatchError, match=r"was made with other .* the model here is small"):
        region_clip.with_prompts(native, path)


@pytest.mark.parametrize(
    "values, settings, said",
    [
        (torch.full((1, 9, 32), torch.nan), {"grid": [3, 3]}, "not finite"),
        (torch.zeros(1, 9, 31), {"grid": [3, 3]}, "do not fit small"),
        (torch.zeros(1, 9, 32), {"grid": [3, 4]}, "do not fit small"),
        (torch.zeros(1, 9, 32), {}, "do not fit small"),
        (torch.zeros(4, 9, 32), {"grid": [3, 3]}, "do not fit small"),
        (torch.zeros(9, 32), {"grid": [3, 3]}, "do not fit small"),
    ],
)
def test_broken_prompts_are_refused(native, tmp_path, values, settings, said):
    path = tmp_path / "p.safetensors"
    header = {"kind": "mask-prompts", "model": "small", "fingerprint": native.fingerprint}
    tensors.save(path, {"prompts": values}, {**header, "settings": settings})
    with pytest.raises(InputError, match=said):
        region_clip.with_prompts(native, path)


def test_a_tower_that_does_not_fit_is_refused(native, tmp_path):
    path = tmp_path / "p.safetensors"
    header = {"kind": "mask-prompts", "model": "small", "fingerprint": native.fingerprint}
    tensors.save(path, {"tower.conv1.weight": torch.zeros(3)}, header)
    with pytest.raises(InputError, match="its tower does not fit small"):
        region_clip.with_prompts(native, path)


def test_a_file_of_another_kind_is_refused(native, tmp_path):
    path = tmp_path / "p.safetensors"
    tensors.save(path, {"x": torch.zeros(1)}, {"kind": "pacl"})
    with pytest.raises(MismatchError, match="holds a PACL head, .* needed here: mask prompts"):
        region_clip.with_prompts(native, path)

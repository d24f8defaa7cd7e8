"""CLIPs: loading, embedding of pictures and patches, towers of both makes."""

import json
import time

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from ovtool.errors import ModelError, UsageError
from ovtool.formats import tensors
from ovtool.methods import dense_clip
from ovtool.models import build as building
from ovtool.models import clip as clips
from ovtool.models import sources, towers


def test_class_embedding_is_open_clips_own_at_the_native_size(native, pixels):
    images = pixels(48, 48)
    expected = native.model.encode_image(images, normalize=True)
    torch.testing.assert_close(clips.encode_images(native, images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"pool_type": "avg"},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        {"ls_init_value": 0.5},
        {"pos_embed_type": "sin_cos_2d"},
    ],
)
def test_the_clip_last_block_is_open_clips_forward(vision, build, native_config, pixels):
    native_config["vision_cfg"].update(vision, output_tokens=True)
    clip = clips.from_model(build(native_config), "small")
    visual, images = clip.model.visual, pixels(48, 48)
    pooled, tokens = visual(images)
    if visual.final_ln_after_pool:  # open_clip leaves the patches without the norm there
        tokens = visual.ln_post(tokens)
    features = clips.patch_features(clip, images, "clip").flatten(1, 2)
    torch.testing.assert_close(features, normalize(tokens @ visual.proj, dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(clips.layer_tokens(clip, images, [-1])[0].flatten(1, 2), tokens)
    visual.output_tokens = False
    torch.testing.assert_close(clips.encode_images(clip, images), normalize(pooled, dim=-1))


def slow_patch_features(clip, images, name):
    """The last block by open_clip's modules, the published formula written out."""
    visual = clip.model.visual
    x = visual.transformer.resblocks[:-1]
    tokens = visual._embeds(images)
    for block in x:
        tokens = block(tokens)
    last = visual.transformer.resblocks[-1]
    heads, width = last.attn.num_heads, tokens.shape[-1]
    inside = last.ln_1(tokens) @ last.attn.in_proj_weight.T + last.attn.in_proj_bias
    q, k, v = inside.split(width, dim=-1)
    split = [t.reshape(*t.shape[:2], heads, width // heads).transpose(1, 2) for t in (q, k, v)]
    grid = images.shape[2] // 16, images.shape[3] // 16
    mixed = dense_clip.attention(name, *split, grid)
    branch = mixed.transpose(1, 2).reshape(tokens.shape) @ last.attn.out_proj.weight.T
    branch = branch + last.attn.out_proj.bias
    if name in ("clip", "sclip"):
        branch = tokens + branch
        branch = branch + last.mlp(last.ln_2(branch))
    return normalize(visual.ln_post(branch)[:, 1:] @ visual.proj, dim=-1)


@pytest.mark.parametrize("name", list(dense_clip.LAST_BLOCKS))
def test_last_blocks_are_put_together_as_published(name, native, pixels):
    images = pixels(48, 48)
    expected = slow_patch_features(native, images, name)
    got = clips.patch_features(native, images, name)
    assert got.shape == (2, 3, 3, 24)
    torch.testing.assert_close(got.flatten(1, 2), expected, rtol=0, atol=1e-5)


def test_naclip_is_the_default_on_open_clips_towers(native, pixels):
    images = pixels(48, 48)
    default = clips.patch_features(native, images)
    assert torch.equal(default, clips.patch_features(native, images, "naclip"))
    assert not torch.equal(default, clips.patch_features(native, images, "clearclip"))


@pytest.mark.parametrize("name", list(dense_clip.LAST_BLOCKS))
def test_patches_of_pictures_of_any_size(name, native, pixels):
    features = clips.patch_features(native, pixels(64, 112), name)
    assert features.shape == (2, 4, 7, 24) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 4, 7))


def test_positions_are_resampled_as_a_picture_is(build, native_config):
    """Positions that say their own row and column still do on a larger, wider grid."""
    visual = build(native_config).requires_grad_(False).visual
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    visual.positional_embedding.zero_()
    visual.positional_embedding[1:, 0] = y.flatten()
    visual.positional_embedding[1:, 1] = x.flatten()
    visual.positional_embedding[0] = 7.0
    larger = towers.positions(visual, (6, 12))
    assert torch.equal(larger[0], visual.positional_embedding[0])
    row, column = larger[1:, 0].reshape(6, 12), larger[1:, 1].reshape(6, 12)
    expected_row = (torch.arange(6.0) + 0.5) / 2 - 0.5
    expected_column = (torch.arange(12.0) + 0.5) / 4 - 0.5
    # cubic interpolation overshoots a line by less than a third of a step, most at the border
    torch.testing.assert_close(row, expected_row[:, None].expand(6, 12), rtol=0, atol=0.3)
    torch.testing.assert_close(column, expected_column.expand(6, 12), rtol=0, atol=0.4)
    assert (row.diff(dim=0) > 0).all() and row.diff(dim=1).abs().max() < 1e-6
    torch.testing.assert_close(row[2] + row[3], torch.full((12,), 2.0))
    assert towers.positions(visual, (3, 3)) is visual.positional_embedding


def test_patches_at_the_native_size_by_both_ways_of_size(native, pixels):
    images = pixels(48, 48)
    alone = clips.patch_features(native, images[:1], "clip")
    torch.testing.assert_close(alone, clips.patch_features(native, images, "clip")[:1])


def test_sides_that_patches_do_not_cover_are_refused(native, pixels):
    with pytest.raises(ValueError, match="50 x 48 pixels are no multiple of 16"):
        clips.patch_features(native, pixels(50, 48))


@pytest.mark.parametrize("block", [0, 1, -2, -1])
def test_patch_tokens_of_any_block(block, native, pixels):
    images = pixels(48, 48)
    found = native.model.visual.forward_intermediates(
        images, normalize_intermediates=True, output_fmt="NLC", intermediates_only=True
    )
    got = clips.layer_tokens(native, images, [block])[0]
    assert got.shape == (2, 3, 3, 32)
    torch.testing.assert_close(got.flatten(1, 2), found["image_intermediates"][block])


def test_siglip_patches_take_the_value_path_of_its_pool(siglip, pixels):
    images = pixels(64, 64)
    trunk = siglip.model.visual.trunk
    tokens, pool = trunk.forward_features(images), trunk.attn_pool
    value = tokens @ pool.kv.weight[40:].T + pool.kv.bias[40:]
    value = value @ pool.proj.weight.T + pool.proj.bias
    value = value + pool.mlp(pool.norm(value))
    got = clips.patch_features(siglip, images)
    assert got.shape == (2, 4, 4, 40)
    torch.testing.assert_close(got.flatten(1, 2), normalize(value, dim=-1), rtol=0, atol=1e-5)


def test_siglip_at_its_size_and_at_others(siglip, build, siglip_config, pixels):
    untouched = build(siglip_config)
    expected = untouched.encode_image(pixels(64, 64), normalize=True)
    torch.testing.assert_close(clips.encode_images(siglip, pixels(64, 64)), expected)
    assert clips.encode_images(siglip, pixels(96, 48)).shape == (2, 40)
    assert clips.patch_features(siglip, pixels(96, 48)).shape == (2, 6, 3, 40)
    assert clips.layer_tokens(siglip, pixels(96, 48), [-2])[0].shape == (2, 6, 3, 40)
    assert (siglip.pooling, siglip.patch_size, siglip.image_size) == ("attention", 16, 64)


def test_what_needs_a_class_token_says_so_on_siglip(siglip, native, pixels):
    with pytest.raises(
        UsageError, match="--last-block naclip needs a class token .* --last-block clip"
    ):
        clips.patch_features(siglip, pixels(64, 64), "naclip")
    with pytest.raises(UsageError, match="mask prompts needs a model that pools by a class token"):
        clips.require_class_token(siglip, "mask prompts")
    clips.require_class_token(native, "mask prompts")


def test_an_unknown_last_block_is_refused(native, siglip, pixels):
    for clip in (native, siglip):
        with pytest.raises(UsageError, match="unknown last block"):
            clips.patch_features(clip, pixels(64, 64), "nope")


def test_custom_attention_has_its_own_last_block_only(build, native_config, pixels):
    native_config["vision_cfg"]["qk_norm"] = True
    clip = clips.from_model(build(native_config), "small")
    images = pixels(48, 48)
    clip.model.visual.output_tokens = True
    tokens = clip.model.visual(images)[1]
    got = clips.patch_features(clip, images, "clip").flatten(1, 2)
    torch.testing.assert_close(got, normalize(tokens @ clip.model.visual.proj, dim=-1))
    with pytest.raises(UsageError, match="not defined for this tower"):
        clips.patch_features(clip, images, "naclip")


def test_normalise_is_open_clips_preprocessing(native):
    from PIL import Image

    rgb = torch.randint(0, 256, (48, 48, 3), dtype=torch.uint8)
    expected = open_clip.image_transform(48, False)(Image.fromarray(rgb.numpy()))
    torch.testing.assert_close(clips.normalise(native, rgb[None])[0], expected)


def test_half_precision_comes_out_as_float32(build, native_config, pixels):
    full = clips.from_model(build(native_config), "small")
    half = clips.from_model(build(native_config), "small", dtype=torch.bfloat16)
    assert half.fingerprint == full.fingerprint
    got = clips.patch_features(half, pixels(64, 48))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, clips.patch_features(full, pixels(64, 48)), rtol=0, atol=0.05)


def test_the_bundled_model_is_loaded_as_it_was_saved(bundled, pixels, monkeypatch):
    from ovtool.models import sources

    monkeypatch.setattr(sources, "hub_answers", lambda: pytest.fail("no network for tiny"))
    clip = clips.load("tiny")
    assert clip.name == "tiny" and clip.words == {"Teapot", "apple", "polar bear"}
    assert clip.mean == (0.1, 0.2, 0.3) and clip.std == (0.4, 0.5, 0.6)
    assert (clip.image_size, clip.patch_size, clip.embed_dim) == (128, 16, 192)
    assert clip.pooling == "token"
    assert clip.logit_scale == pytest.approx(float(bundled.logit_scale.detach().exp()), rel=1e-3)
    parameters = list(clip.model.parameters())
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in parameters)
    images = pixels(128, 128)
    expected = bundled.half().float().encode_image(images, normalize=True)
    torch.testing.assert_close(clips.encode_images(clip, images), expected)
    tokens = open_clip.tokenize(["a photo of a teapot."], context_length=clip.model.context_length)
    torch.testing.assert_close(clip.model.encode_text(tokens), bundled.encode_text(tokens))


def test_the_bundled_model_is_loaded_fast(bundled):
    clips.load("tiny")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        clips.load("tiny")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("form", ["folder", "file", "bin", "wrapped"])
def test_local_models_in_all_their_forms(form, save, build, native_config, pixels):
    model = build(native_config)
    weights = save(model, native_config)
    path = weights
    if form == "folder":
        weights.with_suffix(".json").rename(weights.parent / "open_clip_config.json")
        path = weights.parent
    elif form in ("bin", "wrapped"):
        path = weights.with_suffix(".bin" if form == "bin" else ".pt")
        state = model.state_dict()
        torch.save(state if form == "bin" else {"state_dict": state}, path)
        weights.unlink()
    clip = clips.load(str(path))
    expected = model.encode_image(pixels(48, 48), normalize=True)
    torch.testing.assert_close(clips.encode_images(clip, pixels(48, 48)), expected)
    assert clip.fingerprint == building.fingerprint(model) and len(clip.fingerprint) == 16
    assert clip.name == path.name  # outputs hold no path


def test_a_tokenizer_that_is_not_there_is_said_in_a_whole_sentence(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    text = {"hf_tokenizer_name": "org/none", "context_length": 24}
    for place, mend in (("org/none", "with `hf download org/none`$"), (str(own), "writes there$")):
        files = sources.Files({"text_cfg": text}, own / "x.safetensors", place)
        said = f"the tokenizer of x is not in {place}, or is broken there; .*{mend}"
        with pytest.raises(ModelError, match=said):
            clips._tokenizer(files, "x")


def test_siglip_is_loaded_from_a_file_too(save, build, siglip_config, pixels):
    model = build(siglip_config)
    clip = clips.load(str(save(model, siglip_config)))
    expected = model.encode_image(pixels(64, 64), normalize=True)
    torch.testing.assert_close(clips.encode_images(clip, pixels(64, 64)), expected)


def test_a_file_for_another_picture_size_is_converted(save, build, native_config, pixels):
    weights = save(build(native_config), native_config)
    native_config["vision_cfg"]["image_size"] = 64
    weights.with_suffix(".json").write_text(json.dumps({"model_cfg": native_config}))
    clip = clips.load(str(weights))
    assert clip.image_size == 64
    assert clips.encode_images(clip, pixels(64, 64)).shape == (2, 24)


def test_a_pickle_that_runs_code_is_refused(tmp_path, native_config):
    import pickle

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    path.with_suffix(".json").write_text(json.dumps(native_config))
    with pytest.raises(ModelError, match="cannot load the model in .*evil.pt"):
        clips.load(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "other network"])
def test_broken_weights_are_one_line(damage, save, build, native_config):
    weights = save(build(native_config), native_config)
    if damage == "other network":
        state = {k: v.clone() for k, v in build(native_config).state_dict().items()}
        del state["visual.proj"]
        tensors.save(weights, state, {"kind": "clip"})
    else:
        data = weights.read_bytes()
        weights.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    with pytest.raises(
        ModelError, match="cannot load the model in .*model.safetensors: ."
    ) as caught:
        clips.load(str(weights))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_fingerprints_tell_models_apart_and_are_kept(save, build, native_config, monkeypatch):
    place = save(build(native_config, 0), native_config, folder="a")
    first = clips.load(str(place))
    second = clips.load(str(save(build(native_config, 1), native_config, folder="b")))
    assert first.fingerprint != second.fingerprint
    monkeypatch.setattr(building, "_digest", lambda model: pytest.fail("the digest was kept"))
    assert clips.load(str(place)).fingerprint == first.fingerprint


def test_a_file_that_changed_has_another_fingerprint(save, build, native_config):
    path = save(build(native_config, 0), native_config)
    first = clips.load(str(path)).fingerprint
    save(build(native_config, 1), native_config)
    assert clips.load(str(path)).fingerprint != first


def test_networks_without_patches_are_refused(build, native_config):
    native_config["vision_cfg"].update(layers=[1, 1, 1, 1], image_size=64, width=16)
    with pytest.raises(ModelError, match="not a plain vision transformer"):
        clips.from_model(build(native_config), "a ResNet")

"""Mask generators, on a CLIP's own patches and on backbones of timm."""

import dataclasses

import pytest
import torch
from torch.nn.functional import interpolate

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, tensors
from ovtool.models import clip as clips
from ovtool.models import mask_generator, timm_backbone
from ovtool.models.mask_generator import Generator, Settings, Texts

CATEGORIES = [coco.Category(3, "cow"), coco.Category(7, "boat")]


def rgb(height=48, width=64):
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0),
                         dtype=torch.uint8)  # fmt: skip


def test_the_clips_own_patches_under_a_small_head(native):
    generator = Generator(Settings(hidden=5), CATEGORIES, native)
    picture = generator.view(rgb())
    assert generator.side == 96 and picture.shape == (1, 3, 96, 128)
    features = generator.features(picture)
    assert features.shape == (1, native.embed_dim, 6, 8) and not features.requires_grad
    read = clips.patch_features(native, picture)[0].permute(2, 0, 1) * native.embed_dim**0.5
    assert torch.allclose(features[0], read)
    maps = generator(picture)
    assert maps.shape == (1, 2, 6, 8) and maps.min() >= 0 and generator.is_frozen
    assert {name.split(".")[0] for name, _ in generator.named_parameters()} == {"head"}
    assert len(generator.trained()) == 4  # two convolutions
    plain = Generator(Settings(hidden=0), CATEGORIES, native)
    assert len(plain.trained()) == 2 and plain(picture).shape == maps.shape


def texts_of(clip, words=3):
    both = torch.randn(2 + words, clip.embed_dim, generator=torch.Generator().manual_seed(0))
    return Texts(both[:2], both[2:])


@pytest.mark.parametrize(
    ("start", "words", "hidden"), [("rivals", 3, 0), ("text", 3, 5), ("rivals", 0, 5)]
)
def test_it_begins_with_the_texts(native, start, words, hidden):
    given = texts_of(native, words)
    generator = Generator(
        Settings("clip", False, hidden, start=start), CATEGORIES, native, 3, texts=given
    )
    picture = generator.view(rgb())
    patches = clips.patch_features(native, picture)[0].double()  # (h, w, D)
    own, others = (patches @ one.double().T for one in given)
    if words:
        own = own - (others.amax(2, True) if start == "rivals" else others.sum(2, True) / words)
    twin = (10 * own).relu().permute(2, 0, 1)
    assert twin.max() > 0.1 and torch.allclose(generator(picture)[0].double(), twin, atol=1e-4)
    assert "classes" not in {name for name, _ in generator.named_parameters()}
    start = generator(picture)
    with torch.no_grad():
        for one in generator.trained():
            one.add_(1)
    assert not torch.allclose(generator(picture), start)
    generator.restart(8)
    assert torch.allclose(generator(picture), start)


def test_what_cannot_begin(native):
    with pytest.raises(
        UsageError, match="unknown --begin 'noise'; choose from rivals, text, random"
    ):
        Settings(start="noise")
    with pytest.raises(
        UsageError, match="--begin text reads the CLIP's own patches, .*give --begin random"
    ):
        Settings("timm:lcnet_035", start="text")
    with pytest.raises(ValueError, match="every start but random has texts"):
        Generator(Settings(start="text"), CATEGORIES, native)
    with pytest.raises(ValueError, match="every start but random has texts"):
        Generator(Settings(), CATEGORIES, native, texts=texts_of(native))


def test_windows_where_the_weights_recommend_them(native):
    recommended = {"short_side": 64, "window": 48, "stride": 16}
    clip = dataclasses.replace(native, dense=recommended)
    generator = Generator(Settings(hidden=0), CATEGORIES, clip)
    picture = generator.view(rgb())
    assert generator.side == 64 and picture.shape == (1, 3, 64, 80)
    found = generator.features(picture)
    patch = clip.patch_size
    assert found.shape == (1, clip.embed_dim, 2 * 64 // patch, 2 * 80 // patch)
    total, count = torch.zeros(clip.embed_dim, 64, 80), torch.zeros(64, 80)
    for top in (0, 16):
        for left in (0, 16, 32):
            crop = picture[:, :, top : top + 48, left : left + 48]
            seen = clips.patch_features(clip, crop).permute(0, 3, 1, 2)
            total[:, top : top + 48, left : left + 48] += interpolate(
                seen, size=(48, 48), mode="bilinear"
            )[0]
            count[top : top + 48, left : left + 48] += 1
    twin = interpolate((total / count)[None], size=found.shape[2:], mode="bilinear")
    assert torch.allclose(found, twin * clip.embed_dim**0.5, atol=1e-3)
    small = torch.zeros(2, 3, 48, 48)
    assert generator.features(small).shape[2:] == (48 // patch, 48 // patch)


def test_a_restart_is_the_start(native):
    generator = Generator(Settings(hidden=5), CATEGORIES, native, seed=4)
    start = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.no_grad():
        for one in generator.trained():
            one.add_(1)
    generator.restart(5)
    assert not torch.equal(generator.state_dict()["head.0.weight"], start["head.0.weight"])
    generator.restart(4)
    assert all(torch.equal(value, start[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(start="rivals"), Settings("timm:lcnet_035", True, 0, 64)]
)
def test_what_is_saved_is_loaded(native, tmp_path, settings):
    given = None if settings.start == "random" else texts_of(native)
    made = Generator(settings, CATEGORIES, native, seed=1, texts=given).eval()
    path = tmp_path / "g.safetensors"
    mask_generator.save(path, made, {"steps": 3})
    found = mask_generator.load(path, native)
    assert found.categories == made.categories and found.side == made.side
    picture = made.view(rgb())
    assert torch.equal(found(picture), made(picture))
    header = tensors.read_header(path)
    assert header["fingerprint"] == native.fingerprint and header["settings"]["steps"] == 3


def test_files_that_do_not_belong(native, siglip, tmp_path):
    made = Generator(Settings(), CATEGORIES, native)
    path = tmp_path / "g.safetensors"
    mask_generator.save(path, made, {})
    with pytest.raises(MismatchError, match="g.safetensors was made with small"):
        mask_generator.load(path, siglip)
    header, content = tensors.load(path)
    content.pop("head.0.bias")
    tensors.save(path, content, header)
    with pytest.raises(InputError, match="does not hold a whole mask generator"):
        mask_generator.load(path, native)
    content["head.0.bias"] = torch.full((mask_generator.HIDDEN,), float("nan"))
    tensors.save(path, content, header)
    with pytest.raises(InputError, match="not finite"):
        mask_generator.load(path, native)


def test_a_generator_of_other_classes_is_told_by_one_rule(native):
    """By name and in order; ids are only the numbers of a file."""
    made = Generator(Settings(), CATEGORIES, native)
    with pytest.raises(MismatchError, match="has 2 classes and x has 2; they differ in .*cat"):
        mask_generator.require_categories(made, [CATEGORIES[0], coco.Category(7, "cat")], "x")
    with pytest.raises(MismatchError, match="has 2 classes and x has 1; they differ in"):
        mask_generator.require_categories(made, CATEGORIES[:1], "x")
    with pytest.raises(MismatchError, match="has 2 classes and x has 2; their order differs"):
        mask_generator.require_categories(made, CATEGORIES[::-1], "x")
    renumbered = [coco.Category(90 + k, one.name) for k, one in enumerate(CATEGORIES)]
    mask_generator.require_categories(made, renumbered, "x")


def test_backbones_of_timm(native, monkeypatch):
    said = []
    monkeypatch.setattr(timm_backbone._logger, "warning", lambda text, *of: said.append(text % of))
    for name, grid in (("lcnet_035", (2, 3)), ("vit_tiny_patch16_224", (4, 6))):
        backbone = timm_backbone.Backbone(name, 64)
        with torch.no_grad():
            found = backbone(torch.zeros(1, 3, 64, 96))
        assert found.shape == (1, backbone.width, *grid)
        timm_backbone.say_start(backbone)
        assert said[-1].startswith(f"no pretrained weights of {name} are in the local cache")
    with pytest.raises(UsageError, match="no network 'timm:resnet1'"):
        Settings("timm:resnet1")
    with pytest.raises(UsageError, match="the CLIP's own tower stays frozen"):
        Settings("clip", fine_tuned=True)
    frozen = Generator(Settings("timm:lcnet_035", side=64), CATEGORIES, native)
    assert {id(one) for one in frozen.trained()} == {id(one) for one in frozen.head.parameters()}
    tuned = Generator(Settings("timm:lcnet_035", True, side=64), CATEGORIES, native)
    assert len(tuned.trained()) > 20 and not tuned.is_frozen
    assert tuned.features(torch.zeros(1, 3, 64, 64)).requires_grad

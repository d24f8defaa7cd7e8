"""Mask generators, on a CLIP's own patches and on backbones of timm."""

import pytest
import torch

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, tensors
from ovtool.models import clip as door
from ovtool.models import mask_generator, timm_backbone
from ovtool.models.mask_generator import Generator, Settings

CATEGORIES = [coco.Category(3, "cow"), coco.Category(7, "boat")]


def rgb(height=48, width=64):
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0),
                         dtype=torch.uint8)  # fmt: skip


def test_the_clips_own_patches_under_a_small_head(native):
    generator = Generator(Settings(hidden=5), CATEGORIES, native)
    picture = generator.shown(rgb())
    assert generator.side == 96 and picture.shape == (1, 3, 96, 128)
    features = generator.features(picture)
    assert features.shape == (1, 2 * native.embed_dim, 6, 8) and not features.requires_grad
    read = door.patch_features(native, picture)[0].permute(2, 0, 1) * native.embed_dim**0.5
    assert torch.allclose(features[0, : native.embed_dim], read)
    maps = generator(picture)
    assert maps.shape == (1, 2, 6, 8) and maps.min() >= 0 and generator.is_frozen
    assert {name.split(".")[0] for name, _ in generator.named_parameters()} == {"head"}
    assert len(generator.trained()) == 4  # two convolutions
    plain = Generator(Settings(hidden=0), CATEGORIES, native)
    assert len(plain.trained()) == 2 and plain(picture).shape == maps.shape


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


@pytest.mark.parametrize("settings", [Settings(), Settings("timm:lcnet_035", True, 0, 64)])
def test_what_is_saved_is_loaded(native, tmp_path, settings):
    made = Generator(settings, CATEGORIES, native, seed=1).eval()
    path = tmp_path / "g.safetensors"
    mask_generator.save(path, made, {"steps": 3})
    found = mask_generator.load(path, native)
    assert found.categories == made.categories and found.side == made.side
    picture = made.shown(rgb())
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
    with pytest.raises(MismatchError, match="g is for 2 classes, not for 'cat'"):
        mask_generator.require_categories(made, [CATEGORIES[0], coco.Category(7, "cat")], "g")


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

"""Segmenters: their shapes, their files, and what they say of a picture."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import tensors
from ovtool.models import clip as clips
from ovtool.models import segmenter, towers

NAMES = ["background", "apple", "cow"]


@pytest.fixture(scope="module")
def tiny():
    return clips.load("tiny")


def made(architecture, clip=None, classes=3):
    torch.manual_seed(0)
    return segmenter.build(architecture, classes, clip).eval()


@pytest.mark.parametrize(
    "architecture, stride",
    [
        ("tiny", 4),
        ("clip", 4),
        ("photo", 8),
        ("deeplabv3_mobilenet_v3_large", 16),
        ("deeplabv3_resnet50", 8),
        ("maskformer-tiny", 4),
    ],
)
def test_every_architecture_gives_logits_of_every_class(architecture, stride, tiny):
    network = made(architecture, tiny if architecture == "clip" else None)
    with torch.no_grad():
        found = network(torch.rand(2, 3, 64, 96))
    assert found.shape == (2, 3, 64 // stride, 96 // stride)
    assert found.isfinite().all()


def test_an_unknown_architecture():
    with pytest.raises(UsageError, match="unknown architecture 'vgg'; choose from tiny, clip"):
        segmenter.build("vgg", 3)


def test_the_clip_is_frozen_and_no_part_of_the_state(tiny):
    network = made("clip", tiny)
    assert not any("visual" in name or "clip" in name for name in network.state_dict())
    network(torch.rand(1, 3, 32, 32)).sum().backward()
    assert all(one.grad is not None for one in network.parameters())
    assert all(one.grad is None for one in tiny.model.parameters())
    assert sum(one.numel() for one in network.parameters()) < 500_000


def test_tapped_tokens_are_those_of_each_block_by_itself(tiny):
    visual, pixels = tiny.model.visual, torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        found = towers.tapped_tokens(visual, pixels, (0, 5))
        for block, tokens in zip((0, 5), found, strict=True):
            alone = towers.patch_tokens(visual, pixels, block)
            assert torch.allclose(visual.ln_post(tokens), alone, atol=1e-5)
    assert towers.depth(visual) == 6 and towers.width(visual) == 192


def test_semantic_inference_of_maskformer_against_loops():
    network = made("maskformer-tiny")
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        logits, layer = network.body.layers(network.normalised(pixels))[-1]
        found = network(pixels)[0].double().exp()
    share, masks = logits[0].double().softmax(-1), layer.masks[0].double().sigmoid()
    for k in range(3):
        slow = sum(share[n, k] * masks[n] for n in range(len(masks)))
        assert torch.allclose(found[k], slow, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("architecture", ["tiny", "clip", "maskformer-tiny"])
def test_a_file_gives_the_network_back(architecture, tiny, tmp_path):
    clip = tiny if architecture == "clip" else None
    network, path = made(architecture, clip), tmp_path / "s.safetensors"
    settings = {"architecture": architecture, "names": NAMES, "short_side": 64}
    segmenter.save(path, network, settings, clip)
    found = segmenter.load(path)
    assert (found.names, found.short_side, found.background) == (tuple(NAMES), 64, 0)
    assert found.model == ("tiny" if clip else None)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(found.network(pixels), network(pixels), atol=1e-5)


class Small(nn.Module):
    """The smallest body, in place of `tiny`."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, classes, 3), nn.BatchNorm2d(classes)

    def forward(self, pixels):
        return self.norm(self.first(pixels))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Writes a file of a small network with something changed."""
    monkeypatch.setattr(segmenter, "_light", Small)
    path = tmp_path / "s.safetensors"

    def write(change=lambda state: state, **settings):
        network = made("tiny")
        given = {"architecture": "tiny", "names": NAMES, "short_side": 64} | settings
        tensors.save(path, change(network.state_dict()), {"kind": "segmenter", "settings": given})
        return path

    return write


def test_bad_files_are_one_line(kept, tmp_path):
    tensors.save(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"kind": "proposer"})
    with pytest.raises(MismatchError, match="holds a proposer, .* needed here: a segmenter"):
        segmenter.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not hold a whole segmenter"):
        segmenter.load(kept(architecture="vgg"))
    with pytest.raises(InputError, match="does not hold a whole segmenter"):
        segmenter.load(kept(names=["one"]))
    with pytest.raises(InputError, match="does not hold a whole segmenter"):
        segmenter.load(kept(lambda state: {k: v for k, v in state.items() if "norm" not in k}))
    name = "body.first.weight"
    with pytest.raises(InputError, match="not finite; train the segmenter again"):
        segmenter.load(kept(lambda state: {**state, name: state[name] * torch.nan}))
    with pytest.raises(UsageError, match="stands on no CLIP; leave out --model"):
        segmenter.load(kept(), model="tiny")


def test_a_segmenter_on_another_clip_is_refused(tiny, tmp_path):
    path = tmp_path / "s.safetensors"
    header = {
        "kind": "segmenter", "model": "tiny", "fingerprint": "0" * 16,
        "settings": {"architecture": "clip", "names": NAMES, "short_side": 64},
    }  # fmt: skip
    tensors.save(path, made("clip", tiny).state_dict(), header)
    with pytest.raises(MismatchError, match="was made with tiny"):
        segmenter.load(path)


def test_rows_are_the_mean_over_scales_and_mirror_images():
    network = made("tiny")
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found = segmenter.rows(network, rgb, 64, (1.0, 1.5), flip=True)
    whole = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    slow = []
    with torch.no_grad():
        for size in ((64, 96), (96, 144)):
            pixels = interpolate(whole, size, mode="bilinear", antialias=True)
            for turned in (False, True):
                logits = network(pixels.flip(3) if turned else pixels)
                logits = logits.flip(3) if turned else logits
                slow.append(interpolate(logits, (40, 60), mode="bilinear"))
    expected = torch.cat(slow).double().mean(0)
    assert torch.allclose(found(0, 40).double(), expected, atol=1e-4)
    assert torch.allclose(found(7, 19), found(0, 40)[:, 7:19], atol=1e-5)


def test_a_backbone_begins_with_what_the_cache_holds(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = made("tiny")
    assert segmenter.start_backbone(network, "tiny") is None
    place = segmenter.cached_weights("tiny")
    place.parent.mkdir()
    torch.manual_seed(5)
    state = resnet18(weights=None).state_dict()
    torch.save(state, place)
    assert segmenter.start_backbone(network, "tiny") == place.name
    assert torch.equal(network.body.backbone.conv1.weight, state["conv1.weight"])
    place.write_bytes(b"no weights")
    with pytest.raises(InputError, match="is broken"):
        segmenter.start_backbone(network, "tiny")


def test_mobilenets_weights_fit_too(tmp_path, monkeypatch):
    from torchvision.models import mobilenet_v3_large

    name = "deeplabv3_mobilenet_v3_large"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = segmenter.cached_weights(name)
    place.parent.mkdir()
    torch.save(mobilenet_v3_large(weights=None).state_dict(), place)
    assert segmenter.start_backbone(made(name), name) == place.name

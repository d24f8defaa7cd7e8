"""The MaskFormer with OVSeg's head: its formulas, its files, and the hub's networks at random weights."""

import time

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
)
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ovtool.errors import InputError, MismatchError, ModelError
from ovtool.formats import tensors
from ovtool.models import hub, hub_maskformer, maskformer, sources

STAGES = ["stage1", "stage2", "stage3", "stage4"]
DIM = 24


def micro(backbone=None):
    """The smallest configuration."""
    backbone = backbone or ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=STAGES,
    )
    decoder = MaskFormerDetrConfig(
        encoder_layers=0,
        num_queries=6,
        d_model=32,
        decoder_layers=3,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        dropout=0.0,
    )
    return MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=16,
    )


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return maskformer.MaskFormer(micro(), DIM).eval().requires_grad_(False)


@pytest.fixture
def clip():
    """What the files need of a CLIP."""

    class Named:
        name, fingerprint, embed_dim = "small", "0123456789abcdef", DIM

    return Named()


def words(count=4):
    torch.manual_seed(1)
    return nn.functional.normalize(torch.randn(count, DIM), dim=-1)


SETTINGS = {"names": ["a", "b", "c", "d"], "short_side": 64}


def test_every_layer_has_the_same_head_and_the_last_is_the_networks_output(network):
    pixels = torch.randn(2, 3, 64, 96)
    layers = network(pixels)
    assert len(layers) == 3
    for layer in layers:
        assert layer.embeddings.shape == (2, 6, DIM) and layer.masks.shape == (2, 6, 16, 24)
        assert torch.allclose(layer.embeddings.norm(dim=-1), torch.ones(2, 6), atol=1e-5)
    # by hand: each decoder layer, the last norm, then the two heads
    inner = network.model
    places = inner.pixel_level_module(pixels)
    module = inner.transformer_module
    features = module.input_projection(places[0]) if module.input_projection else places[0]
    memory = features.flatten(2).transpose(1, 2)
    position = module.position_embedder(features.shape, features.device, features.dtype)
    position = position.flatten(2).transpose(1, 2)
    queries = module.queries_embedder.weight[None].expand(2, -1, -1)
    state = torch.zeros_like(queries)
    for layer, block in zip(layers, module.decoder.layers, strict=True):
        state = block(
            state,
            spatial_position_embeddings=position,
            object_queries_position_embeddings=queries,
            encoder_hidden_states=memory,
        )
        normed = module.decoder.layernorm(state)
        vector = nn.functional.normalize(network.proposal_embedder(normed), dim=-1)
        mask = torch.einsum("bnf,bfhw->bnhw", network.mask_embedder(normed), places[1])
        assert torch.allclose(layer.embeddings, vector, atol=1e-5)
        assert torch.allclose(layer.masks, mask, atol=1e-4)


def test_class_logits_are_cosines_at_a_fixed_temperature(network):
    torch.manual_seed(2)
    vectors = nn.functional.normalize(torch.randn(2, 5, DIM, dtype=torch.float64), dim=-1)
    names = words().double()
    found = maskformer.MaskFormer.class_logits(network, vectors, names)
    column = network.no_object.double()
    for b in range(2):
        for n in range(5):
            for k, text in enumerate((*names, column)):
                cosine = sum(vectors[b, n, i] * text[i] for i in range(DIM)) / text.norm()
                assert found[b, n, k].item() == pytest.approx(100 * cosine.item(), abs=1e-4)


def test_architectures_have_the_papers_head():
    network = maskformer.MaskFormer(maskformer.configuration("resnet50"), 512)
    shapes = [tuple(p.shape) for p in network.proposal_embedder.parameters()]
    assert shapes == [(1024, 256), (1024,), (512, 1024), (512,)]
    assert network.queries == 100 and network.no_object.shape == (512,)
    assert len(network.model.transformer_module.decoder.layers) == 6
    swin = maskformer.configuration("swin-base", 50)
    assert swin.backbone_config.depths == [2, 2, 18, 2] and swin.decoder_config.num_queries == 50
    small = maskformer.MaskFormer(maskformer.configuration("tiny", 32), 192)
    assert 3e6 < sum(p.numel() for p in small.parameters()) < 6e6  # 12 MB in half precision
    gains = [m.weight for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    assert gains and all((gain == 1).all() for gain in gains)


@pytest.mark.parametrize("queries", [36, 30])
def test_queries_begin_at_points_that_cover_the_picture(queries):
    torch.manual_seed(1)
    begun = maskformer.MaskFormer(maskformer.configuration("tiny", queries), DIM)
    maskformer.start_queries(begun)
    module = begun.model.transformer_module
    width = module.queries_embedder.weight.shape[1]
    keys = module.position_embedder((1, width, 24, 24), torch.device("cpu"), torch.float32)[0]
    keys = keys.flatten(1).T
    for layer in module.decoder.layers:
        attention = layer.encoder_attn
        q, k = attention.q_proj(module.queries_embedder.weight), attention.k_proj(keys)
        nearest = (q @ k.T).argmax(1)  # where each query looks most
        rows, columns = nearest // 24, nearest % 24
        cells = torch.linspace(0, 35, queries).round().long()
        off = (rows - 4 * (cells // 6) - 2).abs().maximum((columns - 4 * (cells % 6) - 2).abs())
        assert off.max() <= 6 and off.double().mean() < 2.5  # random vectors are 9 off


def test_a_file_gives_the_network_back(network, clip, tmp_path):
    path = tmp_path / "p.safetensors"
    maskformer.save(path, network, words(), clip, SETTINGS)
    again = tmp_path / "q.safetensors"
    maskformer.save(again, network, words(), clip, SETTINGS)
    assert path.read_bytes() == again.read_bytes()
    loaded = maskformer.load(path, clip)
    state = network.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in loaded.network.state_dict().items())
    assert loaded.network.config.to_dict() == network.config.to_dict()
    assert (loaded.names, loaded.short_side) == (("a", "b", "c", "d"), 64)
    assert (loaded.model, loaded.fingerprint) == ("small", clip.fingerprint)
    assert torch.allclose(loaded.words, words(), atol=1e-3)
    maskformer.save(path, network, words(), clip, SETTINGS, half=True)
    assert path.stat().st_size < 0.6 * again.stat().st_size
    vector = maskformer.no_object_vector(maskformer.load(path).network)
    assert np.allclose(vector, maskformer.no_object_vector(network), atol=1e-3)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_bad_files(network, clip, tmp_path):
    path = tmp_path / "p.safetensors"
    maskformer.save(path, network, words(), clip, SETTINGS)
    other = type("Other", (), {"name": "large", "fingerprint": "f" * 16})()
    with pytest.raises(MismatchError, match="made with small .*but the model here is large"):
        maskformer.load(path, other)
    header, found = tensors.load(path)
    bare = {name: value for name, value in found.items() if name != "no_object"}
    tensors.save(path, bare, header)
    with pytest.raises(InputError, match="does not hold a whole proposer"):
        maskformer.load(path, clip)
    tensors.save(path, found | {"no_object": torch.full((DIM,), torch.nan)}, header)
    with pytest.raises(InputError, match="not finite; train the proposer again"):
        maskformer.load(path, clip)
    tensors.save(path, found, {**header, "settings": {}})
    with pytest.raises(InputError, match="settings.config is missing"):
        maskformer.load(path, clip)
    tensors.save(path, found, {**header, "kind": "pacl"})
    with pytest.raises(MismatchError, match="holds a PACL head, .* needed here: a proposer"):
        maskformer.load(path, clip)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="truncated"):
        maskformer.load(path, clip)
    with pytest.raises(InputError, match="no such file"):
        maskformer.load(tmp_path / "gone.safetensors", clip)


@pytest.mark.parametrize("size", [(64, 64), (48, 200), (1, 1), (3, 2), (130, 40), (7, 900)])
def test_pictures_of_any_size(network, size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    soft, vectors = maskformer.predict(network, rgb, 64)
    assert soft.shape == (6, *size) and vectors.shape == (6, DIM)
    assert soft.isfinite().all() and 0 <= soft.min() and soft.max() <= 1


def test_a_picture_of_the_networks_size_is_seen_as_it_is(network):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    soft, vectors = maskformer.predict(network, rgb, 64)
    mean = torch.tensor([123.675, 116.28, 103.53])
    deviation = torch.tensor([58.395, 57.12, 57.375])
    pixels = ((torch.from_numpy(rgb).float() - mean) / deviation).permute(2, 0, 1)[None]
    last = network(pixels)[-1]
    logits = nn.functional.interpolate(last.masks, (64, 96), mode="bilinear")
    assert torch.allclose(soft, logits.sigmoid()[0], atol=1e-4)
    assert torch.allclose(vectors, last.embeddings[0], atol=1e-4)


def test_scores_against_a_slow_twin():
    torch.manual_seed(0)
    soft, no_object = torch.rand(4, 5, 6), torch.rand(4)
    soft[3] = 0.4  # no pixel inside
    for mask, empty, found in zip(soft, no_object, maskformer.scores(soft, no_object), strict=True):
        inside = [p for p in mask.flatten().tolist() if p > 0.5]
        mean = sum(inside) / len(inside) if inside else 0
        assert found.item() == pytest.approx((1 - empty.item()) * mean, abs=1e-6)


# --- the hub's ---------------------------------------------------------------------------------------
def saved(folder, processor=None):
    torch.manual_seed(3)
    network = MaskFormerForInstanceSegmentation(micro())
    network.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 256}
    (processor or MaskFormerImageProcessor(size=size, size_divisor=32)).save_pretrained(folder)
    return network.eval()


def test_a_maskformer_of_transformers_proposes(tmp_path):
    network = saved(tmp_path / "net")
    loaded = hub_maskformer.load(str(tmp_path / "net"))
    state = network.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in loaded.network.state_dict().items())
    for size in ((40, 64), (90, 30)):
        rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        soft, quality = hub_maskformer.propose(loaded, rgb)
        assert soft.shape == (6, *size) and soft.dtype == np.float32
        assert quality.shape == (6,) and (quality >= 0).all() and (quality <= 1).all()
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    given = loaded.processor(images=rgb, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = network(given)
    soft, _ = hub_maskformer.propose(loaded, rgb)
    logits = nn.functional.interpolate(found.masks_queries_logits, (64, 64), mode="bilinear")
    assert np.allclose(soft, logits[0].sigmoid().numpy(), atol=1e-4)


def test_a_hub_name_without_network_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    start = time.perf_counter()
    message = "facebook/none are not here and the hub does not answer.*`hf download facebook/none`"
    for load in (hub_maskformer.load,):
        with pytest.raises(ModelError, match=message):
            load("facebook/none")
    assert time.perf_counter() - start < 10
    with pytest.raises(ModelError, match="no model at .*gone"):
        hub.obtain(str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="has no config.json"):
        hub.obtain(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no model.safetensors"):
        hub.obtain(str(tmp_path))


def test_folders_that_are_no_maskformer(tmp_path):
    ResNetModel(micro().backbone_config).save_pretrained(tmp_path / "resnet")
    with pytest.raises(ModelError, match="is a resnet, not a MaskFormer"):
        hub_maskformer.load(str(tmp_path / "resnet"))
    saved(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot load .*net"):
        hub_maskformer.load(str(tmp_path / "net"))


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_a_pretrained_backbone_is_put_in_place(kind, tmp_path, monkeypatch):
    torch.manual_seed(4)
    if kind == "resnet":
        plain = ResNetModel(micro().backbone_config).eval()
        network = maskformer.MaskFormer(micro(), DIM).eval()
    else:
        shape = {
            "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2], "window_size": 2, "drop_path_rate": 0.0,
        }  # fmt: skip
        plain = SwinModel(SwinConfig(**shape)).eval()
        backbone = SwinConfig(**shape, out_features=STAGES)
        network = maskformer.MaskFormer(micro(backbone), DIM).eval()
    plain.save_pretrained(tmp_path / "plain")
    monkeypatch.setattr(maskformer, "BACKBONES", {"tiny": str(tmp_path / "plain")})
    monkeypatch.setattr(hub, "is_cached", lambda name: False)
    assert maskformer.start_backbone(network, "tiny") is None
    monkeypatch.setattr(hub, "is_cached", lambda name: True)
    assert maskformer.start_backbone(network, "tiny") == str(tmp_path / "plain")
    assert maskformer.start_backbone(network, "resnet50") is None
    pixels = torch.randn(1, 3, 64, 64)
    encoder = network.model.pixel_level_module.encoder
    with torch.no_grad():
        if kind == "resnet":
            expected, found = plain(pixels)[0], encoder(pixels).feature_maps[-1]
        else:
            expected, found = plain(pixels)[0], encoder.model(pixels)[0]
    assert found.abs().max() > 0.1 and torch.allclose(found, expected, atol=1e-5)

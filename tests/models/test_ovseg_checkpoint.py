"""The checkpoint of OVSeg: names and shapes of the original codes, to files that `segment` takes.

The names are those of MaskFormer's and CLIP's original codes, written down here by their architecture: Swin
transformers (`backbone.layers.N.blocks.M`), MaskFormer's pixel decoder and predictor, OpenAI's CLIP.
"""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from ovtool.cli.errors import run
from ovtool.errors import InputError
from ovtool.formats import coco, tensors
from ovtool.models import clip as clips
from ovtool.models import maskformer, ovseg_checkpoint, region_clip

TRUE = {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 12}
TRUE_DECODER = {
    "hidden": 256,
    "layers": 6,
    "ffn": 2048,
    "queries": 100,
    "features": 256,
    "embed": (1024, 768),
}
SMALL = {"width": 16, "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 4), "window": 4}
SMALL_DECODER = {
    "hidden": 32,
    "layers": 2,
    "ffn": 48,
    "queries": 8,
    "features": 32,
    "embed": (128, 64),
}


def swin_shapes(width, depths, heads, window):
    """The tensors of MaskFormer's Swin transformer, name to shape."""
    shapes = {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}
    shapes |= {f"patch_embed.norm.{what}": (width,) for what in ("weight", "bias")}
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        size = width * 2**stage
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}."
            for norm in ("norm1", "norm2"):
                shapes |= {f"{block}{norm}.{what}": (size,) for what in ("weight", "bias")}
            shapes[f"{block}attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, count)
            shapes[f"{block}attn.relative_position_index"] = (window**2, window**2)
            for part, (out, own) in {
                "attn.qkv": (3 * size, size), "attn.proj": (size, size),
                "mlp.fc1": (4 * size, size), "mlp.fc2": (size, 4 * size),
            }.items():  # fmt: skip
                shapes |= {f"{block}{part}.weight": (out, own), f"{block}{part}.bias": (out,)}
        if stage < len(depths) - 1:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * size, 4 * size)
            shapes |= {
                f"layers.{stage}.downsample.norm.{what}": (4 * size,) for what in ("weight", "bias")
            }
        shapes |= {f"norm{stage}.{what}": (size,) for what in ("weight", "bias")}
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def head_shapes(width, hidden, layers, ffn, queries, features, embed):
    """The tensors of MaskFormer's pixel decoder and of its predictor, with OVSeg's two-layer embedding."""
    pixel = {"mask_features.weight": (features, features, 3, 3), "mask_features.bias": (features,)}
    for level in (1, 2, 3, 4):
        own = features if level < 4 else 8 * width
        pixel[f"layer_{level}.weight"] = (features, own, 3, 3)
        pixel |= {f"layer_{level}.norm.{what}": (features,) for what in ("weight", "bias")}
        if level < 4:
            pixel[f"adapter_{level}.weight"] = (features, width * 2 ** (level - 1), 1, 1)
            pixel |= {f"adapter_{level}.norm.{what}": (features,) for what in ("weight", "bias")}
    head = {"query_embed.weight": (queries, hidden)}
    head |= {"input_proj.weight": (hidden, 8 * width, 1, 1), "input_proj.bias": (hidden,)}
    decoder = {f"norm.{what}": (hidden,) for what in ("weight", "bias")}
    for number in range(layers):
        layer = f"layers.{number}."
        for attention in ("self_attn", "multihead_attn"):
            decoder[f"{layer}{attention}.in_proj_weight"] = (3 * hidden, hidden)
            decoder[f"{layer}{attention}.in_proj_bias"] = (3 * hidden,)
            decoder[f"{layer}{attention}.out_proj.weight"] = (hidden, hidden)
            decoder[f"{layer}{attention}.out_proj.bias"] = (hidden,)
        for part, out, own in (("linear1", ffn, hidden), ("linear2", hidden, ffn)):
            decoder |= {f"{layer}{part}.weight": (out, own), f"{layer}{part}.bias": (out,)}
        for norm in ("norm1", "norm2", "norm3"):
            decoder |= {f"{layer}{norm}.{what}": (hidden,) for what in ("weight", "bias")}
    head |= {f"transformer.decoder.{name}": shape for name, shape in decoder.items()}
    sides = {"mask_embed": [hidden, hidden, hidden, features], "class_embed": [hidden, *embed]}
    for part, widths in sides.items():
        for number, (own, out) in enumerate(zip(widths, widths[1:], strict=False)):
            head[f"{part}.layers.{number}.weight"] = (out, own)
            head[f"{part}.layers.{number}.bias"] = (out,)
    return {
        **{f"sem_seg_head.pixel_decoder.{name}": shape for name, shape in pixel.items()},
        **{f"sem_seg_head.predictor.{name}": shape for name, shape in head.items()},
        "clip_adapter.non_object_embedding": (1, embed[1]),
    }


def clip_state():
    """A small CLIP, its tensors under OpenAI's names, which open_clip's are."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    vision = {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 64, "layers": 2}
    model = open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    return {name: value for name, value in model.state_dict().items() if name != "attn_mask"}


@pytest.fixture
def checkpoint(tmp_path):
    """A scaled-down checkpoint at random values, as detectron2 writes one: its path, and its tensors."""
    torch.manual_seed(0)
    shapes = {**swin_shapes(**SMALL), **head_shapes(SMALL["width"], **SMALL_DECODER)}
    state = {
        name: torch.randint(0, 49, shape) if name.endswith("_index") else 0.1 * torch.randn(shape)
        for name, shape in shapes.items()
    }
    state |= {f"clip_adapter.clip_model.{name}": value for name, value in clip_state().items()}
    state["clip_adapter.clip_model.visual.mask_embedding"] = 0.02 * torch.randn(2, 16, 64)
    path = tmp_path / "ovseg_small.pth"
    torch.save({"model": state, "iteration": 119999, "__author__": "someone"}, path)
    return path, state


def test_the_true_names_and_shapes_are_those_of_our_proposer():
    shapes = {**swin_shapes(**TRUE), **head_shapes(TRUE["width"], **TRUE_DECODER)}
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    made = {
        name: tuple(value.shape) for name, value in ovseg_checkpoint.proposer_state(state).items()
    }
    config = ovseg_checkpoint.proposer_config(state, 768)
    with torch.device("meta"):
        own = maskformer.MaskFormer(config, 768).state_dict()
        published = maskformer.MaskFormer(maskformer.configuration("swin-base"), 768).state_dict()
    wanted = {name: tuple(value.shape) for name, value in published.items()}
    assert made == wanted
    assert {name: tuple(value.shape) for name, value in own.items()} == wanted
    assert config.backbone_config.window_size == 12 and config.decoder_config.num_queries == 100


def test_stored_together_are_queries_keys_and_values_in_this_order():
    whole = torch.arange(12.0)[:, None].expand(12, 4)
    made = ovseg_checkpoint.proposer_state({
        "backbone.layers.2.blocks.5.attn.qkv.weight": whole,
        "sem_seg_head.predictor.transformer.decoder.layers.3.multihead_attn.in_proj_weight": whole,
        "sem_seg_head.pixel_decoder.adapter_1.norm.bias": whole,
    })  # fmt: skip
    swin = "model.pixel_level_module.encoder.model.encoder.layers.2.blocks.5.attention.self."
    decoder = "model.transformer_module.decoder.layers.3.encoder_attn."
    assert made[f"{swin}query.weight"][0, 0] == made[f"{decoder}q_proj.weight"][0, 0] == 0
    assert made[f"{swin}key.weight"][0, 0] == made[f"{decoder}k_proj.weight"][0, 0] == 4
    assert made[f"{swin}value.weight"][0, 0] == made[f"{decoder}v_proj.weight"][0, 0] == 8
    assert "model.pixel_level_module.decoder.fpn.layers.2.proj.1.bias" in made


def test_a_checkpoint_segments_images(checkpoint, tmp_path, monkeypatch, capsys):
    path, state = checkpoint
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert run(["convert", path.name, "-o", "ovseg", "--json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["licence"] == "CC BY-NC 4.0" and answer["lacking"] == []
    assert "licensed under CC BY-NC 4.0; give credit, and make no commercial use" in said.err
    files = {kind: f"ovseg/{kind}.safetensors" for kind in ("model", "prompts", "proposer")}
    assert {kind: answer[kind] for kind in files} == files
    clip = clips.load(files["model"])
    loaded = maskformer.load(Path(files["proposer"]), clip)
    assert len(loaded.names) == 171 and loaded.short_side == 512
    own = loaded.network.state_dict()
    name = "model.transformer_module.decoder.layers.1.mlp.fc1.weight"
    theirs = "sem_seg_head.predictor.transformer.decoder.layers.1.linear1.weight"
    assert torch.equal(own[name], state[theirs])
    assert torch.equal(own["no_object"], state["clip_adapter.non_object_embedding"][0])
    _, prompts = region_clip.with_prompts(clip, Path(files["prompts"]))
    assert torch.equal(prompts.values, state["clip_adapter.clip_model.visual.mask_embedding"])
    assert prompts.grid == (4, 4)
    assert tensors.read_header(Path(files["proposer"]))["settings"]["licence"] == "CC BY-NC 4.0"
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(rgb).save("a.png")
    how = ["--method", "two-stage", "--recipe", "ovseg", "--model", files["model"]]
    how += ["--prompts", files["prompts"], "--proposer", files["proposer"]]
    assert run(["segment", "a.png", "--classes", "cow,grass", *how, "-o", "s.json"]) == 0
    assert coco.read(Path("s.json")).info["ovtool"]["model"]["name"] == "model.safetensors"
    capsys.readouterr()
    assert run(["convert", path.name, "-o", "ovseg", "--update"]) == 0
    assert capsys.readouterr().err == "ovseg is up to date\n"
    assert run(["convert", path.name, "-o", "ovseg"]) == 1
    assert "ovseg is not empty; replace it with --overwrite" in capsys.readouterr().err


def test_the_network_computes_what_the_original_would(checkpoint, tmp_path):
    """The proposal embedding of a query, worked by the original's own layers: Linear, ReLU, Linear."""
    _, state = checkpoint
    config = ovseg_checkpoint.proposer_config(state, 64)
    network = maskformer.MaskFormer(config, 64).eval()
    network.load_state_dict(ovseg_checkpoint.proposer_state(state), strict=False)
    queries = torch.randn(2, 5, 32)
    head = "sem_seg_head.predictor.class_embed.layers."
    hidden = torch.relu(queries @ state[f"{head}0.weight"].T + state[f"{head}0.bias"])
    wanted = hidden @ state[f"{head}1.weight"].T + state[f"{head}1.bias"]
    with torch.no_grad():
        assert torch.allclose(network.proposal_embedder(queries), wanted, atol=1e-5)


def test_a_checkpoint_of_a_clip_alone_and_one_of_another_backbone(checkpoint, tmp_path):
    _, state = checkpoint
    alone = {
        f"module.{k.removeprefix('clip_adapter.clip_model.')}": v
        for k, v in state.items()
        if "clip_model" in k
    }
    del alone["module.visual.mask_embedding"]
    torch.save({"state_dict": alone, "epoch": 5}, tmp_path / "clip.pt")
    (tmp_path / "a").mkdir()
    made = ovseg_checkpoint.convert(tmp_path / "clip.pt", tmp_path / "a", {})
    assert made.files == {"model": "model.safetensors"}
    assert made.notes == ("it has no mask prompts", "it has no proposer")
    resnet = {k.replace("backbone.patch_embed", "backbone.stem"): v for k, v in state.items()}
    torch.save({"model": resnet}, tmp_path / "resnet.pth")
    (tmp_path / "b").mkdir()
    made = ovseg_checkpoint.convert(tmp_path / "resnet.pth", tmp_path / "b", {})
    assert made.notes == ("its proposer is not written, for its backbone is no Swin transformer",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sem_seg_head.predictor.query_embed.weight": None}, "its proposer lacks"),
        ({"sem_seg_head.predictor.input_proj.weight": torch.zeros(3, 3, 1, 1)}, "of its shape"),
        ({"clip_adapter.clip_model.ln_final.weight": None}, "its CLIP lacks"),
        (
            {"clip_adapter.clip_model.visual.mask_embedding": torch.zeros(2, 9, 64)},
            "which fits no grid",
        ),
        ({"clip_adapter.non_object_embedding": torch.full((1, 64), torch.nan)}, "holds NaN"),
    ],
)
def test_checkpoints_that_are_broken(checkpoint, tmp_path, change, said):
    path, state = checkpoint
    whole = {name: value for name, value in {**state, **change}.items() if value is not None}
    torch.save({"model": whole}, path)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=said) as raised:
        ovseg_checkpoint.convert(path, tmp_path / "out", {})
    assert "\n" not in str(raised.value)


def test_what_is_no_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def says(*line):
        status = run(["convert", *line])
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and not Path("out").exists()
        return status, said

    torch.save({"model": {"a": torch.ones(2)}}, "a.pth")
    assert "holds no CLIP" in says("a.pth", "-o", "out")[1]
    torch.save({"model": Path("x")}, "b.pth")
    assert "code is never unpickled" in says("b.pth", "-o", "out")[1]
    Path("c.pth").write_bytes(b"no torch file")
    assert says("c.pth", "-o", "out")[0] == 1
    assert "no such file: d.pth" in says("d.pth", "-o", "out")[1]
    assert (
        says("x.json")[1]
        == "error: the format to write x.json in is not given; name it with --to\n"
    )
    assert "a checkpoint has no masks; leave out" in says("a.pth", "--instances", "parts")[1]


@pytest.mark.parametrize("architecture", ["ViT-L-14", "ViT-B-16"])
def test_the_configuration_of_the_true_clips_is_read_from_their_shapes(architecture):
    published = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        model = open_clip.CLIP(**published, quick_gelu=True)
    state = {f"clip_adapter.clip_model.{name}": value for name, value in model.state_dict().items()}
    depth, places = 3, model.visual.positional_embedding.shape[0] - 1
    width = published["vision_cfg"]["width"]
    prompts = "clip_adapter.clip_model.visual.mask_embedding"
    state[prompts] = torch.empty(depth, places, width, device="meta")
    prefix = ovseg_checkpoint.clip_prefix(state)
    assert prefix == "clip_adapter.clip_model."
    own = {name.removeprefix(prefix): value for name, value in state.items()}
    config = ovseg_checkpoint.clip_config(own, "x")
    with torch.device("meta"):
        again = open_clip.CLIP(**config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    for tower in ("vision_cfg", "text_cfg"):
        assert published[tower].items() <= config[tower].items() | {("head_width", 64)}

"""The plain CLIP against open_clip's, with the weights that come with ovtool."""

import json
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ovtool.models import network, sources


@pytest.fixture(scope="module")
def pair():
    """The same file in open_clip's classes and in ours."""
    folder = sources.bundled_folder()
    config = json.loads((folder / "tiny.json").read_text())["model_cfg"]
    state = {name: value.float() for name, value in load_file(folder / "tiny.safetensors").items()}
    theirs, ours = open_clip.CLIP(**config), network.from_config(config)
    for model in (theirs, ours):
        model.load_state_dict(state)
        model.eval()
    return theirs, ours


def test_the_names_and_their_order_are_open_clips(pair):
    theirs, ours = pair
    assert list(ours.state_dict()) == list(theirs.state_dict())
    names = [[name for name, _ in model.named_parameters()] for model in pair]
    assert names[0] == names[1]


@torch.no_grad()
def test_bundled_weights_give_equal_numbers(pair):
    theirs, ours = pair
    pixels = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.tokenize(["a teapot", "an apple on the grass", ""])
    for unit in (False, True):
        wanted = theirs.encode_image(pixels, unit), theirs.encode_text(tokens, unit)
        found = ours.encode_image(pixels, unit), ours.encode_text(tokens, unit)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        with torch.backends.mkldnn.flags(enabled=False):  # the same sums in the same order
            assert torch.equal(ours.encode_image(pixels, unit), theirs.encode_image(pixels, unit))
            assert torch.equal(ours.encode_text(tokens, unit), theirs.encode_text(tokens, unit))


def test_gradients_are_equal(pair):
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    gradients = []
    for model in pair:
        features = model.train().encode_image(pixels)
        gradients.append(torch.autograd.grad(features.square().sum(), model.visual.parameters()))
        model.eval()
    assert all(torch.equal(ours, theirs) for theirs, ours in zip(*gradients, strict=True))


def test_plain_architectures_of_open_clip_have_the_same_tensors():
    names = ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14"]
    for config in map(open_clip.get_model_config, names):
        assert network.is_plain(config)
        with torch.device("meta"):
            ours, theirs = network.from_config(config), open_clip.CLIP(**config)
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs)]
        assert shapes[0] == shapes[1]


@torch.no_grad()
def test_quick_gelu_is_that_of_open_clip():
    vision = {"image_size": 48, "patch_size": 16, "width": 32, "head_width": 8, "layers": 3}
    text = {"context_length": 24, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    theirs, ours = open_clip.CLIP(**config).eval(), network.from_config(config).eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(1, 3, 48, 48)
    assert torch.equal(ours.encode_image(pixels), theirs.encode_image(pixels))


@pytest.mark.parametrize(
    "name",
    ["ViT-B-16-SigLIP", "RN50", "ViT-B-16-plus", "coca_ViT-B-32", "xlm-roberta-base-ViT-B-32"],
)
def test_other_shapes_are_left_to_open_clip(name):
    config = open_clip.get_model_config(name)
    assert network.is_plain(config) == (name == "ViT-B-16-plus")


def test_the_network_on_the_meta_device_leaves_the_compiler_alone():
    """`with torch.device("meta")` builds it without an import of torch._dynamo, which takes longer than loading."""
    program = """
import sys, torch
from ovtool.models import network
with torch.device("meta"):
    visual = network.VisionTransformer(network.ImageShape(layers=1), 24)
    network.CLIP(visual, 24, network.TextShape(layers=1))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("method", ["fused", "two-stage"])
def test_naming_a_bundled_model_imports_none_of_the_large_libraries(method, tmp_path):
    """A whole run of segment, its cache of texts empty, imports neither open_clip nor what open_clip imports."""
    Image.new("RGB", (96, 64), "orange").save(tmp_path / "image.png")
    arguments = [
        "segment",
        "image.png",
        "--classes",
        "cat,dog",
        "--model",
        "tiny",
        "--method",
        method,
    ]
    program = f"""
import sys
from ovtool.cli.errors import run
sys.argv = ["ovtool", *{[*arguments, "--proposer", "regions"] if method == "two-stage" else arguments}]
assert run() == 0
imported = {{"open_clip", "torchvision", "transformers"}} & sys.modules.keys()
assert not imported, imported
"""
    environment = {**os.environ, "OVTOOL_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)

"""Small networks of the real classes at random weights."""

import copy
import json

import open_clip
import pytest
import torch
from timm.models import is_model, register_model
from timm.models.vision_transformer import _create_vision_transformer

from ovtool.models import clip as clips
from ovtool.models import sources

TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
NATIVE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "patch_size": 16, "width": 32, "head_width": 8, "layers": 3},
    "text_cfg": TEXT,
}
SIGLIP = {
    "embed_dim": 40,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "vit_tests_patch16_siglip_64",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **TEXT,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}


if not is_model("vit_tests_patch16_siglip_64"):

    @register_model
    def vit_tests_patch16_siglip_64(pretrained=False, **arguments):
        """timm's SigLIP tower in small: map pooling, no class token."""
        size = {"img_size": 64, "patch_size": 16, "embed_dim": 40, "depth": 2, "num_heads": 4}
        kind = {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"}
        return _create_vision_transformer(
            "vit_base_patch16_siglip_224", pretrained=pretrained, **{**size, **kind, **arguments}
        )


def make(config, seed=0):
    """An open_clip network whose biases and norms are random too, so that none can be forgotten unseen."""
    torch.manual_seed(seed)
    arguments = copy.deepcopy(config)
    custom = arguments.pop("custom_text", False)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def native():
    return clips.from_model(make(NATIVE), "small")


@pytest.fixture(scope="session")
def siglip():
    return clips.from_model(make(SIGLIP), "small-siglip")


@pytest.fixture
def build():
    return make


@pytest.fixture
def native_config():
    return copy.deepcopy(NATIVE)


@pytest.fixture
def siglip_config():
    return copy.deepcopy(SIGLIP)


@pytest.fixture
def pixels():
    """Normalised pictures, always the same: pixels(height, width) is (2, 3, height, width)."""

    def make_pixels(height, width):
        generator = torch.Generator().manual_seed(7)
        return torch.randn(2, 3, height, width, generator=generator)

    return make_pixels


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def save(tmp_path):
    """Write a network as `stem`.safetensors with `stem`.json beside it, in a folder of its own."""
    from ovtool.formats import tensors

    def write(model, config, stem="model", words=None, folder="saved", dtype=torch.float32):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
        settings = {} if words is None else {"words": words}
        header = {
            "kind": "clip",
            "format": 1,
            "model": stem,
            "fingerprint": "",
            "settings": settings,
        }
        tensors.save(place / f"{stem}.safetensors", state, header)
        described = {
            "model_cfg": config,
            "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        }
        (place / f"{stem}.json").write_text(json.dumps(described))
        return place / f"{stem}.safetensors"

    return write


@pytest.fixture
def bundled(save, monkeypatch):
    """Stand a network of the bundled configuration, at random weights, in for the bundled one."""
    config = json.loads((sources.bundled_folder() / "tiny.json").read_text())["model_cfg"]
    model = make(config)
    weights = save(
        model, config, "tiny", words=["Teapot", "apple", "polar bear"], dtype=torch.float16
    )
    monkeypatch.setattr(sources, "bundled_folder", lambda: weights.parent)
    return model

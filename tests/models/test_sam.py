"""SAM of transformers at small random weights."""

import numpy as np
import pytest
import torch
from transformers import SamConfig, SamImageProcessor, SamModel

from ovtool.errors import ModelError
from ovtool.models import sam, sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of 64 pixels, as `save_pretrained` writes it."""
    place = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "mlp_dim": 32,
        "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "window_size": 2,
        "global_attn_indexes": [1], "num_pos_feats": 8,
    }  # fmt: skip
    decoder = {
        "hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "num_hidden_layers": 2,
        "iou_head_hidden_dim": 16,
    }  # fmt: skip
    prompts = {"hidden_size": 16, "image_embedding_size": 4, "image_size": 64, "patch_size": 16}
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    SamModel(config).save_pretrained(place)
    size, padded = {"longest_edge": 64}, {"height": 64, "width": 64}
    processor = SamImageProcessor(
        size=size,
        pad_size=padded,
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    processor.save_pretrained(place)
    return place


def test_masks_of_a_grid_of_points(folder):
    loaded = sam.load(str(folder))
    assert len(loaded.weights) == 16
    rgb = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    masks, quality = sam.propose(loaded, rgb, points=4, min_iou=-100.0, min_stability=0.0)
    assert len(masks) and masks.shape[1:] == (40, 64) and masks.dtype == np.bool_
    assert quality.shape == (len(masks),) and np.isfinite(quality).all()
    again, _ = sam.propose(loaded, rgb, points=4, min_iou=-100.0, min_stability=0.0)
    assert np.array_equal(masks, again)


def test_a_picture_in_which_nothing_is_good_enough(folder):
    loaded = sam.load(str(folder))
    masks, quality = sam.propose(loaded, np.zeros((40, 64, 3), np.uint8), points=2, min_iou=100.0)
    assert masks.shape == (0, 40, 64) and quality.shape == (0,)


def test_names_that_cannot_be_had(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    with pytest.raises(ModelError, match="`hf download facebook/none`, or give --proposer regions"):
        sam.load("facebook/none")
    config = (
        (folder / "config.json").read_text().replace('"model_type": "sam"', '"model_type": "vit"')
    )
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a SAM|cannot load"):
        sam.load(str(tmp_path))

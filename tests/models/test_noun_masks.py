"""What a CLIP sees of the masks that nouns are matched with."""

import numpy as np
import pytest
import torch

from ovtool.errors import UsageError
from ovtool.models import clip as clips
from ovtool.models import region_clip
from ovtool.models.noun_masks import NounMasks
from ovtool.settings.pairs import Matching


def test_a_mask_is_seen_as_its_crop_as_its_token_or_as_the_mean_of_both():
    clip, rng = clips.load("tiny"), np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 64, 3), np.uint8)
    masks = np.zeros((2, 40, 64), np.bool_)
    masks[0, 4:20, 8:40], masks[1, 10:, 30:] = True, True
    encode = region_clip.encoder(clip, None, 4)
    crops, tokens, both = (
        NounMasks(clip, Matching(region_features=way), torch.empty(0), {})._regions(rgb, masks, encode)
        for way in ("crops", "tokens", "both")
    )  # fmt: skip
    assert torch.allclose(crops, region_clip.encode_regions(clip, rgb, masks), atol=1e-6)
    assert torch.allclose(tokens, region_clip.encode_region_tokens(clip, rgb, masks), atol=1e-6)
    assert torch.allclose(both, (crops + tokens) / 2, atol=1e-6)


def test_tokens_have_no_crops():
    with pytest.raises(UsageError, match="--crop-size belongs to --region-features crops"):
        Matching(region_features="tokens", crop_size=64).check()

"""The plain EfficientNet-Lite against timm's."""

import copy

import pytest
import torch

from ovtool.models.efficientnet import LITE2, EfficientNetLite, StemShape

timm = pytest.importorskip("timm")
LITE0 = StemShape((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1))


@pytest.fixture(
    scope="module", params=[("tf_efficientnet_lite0", LITE0), ("tf_efficientnet_lite2", LITE2)]
)
def pair(request):
    """timm's network at random weights, and ours with the same."""
    name, shape = request.param
    torch.manual_seed(0)
    theirs = timm.create_model(name, output_stride=16).eval()
    for key, value in theirs.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
    ours = EfficientNetLite(shape)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier")}
    ours.load_state_dict(state)
    return theirs, ours


def test_names_and_their_order_are_timms(pair):
    theirs, ours = pair
    assert list(ours.state_dict()) == list(theirs.state_dict())[:-2]  # but for the classifier


@pytest.mark.parametrize("size", [(64, 96), (75, 50)])
@pytest.mark.parametrize(
    "learns, dtype, tolerance", [(True, torch.float64, 1e-9), (False, torch.float32, 1e-4)]
)
def test_features_are_timms(pair, size, learns, dtype, tolerance):
    """With gradients layer by layer; without, each norm in the weights of its convolution.

    The latter is for float32 alone, in which processors add in different orders.
    """
    theirs, ours = (copy.deepcopy(network).to(dtype) for network in pair)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    close = {"rtol": tolerance, "atol": tolerance}
    with torch.no_grad():
        expected = theirs.forward_features(pixels)
        fifth = theirs.blocks[:5](theirs.bn1(theirs.conv_stem(pixels)))
        last = theirs.blocks[5:](fifth)
    with torch.set_grad_enabled(learns):
        deep, local = ours(pixels)
    assert deep.shape[2:] == (-(-size[0] // 16), -(-size[1] // 16))
    torch.testing.assert_close(deep, expected, **close)
    torch.testing.assert_close(local, torch.cat([fifth, last], 1), **close)


def test_there_is_no_training_mode(pair):
    _, ours = pair
    assert not any(module.training for module in ours.train().modules())

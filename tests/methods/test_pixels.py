import numpy as np
import torch

from ovtool.methods.pixels import standardised, working_size


def test_an_image_is_shown_in_whole_multiples_and_never_endlessly_long():
    assert working_size((100, 200), 64, 16) == (64, 128)
    assert working_size((10, 1000), 64, 32) == (64, 512)
    assert working_size((10, 1000), 64, 32, longest=4) == (64, 256)
    assert working_size((33, 35), 10, 32) == (32, 32)


def test_pixels_are_standardised_channel_by_channel():
    pixels = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, deviation = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    expected = np.moveaxis(pixels.numpy(), 1, -1)
    expected = np.moveaxis((expected - np.array(mean)) / np.array(deviation), -1, 1)
    np.testing.assert_allclose(standardised(pixels, mean, deviation).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(
        standardised(pixels[0], mean, deviation).numpy(), expected[0], atol=1e-6
    )

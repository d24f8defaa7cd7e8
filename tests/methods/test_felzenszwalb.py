"""Superpixels without scipy.ndimage are scikit-image's own, to the bit."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from skimage import data
from skimage._shared.filters import gaussian
from skimage.segmentation import _felzenszwalb_cy as compiled
from skimage.segmentation import felzenszwalb as peer

from ovtool.methods import felzenszwalb

SIZES = [(1, 1), (2, 3), (1, 9), (40, 7), (61, 50)]


@pytest.mark.parametrize("size", SIZES)
def test_smoothing_is_that_of_scipy_to_the_bit(size):
    image = np.random.default_rng(0).normal(size=(*size, 3))
    expected = ndimage.gaussian_filter(image, (0.8, 0.8, 0), mode="reflect")
    np.testing.assert_array_equal(felzenszwalb.smoothed(image), expected)


@pytest.fixture
def theirs(monkeypatch):
    """scikit-image's superpixels with its own smoothing."""

    def cut(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "gaussian", gaussian)
            return peer(*arguments, **options)

    return cut


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_superpixels_are_those_of_scikit_image(theirs, dtype):
    image = (data.astronaut()[100:180, 180:290] / 255).astype(dtype)
    for threads in (1, 2, 5):
        cuts = felzenszwalb.segments(image, (20, 90, 300), 25, threads)
        for scale, cut in zip((20, 90, 300), cuts, strict=True):
            expected = theirs(image, scale=scale, sigma=0.8, min_size=25, channel_axis=-1)
            np.testing.assert_array_equal(cut, expected)
            assert cut.max() > 3


@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_others_have_what_they_had(theirs, sigma):
    """Whoever calls scikit-image in the same process, with this or another deviation, on colours or grey."""
    felzenszwalb.segments(np.zeros((4, 4, 3)), (80,), 2)
    for image in (data.rocket()[:60, 300:360], data.rocket()[:60, 300:360, 0]):
        options = {"scale": 50, "sigma": sigma, "channel_axis": -1 if image.ndim == 3 else None}
        np.testing.assert_array_equal(peer(image, **options), theirs(image, **options))


def test_a_version_that_smooths_elsewhere_is_left_as_it_is(monkeypatch):
    monkeypatch.delattr(compiled, "gaussian")
    assert felzenszwalb._library.__wrapped__() is peer
    assert not hasattr(compiled, "gaussian")


def test_scipy_ndimage_is_not_loaded_and_can_be():
    code = """
import sys, numpy as np
from ovtool.methods import felzenszwalb
felzenszwalb.segments(np.random.rand(9, 9, 3), (80, 20), 4, 2)
assert not [name for name in sys.modules if name.startswith("scipy.ndimage.")]
from scipy import ndimage
assert ndimage.label(np.eye(3))[1] == 3
import scipy.ndimage
assert scipy.ndimage is ndimage and "scipy.ndimage._filters" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""Colours in Lab are scikit-image's, to the bit."""

import numpy as np
from skimage import data
from skimage.color import rgb2lab

from ovtool.methods import lab


def test_every_colour_is_that_of_scikit_image():
    levels = np.array([*range(0, 256, 5), 254], np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 53, 3)
    assert (lab.of_rgb(colours) == rgb2lab(colours).astype(np.float32)).all()


def test_a_photograph_is_that_of_scikit_image():
    photo = data.astronaut()
    assert (lab.of_rgb(photo) == rgb2lab(photo).astype(np.float32)).all()

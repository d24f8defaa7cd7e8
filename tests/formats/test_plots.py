"""Curves as PNG files."""

import numpy as np
from PIL import Image

from ovtool.formats import plots


def test_losses_are_drawn_and_the_same_twice(tmp_path):
    curve = [{"step": step, "loss": 1 / step} for step in range(1, 30)]
    curve[10]["miou"] = 0.5
    plots.losses(tmp_path / "a.png", curve, "a training")
    plots.losses(tmp_path / "b.png", curve, "a training")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert picture.shape == (600, 960, 3)
    ink = (picture < 250).any(-1)
    assert 0.005 < ink.mean() < 0.5

    plots.losses(tmp_path / "c.png", curve[:5], "a training")
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()

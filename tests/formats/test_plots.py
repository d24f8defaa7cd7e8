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


def test_losses_and_accuracies_have_axes_of_their_own():
    curve = [{"step": k, "loss": 9.0 / k, "mask_loss": 1.0, "miou": 0.25} for k in (1, 2, 3)]
    above, below = plots.loss_figure(curve, "a training").axes
    assert [line.get_label() for line in above.lines] == ["loss", "mask_loss"]
    assert [line.get_label() for line in below.lines] == ["miou"]
    assert (above.get_ylabel(), below.get_ylabel()) == ("loss", "share")
    assert below.get_ylim() == (0, 1) and above.get_ylim()[1] > 9
    assert below.get_xlabel() == "step" and above.get_title() == "a training"
    (alone,) = plots.loss_figure([{"step": 1, "loss": 2.0}], "t").axes
    _, bound = plots.loss_figure([{"step": 1, "loss": 2.0, "bound": 1.0}], "t").axes
    assert bound.get_ylabel() == "information at least (nats)"
    assert alone.get_ylabel() == "loss" and alone.get_legend() is None


def test_steps_are_whole():
    figure = plots.loss_figure([{"step": k, "loss": 1 / k} for k in (1, 2, 3)], "a training")
    (axes,) = figure.axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert len([tick for tick in axes.get_xticks() if 1 <= tick <= 3]) >= 2


def test_shares_are_told_by_their_names():
    shares = ("accuracy", "label_accuracy", "patch_accuracy", "miou", "recall", "val_iou")
    assert all(plots.is_share(name) for name in shares)
    assert not any(plots.is_share(name) for name in ("loss", "dice_loss", "temperature", "seconds"))

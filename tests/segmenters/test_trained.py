"""`segment --segmenter`: classes, scales, the CRF, and what makes no sense with it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, label_maps, rle, tensors
from ovtool.models import segmenter as networks
from ovtool.settings.segment import Trained
from ovtool.settings.shared import Run
from ovtool.stages import segment

NAMES = ["red", "background", "blue"]


class Colours(nn.Module):
    """Every pixel by its colour: red, neither, blue."""

    def __init__(self, classes=3):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        weight = torch.tensor([[1.0, -0.5, -0.5], [0.0, 0.0, 0.0], [-0.5, -0.5, 1.0]])
        self.mix.weight.data = 8 * weight[:, :, None, None]
        self.mix.bias.data = torch.tensor([0.0, 3.0, 0.0])

    def forward(self, pixels):
        return self.mix(pixels)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A segmenter that knows red and blue."""
    monkeypatch.setattr(networks, "_light", Colours)
    settings = {"architecture": "tiny", "names": NAMES, "short_side": 48}
    networks.save(tmp_path / "s.safetensors", networks.build("tiny", 3), settings, None)
    return tmp_path / "s.safetensors"


@pytest.fixture
def image(tmp_path):
    """48 x 64 grey with a red block left and a blue one right."""
    rgb = np.full((48, 64, 3), 128, np.uint8)
    rgb[10:30, 4:24], rgb[20:44, 36:60] = (230, 10, 10), (10, 10, 230)
    (tmp_path / "in").mkdir()
    Image.fromarray(rgb).save(tmp_path / "in" / "a.png")
    return rgb


@pytest.fixture
def found(file, image, tmp_path, monkeypatch, segmenting):
    """Segments the image, and gives what was written and its masks by name."""
    monkeypatch.chdir(tmp_path)

    def segmented(**options):
        given = {"method": "trained", "segmenter": file, "device": "cpu", "overwrite": True}
        outcome = segmenting(tmp_path / "in", "o.json", **(given | options))
        names = {each.id: each.name for each in outcome.dataset.categories}
        masks = {
            names[one.category_id]: rle.decode(one.segmentation, 48, 64)
            for one in coco.read(tmp_path / "o.json").annotations
        }
        return outcome, masks

    return segmented


def test_masks_of_its_classes_without_the_background(found, tmp_path):
    outcome, masks = found(label_maps=tmp_path / "maps", overlays=tmp_path / "seen")
    assert [each.name for each in outcome.dataset.categories] == ["red", "blue"]
    red, blue = np.zeros((48, 64), bool), np.zeros((48, 64), bool)
    red[10:30, 4:24], blue[20:44, 36:60] = True, True
    assert np.array_equal(masks["red"], red) and np.array_equal(masks["blue"], blue)
    assert all(0.5 < one.score <= 1 for one in outcome.dataset.annotations)
    labels = label_maps.read(tmp_path / "maps" / "a.png")
    assert np.array_equal(labels, np.select([red, blue], [0, 1], -1))
    assert (tmp_path / "seen" / "a.png").exists()
    made_by = json.loads((tmp_path / "o.json").read_text())["info"]["ovtool"]
    assert made_by["settings"]["method"]["segmenter"] and "model" not in made_by
    assert str(tmp_path) not in json.dumps(made_by)


def test_classes_choose_and_all_compete(found):
    outcome, masks = found(classes="blue,background")
    assert [each.name for each in outcome.dataset.categories] == ["blue", "background"]
    assert masks.keys() == {"blue", "background"}
    assert not masks["background"][10:30, 4:24].any()  # which is red, and nobody asked for it
    _, masks = found(classes="azure|Blue")
    assert masks.keys() == {"azure"}


def test_scales_and_flip_are_used(found, monkeypatch):
    shown = []
    inner = networks.Network.forward

    def watched(self, pixels):
        shown.append(tuple(pixels.shape))
        return inner(self, pixels)

    monkeypatch.setattr(networks.Network, "forward", watched)
    _, masks = found(scales=(0.5, 1), flip=True)
    assert shown == [(2, 3, 24, 32), (2, 3, 48, 64)]
    assert abs(int(masks["red"].sum()) - 400) < 60
    shown.clear()
    found(short_side=96)
    assert shown == [(1, 3, 96, 128)]


def test_with_a_crf_end_to_end(found):
    _, masks = found(crf="weaktr")
    assert abs(int(masks["red"].sum()) - 400) < 40


@pytest.mark.parametrize(
    "option, value",
    [
        ("--vocabulary", {"vocabulary": "voc20"}),
        ("--background", {"background": "none"}),
        ("--classes-per-image", {"classes_per_image": "w.json"}),
        ("--batch-size", {"batch_size": 2}),
    ],
)
def test_options_of_a_clip_are_refused(found, option, value):
    with pytest.raises(UsageError, match=f"^{option} means nothing to --segmenter"):
        found(**value)


def test_bad_requests_are_one_line(found, file, tmp_path):
    with pytest.raises(UsageError, match="knows no class 'pig'; it knows red, background, blue"):
        found(classes="red,pig")
    with pytest.raises(UsageError, match="the class 'red' is named twice"):
        found(classes="red|x,y|red")
    with pytest.raises(UsageError, match="--crf 'sharp' is not one of 'pydensecrf'"):
        found(crf="sharp")
    with pytest.raises(UsageError, match="stands on no CLIP; leave out --model"):
        found(model="tiny")
    with pytest.raises(InputError, match="no such file"):
        found(segmenter=tmp_path / "gone.safetensors")
    tensors.save(tmp_path / "p.safetensors", {"x": torch.zeros(1)}, {"kind": "pacl"})
    with pytest.raises(MismatchError, match="holds a PACL head, .* needed here: a segmenter"):
        found(segmenter=tmp_path / "p.safetensors")
    assert not (tmp_path / "o.json").exists()


def test_a_dry_run_writes_nothing(file, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = segment.run(tmp_path / "in", method=Trained(segmenter=file), run=Run(dry_run=True))
    assert plan.planned == 1 and [each.name for each in plan.dataset.categories] == ["red", "blue"]
    assert not list(tmp_path.glob("*.json"))

"""The steps of a segmenter: losses, optimiser, settings of an architecture, and many ranks as one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ovtool.errors import UsageError
from ovtool.models import segmenter
from ovtool.settings import option
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.trainers import segmenter as segmenter_trainer
from ovtool.training.distributed import Ranks

TINY = SegmenterTraining(architecture="tiny")


def micro(classes):
    """The smallest network, in place of `tiny`."""

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            return {"out": self.norm(self.first(x)).relu()}

    return segmenter.Convolutional(Backbone(), nn.Conv2d(8, classes, 3, 1, 1))


def test_cross_entropy_against_a_slow_twin(monkeypatch):
    monkeypatch.setattr(segmenter, "_light", micro)
    torch.manual_seed(1)
    network = segmenter.build("tiny", 3).double()
    pixels = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    labels = torch.randint(-1, 3, (2, 16, 16))
    found = segmenter_trainer._pixel_losses(
        network, pixels, labels, Ranks(0, 1, torch.device("cpu"))
    )["entropy"].detach()
    with torch.no_grad():
        logits = nn.functional.interpolate(network(pixels), (16, 16), mode="bilinear")
    total = [
        -float(logits[b, :, y, x].log_softmax(0)[labels[b, y, x]])
        for b in range(2) for y in range(16) for x in range(16) if labels[b, y, x] >= 0
    ]  # fmt: skip
    assert abs(float(found) - sum(total) / len(total)) < 1e-9


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr(segmenter, "_light", micro)
    with pytest.raises(UsageError, match="--batch-size 5 cannot be shared by 2 processes"):
        segmenter_trainer.task(
            segmenter.build("tiny", 2),
            lambda step, row: None,
            replace(TINY, batch_size=5),
            Ranks(0, 2, torch.device("cpu")),
        )


def test_rates_and_decays_are_the_recipes(monkeypatch):
    monkeypatch.setattr(segmenter, "_light", micro)
    network = segmenter.build("tiny", 3)
    recipe = segmenter_trainer.RECIPES["deeplabv3_resnet50"]
    slower = {"deeplabv3_resnet50": replace(recipe, backbone_multiplier=0.1)}
    monkeypatch.setattr(segmenter_trainer, "RECIPES", slower)
    training = SegmenterTraining(architecture="deeplabv3_resnet50", lr=1.0)
    training, _ = segmenter_trainer.settled(training, 8)
    optimizer = segmenter_trainer.optimizer_of(network, training)
    assert isinstance(optimizer, torch.optim.SGD)
    place = {
        id(p): (g["lr"], g["weight_decay"] > 0) for g in optimizer.param_groups for p in g["params"]
    }
    for name, parameter in network.named_parameters():
        expected = (0.1 if ".backbone." in name else 1.0, parameter.ndim == 4)
        assert place[id(parameter)] == expected, name


RANKS = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from ovtool.models import segmenter
from ovtool.trainers import segmenter as segmenter_trainer
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.training import checkpoints, distributed, loop

torch.set_default_dtype(torch.float64)

def example(step, row):
    rng = np.random.default_rng([step, row])
    labels = rng.integers(-1, 3, (16, 16)).astype(np.int32)
    labels[: 4 * (row % 4)] = -1  # unevenly ignored
    return rng.integers(0, 256, (16, 16, 3), np.uint8), labels

settings, _ = segmenter_trainer.settled(
    SegmenterTraining(architecture="tiny", steps=5, batch_size=4, lr=1e-3), 4)
with distributed.joined(torch.device("cpu")) as ranks:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    network = segmenter.Network(body)
    distributed.share(network, ranks)
    checkpoint = checkpoints.beside(Path(sys.argv[1]), "a")
    task = segmenter_trainer.task(network, example, settings, ranks)
    curve = loop.train(task, checkpoint, ranks=ranks)
    if ranks.is_first:
        numbers = torch.cat([p.detach().flatten() for p in network.parameters()])
        np.save(sys.argv[1], np.array([*(r["loss"] for r in curve), *numbers.tolist()]))
"""


def test_two_ranks_are_one_process(tmp_path, in_ranks):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    found = []
    for world in (1, 2):
        target = tmp_path / f"{world}.npy"
        in_ranks(world, script, target)
        found.append(np.load(target))
    assert len(found[0]) > 200 and np.abs(found[0] - found[1]).max() < 1e-8


def test_every_architecture_is_known_on_the_command_line():
    architectures = option.fields(SegmenterTraining)["architecture"].choices
    assert architectures == segmenter.ARCHITECTURES == tuple(segmenter_trainer.RECIPES)


@pytest.mark.parametrize("architecture", segmenter.ARCHITECTURES)
def test_an_architecture_fills_what_was_not_given(architecture):
    training = SegmenterTraining(architecture=architecture, short_side=96)
    settled, origins = segmenter_trainer.settled(training, 100)
    recipe = segmenter_trainer.RECIPES[architecture]
    assert (settled.steps, settled.lr, settled.crop_size) == (20_000, recipe.lr, recipe.crop_size)
    assert settled.weight_decay == recipe.weight_decay and settled.warmup == recipe.warmup
    assert settled.short_side == 96 and origins["short_side"] == "given"
    assert origins["lr"] == origins["steps"] == "default"


def test_crops_are_no_larger_than_small_images():
    """At 512 pixels a batch of images of 160 takes more memory than a laptop has; `tiny` keeps its own."""
    for sides, crop_size in (
        ([96, 160], 160),
        ([161], 192),
        ([60], 128),
        ([512, 90], 512),
        ([], 512),
    ):
        settled, _ = segmenter_trainer.settled(SegmenterTraining(), 5, iter(sides))
        assert (settled.crop_size, settled.short_side) == (crop_size, crop_size)
    assert segmenter_trainer.settled(TINY, 5, [160])[0].crop_size == 128
    assert segmenter_trainer.settled(replace(TINY, crop_size=64), 5, [160])[0].crop_size == 64
    assert segmenter_trainer.settled(SegmenterTraining(crop_size=64), 5, [160])[0].crop_size == 64


def test_epochs_are_steps_and_a_warmup_is_a_tenth_at_most():
    settled, _ = segmenter_trainer.settled(replace(TINY, epochs=2.5, batch_size=4), 80)
    assert (settled.steps, settled.warmup) == (50, 5)
    settled, _ = segmenter_trainer.settled(replace(TINY, epochs=2.5, steps=30, warmup=2), 80)
    assert (settled.steps, settled.warmup) == (30, 2)

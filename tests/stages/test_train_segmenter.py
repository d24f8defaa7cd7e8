"""Training a segmenter: what it reads, that it learns, resumes to the same bytes, and many ranks are one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ovtool.batches import label_maps as label_map_batches
from ovtool.errors import InputError, MismatchError, OutputExistsError, UsageError
from ovtool.formats import coco, label_maps, rle, tensors
from ovtool.models import mask_losses, segmenter
from ovtool.stages import train_segmenter
from ovtool.trainers import segmenter as segmenter_trainer
from ovtool.trainers.segmenter import Settings
from ovtool.training.loop import TrainingError

ROOT = Path(__file__).parents[2]
SIDE = 64


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


def blocks(number):
    """A red and a blue block on grey: uint8 (S, S, 3) and the class of each pixel, 0 where grey."""
    random = np.random.default_rng(number)
    rgb, labels = np.full((SIDE, SIDE, 3), 120, np.uint8), np.zeros((SIDE, SIDE), np.int32)
    for category, colour, top in ((1, (220, 20, 20), 4), (2, (20, 20, 220), 36)):
        left = int(random.integers(2, 30))
        labels[top : top + 22, left : left + 26] = category
        rgb[labels == category] = colour
    return rgb, labels


@pytest.fixture
def truth(tmp_path):
    """Eight pictures with the masks of apple, cow and background, the lowest eight rows in doubt:
    pseudo.json and the folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, annotations = [], []
    for number in range(1, 9):
        rgb, labels = blocks(number)
        Image.fromarray(rgb).save(folder / f"{number}.png")
        images.append(coco.Image(number, f"{number}.png", SIDE, SIDE))
        labels[-8:] = -1
        for category in (1, 2, 0):
            mask = rle.encode(labels == category)
            annotations.append(
                coco.annotation(len(annotations) + 1, number, category or 3, mask, None)
            )
    names = ("apple", "cow", "background")
    categories = [coco.Category(id, name) for id, name in enumerate(names, 1)]
    coco.write(coco.Dataset({}, images, annotations, categories), tmp_path / "pseudo.json")
    return tmp_path / "pseudo.json", folder


@pytest.fixture
def maps(truth, tmp_path):
    """The same pictures with label maps: a folder, the class background first."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(1, 9):
        _, labels = blocks(number)
        labels[-8:] = -1
        label_maps.write(folder / f"{number}.png", labels, 3)
    label_maps.write_classes(folder / "classes.txt", ["background", "apple", "cow"])
    return folder


@pytest.fixture
def train(truth, monkeypatch, tmp_path):
    """Runs a short training of the smallest network."""
    monkeypatch.setattr(segmenter, "_light", micro)

    def training(out="s.safetensors", labels=truth[0], **options):
        given = {
            "images": truth[1], "architecture": "tiny", "steps": 6, "batch_size": 4, "side": 32,
            "short_side": 64, "held_out_share": 0.25, "validate_every": 3, "save_every": 2,
            "device": "cpu",
        }  # fmt: skip
        return train_segmenter.run(str(labels), out=tmp_path / out, **(given | options))

    return training


# --- what is read ---------------------------------------------------------------------------------------
def test_what_no_mask_covers_is_ignored(truth):
    labels = label_map_batches.read(str(truth[0]), truth[1])
    assert labels.names == ("apple", "cow", "background") and labels.left_out == 0
    rgb, found = labels.example(2)
    _, true = blocks(3)
    assert rgb.shape == (SIDE, SIDE, 3)
    assert (found[-8:] == -1).all()
    assert np.array_equal(found[:-8], np.array([2, 0, 1])[true[:-8]])


def test_with_background_it_is_a_class(truth, tmp_path):
    labels = label_map_batches.read(str(truth[0]), truth[1], with_background=True)
    assert (labels.example(0)[1][-8:] == 2).all()
    dataset = coco.read(truth[0])
    kept = [one for one in dataset.annotations if one.category_id != 3]
    objects = replace(dataset, annotations=kept, categories=dataset.categories[:2])
    coco.write(objects, tmp_path / "objects.json")
    labels = label_map_batches.read(str(tmp_path / "objects.json"), truth[1], True)
    assert labels.names == ("background", "apple", "cow")
    expected = blocks(5)[1]
    expected[-8:] = 0
    assert np.array_equal(labels.example(4)[1], expected)


def test_label_maps_say_the_same(truth, maps):
    labels = label_map_batches.read(str(maps), truth[1])
    assert labels.names == ("background", "apple", "cow")
    expected = blocks(1)[1]
    expected[-8:] = -1
    assert np.array_equal(labels.example(0)[1], expected)


def test_pictures_in_which_all_is_ignored_are_left_out(truth, maps):
    label_maps.write(maps / "3.png", np.full((SIDE, SIDE), -1), 3)
    labels = label_map_batches.read(str(maps), truth[1])
    assert labels.left_out == 1 and "3" not in labels.keys and len(labels.pictures) == 7
    assert label_map_batches.read(str(maps), truth[1], with_background=True).left_out == 0


def test_bad_labels_are_one_line(truth, maps, tmp_path):
    read = label_map_batches.read
    dataset = coco.read(truth[0])
    coco.write(replace(dataset, annotations=[]), tmp_path / "empty.json")
    with pytest.raises(InputError, match="empty.json: every pixel is ignored"):
        read(str(tmp_path / "empty.json"), truth[1])
    one = [entry for entry in dataset.annotations if entry.category_id == 1]
    coco.write(
        replace(dataset, annotations=one, categories=dataset.categories[:1]), tmp_path / "one.json"
    )
    with pytest.raises(UsageError, match="one class, apple: .* give --with-background"):
        read(str(tmp_path / "one.json"), truth[1])
    with pytest.raises(UsageError, match="needs --images DIR"):
        read(str(truth[0]), None)
    with pytest.raises(InputError, match="no such folder"):
        read(str(truth[0]), tmp_path / "gone")
    (truth[1] / "5.png").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the 8 pictures .*\(the first is 5.png\)"):
        read(str(truth[0]), truth[1])
    (maps / "5.png").unlink()
    Image.fromarray(np.zeros((SIDE, 32, 3), np.uint8)).save(truth[1] / "2.png")
    with pytest.raises(InputError, match="2.png has 32 x 64 pixels, and its labels .* 64 x 64"):
        read(str(maps), truth[1])
    with pytest.raises(InputError, match="2.png has 32 x 64 pixels"):
        coco.write(
            replace(
                dataset,
                images=[dataset.images[1]],
                annotations=[one for one in dataset.annotations if one.image_id == 2],
            ),
            tmp_path / "two.json",
        )
        read(str(tmp_path / "two.json"), truth[1]).example(0)
    label_maps.write(maps / "1.png", np.full((SIDE, SIDE), 7), 8)
    with pytest.raises(InputError, match="1 holds the label 7, but classes.txt names 3 classes"):
        read(str(maps), truth[1])


def test_a_validation_takes_the_segmenters_classes(truth, maps, tmp_path):
    def found(names, source=truth[0]):
        return label_map_batches.read_truth(str(source), truth[1], names).example(0)[1]

    _, true = blocks(1)
    doubt = np.arange(SIDE)[:, None].repeat(SIDE, 1) >= SIDE - 8
    # the apple, which is not known, is background; what the labels leave in doubt is ignored
    expected = np.where(doubt, -1, np.array([0, 0, 1])[true])
    assert np.array_equal(found(("background", "cow", "pig")), expected)
    assert np.array_equal(found(("background", "cow", "pig"), maps), expected)
    expected = np.where(doubt, -1, np.array([-1, -1, 0])[true])
    assert np.array_equal(found(("cow", "pig")), expected)
    # masks without a background: what they leave is background
    dataset = coco.read(truth[0])
    kept = [one for one in dataset.annotations if one.category_id == 2]
    objects = replace(dataset, annotations=kept, categories=dataset.categories[1:2])
    coco.write(objects, tmp_path / "objects.json")
    expected = np.where((true == 2) & ~doubt, 1, 0)
    assert np.array_equal(found(("background", "cow"), tmp_path / "objects.json"), expected)
    with pytest.raises(MismatchError, match="has none of the classes that are learned"):
        found(("background", "pig"))


# --- augmentation -----------------------------------------------------------------------------------------
def test_pixels_and_labels_stay_together():
    rgb, labels = blocks(1)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pixels, found = label_map_batches.augment(rng, rgb, labels, 48, (0.5, 2.0))
        assert pixels.shape == (48, 48, 3) and found.shape == (48, 48)
        red = pixels[..., 0].astype(int) - pixels[..., 2]
        inside = [red[found == category] for category in (1, 2)]
        if len(inside[0]) > 50:
            assert np.median(inside[0]) > 30
        if len(inside[1]) > 50:
            assert np.median(inside[1]) < -30
        assert ((found == -1) <= (pixels == 128).all(-1)).all()  # beyond the picture: grey, ignored


def test_an_epoch_shows_every_picture_once(truth):
    labels = label_map_batches.read(str(truth[0]), truth[1])
    seen = []
    watched = replace(labels, pictures=list(range(8)))
    object.__setattr__(watched, "example", lambda row: seen.append(row) or blocks(row))
    of = label_map_batches.examples_of(watched, [1, 3, 5, 7], 0, 2, 32, (1.0, 1.0))
    first = [of(step, row) for step in range(2) for row in range(2)]
    assert sorted(seen) == [1, 3, 5, 7]
    again = [of(step, row) for step in range(2) for row in range(2)]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


# --- losses -------------------------------------------------------------------------------------------------
def test_ignored_pixels_change_no_loss_of_maskformer():
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 3, 3), torch.randn(1, 3, 8, 8, requires_grad=True)
    true = torch.zeros(2, 8, 8)
    true[0, :4, :4], true[1, :4, 4:] = 1, 1
    ignored = torch.zeros(8, 8, dtype=torch.bool)
    ignored[4:] = True
    labels = torch.tensor([0, 1])
    targets = mask_losses.Targets([true], [labels], [ignored])
    cut = mask_losses.Targets([true[:, :4]], [labels])
    found = mask_losses.layer_losses(logits, masks, targets, targets.counts(3))
    short = mask_losses.layer_losses(logits, masks[:, :, :4], cut, cut.counts(3))
    assert torch.allclose(found["dice"], short["dice"])
    # transformers' focal loss is a mean over pixels, of which half are ignored
    assert torch.allclose(2 * found["mask"], short["mask"])
    (found["dice"] + found["mask"]).backward()
    assert not masks.grad[:, :, 4:].any() and masks.grad[:, :, :4].any()


def test_cross_entropy_against_a_slow_twin(monkeypatch):
    monkeypatch.setattr(segmenter, "_light", micro)
    from ovtool.training.distributed import Ranks

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


# --- training -----------------------------------------------------------------------------------------------
def test_a_training_leaves_a_segmenter_and_its_curve(train, tmp_path):
    found = train()
    loaded = segmenter.load(tmp_path / "s.safetensors")
    assert loaded.names == ("apple", "cow", "background") and loaded.background == 2
    header = tensors.read_header(tmp_path / "s.safetensors")
    settings = header["settings"]
    assert [record["step"] for record in settings["curve"]] == [1, 2, 3, 4, 5, 6]
    assert settings["curve"][2].keys() == {"step", "loss", "miou"}
    assert settings["validation"] == "held-out labels" and settings["short_side"] == 64
    assert str(tmp_path) not in str(header)
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert (found["images"], found["held_out"], found["left_out"], found["names"]) == (6, 2, 0, 3)
    assert sorted(p.name for p in tmp_path.glob("s.*")) == ["s.png", "s.safetensors"]


def test_it_learns(train):
    found = train(steps=150, rate=2e-2, validate_every=150)
    assert found["last"]["miou"] > 0.9


def test_label_maps_train_it_and_a_truth_measures_it(train, truth, maps, tmp_path):
    found = train(labels=maps, validation=str(truth[0]), steps=3)
    assert (found["images"], found["held_out"]) == (8, 0) and "miou" in found["last"]
    header = tensors.read_header(tmp_path / "s.safetensors")
    assert header["settings"]["validation"] not in ("held-out labels", None)
    with pytest.raises(MismatchError, match="has none of the classes"):
        dataset = coco.read(truth[0])
        named = [replace(each, name=f"no {each.name}") for each in dataset.categories]
        coco.write(replace(dataset, categories=named), tmp_path / "other.json")
        train("o.safetensors", labels=maps, validation=str(tmp_path / "other.json"))


@pytest.mark.slow
def test_maskformer_learns_too(train):
    options = {"architecture": "maskformer-tiny", "side": 64, "batch_size": 4, "warmup": 5}
    found = train(steps=60, validate_every=60, rate=2e-3, **options)
    assert found["last"]["miou"] > 0.5


@pytest.mark.slow
def test_a_decoder_on_a_clip_learns_too(train, tmp_path):
    found = train(architecture="clip", model="tiny", side=64, steps=40, validate_every=40)
    assert found["last"]["miou"] > 0.6 and found["backbone"] == "tiny"
    assert tensors.read_header(tmp_path / "s.safetensors")["model"] == "tiny"


def test_a_random_backbone_is_said_in_one_line(train, monkeypatch):
    said = []
    monkeypatch.setattr(
        train_segmenter._logger, "warning", lambda text, *given: said.append(text % given)
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    train(steps=1, held_out_share=0.0)
    (line,) = said
    assert line.startswith("the backbone of tiny begins at random weights") and "resnet18" in line


def test_resume_gives_the_same_bytes(train, tmp_path, monkeypatch):
    train("whole.safetensors")
    inner = segmenter_trainer._pixel_losses
    calls = []

    def cut(*arguments):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(segmenter_trainer, "_pixel_losses", cut)
    with pytest.raises(KeyboardInterrupt):
        train("cut.safetensors")
    monkeypatch.setattr(segmenter_trainer, "_pixel_losses", inner)
    assert not (tmp_path / "cut.safetensors").exists()
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        train("cut.safetensors")
    with pytest.raises(MismatchError, match="other data or settings"):
        train("cut.safetensors", resume=True, rate=0.5)
    train("cut.safetensors", resume=True)
    for name in ("safetensors", "png"):
        whole, resumed = (tmp_path / f"{stem}.{name}" for stem in ("whole", "cut"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_nan_names_the_step_and_keeps_the_checkpoint(train, tmp_path, monkeypatch):
    inner = segmenter_trainer._pixel_losses
    calls = []

    def broken(*arguments):
        calls.append(1)
        found = inner(*arguments)
        return {"entropy": found["entropy"] * torch.nan} if len(calls) == 4 else found

    monkeypatch.setattr(segmenter_trainer, "_pixel_losses", broken)
    with pytest.raises(TrainingError, match="nan at step 4.*last good step"):
        train(validate_every=0)
    kept = torch.load(tmp_path / "s.safetensors.checkpoint", weights_only=True)
    assert len(kept["curve"]) == 2 and not (tmp_path / "s.safetensors").exists()


def test_bad_requests(train, tmp_path):
    with pytest.raises(UsageError, match="unknown architecture 'vgg'; choose from tiny"):
        train(architecture="vgg")
    with pytest.raises(UsageError, match="--batch-size 1: batch norm needs two"):
        train(batch_size=1)
    with pytest.raises(UsageError, match="--model is the CLIP under --arch clip"):
        train(model="tiny")
    (tmp_path / "s.png").write_bytes(b"")
    with pytest.raises(OutputExistsError, match="s.png exists"):
        train()


def test_a_batch_that_cannot_be_shared(monkeypatch, tmp_path):
    from ovtool.training import checkpoints
    from ovtool.training.distributed import Ranks

    monkeypatch.setattr(segmenter, "_light", micro)
    with pytest.raises(UsageError, match="--batch-size 5 cannot be shared by 2 processes"):
        segmenter_trainer.fit(
            segmenter.build("tiny", 2), lambda step, row: None, Settings("tiny", batch_size=5),
            checkpoints.beside(tmp_path / "x", "a"), ranks=Ranks(0, 2, torch.device("cpu")),
        )  # fmt: skip


def test_rates_and_decays_are_the_recipes(monkeypatch):
    monkeypatch.setattr(segmenter, "_light", micro)
    network = segmenter.build("tiny", 3)
    recipe = replace(
        segmenter_trainer.RECIPES["deeplabv3_resnet50"], rate=1.0, backbone_multiplier=0.1
    )
    optimizer = segmenter_trainer.optimizer_of(network, recipe)
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
from ovtool.training import checkpoints, distributed

torch.set_default_dtype(torch.float64)

def example(step, row):
    rng = np.random.default_rng([step, row])
    labels = rng.integers(-1, 3, (16, 16)).astype(np.int32)
    labels[: 4 * (row % 4)] = -1  # unevenly ignored
    return rng.integers(0, 256, (16, 16, 3), np.uint8), labels

settings = segmenter_trainer.Settings("tiny", steps=5, batch_size=4, rate=1e-3)
with distributed.joined(torch.device("cpu")) as ranks:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    network = segmenter.Network(body)
    distributed.share(network, ranks)
    checkpoint = checkpoints.beside(Path(sys.argv[1]), "a")
    curve = segmenter_trainer.fit(network, example, settings, checkpoint, ranks=ranks)
    if ranks.is_first:
        numbers = torch.cat([p.detach().flatten() for p in network.parameters()])
        np.save(sys.argv[1], np.array([*(r["loss"] for r in curve), *numbers.tolist()]))
"""


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_ranks_are_one_process(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found = []
    for index, starter in enumerate(([sys.executable], torchrun)):
        target = tmp_path / f"{index}.npy"
        done = subprocess.run(
            [*starter, str(script), str(target)],
            capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(np.load(target))
    assert len(found[0]) > 200 and np.abs(found[0] - found[1]).max() < 1e-8


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(truth, tmp_path):
    """kill -9 at some step of a training by the command line."""

    def command(out, *more):
        return [
            sys.executable, "-m", "ovtool", "train-segmenter", str(truth[0]), "--images",
            str(truth[1]), "--arch", "tiny", "--steps", "12", "--batch-size", "2", "--crop-size",
            "32", "--save-every", "1", "--held-out", "0", "--device", "cpu", "-o",
            str(tmp_path / out), *more,
        ]  # fmt: skip

    subprocess.run(command("whole.safetensors"), check=True, env=environment(), cwd=ROOT)
    running = subprocess.Popen(command("cut.safetensors"), env=environment(), cwd=ROOT)
    kept = tmp_path / "cut.safetensors.checkpoint"
    for _ in range(3000):
        if kept.exists() or running.poll() is not None:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert kept.exists() and not (tmp_path / "cut.safetensors").exists()
    subprocess.run(command("cut.safetensors", "--resume"), check=True, env=environment(), cwd=ROOT)
    for name in ("safetensors", "png"):
        whole, resumed = (tmp_path / f"{stem}.{name}" for stem in ("whole", "cut"))
        assert whole.read_bytes() == resumed.read_bytes()

"""`scripts/bundle/train_tiny.py`: a run that was cut off ends as one that was not."""

import argparse
import importlib.util
from pathlib import Path

import pytest
import torch

from ovtool.datasets import art
from ovtool.formats import tensors
from ovtool.models import clip as clips

SCRIPT = Path(__file__).parents[2] / "scripts" / "bundle" / "train_tiny.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_tiny", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def borrowed_art(monkeypatch):
    """The training drawings are not at hand in a test; any drawings do."""
    monkeypatch.setattr(art, "train_drawings", lambda styles: art.twemoji_drawings())


def options(checkpoint, pictures):
    return argparse.Namespace(
        pictures=pictures, batch_size=4, rate=1e-3, seed=3, device="cpu", compile=False, workers=0,
        save_every=2, checkpoint=checkpoint, snapshots=None, snapshot_every=2,
    )  # fmt: skip


def test_resumed_training_ends_as_an_uninterrupted_one(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LOG_EVERY", 2)
    whole = script.train(options(tmp_path / "whole.pt", 24))
    assert whole.step == 6

    class Killed(Exception):
        pass

    advance = script.Training.advance

    def dies_at_the_fourth_step(training, loss, rate):
        if training.step == 3:
            raise Killed
        advance(training, loss, rate)

    monkeypatch.setattr(script.Training, "advance", dies_at_the_fourth_step)
    with pytest.raises(Killed):
        script.train(options(tmp_path / "cut.pt", 24))
    monkeypatch.setattr(script.Training, "advance", advance)
    resumed = script.train(options(tmp_path / "cut.pt", 24))
    assert [line["pictures"] for line in resumed.log] == [8, 16, 24]
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


def test_schedule_rises_stays_and_falls(script):
    schedule = script.Schedule(steps=1000, peak=1.0, warmup=100)
    assert schedule.rate(0) == pytest.approx(0.01)
    assert schedule.rate(99) == schedule.rate(500) == schedule.rate(800) == 1.0
    assert schedule.rate(900) == pytest.approx(0.5)
    assert 0 < schedule.rate(999) < 0.01


def test_patches_are_embedded_as_maskclip_reads_them(script):
    """What the patch loss trains is what `--last-block maskclip` shows."""
    torch.manual_seed(0)
    training = script.Training(0, torch.device("cpu"))
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        whole, places = script.encode_pictures(
            training.model, pixels, torch.zeros(2, dtype=torch.int64), 64
        )
    clip = clips.from_model(training.model, "random")
    found = clips.patch_features(clip, pixels, "maskclip").flatten(1, 2)
    torch.testing.assert_close(places, found, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, clips.encode_images(clip, pixels), atol=1e-5, rtol=0)


def test_patch_loss_is_least_where_every_patch_says_a_word_of_its_picture(script):
    words = torch.eye(221)
    batch = argparse.Namespace(nouns=torch.zeros(1, 209), grounds=torch.zeros(1, 12))
    batch.nouns[0, 5], batch.grounds[0, 2] = 1, 1
    right = torch.eye(221)[[5] * 8 + [211] * 8][None]
    wrong = torch.eye(221)[[5] * 8 + [212] * 8][None]
    scale = torch.tensor(30.0)
    least = script.patch_loss(right, words, scale, batch)
    assert least == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    assert script.patch_loss(wrong, words, scale, batch) > least + 1


def test_export_is_a_model_that_loads(script, tmp_path):
    training = script.Training(1, torch.device("cpu"))
    (tmp_path / "tiny.json").write_text(script.CONFIG.read_text())
    script.export(training.average, tmp_path / "tiny.safetensors", [{"pictures": 1}], 1)
    header = tensors.read_header(tmp_path / "tiny.safetensors")
    assert header["kind"] == "clip" and "teapot" in header["settings"]["words"]
    clip = clips.load(str(tmp_path / "tiny.safetensors"))
    assert clip.default_last_block == "maskclip" and clip.fingerprint == header["fingerprint"]

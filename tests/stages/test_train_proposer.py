"""`train-proposer`: it learns, resumes to the same bytes, plans, and says in one line what is wrong."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MaskFormerConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import coco, rle, tensors
from ovtool.models import mask_losses, maskformer
from ovtool.settings.proposer import ProposerTraining
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_proposer
from ovtool.training.loop import TrainingError

ROOT = Path(__file__).parents[2]
SIDE = 64
PLAIN, RESUMED = Run(), Run(resume=True)


def micro(architecture="tiny", queries=6):
    """The smallest network, in place of any architecture."""
    backbone = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = MaskFormerDetrConfig(
        encoder_layers=0,
        num_queries=queries,
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        dropout=0.0,
    )
    return MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=16
    )


@pytest.fixture
def truth(tmp_path):
    """Eight images of a red and a blue block on grey, with their masks; truth.json and the folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        rgb = np.full((SIDE, SIDE, 3), 120, np.uint8)
        for category, colour, top in ((1, (220, 20, 20), 4), (2, (20, 20, 220), 36)):
            left = int(random.integers(2, 30))
            mask = np.zeros((SIDE, SIDE), bool)
            mask[top : top + 22, left : left + 26] = True
            rgb[mask] = colour
            annotations.append(
                coco.annotation(len(annotations) + 1, number, category, rle.encode(mask), None)
            )
        Image.fromarray(rgb).save(folder / f"{number}.png")
        images.append(coco.Image(number, f"{number}.png", SIDE, SIDE))
    categories = [coco.Category(1, "apple"), coco.Category(2, "cow")]
    coco.write(coco.Dataset({}, images, annotations, categories), tmp_path / "truth.json")
    return tmp_path / "truth.json", folder


@pytest.fixture
def train(truth, loads_small, monkeypatch, tmp_path):
    """Runs a short training of the smallest network."""
    monkeypatch.setattr(maskformer, "configuration", micro)

    def training(out="p.safetensors", images=truth[1], run=PLAIN, threads=None, **given):
        fields = {
            "architecture": "tiny", "queries": 6, "steps": 6, "batch_size": 4, "crop_size": 64,
            "templates": "one", "held_out": 0.25, "validate_every": 3, "save_every": 2,
        }  # fmt: skip
        return train_proposer.run(
            truth[0],
            ProposerTraining(**(fields | given)),
            images=images,
            out=tmp_path / out,
            compute=Compute(device="cpu", threads=threads),
            run=run,
        )

    return training


def test_a_training_leaves_a_proposer_and_its_curve(train, small, tmp_path):
    trained = train()
    loaded = maskformer.load(tmp_path / "p.safetensors", small)
    assert loaded.names == ("apple", "cow") and loaded.short_side == 64
    header = tensors.read_header(tmp_path / "p.safetensors")
    curve = header["settings"]["curve"]
    assert [record["step"] for record in curve] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "class", "mask", "dice", "recall", "miou"} == curve[2].keys() - {"step"}
    assert str(tmp_path) not in str(header)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert trained.counts == {"images": 6, "held_out": 2, "names": 2}
    assert trained.steps == 6 and not trained.is_plan
    assert sorted(p.name for p in tmp_path.glob("p.*")) == ["p.png", "p.safetensors"]


def test_it_learns(train, tmp_path):
    trained = train(steps=120, batch_size=8, lr=3e-3, validate_every=120)
    curve = tensors.read_header(tmp_path / "p.safetensors")["settings"]["curve"]
    for name, share in (("loss", 0.4), ("class", 0.4), ("mask", 0.6), ("dice", 0.95)):
        assert curve[-1][name] < share * curve[0][name], name
    assert 0 <= trained.last["recall"] <= 1 and 0 < trained.last["miou"] <= 1


def test_the_words_weight_leaves_the_masks_losses_alone(train, tmp_path):
    whole, quarter = (
        train(f"{weight}.safetensors", steps=1, validate_every=0, class_weight=weight).last
        for weight in (1.0, 0.25)
    )
    assert quarter["class"] == pytest.approx(whole["class"] / 4, rel=1e-4)
    assert quarter["mask"] == pytest.approx(whole["mask"], rel=1e-4)


@pytest.mark.slow
def test_it_learns_to_find_and_to_name(train):
    trained = train(steps=300, batch_size=8, lr=1e-2, warmup=10, validate_every=300)
    assert trained.last["recall"] > 0.6 and trained.last["miou"] > 0.8


def cut_off(train, monkeypatch):
    """Leaves the checkpoint of the first four steps."""
    with monkeypatch.context() as patched:
        inner = mask_losses.layer_losses
        calls = []

        def cut(*arguments):
            calls.append(1)
            if len(calls) > 2 * 4:  # two layers a step: cut off in the fifth
                raise KeyboardInterrupt
            return inner(*arguments)

        patched.setattr(mask_losses, "layer_losses", cut)
        with pytest.raises(KeyboardInterrupt):
            train()


def test_resume_gives_the_same_bytes(train, tmp_path, monkeypatch):
    train("whole.safetensors")
    cut_off(partial(train, "cut.safetensors"), monkeypatch)
    assert not (tmp_path / "cut.safetensors").exists()
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        train("cut.safetensors")
    with pytest.raises(MismatchError, match="other data or settings"):
        train("cut.safetensors", run=RESUMED, lr=0.5)
    train("cut.safetensors", run=RESUMED)
    for name in ("safetensors", "png"):
        whole, resumed = (tmp_path / f"{stem}.{name}" for stem in ("whole", "cut"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_nan_names_the_step_and_keeps_the_checkpoint(train, tmp_path, monkeypatch):
    inner = maskformer.normalise
    calls = []

    def broken(rgb):
        calls.append(1)
        pixels = inner(rgb)
        return pixels * torch.nan if len(calls) == 4 else pixels

    monkeypatch.setattr(maskformer, "normalise", broken)
    with pytest.raises(TrainingError, match="nan at step 4.*last good step"):
        train(validate_every=0)
    kept = torch.load(tmp_path / "p.safetensors.checkpoint", weights_only=True)
    assert len(kept["curve"]) == 2
    assert all(value.isfinite().all() for value in kept["modules"]["network"].values())
    assert not (tmp_path / "p.safetensors").exists()


def test_bad_requests(train, truth, tmp_path):
    with pytest.raises(UsageError, match="--arch 'vgg' is not one of 'tiny'"):
        train(architecture="vgg")
    with pytest.raises(UsageError, match="--targets 'boxes' is not one of 'categories'"):
        train(targets="boxes")
    with pytest.raises(UsageError, match="needs --images DIR"):
        train(images=None)
    with pytest.raises(InputError, match="holds none of the images"):
        train(images=tmp_path)
    (tmp_path / "p.png").write_bytes(b"")
    with pytest.raises(OutputExistsError, match="p.png exists"):
        train()
    (tmp_path / "p.png").unlink()
    dataset = coco.read(truth[0])
    coco.write(replace(dataset, annotations=[]), truth[0])
    with pytest.raises(InputError, match="no image of the truth has a mask"):
        train()
    truth[0].write_text("{")
    with pytest.raises(InputError, match="truth.json"):
        train()
    assert not list(tmp_path.glob("p.*"))


def test_images_that_cannot_be_read_are_left_out(train, truth, tmp_path, caplog):
    content = (truth[1] / "3.png").read_bytes()
    (truth[1] / "3.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (30, 20)).save(truth[1] / "5.png")
    (truth[1] / "6.png").unlink()
    trained = train(held_out=0.0, validate_every=0, steps=1)
    assert trained.counts == {"images": 5, "held_out": 0, "names": 2}
    assert [failure["file_name"] for failure in trained.failures] == ["3.png", "5.png", "6.png"]
    settings = tensors.read_header(tmp_path / "p.safetensors")["settings"]
    assert settings["failures"] == list(trained.failures) and str(tmp_path) not in str(settings)
    (said,) = (text for text in caplog.messages if "left out" in text)
    assert said.startswith("left out 3 of the 8 images of the truth: 3.png is truncated")
    assert said.endswith("; 5.png has 30 x 20 pixels, and its masks 64 x 64; no such file: 6.png")
    with pytest.raises(InputError, match="^3.png is truncated or damaged"):
        train("q.safetensors", run=Run(strict=True))


def test_a_broken_image_is_one_line(train, truth):
    for path in truth[1].iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"\d.png is truncated or damaged"):
        train()


def test_a_resume_on_other_data_or_threads_is_refused(train, truth, monkeypatch):
    cut_off(train, monkeypatch)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(MismatchError, match="other data or settings"):
            train(run=RESUMED, threads=threads + 1)
    finally:
        torch.set_num_threads(threads)
    before = truth[0].read_bytes()
    dataset = coco.read(truth[0])
    coco.write(replace(dataset, annotations=dataset.annotations[1:]), truth[0])
    with pytest.raises(MismatchError, match="other data or settings"):
        train(run=RESUMED)
    truth[0].write_bytes(before)
    assert train(run=RESUMED).last["step"] == 6


def test_out_of_memory_ends_in_one_line(train, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(mask_losses, "layer_losses", full)
    with pytest.raises(OvtoolError) as caught:
        train()
    assert re.fullmatch(
        r"out of memory while training the proposer: \d+\.\d GB were free; give a smaller --batch-size or "
        r"--crop-size \(no checkpoint was written yet\)",
        str(caught.value),
    )


def test_a_plan_counts_and_writes_nothing(train, tmp_path):
    plan = train(run=Run(dry_run=True), steps=None, epochs=2)
    assert plan.is_plan and not plan.last and plan.notes == {"backbone": None}
    assert plan.counts == {"images": 6, "held_out": 2, "names": 2}
    assert plan.steps == 3  # 2 epochs of 6 images, 4 in a step
    assert plan.parameters["network"] > 10_000
    assert plan.outputs.file == tmp_path / "p.safetensors" and not list(tmp_path.glob("p.*"))


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(truth, tmp_path):
    """kill -9 at some step of a training by the command line."""

    def command(out, *more):
        return [
            sys.executable, "-m", "ovtool", "train-proposer", str(truth[0]), "--images",
            str(truth[1]), "--model", "tiny", "--arch", "tiny", "--queries", "4", "--steps", "30",
            "--batch-size", "2", "--crop-size", "32", "--templates", "one", "--save-every", "1",
            "--held-out", "0", "--device", "cpu", "-o", str(tmp_path / out), *more,
        ]  # fmt: skip

    subprocess.run(command("whole.safetensors"), check=True, env=environment(), cwd=ROOT)
    running = subprocess.Popen(command("cut.safetensors"), env=environment(), cwd=ROOT)
    kept = tmp_path / "cut.safetensors.checkpoint"
    for _ in range(3000):
        if kept.exists() or running.poll() is not None:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert kept.exists() and not (tmp_path / "cut.safetensors").exists()
    subprocess.run(command("cut.safetensors", "--resume"), check=True, env=environment(), cwd=ROOT)
    assert (tmp_path / "cut.safetensors").read_bytes() == (
        tmp_path / "whole.safetensors"
    ).read_bytes()

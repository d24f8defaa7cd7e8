"""`train-segmenter`: it learns, resumes to the same bytes, plans, and says in one line what is wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import coco, tensors
from ovtool.models import segmenter
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_segmenter
from ovtool.trainers import pixel_networks
from ovtool.trainers import segmenter as segmenter_trainer
from ovtool.training.loop import TrainingError

ROOT = Path(__file__).parents[2]
PLAIN, RESUMED = Run(), Run(resume=True)


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


@pytest.fixture
def train(pseudo, monkeypatch, tmp_path):
    """Runs a short training of the smallest network."""
    monkeypatch.setattr(segmenter, "_light", micro)

    def training(
        out="s.safetensors",
        labels=pseudo[0],
        validation=None,
        validation_images=None,
        run=PLAIN,
        model=None,
        threads=None,
        **given,
    ):
        fields = {
            "architecture": "tiny", "steps": 6, "batch_size": 4, "crop_size": 32, "short_side": 64,
            "held_out": 0.25, "validate_every": 3, "save_every": 2,
        }  # fmt: skip
        return train_segmenter.run(
            labels,
            SegmenterTraining(**(fields | given)),
            images=pseudo[1],
            validation=validation,
            validation_images=validation_images,
            out=tmp_path / out,
            compute=Compute(model=model, device="cpu", threads=threads),
            run=run,
        )

    return training


def test_a_training_leaves_a_segmenter_and_its_curve(train, tmp_path):
    trained = train()
    loaded = segmenter.load(tmp_path / "s.safetensors")
    assert loaded.names == ("apple", "cow", "background") and loaded.background == 2
    header = tensors.read_header(tmp_path / "s.safetensors")
    settings = header["settings"]
    assert [record["step"] for record in settings["curve"]] == [1, 2, 3, 4, 5, 6]
    assert settings["curve"][2].keys() == {"step", "loss", "miou"}
    assert settings["validation"] == "held-out labels" and settings["short_side"] == 64
    assert str(tmp_path) not in str(header)
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    counts = {"images": 6, "held_out": 2, "left_out": 0, "names": 3}
    assert trained.counts == counts and trained.steps == 6 and not trained.is_plan
    assert sorted(p.name for p in tmp_path.glob("s.*")) == ["s.png", "s.safetensors"]


def test_it_learns(train):
    trained = train(steps=150, lr=2e-2, validate_every=150)
    assert trained.last["miou"] > 0.9


def test_label_maps_train_it_and_a_truth_measures_it(train, pseudo, block_maps, tmp_path):
    trained = train(labels=block_maps, validation=str(pseudo[0]), steps=3)
    assert (trained.counts["images"], trained.counts["held_out"]) == (8, 0)
    assert "miou" in trained.last
    header = tensors.read_header(tmp_path / "s.safetensors")
    assert header["settings"]["validation"] not in ("held-out labels", None)
    with pytest.raises(MismatchError, match="has none of the classes"):
        dataset = coco.read(pseudo[0])
        named = [replace(each, name=f"no {each.name}") for each in dataset.categories]
        coco.write(replace(dataset, categories=named), tmp_path / "other.json")
        train("o.safetensors", labels=block_maps, validation=str(tmp_path / "other.json"))


@pytest.mark.slow
def test_maskformer_learns_too(train):
    options = {"architecture": "maskformer-tiny", "crop_size": 64, "batch_size": 4, "warmup": 5}
    trained = train(steps=60, validate_every=60, lr=2e-3, **options)
    assert trained.last["miou"] > 0.5


@pytest.mark.slow
def test_a_decoder_on_a_clip_learns_too(train, tmp_path):
    trained = train(architecture="clip", model="tiny", crop_size=64, steps=40, validate_every=40)
    assert trained.last["miou"] > 0.6 and trained.notes["backbone"] == "tiny"
    assert tensors.read_header(tmp_path / "s.safetensors")["model"] == "tiny"


def test_a_random_backbone_is_said_in_one_line(train, monkeypatch):
    said = []
    monkeypatch.setattr(
        pixel_networks._logger, "warning", lambda text, *given: said.append(text % given)
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    train(steps=1, held_out=0.0)
    (line,) = said
    assert line.startswith("the backbone of tiny begins at random weights") and "resnet18" in line


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
    with pytest.raises(UsageError, match="--arch 'vgg' is not one of 'tiny'"):
        train(architecture="vgg")
    with pytest.raises(UsageError, match="--batch-size 1: batch norm needs two"):
        train(batch_size=1)
    with pytest.raises(UsageError, match="--model is the CLIP under --arch clip"):
        train(model="tiny")
    (tmp_path / "s.png").write_bytes(b"")
    with pytest.raises(OutputExistsError, match="s.png exists"):
        train()


def test_a_resume_on_other_data_or_threads_is_refused(train, pseudo, block_maps, monkeypatch):
    cut_off(train, monkeypatch)
    threads = torch.get_num_threads()
    with pytest.raises(MismatchError, match="other data or settings"):
        train(run=RESUMED, labels=block_maps)
    with pytest.raises(MismatchError, match="other data or settings"):
        train(run=RESUMED, held_out=0.5)
    try:
        with pytest.raises(MismatchError, match="other data or settings"):
            train(run=RESUMED, threads=threads + 1)
    finally:
        torch.set_num_threads(threads)
    assert train(run=RESUMED).last["step"] == 6


@pytest.mark.parametrize("as_maps", [False, True])
def test_images_that_cannot_be_read_are_left_out(
    train, pseudo, block_maps, tmp_path, caplog, as_maps
):
    content = (pseudo[1] / "3.png").read_bytes()
    (pseudo[1] / "3.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (30, 20)).save(pseudo[1] / "5.png")
    labels, names = (block_maps, ["7.png", "3.png", "5.png"]) if as_maps else (
        pseudo[0], ["3.png", "5.png"]
    )  # fmt: skip
    content = (block_maps / "7.png").read_bytes()
    (block_maps / "7.png").write_bytes(content[: len(content) // 2])
    trained = train(labels=labels, held_out=0.0, validate_every=0)
    count = 8 - len(names)
    assert trained.counts == {"images": count, "held_out": 0, "left_out": 0, "names": 3}
    assert [failure["file_name"] for failure in trained.failures] == names
    settings = tensors.read_header(tmp_path / "s.safetensors")["settings"]
    assert settings["failures"] == list(trained.failures) and str(tmp_path) not in str(settings)
    assert f"left out {len(names)} of the 8 images of" in caplog.text
    assert "5.png has 30 x 20 pixels, and its labels 64 x 64" in caplog.text
    first = f"^{names[0]} is truncated or damaged"
    with pytest.raises(InputError, match=first):
        train("q.safetensors", labels=labels, run=Run(strict=True))
    for path in pseudo[1].iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 8 images of .* can be trained on"):
        train("q.safetensors", labels=labels)


def test_images_to_measure_on_that_cannot_be_read_are_left_out(train, pseudo, tmp_path):
    folder = tmp_path / "measured"
    shutil.copytree(pseudo[1], folder)
    (folder / "2.png").write_bytes(b"")
    trained = train(validation=pseudo[0], validation_images=folder, steps=2, validate_every=2)
    assert trained.counts["images"] == 8 and "miou" in trained.last
    assert [failure["file_name"] for failure in trained.failures] == ["2.png"]


def cut_off(train, monkeypatch):
    """Leaves the checkpoint of the first four steps."""
    with monkeypatch.context() as patched:
        inner = segmenter_trainer._pixel_losses
        calls = []

        def cut(*arguments):
            calls.append(1)
            if len(calls) > 4:
                raise KeyboardInterrupt
            return inner(*arguments)

        patched.setattr(segmenter_trainer, "_pixel_losses", cut)
        with pytest.raises(KeyboardInterrupt):
            train()


def test_a_value_that_is_published_resumes_as_the_default_does(train, monkeypatch, tmp_path):
    cut_off(train, monkeypatch)
    assert train(run=RESUMED, lr=1e-3).last["step"] == 6
    settings = tensors.read_header(tmp_path / "s.safetensors")["settings"]
    assert settings["lr"] == 1e-3 and settings["origins"]["lr"] == "given"
    assert settings["origins"]["weight_decay"] == "default"


def test_out_of_memory_ends_in_one_line(train, monkeypatch, tmp_path):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(segmenter_trainer, "_pixel_losses", full)
    with pytest.raises(OvtoolError) as caught:
        train()
    assert re.fullmatch(
        r"out of memory while training the segmenter: \d+\.\d GB were free; give a smaller --batch-size or "
        r"--crop-size \(no checkpoint was written yet\)",
        str(caught.value),
    )


def test_a_plan_counts_and_writes_nothing(train, tmp_path):
    plan = train(run=Run(dry_run=True), steps=None, epochs=3)
    assert plan.is_plan and not plan.last
    assert plan.counts == {"images": 6, "held_out": 2, "left_out": 0, "names": 3}
    assert plan.steps == 4  # 3 epochs of 6 images, 4 in a step
    assert plan.parameters["network"] == sum(one.numel() for one in micro(3).parameters())
    assert plan.outputs.file == tmp_path / "s.safetensors" and not list(tmp_path.glob("s.*"))


def test_loader_workers_change_nothing(train, tmp_path):
    train("alone.safetensors", steps=3)
    train("helped.safetensors", steps=3, loader_workers=2)
    alone, helped = (tmp_path / f"{name}.safetensors" for name in ("alone", "helped"))
    assert alone.read_bytes() == helped.read_bytes()


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(pseudo, tmp_path):
    """kill -9 at some step of a training by the command line."""

    def command(out, *more):
        return [
            sys.executable, "-m", "ovtool", "train-segmenter", str(pseudo[0]), "--images",
            str(pseudo[1]), "--arch", "tiny", "--steps", "12", "--batch-size", "2", "--crop-size",
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

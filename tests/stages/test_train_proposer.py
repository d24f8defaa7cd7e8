"""Training a proposer: it learns, resumes to the same bytes, and many ranks are one process."""

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
from transformers import MaskFormerConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ovtool.errors import InputError, MismatchError, OutputExistsError, UsageError
from ovtool.formats import coco, rle, tensors
from ovtool.models import mask_losses, maskformer
from ovtool.stages import train_proposer
from ovtool.trainers import proposer as proposer_trainer
from ovtool.trainers.proposer import Settings
from ovtool.training.loop import TrainingError

ROOT = Path(__file__).parents[2]
SIDE = 64


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
    """Eight pictures of a red and a blue block on grey, with their masks; truth.json and the folder."""
    folder = tmp_path / "pictures"
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

    def training(out="p.safetensors", **options):
        given = {
            "images": truth[1], "architecture": "tiny", "queries": 6, "steps": 6, "batch_size": 4,
            "side": 64, "templates": "one", "held_out_share": 0.25, "validate_every": 3,
            "save_every": 2, "device": "cpu",
        }  # fmt: skip
        return train_proposer.run(str(truth[0]), out=tmp_path / out, **(given | options))

    return training


def test_a_training_leaves_a_proposer_and_its_curve(train, small, tmp_path):
    found = train()
    loaded = maskformer.load(tmp_path / "p.safetensors", small)
    assert loaded.names == ("apple", "cow") and loaded.short_side == 64
    header = tensors.read_header(tmp_path / "p.safetensors")
    curve = header["settings"]["curve"]
    assert [record["step"] for record in curve] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "class", "mask", "dice", "recall", "miou"} == curve[2].keys() - {"step"}
    assert str(tmp_path) not in str(header)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert (found["images"], found["held_out"], found["names"]) == (6, 2, 2)
    assert sorted(p.name for p in tmp_path.glob("p.*")) == ["p.png", "p.safetensors"]


def test_it_learns(train, tmp_path):
    found = train(steps=120, batch_size=8, rate=3e-3, validate_every=120)
    curve = tensors.read_header(tmp_path / "p.safetensors")["settings"]["curve"]
    for name, share in (("loss", 0.4), ("class", 0.4), ("mask", 0.6), ("dice", 0.95)):
        assert curve[-1][name] < share * curve[0][name], name
    assert 0 <= found["last"]["recall"] <= 1 and 0 < found["last"]["miou"] <= 1


def test_the_words_weight_leaves_the_masks_losses_alone(train, tmp_path):
    whole, quarter = (
        train(f"{weight}.safetensors", steps=1, validate_every=0, class_weight=weight)["last"]
        for weight in (1.0, 0.25)
    )
    assert quarter["class"] == pytest.approx(whole["class"] / 4, rel=1e-4)
    assert quarter["mask"] == pytest.approx(whole["mask"], rel=1e-4)


@pytest.mark.slow
def test_it_learns_to_find_and_to_name(train):
    found = train(steps=300, batch_size=8, rate=1e-2, warmup=10, validate_every=300)
    assert found["last"]["recall"] > 0.6 and found["last"]["miou"] > 0.8


def test_resume_gives_the_same_bytes(train, tmp_path, monkeypatch):
    train("whole.safetensors")
    inner = mask_losses.layer_losses
    calls = []

    def cut(*arguments):
        calls.append(1)
        if len(calls) > 2 * 4:  # two layers a step: cut off in the fifth
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(mask_losses, "layer_losses", cut)
    with pytest.raises(KeyboardInterrupt):
        train("cut.safetensors")
    monkeypatch.setattr(mask_losses, "layer_losses", inner)
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
    with pytest.raises(UsageError, match="unknown architecture 'vgg'; choose from tiny"):
        train(architecture="vgg")
    with pytest.raises(UsageError, match="unknown targets 'boxes'"):
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
    with pytest.raises(InputError, match="no picture of the truth has a mask"):
        train()
    truth[0].write_text("{")
    with pytest.raises(InputError, match="truth.json"):
        train()
    assert not list(tmp_path.glob("p.*"))


def test_a_broken_picture_is_one_line(train, truth):
    for path in truth[1].iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"\d.png is truncated or damaged"):
        train()


def test_nothing_decays_that_should_not():
    network = maskformer.MaskFormer(micro(), 8)
    recipe = replace(proposer_trainer.RECIPES["resnet50"], rate=1.0, backbone_multiplier=0.1)
    groups = proposer_trainer.optimizer_of(network, recipe).param_groups
    place = {id(p): (g["lr"], g["weight_decay"] > 0) for g in groups for p in g["params"]}
    assert len(place) == len(list(network.parameters()))
    for name, module in network.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            rate, decays = place[id(parameter)]
            bare = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d | nn.Embedding)
            assert decays == (not bare and own != "no_object")
            assert rate == (0.1 if "pixel_level_module.encoder" in name else 1.0)


def test_frozen_norms_keep_their_statistics():
    network = maskformer.MaskFormer(micro(), 8)
    proposer_trainer.set_mode(network, True, frozen_norms=True)
    before = {n: b.clone() for n, b in network.named_buffers()}
    network(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(b, before[n]) for n, b in network.named_buffers())
    proposer_trainer.set_mode(network, True)
    network(torch.randn(2, 3, 32, 32))
    assert not all(torch.equal(b, before[n]) for n, b in network.named_buffers())


RANKS = """
import sys
from pathlib import Path
import numpy as np, torch
from transformers import MaskFormerConfig, MaskFormerSwinConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig
from ovtool.models.maskformer import MaskFormer
from ovtool.trainers import proposer as proposer_trainer
from ovtool.batches.masks import Example
from ovtool.training import checkpoints, distributed

torch.set_default_dtype(torch.float64)
backbone = MaskFormerSwinConfig(
    image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
    drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"])
decoder = MaskFormerDetrConfig(
    encoder_layers=0, num_queries=5, d_model=32, decoder_layers=2, decoder_attention_heads=2,
    decoder_ffn_dim=32, dropout=0.0)
config = MaskFormerConfig(
    backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=8)

def example(step, row):
    rng = np.random.default_rng([step, row])
    count = row % 4  # one row has no mask at all
    masks = rng.random((count, 32, 32)) > 0.7
    return Example(rng.integers(0, 256, (32, 32, 3), np.uint8), masks, np.arange(count))

settings = proposer_trainer.Settings("tiny", queries=5, steps=3, batch_size=4, rate=1e-3, warmup=0)
with distributed.joined(torch.device("cpu")) as ranks:
    torch.manual_seed(3 + ranks.rank)
    if ranks.world == 1:
        torch.manual_seed(3)
    network = MaskFormer(config, 6)
    words = torch.nn.functional.normalize(
        torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    distributed.share(network, ranks)
    checkpoint = checkpoints.beside(Path(sys.argv[1]), "a")
    curve = proposer_trainer.fit(network, words, example, settings, checkpoint, ranks=ranks)
    if ranks.is_first:
        numbers = torch.cat([p.detach().flatten() for p in network.parameters()])
        np.save(sys.argv[1], np.array([*(r["loss"] for r in curve), *numbers.tolist()]))
"""


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
    assert len(found[0]) > 10_000 and np.isfinite(found[0]).all()
    apart = np.abs(found[0] - found[1])
    assert (
        apart[0] < 1e-10 and apart[:3].max() < 1e-5
    )  # the losses, of which the first has no history
    # Adam divides by the gradient's size, so where that is nought but rounding, rounding is what moves
    assert np.quantile(apart, 0.99) < 1e-8 and apart.max() < 1e-3


def test_a_batch_that_cannot_be_shared(tmp_path):
    from ovtool.training import checkpoints
    from ovtool.training.distributed import Ranks

    network = maskformer.MaskFormer(micro(), 8)
    with pytest.raises(UsageError, match="--batch-size 5 cannot be shared by 2 processes"):
        proposer_trainer.fit(
            network, torch.zeros(1, 8), lambda step, row: None, Settings("tiny", batch_size=5),
            checkpoints.beside(tmp_path / "x", "a"), ranks=Ranks(0, 2, torch.device("cpu")),
        )  # fmt: skip


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

"""`train-pacl` under torchrun: two gloo processes are one, uneven shards do not hang, a lost one ends all."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys, time
import numpy as np, open_clip, torch
from ovtool.errors import OvtoolError
from ovtool.models import clip as clips
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_pacl
from ovtool.trainers.pacl import PaclTraining
from ovtool.training import loop

torch.set_num_threads(1)
torch.manual_seed(0)
words = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
vision = {"image_size": 48, "patch_size": 16, "width": 32, "head_width": 8, "layers": 2}
model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=words)
clip = clips.from_model(model.eval(), "small", dtype=torch.float64)
clips.load = lambda *_: clip
options = json.loads(sys.argv[1])
if options.pop("slowly", False):
    step = PaclTraining.step
    PaclTraining.step = lambda *a: (time.sleep(0.05), step(*a))[1]
captions, images, out = (options.pop(name, None) for name in ("captions", "images", "out"))
run = Run(resume=options.pop("resume", False))
train = loop.train
def kept(task, *arguments, ranks, **named):
    curve = train(task, *arguments, ranks=ranks, **named)
    if ranks.is_first:
        numbers = [p.detach().flatten() for p in task.modules["embedder"].parameters()]
        losses = torch.tensor([one["loss"] for one in curve], dtype=torch.float64)
        np.save(out + ".npy", torch.cat([losses, *numbers]).numpy())
    return curve
loop.train = kept
compute = Compute(precision="float32")
try:
    pacl = Pacl(save_every=1, **options)
    train_pacl.run(captions, pacl, images=images, out=out, compute=compute, run=run)
except OvtoolError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)
"""


def scene(number):
    rgb = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
    nouns = ("cow", "apple", "train", "boat")
    return Image.fromarray(rgb).resize(
        (60, 40), 0
    ), f"a {nouns[number % 4]} and a {number} on grass"


@pytest.fixture
def said(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    images, annotations = [], []
    for number in range(14):
        picture, caption = scene(number)
        picture.save(folder / f"{number:02d}.png")
        images.append({"id": number + 1, "file_name": f"{number:02d}.png"})
        annotations.append({"id": number + 1, "image_id": number + 1, "caption": caption})
    (tmp_path / "said.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return {"captions": str(tmp_path / "said.json"), "images": str(folder)}


@pytest.fixture
def start(tmp_path):
    """Starts the program alone (`world` 1), or under torchrun."""
    (tmp_path / "program.py").write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]

    def started(world, **options):
        starter = [sys.executable] if world == 1 else [*torchrun, f"--nproc-per-node={world}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*starter, str(tmp_path / "program.py"), json.dumps(options)],
            stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
        )  # fmt: skip

    return started


def finished(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"nouns": True, "naming": 2.0, "learn_scale": True, "micro_batch": 2}, {"pairs": "own"}],
    ids=["nouns", "own"],
)
def test_two_processes_are_one(start, said, tmp_path, options):
    """Losses and weights after five steps in float64, pictures cropped and never kept."""
    found = []
    for world in (1, 2):
        out = str(tmp_path / f"{world}.safetensors")
        given = {"steps": 5, "batch_size": 6, "held_out": 0.0, "cache": "off", "out": out}
        finished(start(world, **said, **given, **options))
        found.append(np.load(f"{out}.npy"))
    assert (
        found[0].dtype == np.float64 and len(found[0]) == 5 + 2184 and len(set(found[0][:5])) == 5
    )
    assert np.abs(found[0] - found[1]).max() < 1e-8


@pytest.fixture
def shards(tmp_path):
    """Three shards of 6, 1 and 3 samples."""
    place = 0
    for number, size in enumerate((6, 1, 3)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as shard:
            for _ in range(size):
                picture, caption = scene(place)
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                for name, data in (
                    (f"{place}.png", buffer.getvalue()),
                    (f"{place}.txt", caption.encode()),
                ):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
                place += 1
    return {"captions": str(tmp_path / "{0..2}.tar")}


@pytest.mark.slow
def test_uneven_shards_do_not_hang(start, shards, tmp_path):
    given = {"batch_size": 4, "epochs": 6, "out": str(tmp_path / "h.safetensors"), "nouns": True}
    finished(start(2, **shards, **given))
    assert len(np.load(tmp_path / "h.safetensors.npy")) == 12 + 2184


@pytest.mark.slow
def test_more_processes_than_shards(start, shards, tmp_path):
    process = start(4, **shards, batch_size=4, steps=1, out=str(tmp_path / "h.safetensors"))
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0 and "error: 4 processes and 3 shards" in errors


@pytest.mark.slow
def test_a_killed_process_ends_all_and_resume_goes_on(start, said, tmp_path):
    out = tmp_path / "h.safetensors"
    given = {**said, "steps": 60, "batch_size": 6, "held_out": 0.0, "cache": "off", "out": str(out)}
    finished(start(2, **{**given, "out": str(tmp_path / "whole.safetensors")}))
    process = start(2, **given, slowly=True)
    checkpoint = Path(f"{out}.checkpoint")
    until = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    children = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0 and not out.exists()
    said_of_it = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said_of_it) <= 1  # the other process may be stopped before it can speak
    if said_of_it:
        assert "another process of the training ended" in said_of_it[0]
        assert "--resume" in said_of_it[0]
    finished(start(2, **given, resume=True))
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()

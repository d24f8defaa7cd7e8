"""Trainings of prompts and of mask generators under torchrun: two gloo processes are one, a lost one ends all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ovtool.cli.errors import run
from ovtool.formats import tensors

ROOT = Path(__file__).parent.parent.parent
SCENES = ["scenes/annotations/instances_demo.json", "--images", "scenes/images/demo"]
FEW = ["--steps", "3", "--held-out", "0", "--batch-size", "4"]
CASES = {
    "mask": ["tune-prompts", *SCENES, "--train", "prompts", *FEW],
    "background": ["tune-prompts", "cams.safetensors", *SCENES[1:], "--kind", "background", *FEW],
    "crops": [
        *["tune-prompts", "cams.safetensors", *SCENES[1:], "--kind", "background", *FEW],
        *["--crop-scale", "0.5"],
    ],
    "matching": [
        *["cam", "--labels", *SCENES, "--method", "matching", "--steps", "3", "--batch-size", "4"],
        *["--save-generator", "g.safetensors"],
    ],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eight drawn scenes, and maps of them."""
    folder = tmp_path_factory.mktemp("ranks")
    here, kept = os.getcwd(), dict(os.environ)
    os.environ |= {"OVTOOL_CACHE": str(folder / "cache"), "OVTOOL_MODEL": "tiny"}
    try:
        os.chdir(folder)
        assert run(["data", "make", "collage", "scenes", "--count", "8", "--size", "64"]) == 0
        assert run(["cam", "--labels", *SCENES, "-o", "cams.safetensors"]) == 0
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(kept)
    return folder


@pytest.fixture
def start(scenes, tmp_path):
    """Starts ovtool alone (`world` 1), or under torchrun; the output is below `tmp_path`."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    def started(world, name, arguments):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        places = [str(out / word) if word == "g.safetensors" else word for word in arguments]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OVTOOL_MODEL": "tiny"}
        command = [sys.executable, *([] if world == 1 else torchrun), "-m", "ovtool", *places]
        return subprocess.Popen(
            [*command, "-o", str(out / "x.safetensors")],
            cwd=scenes,
            env={**os.environ, "OVTOOL_CACHE": str(scenes / "cache"), **own},
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(start, tmp_path, case):
    found = []
    for world in (1, 2):
        process = start(world, str(world), CASES[case])
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        name = "g.safetensors" if case == "matching" else "x.safetensors"
        found.append(tensors.load(tmp_path / str(world) / name))
    (one, alone), (two, together) = found
    curves = [[step["loss"] for step in header["settings"]["curve"]] for header in (one, two)]
    assert len(curves[0]) >= 3 and np.abs(np.subtract(*curves)).max() <= 1e-5
    apart = torch.cat([(alone[name] - together[name]).flatten().abs() for name in alone])
    # AdamW gives a gradient that is all rounding a whole step, so that single numbers may differ by more
    assert float((apart > 1e-6).double().mean()) <= (0.01 if case == "mask" else 0)


@pytest.mark.slow
def test_a_lost_process_ends_all_with_one_line_of_ours(start, tmp_path):
    line = [*CASES["background"], "--save-every", "1"]
    line[line.index("--steps") + 1] = "400"
    process = start(2, "x", line)
    checkpoint = tmp_path / "x" / "x.safetensors.checkpoint"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=500)
    assert process.returncode != 0
    ours = [text for text in errors.splitlines() if "another process of the training ended" in text]
    assert len(ours) == 1 and checkpoint.exists(), errors[-2000:]

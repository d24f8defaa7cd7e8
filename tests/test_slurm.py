"""The scripts of `examples/slurm/` run with the scheduler's variables set by hand, and its programs played."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.formats import label_maps

SCRIPTS = Path(__file__).parent.parent / "examples" / "slurm"
OVTOOL = f'#!/bin/sh\nexec {sys.executable} -m ovtool "$@"\n'
TORCHRUN = f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n'
PROGRAMS = {
    "ovtool": OVTOOL,
    "torchrun": TORCHRUN,
    "srun": '#!/bin/sh\nexec "$@"\n',
    "scontrol": "#!/bin/sh\necho 127.0.0.1\n",
}


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Runs a script in an empty folder, with variables of the scheduler."""
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment = {
        **kept,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPTS.parent.parent),
        "OMP_NUM_THREADS": "1",
        "OVTOOL_CACHE": str(tmp_path / "cache"),
    }

    def run(script, *arguments, **variables):
        done = subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments],
            cwd=tmp_path,
            env={**environment, **{name: str(value) for name, value in variables.items()}},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture
def photos(tmp_path):
    """Four images, and label maps of them."""
    random = np.random.default_rng(0)
    for kind in ("photos", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((48, 48), Image.Resampling.NEAREST).save(
            tmp_path / "photos" / f"{number}.png"
        )
        halves = np.repeat([[0] * 24 + [1] * 24], 48, axis=0)
        label_maps.write(tmp_path / "labels" / f"{number}.png", halves, 2)
    (tmp_path / "labels" / "classes.txt").write_text("left\nright\n")
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_job_array_leaves_what_one_process_leaves(submit, photos, tmp_path):
    line = ["propose", "x.json", "photos", "--part-size", "1", "--proposer", "regions"]
    for task in (3, 2):
        array = {"ID": task, "COUNT": 2, "MIN": 2, "MAX": 3}
        submit(
            "map.sh", *line, **{f"SLURM_ARRAY_TASK_{key}": value for key, value in array.items()}
        )
    program = [str(tmp_path / "bin" / "ovtool")]
    own = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent.parent), "OMP_NUM_THREADS": "1"}
    whole = [*line[:1], "photos", "-o", "y.json", *line[3:], "--threads", "1"]
    for arguments in (["merge", "x.json.parts"], whole):
        subprocess.run([*program, *arguments], cwd=tmp_path, check=True, env=own)
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()


@pytest.mark.slow
def test_a_training_runs_on_the_machines_of_a_job(submit, photos, tmp_path):
    submit(
        "train.sh",
        "train-segmenter", "labels", "--images", "photos", "-o", "s.safetensors", "--steps", "2",
        "--batch-size", "4", "--crop-size", "32", "--arch", "tiny", "--held-out", "0",
        SLURM_JOB_NODELIST="one", SLURM_NNODES=1, SLURM_JOB_ID=7, SLURM_CPUS_PER_TASK=2, PROCESSES=2,
        PORT=29511,
    )  # fmt: skip
    assert (tmp_path / "s.safetensors").exists()


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_a_script_is_sound(script):
    path = SCRIPTS / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)

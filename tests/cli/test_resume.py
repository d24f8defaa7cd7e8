"""Killed at any moment and resumed, `segment` and `propose` leave the bytes of an uninterrupted run.

A process that has imported everything is forked for each run: what is killed is a process of its
own, and yet it starts in no time.
"""

import json
import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from ovtool.formats import coco

IMAGES, PART_SIZE, KILLS = 12, 2, 10

FORKING = textwrap.dedent(
    """
    import json, os, signal, sys, time
    from pathlib import Path
    import skimage.color, skimage.segmentation
    import ovtool.models.clip, ovtool.models.text, ovtool.stages.propose, ovtool.stages.segment
    from ovtool.cli.errors import run

    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # this process answers on stdout
            os._exit(run(job["arguments"]))
        if job["kill_at"] is not None:  # that many files, and a moment more
            while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if sum(path.is_file() for path in folder.rglob("*")) >= job["kill_at"]:
                    time.sleep(job["delay"])
                    os.kill(child, signal.SIGKILL)
                    break
                time.sleep(0.0005)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of a few flat blocks, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(0)
    for n in range(IMAGES):
        coarse = Image.fromarray(numbers.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((80, 64), Image.Resampling.NEAREST).save(folder / f"{n:02d}.png")
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:90])
    return folder


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """Runs a command in a folder; with `kill_at`, only until there are so many files. Its status."""
    cache = tmp_path_factory.mktemp("cache")
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OVTOOL_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )

    def run(folder, arguments, kill_at=None, delay=0.0):
        job = {"folder": str(folder), "arguments": arguments, "kill_at": kill_at, "delay": delay}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield run
    process.stdin.close()
    process.wait(timeout=60)


def content(folder):
    """The bytes of every file below a folder, by name, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


SEGMENT = [
    "--classes",
    "cow,apple",
    "--model",
    "tiny",
    "--label-maps",
    "maps",
    "--overlays",
    "seen",
]


@pytest.mark.parametrize(
    "command, seed", [(["segment", *SEGMENT], 1), (["propose"], 2)], ids=["segment", "propose"]
)
def test_runs_that_were_killed_and_resumed_leave_the_same_bytes(
    photos, forked, tmp_path, command, seed
):
    line = [*command, str(photos), "-o", "o.json", "--part-size", str(PART_SIZE)]
    whole = tmp_path / "whole"
    whole.mkdir()
    assert forked(whole, line) == 3  # one picture is broken
    expected = content(whole)
    assert len(coco.read(whole / "o.json").images) == IMAGES - 1
    parts = IMAGES // PART_SIZE
    moments = random.Random(seed)
    in_the_middle = 0
    for attempt in range(KILLS):
        folder = tmp_path / f"killed-{attempt}"
        folder.mkdir()
        kill_at = moments.randrange(len(expected) + parts)
        delay = moments.choice((0, moments.uniform(0, 0.02)))  # 0: while that file is written
        status = forked(folder, line, kill_at, delay)
        left = content(folder)
        done = [name for name in left if name.startswith("o.json.parts/part-")]
        in_the_middle += status == -9 and 0 < len(done) < parts
        assert status in (-9, 3)
        for name, data in left.items():  # what is there under its own name is whole
            assert data == expected.get(name, data)
        if status == -9:
            again = ["--resume", "--overwrite"] if "o.json" in left else ["--resume"]
            assert forked(folder, [*line, *again]) == 3
        assert content(folder) == expected
    assert in_the_middle >= 3

"""The pipelines of `examples/`: each runs, does nothing the second time, and goes on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIPELINES = sorted((ROOT / "examples").glob("*.mk"))
SMALL = ("COUNT=3", "SIZE=64", "STEPS=2", "BATCH=2")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Starts make on a pipeline, by its stem, in a folder that all tests share."""
    folder = tmp_path_factory.mktemp("pipelines")
    program = folder / "ovtool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ovtool "$@"\n')
    program.chmod(0o755)
    places = {"PYTHONPATH": str(ROOT), "OVTOOL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("OVTOOL_")}

    def started(stem, *options):
        line = [
            "make",
            "-f",
            ROOT / "examples" / f"{stem}.mk",
            f"OVTOOL={program}",
            *SMALL,
            *options,
        ]
        return subprocess.Popen(
            [*map(str, line)],
            cwd=folder,
            env={**own, **places},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    started.folder = folder
    return started


def done(process):
    """Exit status and output of a run of make."""
    said, _ = process.communicate(timeout=1800)
    return process.returncode, said


def files(folder):
    """The outputs of a pipeline, without its data: name to time and bytes."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.glob("[!.]*")
        if path.is_file()
    }


def test_there_is_one_for_each_system():
    assert [path.stem for path in PIPELINES] == ["ovseg", "pacl", "semples"]
    for path in PIPELINES:
        text = path.read_text()
        assert ".DELETE_ON_ERROR:" in text and text.count("--update") >= 4


@needs_make
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_make_accepts_it(stem, make):
    status, said = done(make(stem, "--dry-run", "WORK=dry"))
    assert status == 0, said
    assert said.count("ovtool ") >= 5 and not (make.folder / "dry").exists()


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_a_pipeline_runs_once_and_again_where_an_input_is_newer(stem, make):
    status, said = done(make(stem))
    assert status == 0, said
    work = make.folder / stem
    made = files(work)
    assert 0 <= json.loads(made["scores.json"][1])["miou"] <= 1
    status, said = done(make(stem))
    assert status == 0 and "up to date" not in said.replace("'all'", "")
    assert files(work) == made
    image = next((work / "scenes/images/demo").iterdir())
    image.touch()
    status, said = done(make(stem))
    assert status == 0, said
    again = files(work)
    assert again["scores.json"][0] > made["scores.json"][0]
    # the same images give the same bytes
    assert {name: content for name, (_, content) in again.items()} == {
        name: content for name, (_, content) in made.items()
    }


@needs_make
@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in PIPELINES])
def test_a_pipeline_that_was_killed_goes_on(stem, make):
    """After `test_a_pipeline_runs_once_and_again_...`, whose bytes it must give."""
    work = make.folder / f"{stem}-killed"
    process = make(stem, f"WORK={work.name}")
    until = time.monotonic() + 600
    while not [
        *work.glob("[!.]*.safetensors"),
        *work.glob("[!.]*.json"),
    ]:  # the first output of several
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (work / "scores.json").exists()
    status, said = done(make(stem, f"WORK={work.name}"))
    assert status == 0, said
    whole, killed = files(make.folder / stem), files(work)
    assert {name: content for name, (_, content) in killed.items()} == {
        name: content for name, (_, content) in whole.items()
    }

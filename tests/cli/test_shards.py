"""Several processes, shards in any order, and one process leave the same files, to the byte."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.runtime import engine, processes, runs

COUNT = 5
SCENES = ["scenes/annotations/instances_demo.json", "--images", "scenes/images/demo"]
SAYS = "scenes/annotations/captions_demo.json"
CASES = {
    "segment": ["segment", "scenes/images/demo", "--classes", "cow,apple", "--overlays", "seen"],
    "propose": ["propose", "scenes/images/demo", "--proposer", "tiny", "--save-embeddings", "e.st"],
    "mine-pairs": ["mine-pairs", "--captions", SAYS, *SCENES[1:], "--crops", "crops.tar"],
    "mine-pairs-folder": [
        *["mine-pairs", "--captions", SAYS, *SCENES[1:], "--crops", "crops"],
        *["--proposals", "proposals.json"],
    ],
    "cam": ["cam", "--labels", *SCENES],
    "refine": [
        "refine",
        "cams.safetensors",
        *SCENES[1:],
        "--apply",
        "pamr",
        "--label-maps",
        "seen",
    ],
    "refine-maps": ["refine", "cams.safetensors", *SCENES[1:], "--apply", "pamr"],
}
GIVEN = ("scenes", "cams.safetensors", "proposals.json")
OUT = {"cam": "x.safetensors", "refine-maps": "x.safetensors"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, text_cache):
    """Drawn scenes, and maps of them."""
    folder = tmp_path_factory.mktemp("scenes")
    here, kept = os.getcwd(), dict(os.environ)
    os.environ |= {"OVTOOL_CACHE": str(text_cache), "OVTOOL_MODEL": "tiny"}
    try:
        os.chdir(folder)
        make = ["data", "make", "collage", "scenes", "--count", str(COUNT), "--size", "64"]
        assert run(make) == 0
        assert run(["cam", "--labels", *SCENES, "-o", "cams.safetensors"]) == 0
        few = ["--proposer", "regions", "--max-proposals", "5", "-o", "proposals.json"]
        assert run(["propose", "scenes/images/demo", *few]) == 0
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(kept)
    return folder


@pytest.fixture
def at(desk, scenes, monkeypatch):
    """Goes to a new folder with the scenes."""

    def go(name):
        shutil.copytree(scenes, desk / name)
        monkeypatch.chdir(desk / name)

    return go


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parts[len(folder.parts)] not in GIVEN
    }


class Elsewhere:
    """Processes that are none: the work travels as it does to them, and the parts come in another order."""

    def __init__(self, workers):
        assert workers == 2

    def __call__(self, parts, task, advance):
        engine.in_turn(parts[::-1], processes.unpacked(processes.packed(task)), advance)


def line(case, *more):
    return [*CASES[case], "--part-size", "2", "-o", OUT.get(case, "x.json"), *more]


@pytest.mark.parametrize("case", CASES)
def test_processes_and_shards_leave_what_one_process_leaves(case, at, desk, monkeypatch):
    monkeypatch.setattr(runs, "Processes", Elsewhere)
    at("one")
    assert run(line(case)) == 0
    expected = content(desk / "one")
    at("two")
    assert run(line(case, "--workers", "2")) == 0
    assert content(desk / "two") == expected
    at("three")
    out = OUT.get(case, "x.json")
    for shard in ("3/3", "1/3"):
        assert run(line(case, "--shard", shard)) == 0
    assert run(["merge", f"{out}.parts"]) == 1 and not os.path.exists(out)
    assert run(line(case, "--shard", "2/3")) == 0
    assert run(["merge", f"{out}.parts"]) == 0
    shutil.rmtree(f"{out}.parts")
    assert content(desk / "three") == expected


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_real_processes_leave_what_one_process_leaves(case, at, desk):
    at("one")
    assert run(line(case)) == 0
    at("two")
    assert run(line(case, "--workers", "2")) == 0
    assert content(desk / "two") == content(desk / "one")


def descendants(pid):
    """The processes that a process began, and those that these began: pid to command line."""
    parents, lines = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(") ")[-1].split()[1])
            lines[int(path.name)] = (path / "cmdline").read_bytes()
    found, left = {}, [pid]
    while left:
        own = [child for child, parent in parents.items() if parent == left[0]]
        found |= {child: lines.get(child, b"") for child in own}
        left = left[1:] + own
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="workers are found in /proc")
def test_ray_stopped_by_ctrl_c_and_resumed_with_a_worker_killed_leaves_the_same_file(
    desk, monkeypatch
):
    if not any(each.name == "ray" for each in metadata.distributions()):
        pytest.skip("ray is not installed")  # there may be a stand-in of another test
    monkeypatch.chdir(desk)
    (desk / "noise").mkdir()
    noise = np.random.default_rng(0)
    for name in range(16):
        coarse = Image.fromarray(noise.integers(0, 255, (24, 24, 3), np.uint8))
        coarse.resize((240, 240), Image.Resampling.NEAREST).save(desk / "noise" / f"{name:02d}.png")
    line = ["propose", "noise", "--proposer", "regions", "--part-size", "1", "--threads", "1"]
    assert run([*line, "-o", "x.json"]) == 0
    parts = desk / "y.json.parts"

    def driven(disturb):
        """A run of two workers that is disturbed in the middle: its exit status, and what it said."""
        before = len([*parts.glob("*.jsonl")])
        process = subprocess.Popen(
            [sys.executable, "-m", "ovtool", *line, "-o", "y.json", "--resume"]
            + ["--engine", "ray", "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE, *sys.path])},
        )
        while len([*parts.glob("*.jsonl")]) == before and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            disturb(process.pid)
        out, said = process.communicate(timeout=300)
        assert out == ""
        return process.returncode, said

    begun = set()

    def interrupt(pid):
        begun.update(descendants(pid))
        os.kill(pid, signal.SIGINT)

    killed = []

    def kill_a_worker(pid):
        workers = [child for child, said in descendants(pid).items() if b"ray::Actor" in said]
        os.kill(workers[0], signal.SIGKILL)
        killed.append(len([*parts.glob("*.jsonl")]))

    status, said = driven(interrupt)
    assert status == 130 and said.strip().splitlines()[-1] == "interrupted", said
    assert 0 < len([*parts.glob("*.jsonl")]) < 16 and not (desk / "y.json").exists()
    until = time.monotonic() + 60
    while (left := begun & {int(path.name) for path in Path("/proc").glob("[0-9]*")}) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert begun and not left
    status, said = driven(kill_a_worker)
    assert status == 0, said
    assert 0 < killed[0] < 16 and "16 images" in said
    assert (desk / "x.json").read_bytes() == (desk / "y.json").read_bytes()
    assert not parts.exists()


def propose(out, *more):
    return run(["propose", "scenes/images/demo", "-o", out, "--part-size", "2", *more])


def test_what_cannot_be_merged_is_one_line(at, capsys):
    at("here")

    def refused(*arguments, status):
        capsys.readouterr()
        assert run(["merge", *arguments]) == status
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    assert propose("x.json", "--shard", "1/2") == 0
    said = refused("x.json.parts", status=1)
    assert said.startswith("error: 1 of 3 parts are missing (1); run the shards that make them")
    assert propose("y.json", "--shard", "2/2", "--min-area", "0.2") == 0
    said = refused("x.json.parts", "y.json.parts", "-o", "z.json", status=2)
    assert "is of another run than x.json.parts/part-00000.jsonl: min_area (0.001 and 0.2);" in said
    assert propose("z.json") == 0 and propose("w.json", "--shard", "1/1") == 0
    said = refused("x.json.parts", "w.json.parts", "-o", "v.json", status=1)
    assert said.startswith(
        "error: part 0 is there twice, as x.json.parts/part-00000.jsonl and as w"
    )
    assert "exists; replace it with --overwrite" in refused(
        "w.json.parts", "-o", "z.json", status=1
    )
    assert "no such folder: none.parts" in refused("none.parts", status=1)
    assert "give it with -o" in refused("x.json.parts", "w.json.parts", status=2)
    assert run(["merge", "w.json.parts", "-o", "z.json", "--overwrite"]) == 0


def test_what_another_run_wrote_meanwhile_is_not_replaced(at, capsys, monkeypatch):
    at("here")
    assert propose("x.json", "--shard", "1/1") == 0
    label_maps = ["convert", "y.json", "--to", "label-maps", "-o", "maps"]
    for module, name, line, out in (
        ("merge", "merge.dataset_of", ["merge", "x.json.parts"], "x.json"),
        (
            "convert",
            "any_masks.read",
            ["convert", "x.json", "--to", "coco", "-o", "y.json"],
            "y.json",
        ),
        ("convert", "any_masks.read", label_maps, "maps/own"),
    ):
        stage = importlib.import_module(f"ovtool.stages.{module}")
        holder, function = name.split(".")
        before = getattr(getattr(stage, holder), function)

        def meanwhile(*given, before=before, out=out):
            Path(out).parent.mkdir(exist_ok=True)
            Path(out).write_text("of another run")
            return before(*given)

        with monkeypatch.context() as patch:
            patch.setattr(getattr(stage, holder), function, meanwhile)
            capsys.readouterr()
            assert run(line) == 1
        assert Path(out).read_text() == "of another run"
        assert "exists" in capsys.readouterr().err or out == "maps/own"
        Path(out).unlink()
        assert run([*line, "--overwrite"]) == 0


def test_other_settings_are_named_when_a_run_is_resumed(at, capsys):
    at("here")
    assert propose("x.json", "--shard", "1/2") == 0
    capsys.readouterr()
    assert propose("x.json", "--resume", "--min-area", "0.2", "--nms", "0.5") == 2
    assert "(min_area (0.001 and 0.2), nms (0.85 and 0.5))" in capsys.readouterr().err


def test_a_shard_says_where_its_parts_are(at, capsys):
    at("here")
    capsys.readouterr()
    assert propose("x.json", "--shard", "2/2", "--json") == 0
    said = capsys.readouterr()
    assert "2 images" in said.err and "shard 2/2 in x.json.parts; join all with" in said.err
    facts = json.loads(said.out)
    assert (facts["shard"], facts["output"], facts["images"]) == ("2/2", "x.json.parts", 2)
    assert propose("-", "--shard", "2/2") == 2
    assert "--shard needs a file as output" in capsys.readouterr().err


def test_a_dry_run_says_how_the_images_are_shared(at, capsys):
    at("here")
    capsys.readouterr()
    assert propose("x.json", "--workers", "2", "--shard", "1/2", "--dry-run", "--json") == 0
    said = capsys.readouterr()
    assert "2 parts of up to 2 images, 2 workers, on cpu with" in said.err
    assert "not estimated" in said.err
    facts = json.loads(said.out)
    assert {"parts": 2, "part_size": 2, "workers": 2, "device": "cpu"}.items() <= facts.items()


@pytest.mark.parametrize(
    "arguments",
    [
        ["cam", "--labels", *SCENES, "--method", "matching"],
        [
            "refine",
            "cams.safetensors",
            *SCENES[1:],
            "--apply",
            "prompts",
            "--refine-weight",
            "0",
            "-o",
            "x.safetensors",
        ],
    ],
    ids=["cam", "refine"],
)
def test_what_is_trained_is_not_trained_in_every_shard(at, capsys, arguments):
    at("here")
    capsys.readouterr()
    assert run([*arguments, "--shard", "1/2"]) == 2
    assert "would be trained in every shard" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_and_a_kill_end_all_processes(at, desk):
    at("here")
    command = [sys.executable, "-m", "ovtool", "propose", "scenes/images/demo", "--part-size", "1"]
    for number, expected in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            [*command, "-o", "x.json", "--workers", "2", "--resume"],
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(desk.parent / "none") + os.pathsep + PACKAGE},
        )
        while not (desk / "here" / "x.json.parts").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == expected
        # the pipe of the messages ends when nobody is left who could write to it
        said = process.stderr.read().decode()
        assert number == signal.SIGKILL or said.strip().splitlines()[-1] == "interrupted"
    assert propose("x.json", "--resume") == 0
    assert propose("y.json") == 0
    assert (desk / "here" / "x.json").read_bytes() == (desk / "here" / "y.json").read_bytes()


PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

"""What runs write: one at a time, over no input, through no link, and whatever a name or a kill does."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ovtool.errors import OutputExistsError
from ovtool.formats import atomic, coco
from ovtool.formats.lock import Lock

SEGMENT = "segment images --classes cow --method patch"
HOLD = """
import os, sys, time
from pathlib import Path
from ovtool.formats.lock import Lock
lock = Lock(Path(sys.argv[1]))
if len(sys.argv) > 2 and not os.fork():
    time.sleep(30)  # a worker, which holds the file open when its parent is killed
print(os.getpid(), flush=True)
time.sleep(30)
"""


@pytest.fixture
def holder(desk):
    """Starts a process that holds the lock of a file."""
    processes = []

    def hold(path, *more):
        line = [sys.executable, "-c", HOLD, str(path), *more]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True)
        processes.append(process)
        assert int(process.stdout.readline()) == process.pid
        return process

    yield hold
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_second_of_two_runs_is_refused(desk, holder, refused, does):
    process = holder(desk / "o.json")
    line = refused(f"{SEGMENT} -o o.json")
    assert f"is being written by process {process.pid} on " in line
    assert "is being written" in refused(f"{SEGMENT} -o o.json --overwrite")
    assert does(f"{SEGMENT} -o other.json")[0] == 0
    process.kill()
    process.wait()
    assert does(f"{SEGMENT} -o o.json")[0] == 0
    assert not [path for path in desk.iterdir() if "lock" in path.name and "o.json" in path.name]


def test_a_lock_of_a_killed_run_is_none_though_its_workers_live(desk, holder):
    process = holder(desk / "o.json", "with a worker")
    with pytest.raises(OutputExistsError, match=f"process {process.pid}"):
        Lock(desk / "o.json")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    Lock(desk / "o.json").release()


def test_a_lock_of_another_machine_is_left(desk):
    import fcntl

    place = desk / ".o.json.lock"
    with open(place, "w") as file:
        file.write("1 elsewhere\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputExistsError, match="by process 1 on elsewhere; wait until"):
            Lock(desk / "o.json")
    with Lock(desk / "o.json"), Lock(desk / "p.json"):  # nobody holds it any more
        assert place.read_text().split()[0] == str(os.getpid())
    assert not place.exists()


def test_a_training_does_not_replace_what_another_wrote_meanwhile(desk, holder):
    import torch

    from ovtool.training import distributed, run

    outputs = run.check_outputs(desk / "o.safetensors", False)
    frame = run.Frame(outputs, {}, "title", ranks=distributed.alone(torch.device("cpu")))
    process = holder(frame.checkpoint().path)
    with pytest.raises(OutputExistsError, match="is being written by"):
        run.begin(frame)
    process.kill()
    process.wait()
    (desk / "o.safetensors").write_bytes(b"of the other")
    with pytest.raises(OutputExistsError, match="exists; replace it with --overwrite"):
        run.begin(frame)


def test_no_input_is_replaced(desk, refused):
    image = desk / "images/1.png"
    before = image.read_bytes()
    os.link(image, desk / "same.png")
    (desk / "link.json").symlink_to(image)
    for out in ("images/1.png", "same.png", "link.json"):
        assert "is read by this run" in refused(f"{SEGMENT} --overwrite -o {out}", status=2)
    assert image.read_bytes() == before


def test_nothing_is_drawn_through_a_link(desk, refused):
    (desk / "own.txt").write_text("mine")
    for kind in ("overlays", "label-maps", "heatmaps"):
        (desk / kind).mkdir()
        (desk / kind / "1.png").symlink_to(desk / "own.txt")
        assert "is a link" in refused(f"{SEGMENT} --overwrite -o o.json --{kind} {kind}")
    assert (desk / "own.txt").read_text() == "mine"


def test_long_names_are_written_and_too_long_ones_are_one_line(desk, does, refused):
    name = "a" * 240
    (desk / "images/1.png").rename(desk / f"images/{name}.png")
    status, _ = does(f"{SEGMENT} -o o.json --label-maps maps --overlays seen")
    assert status == 0 and (desk / f"maps/{name}.png").is_file()
    assert len(coco.read(desk / "o.json").images) == 2
    assert "too long" in refused(f"{SEGMENT} -o {'b' * 254}")


def test_what_a_killed_writer_left_is_removed_and_a_living_one_is_not(desk):
    for name in ("o.png", "a" * 250):
        with atomic.writing(desk / name) as handle:
            (mine,) = (path for path in desk.iterdir() if path.suffix == ".tmp")
            left = mine.with_name(mine.name.replace(mine.name.split(".")[-2], "0" * 12))
            left.write_bytes(b"half")
            atomic.check_output(desk / name, overwrite=False)
            assert mine.exists() and not left.exists()
            handle.write(b"whole")
        assert (desk / name).read_bytes() == b"whole"


def test_two_runs_at_once_leave_one_whole_output(desk):
    line = [sys.executable, "-m", "ovtool", *SEGMENT.split(), "-o", "o.json", "--part-size", "1"]
    both = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = sorted((process.communicate()[1], process.returncode) for process in both)
    codes = sorted(code for _, code in ended)
    assert codes == [0, 1], ended
    assert any("is being written by" in said or "exists; replace" in said for said, _ in ended)
    assert len(coco.read(Path("o.json")).images) == 2

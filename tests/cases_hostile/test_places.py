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


HELD = {
    "evaluate x.json --ground-truth x.json -o o.json": "o.json",
    "report x.json --images images -o o.html": "o.html",
    "check --fix x.json -o o.json": "o.json",
    "convert x.json --to coco -o o.json": "o.json",
    "convert x.json --to cvat -o o.xml": "o.xml",
    "convert x.json --to label-maps -o o": "o",
    "convert x.json --to coco-panoptic -o p.json": "p",
    "merge p.json.parts -o o.json": "o.json",
    "data make collage o --count 2 --size 64": "o",
    "probe classify --coco x.json --images images --plot o.png": "o.png",
    f"{SEGMENT} -o p.json --label-maps o": "o",
    f"{SEGMENT} -o p.json --overlays a/o": "a/o",
    "propose images --proposer tiny -o p.json --save-embeddings o.safetensors": "o.safetensors",
}


@pytest.mark.parametrize("line", HELD)
def test_what_another_run_writes_is_not_written(desk, holder, does, refused, spoiled, line):
    spoiled("images", "id", 1)
    if line.startswith("merge"):
        assert does("propose images --proposer regions -o p.json --shard 1/1")[0] == 0
    (desk / "a").mkdir()
    process = holder(desk / HELD[line])
    before = {path for path in desk.rglob("*") if ".parts" not in str(path)}
    said = refused(f"{line} --overwrite")
    assert f"{HELD[line]} is being written by process {process.pid} on " in said
    assert {path for path in desk.rglob("*") if ".parts" not in str(path)} == before
    process.kill()
    process.wait()
    assert does(line)[0] == 0
    assert (desk / HELD[line]).exists() and not list(desk.rglob("*.lock"))


def test_a_refused_run_leaves_what_the_other_has_written(desk, holder, refused, spoiled, does):
    assert does(f"{SEGMENT} -o o.json --label-maps maps")[0] == 0
    before = (desk / "maps/classes.txt").read_bytes()
    (desk / "c.tar.crops").mkdir()
    (desk / "c.tar.crops/own.png").write_bytes(b"of the other")
    table = "image,caption\n1.png,a cow eats an apple\n2.png,a cow\n"
    (desk / "captions.csv").write_text(table)
    holder(desk / "o.json")
    segment = "segment images --classes apple --method patch --label-maps maps"
    mine = "mine-pairs --captions captions.csv --images images --proposer regions --crops c.tar"
    for line in (segment, mine):
        assert "is being written by" in refused(f"{line} -o o.json --overwrite")
    assert (desk / "maps/classes.txt").read_bytes() == before
    assert (desk / "c.tar.crops/own.png").exists()


def test_what_is_whole_is_not_removed_by_another_run_before_it_has_its_name(desk, monkeypatch):
    rename = os.replace

    def after_another(source, target):
        atomic.check_output(Path(target), overwrite=True)  # removes what killed writers left
        rename(source, target)

    monkeypatch.setattr(os, "replace", after_another)
    atomic.write_bytes(desk / "o.png", b"whole")
    assert (desk / "o.png").read_bytes() == b"whole"


def test_a_file_that_another_run_removes_before_it_is_locked_is_made_again(desk, monkeypatch):
    locked, tried = atomic.lock, []

    def late(descriptor):
        tried.append(descriptor)
        if len(tried) == 1:
            assert atomic.remove_stale(desk / "o.png") == 1
        return locked(descriptor)

    monkeypatch.setattr(atomic, "lock", late)
    atomic.write_bytes(desk / "o.png", b"whole")
    assert (desk / "o.png").read_bytes() == b"whole"


def test_a_list_of_classes_that_is_read_is_not_replaced(desk, refused, does):
    (desk / "maps").mkdir()
    (desk / "maps/classes.txt").write_text("cow\n# mine\napple\n")
    line = "segment images --method patch --classes-file maps/classes.txt --label-maps maps"
    said = refused(f"{line} -o o.json --overwrite", status=2)
    assert said.startswith("error: maps/classes.txt is read by this run")
    assert (desk / "maps/classes.txt").read_text() == "cow\n# mine\napple\n"
    (desk / "maps/classes.txt").write_text("cow\napple\n")  # what would be written there
    assert does(f"{line} -o o.json --background none")[0] == 0


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

"""Places that `segment` cannot write to, and runs that are cut off: nothing is left half-written."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovtool.cli.errors import run
from ovtool.formats import coco

WORDS = ["--classes", "cow,apple"]


def test_an_output_that_exists(fails, desk, photos, capsys):
    (desk / "o.json").write_text("mine")
    line = ["segment", str(photos / "a.png"), *WORDS, "-o", "o.json"]
    said = fails(1, *line)
    assert said == "o.json exists; replace it with --overwrite, or name another"
    assert (desk / "o.json").read_text() == "mine"
    assert run([*line, "--overwrite"]) == 0 and len(coco.read("o.json").images) == 1


def test_an_overlay_or_a_folder_that_exists(fails, desk, photos):
    (desk / "a.overlay.png").touch()
    assert fails(1, "segment", photos / "a.png", *WORDS).startswith("a.overlay.png exists")
    (desk / "seen").mkdir()
    (desk / "seen/x.png").touch()
    line = ["segment", str(photos), *WORDS, "-o", "o.json", "--overlays", "seen"]
    assert fails(1, *line).startswith("seen is not empty; choose another folder, or give --overw")
    assert run([*line, "--overwrite"]) == 0
    assert sorted(path.name for path in (desk / "seen").iterdir()) == [
        "a.png", "b.png", "deep", "x.png",
    ]  # fmt: skip


def test_places_that_are_not_there(fails, desk, photos):
    said = fails(1, "segment", photos, *WORDS, "-o", "gone/o.json")
    assert "gone/o.json: no folder" in said and said.endswith("make it with mkdir -p")
    assert "is a folder" in fails(1, "propose", photos, "-o", desk)


def test_a_folder_that_cannot_be_written_to(fails, desk, photos, monkeypatch):
    locked = desk / "locked"
    locked.mkdir()
    if os.geteuid() == 0:  # whom nothing is denied
        access = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: Path(path) != locked and access(path, mode)
        )
    else:
        locked.chmod(0o555)
    said = fails(1, "segment", photos, *WORDS, "-o", "locked/o.json")
    assert said == f"cannot write locked/o.json: no permission to write in {locked}"
    for option in ("--label-maps", "--overlays", "--heatmaps"):
        said = fails(1, "segment", photos, *WORDS, "-o", "o.json", option, "locked/new")
        assert said == f"cannot write locked/new: no permission to write in {locked}"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk, desk, photos, capsys):
    line = ["segment", str(photos), *WORDS, "-o", str(small_disk / "o.json"), "--part-size", "1"]
    (small_disk / "ballast").write_bytes(bytes(64 * 1024))
    assert run(line) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: cannot ") and "disk is full; free some space" in said
    assert len(said.splitlines()) == 1
    (small_disk / "ballast").write_bytes(bytes(56 * 1024))
    assert run([*line, "--overlays", str(small_disk / "seen")]) == 1
    assert "disk is full; free some space" in capsys.readouterr().err
    assert not any(path.name.endswith(".tmp") for path in small_disk.rglob("*"))
    (small_disk / "ballast").unlink()
    assert run(line) == 0


def test_a_disk_that_fills_up_while_the_result_is_written(desk, photos, capsys, monkeypatch):
    sync = os.fsync
    parts = []

    def full(descriptor):
        parts.append(descriptor)
        if len(parts) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return sync(descriptor)

    run(["segment", str(photos), *WORDS, "-o", "-"])  # fills the cache of words
    capsys.readouterr()
    monkeypatch.setattr(os, "fsync", full)
    line = ["segment", str(photos), *WORDS, "-o", "o.json", "--part-size", "1"]
    assert run(line) == 1
    assert capsys.readouterr().err.endswith(
        ": the disk is full; free some space, or write elsewhere\n"
    )
    left = sorted(path.name for path in desk.rglob("*") if path.is_file())
    assert left and all(name.startswith("part-0000") for name in left)
    monkeypatch.undo()
    monkeypatch.chdir(desk)
    assert run([*line, "--resume", "--model", "tiny"]) == 0
    assert [path.name for path in desk.iterdir()] == ["o.json"]


def test_ctrl_c_in_the_middle(desk, photos, tmp_path):
    for n in range(60):
        shutil.copy(photos / "b.jpg", photos / f"b{n:02d}.jpg")
    line = [sys.executable, "-m", "ovtool", "segment", str(photos), *WORDS, "-o", "o.json"]
    line += ["--part-size", "2", "--overlays", "seen"]
    process = subprocess.Popen(line, cwd=desk, stderr=subprocess.PIPE, text=True)
    parts = desk / "o.json.parts"
    while len(list(parts.glob("part-*.jsonl"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")
    assert not (desk / "o.json").exists() and len(list(parts.glob("part-*.jsonl"))) >= 3
    assert not any(path.name.endswith(".tmp") for path in desk.rglob("*"))
    assert run([*line[3:], "--resume"]) == 0
    assert len(coco.read("o.json").images) == 63 and not parts.exists()

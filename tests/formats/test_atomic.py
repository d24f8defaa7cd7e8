"""Files are whole or not there; what cannot be written is told in one line."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.formats import atomic


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    atomic.write_text(target, "one")
    atomic.write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOENT, "")]
)
def test_a_failed_block_leaves_the_old_file_and_its_own_error(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(type(error)) as caught, atomic.writing(target) as handle:
        handle.write(b"new")
        raise error
    assert caught.value is error
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    atomic.check_output(Path("/dev/null"), overwrite=False)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    atomic.write_bytes(pipe, b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    assert pipe.is_fifo()


def test_full_disk(small_disk: Path) -> None:
    (small_disk / "a").write_text("old")
    with pytest.raises(InputError) as error:
        atomic.write_bytes(small_disk / "a", os.urandom(3_000_000))
    assert one_line(error) == (
        f"cannot write {small_disk}/a: the disk is full; free some space, or write elsewhere"
    )
    assert os.listdir(small_disk) == ["a"] and (small_disk / "a").read_text() == "old"


def test_full_disk_found_while_the_block_writes(small_disk: Path) -> None:
    with pytest.raises(InputError, match="disk is full"), atomic.writing(small_disk / "a") as file:
        for _ in range(100):
            file.write(bytes(100_000))
    assert os.listdir(small_disk) == []


def test_check_output(tmp_path: Path) -> None:
    atomic.check_output(tmp_path / "new", overwrite=False)
    atomic.check_output(Path("-"), overwrite=False)
    (tmp_path / "old").write_text("")
    atomic.check_output(tmp_path / "old", overwrite=True)
    with pytest.raises(OutputExistsError) as error:
        atomic.check_output(tmp_path / "old", overwrite=False)
    assert "--overwrite" in one_line(error)
    with pytest.raises(InputError, match="is a folder"):
        atomic.check_output(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="no folder .*mkdir"):
        atomic.check_output(tmp_path / "x" / "y", overwrite=False)
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="old is a file; name another folder"):
        atomic.check_output(tmp_path / "old" / "y", overwrite=False)
    with pytest.raises(InputError, match="a file has that name|not a folder"):
        atomic.make_folder(tmp_path / "old")


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match="no permission to write in"):
        atomic.check_output(tmp_path / "a", overwrite=False)


def test_missing_folder_is_told_by_the_name_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        atomic.write_text(tmp_path / "x" / "a", "")
    assert ".tmp" not in one_line(error) and "folder" in str(error.value)
    with pytest.raises(InputError, match="it is a folder"):
        atomic.write_text(tmp_path, "")


WRITER = """
import sys, time
from pathlib import Path
from ovtool.formats import atomic
with atomic.writing(Path(sys.argv[1])) as handle:
    handle.write(b"half")
    handle.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "out[1].json"
    (tmp_path / ".out[1].json.notes.tmp").mkdir()  # not ours
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None and process.stdout.readline()
    assert atomic.remove_stale(target) == 0  # its writer lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists() and len(os.listdir(tmp_path)) == 2
    assert atomic.remove_stale(target) == 1
    assert os.listdir(tmp_path) == [".out[1].json.notes.tmp"]


def test_canonical_json() -> None:
    text = atomic.canonical_json({"b": [1, 2.5], "a": "é", "c": {"y": None, "x": True}})
    assert text == '{"a":"é","b":[1,2.5],"c":{"x":true,"y":null}}'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            atomic.canonical_json({"a": bad})


def test_outputs_of_one_command_are_files_of_their_own(tmp_path):
    places = (tmp_path / "a.safetensors", tmp_path / "a.png")
    atomic.check_outputs(places, overwrite=False)
    (tmp_path / "a.png").touch()
    with pytest.raises(OutputExistsError, match="a.png exists"):
        atomic.check_outputs(places, overwrite=False)
    atomic.check_outputs(places, overwrite=True)
    same = (tmp_path / "a.png", tmp_path / "." / "a.png")
    with pytest.raises(UsageError, match="would hold two outputs of this command"):
        atomic.check_outputs(same, overwrite=True)


def test_a_system_without_fcntl_writes_too(tmp_path: Path, monkeypatch) -> None:
    """Windows has no such module; there a file that is open cannot be removed."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    target = tmp_path / "a.json"
    atomic.write_text(target, "one")
    atomic.write_text(target, "two")
    assert target.read_text() == "two"
    (tmp_path / ".a.json.0123456789ab.tmp").touch()
    assert atomic.remove_stale(target) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


SCRATCH = (
    "import os, signal, sys; from ovtool.formats import atomic\n"
    "with atomic.scratch_folder() as folder:\n"
    "    (folder / 'part').touch(); print(folder, flush=True)\n"
    "    sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)"
)


def test_a_scratch_folder_of_a_killed_process_goes_with_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "ovtool-scratch-mine").touch()  # no folder
    other = subprocess.Popen(
        [sys.executable, "-c", SCRATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    place = Path(other.stdout.readline().decode().strip())
    os.utime(place, (0, 0))
    with atomic.scratch_folder() as own:
        assert own.is_dir() and own.parent == tmp_path and (place / "part").exists()  # it lives
    other.communicate(b"")
    assert not own.exists() and place.exists()
    os.utime(place)
    with atomic.scratch_folder():
        assert place.exists()  # just made
    os.utime(place, (0, 0))
    with atomic.scratch_folder():
        assert not place.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["ovtool-scratch-mine"]

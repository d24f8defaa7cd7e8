"""Several processes make the parts that one makes; an error, a kill or Ctrl-C ends them all, and what is done stays."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from ovtool.errors import InputError, OvtoolError
from ovtool.formats import parts
from ovtool.formats.parts import PartStore
from ovtool.runtime import engine, processes
from ovtool.runtime.processes import Processes

CUTS = parts.cut(11, 2)


def store(folder: Path) -> PartStore:
    return PartStore(folder / "x.parts", "d", {})


def work_of(event=None, at=None):
    """Work that is defined inside a function, as that of the stages; `event` happens in part `at`."""

    def work(part):
        if part.index == at:
            event()
        names = range(part.start, part.stop)
        size = torch.get_num_threads() * 4
        records = (parts.image_record(f"{name}.png", size, 4, []) for name in names)
        return engine.PartOutput(records, {"t": torch.full((3,), float(part.index))})

    return work


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_several_processes_leave_what_one_leaves(tmp_path, caplog):
    log = logging.getLogger("ovtool")

    def warn():
        logging.getLogger("ovtool").warning("in part %d", 1)

    engine.run_parts(CUTS, store(tmp_path / "one"), work_of())
    seen: list[int] = []
    with caplog.at_level(logging.WARNING, log.name):
        engine.run_parts(
            CUTS,
            store(tmp_path / "two"),
            work_of(warn, 1),
            engine=Processes(2),
            advance=seen.append,
        )
    assert content(tmp_path / "one") == content(tmp_path / "two") and len(CUTS) == 6
    assert seen == [1] * 11 and caplog.messages == ["in part 1"]
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_ends_all_and_is_the_same_error(tmp_path):
    def fail():
        raise InputError("no room on the disk")

    with pytest.raises(InputError, match="^no room on the disk$"):
        engine.run_parts(CUTS, store(tmp_path), work_of(fail, 3), engine=Processes(2))
    assert not multiprocessing.active_children()


def test_a_killed_process_is_one_line_and_resume_goes_on(tmp_path):
    kept = store(tmp_path / "two")

    def die():
        while not kept.exists(CUTS[0]):  # the other process may begin later than this one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    engine.run_parts(CUTS, store(tmp_path / "one"), work_of())
    with pytest.raises(OvtoolError, match="was killed by signal 9; run the command again with --r"):
        engine.run_parts(CUTS, kept, work_of(die, 4), engine=Processes(2))
    assert not multiprocessing.active_children()
    assert kept.exists(CUTS[0]) and not kept.exists(CUTS[4])
    engine.run_parts(CUTS, kept, work_of(), resume=True)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_ctrl_c_ends_all_processes(tmp_path):
    def wait():
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        engine.run_parts(
            CUTS,
            store(tmp_path),
            work_of(wait, 2),
            engine=Processes(2),
            advance=lambda images: signal.raise_signal(signal.SIGINT),
        )
    assert not multiprocessing.active_children()


def test_one_part_needs_no_other_process(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(processes, "_started", lambda *_: pytest.fail("a process was started"))
    engine.run_parts(CUTS[:1], store(tmp_path), work_of(), engine=Processes(3))
    engine.run_parts([], store(tmp_path), work_of(), engine=Processes(3))
    assert caplog.messages == [
        "3 workers share 1 part; a smaller --part-size gives each of them one"
    ]


def test_what_cannot_travel_is_told_by_its_text():
    class Odd(Exception):
        pass

    assert str(processes.sendable(Odd("why"))) == "Odd in a worker process: why"
    assert isinstance(processes.sendable(MemoryError()), MemoryError)


@pytest.mark.parametrize(
    "given, count, expected",
    [(None, 1, [None] * 3), (None, 2, ["0,1", "1,0", "0,1"]), ("5,7", 2, ["5,7", "7,5", "5,7"])],
)
def test_each_process_begins_with_the_next_gpu(monkeypatch, given, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [processes._visible_gpus(number) for number in range(3)] == expected

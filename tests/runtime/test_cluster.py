"""A real cluster of Ray on this machine; what it makes is what one process makes."""

import logging
import os
import signal
import sys

import pytest

from ovtool.errors import InputError, UsageError
from ovtool.formats import parts
from ovtool.formats.parts import PartStore
from ovtool.runtime import cluster as cluster_of_ray
from ovtool.runtime import engine
from ovtool.runtime.cluster import Cluster

CUTS = parts.cut(12, 2)
pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time


def store(folder):
    return PartStore(folder / "x.parts", "d", {})


def test_without_ray_the_engine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray; pip install 'ovtool\[ray\]'"):
        engine.run_parts(CUTS, store(tmp_path), lambda part: None, engine=Cluster(2, None, False))


@pytest.fixture(scope="module")
def cluster():
    """One that runs here, for all tests of this file."""
    pytest.importorskip("ray")
    with cluster_of_ray._connected(None) as ray:
        yield ray


def work_of(event=None, at=None):
    def work(part):
        if part.index == at:
            event()
        names = range(part.start, part.stop)
        return engine.PartOutput(parts.image_record(f"{name}.png", 4, 4, []) for name in names)

    return work


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))}


@pytest.mark.slow
@pytest.mark.parametrize("has_room_for_both", [True, False])
def test_two_actors_one_of_which_is_killed_leave_what_one_process_leaves(
    cluster, tmp_path, caplog, monkeypatch, has_room_for_both
):
    threads = 1 if has_room_for_both else os.cpu_count()
    monkeypatch.setattr(cluster_of_ray, "environment", lambda: (threads, logging.WARNING))
    flag = tmp_path / "killed"

    def die_once():
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def warn():
        logging.getLogger("ovtool").warning("in part 1")

    engine.run_parts(CUTS, store(tmp_path / "one"), work_of())
    seen = []
    engine.run_parts(
        CUTS,
        store(tmp_path / "two"),
        work_of(lambda: warn() or die_once(), 1),
        engine=Cluster(2, None, False),
        advance=seen.append,
    )
    assert flag.exists() and content(tmp_path / "one") == content(tmp_path / "two")
    own = [said for said in caplog.messages if "no worker has begun" not in said]  # a busy machine
    assert seen == [2] * 6 and own == ["in part 1"]


@pytest.mark.slow
def test_an_error_is_the_same_error_and_nothing_goes_on(cluster, tmp_path):
    def fail():
        raise InputError("no room on the disk")

    with pytest.raises(InputError, match="^no room on the disk$"):
        engine.run_parts(CUTS, store(tmp_path), work_of(fail, 0), engine=Cluster(1, None, False))
    assert not content(tmp_path)


@pytest.mark.slow
def test_ctrl_c_cancels_the_actors(cluster, tmp_path):
    def interrupt(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run_parts(
            CUTS, store(tmp_path), work_of(), engine=Cluster(2, None, False), advance=interrupt
        )
    assert len(content(tmp_path)) < len(CUTS)

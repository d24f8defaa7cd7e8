"""Killed at any moment and resumed, `mine-pairs` leaves the bytes of an uninterrupted run."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

FORKING = textwrap.dedent(
    """
    import json, os, signal, sys
    import ovtool.models.clip, ovtool.models.text, ovtool.models.region_clip, spacy
    from ovtool.cli.errors import run
    from ovtool.formats import coco, parts
    from ovtool.stages import mine_pairs

    one, written, write = mine_pairs.Miner.record, parts.PartStore.write, coco.write

    def dies_at(moment):
        seen = {"record": 0, "part": 0}

        def count(kind):
            seen[kind] += 1
            if moment == [kind, seen[kind]]:
                os.kill(os.getpid(), signal.SIGKILL)

        def record(*arguments):
            count("record")
            return one(*arguments)

        def after_part(*arguments):
            written(*arguments)
            count("part")

        def before_merging(*arguments):
            count("merge") if moment == ["merge", 1] else None
            return write(*arguments)

        seen["merge"] = 0
        mine_pairs.Miner.record, parts.PartStore.write = record, after_part
        coco.write = before_merging

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os.chdir(job["folder"])
            dies_at(job["moment"])
            os._exit(run(job["arguments"]))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "crops, moments",
    [
        ("crops", (["record", 2], ["part", 1], ["merge", 1])),
        ("x.tar", (["record", 1], ["part", 2])),
    ],
    ids=["folder", "tar"],
)
def test_a_run_that_was_killed_and_resumed_leaves_the_same_bytes(
    mining, desk, tmp_path, crops, moments
):
    command = [*mining, "-o", "o.json", "--part-size", "1", "--crops", crops]
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def forked(folder, arguments, moment=None):
        job = {"folder": str(folder), "arguments": arguments, "moment": moment}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    try:
        assert forked(desk, command) == 0
        expected = content(desk)
        for moment in moments:
            folder = tmp_path / "-".join(map(str, moment))
            folder.mkdir()
            assert forked(folder, command, moment) == -9
            assert "o.json" not in content(folder)
            assert forked(folder, [*command, "--resume"]) == 0
            assert content(folder) == expected
    finally:
        process.stdin.close()
        process.wait(timeout=60)

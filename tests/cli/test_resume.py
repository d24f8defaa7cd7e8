"""Killed at any moment and resumed, a run over images leaves the bytes of an uninterrupted one."""

import random

import numpy as np
import pytest
from PIL import Image

from ovtool.formats import coco

IMAGES, PART_SIZE, KILLS = 12, 2, 6


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Pictures of a few flat blocks, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(0)
    for n in range(IMAGES):
        coarse = Image.fromarray(numbers.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((80, 64), Image.Resampling.NEAREST).save(folder / f"{n:02d}.png")
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:90])
    return folder


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
    "command, seed",
    [(["segment", *SEGMENT], 1), (["propose", "--proposer", "regions"], 2)],
    ids=["segment", "propose"],
)
def test_runs_that_were_killed_and_resumed_leave_the_same_bytes(
    many, forked, content, tmp_path, command, seed
):
    line = [*command, str(many), "-o", "o.json", "--part-size", str(PART_SIZE)]
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
        status = forked(folder, line, {"files": kill_at, "delay": delay})
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
    assert in_the_middle >= 2


@pytest.mark.parametrize(
    "crops, moments",
    [
        ("crops", [("record", 2), ("part", 1), ("merge", 1)]),
        ("x.tar", [("record", 1), ("part", 2)]),
    ],
    ids=["folder", "tar"],
)
def test_mining_that_was_killed_and_resumed_leaves_the_same_bytes(
    mining, desk, tmp_path, forked, content, crops, moments
):
    calls = {
        "record": ("ovtool.stages.mine_pairs:Miner.record", False),
        "part": ("ovtool.formats.parts:PartStore.write", True),
        "merge": ("ovtool.formats.coco:write", False),
    }
    command = [*mining, "-o", "o.json", "--part-size", "1", "--crops", crops]
    assert forked(desk, command) == 0
    expected = content(desk)
    for moment, count in moments:
        folder = tmp_path / f"{moment}-{count}"
        folder.mkdir()
        call, after = calls[moment]
        assert forked(folder, command, {"call": call, "count": count, "after": after}) == -9
        assert "o.json" not in content(folder)
        assert forked(folder, [*command, "--resume"]) == 0
        assert content(folder) == expected

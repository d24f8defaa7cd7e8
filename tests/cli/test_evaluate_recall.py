"""`ovtool evaluate --metric recall`: table, JSON, and bad input."""

import json

import numpy as np
import pytest

from ovtool.cli.errors import run
from ovtool.formats import coco, rle

SIDE = 40


@pytest.fixture
def files(desk):
    """truth.json with two masks, found.json with one of them."""
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :20], masks[1, 30:] = True, True
    entries = [coco.annotation(k + 1, 1, 1, rle.encode(m), 0.5) for k, m in enumerate(masks)]
    image, category = coco.Image(1, "a.jpg", SIDE, SIDE), coco.Category(1, "thing")
    coco.write(coco.Dataset({}, [image], entries, [category]), desk / "truth.json")
    coco.write(coco.Dataset({}, [image], entries[:1], [category]), desk / "found.json")
    return ("evaluate", "found.json", "--ground-truth", "truth.json", "--metric", "recall")


def test_table_and_json(files, capsys):
    assert run([*files, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["average_recall"] == found["recall_50"] == 0.5
    assert found["average_recall_small"] == 0.5 and found["average_recall_large"] is None
    assert found["intervals"] == {"average_recall": {"low": 0.5, "high": 0.5}}  # a single image
    lines = said.err.splitlines()
    assert lines[0].split()[:2] == ["measure", "%"] and len(lines) == 8
    assert lines[1].endswith("50.00  [50.00, 50.00]") and lines[4].split()[-1] == "-"
    assert lines[7] == "1 image is counted, with 2 true masks and 1 proposal"


def test_two_files_of_proposals_are_compared(files, capsys):
    assert run([*files[:2], "truth.json", *files[2:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["average_recall"], found["other"]["average_recall"]) == (0.5, 1.0)
    assert found["difference"] == {"average_recall": {"value": 0.5, "low": 0.5, "high": 0.5}}


def test_output_file(files, desk):
    assert run([*files, "-o", "r.json"]) == 0
    assert json.loads((desk / "r.json").read_text())["metric"] == "recall"


def test_bad_requests(files, desk, fails):
    said = fails(2, *files, "--with-background")
    assert said.startswith(
        "--with-background belongs to --metric miou or boundary-iou, not to recall"
    )
    said = fails(2, *files, "--ignore-label", "cow")
    assert said.startswith(
        "--ignore-label belongs to --metric miou or boundary-iou or seeds, not to recall"
    )
    gone = ("evaluate", "gone.json", *files[2:])
    assert fails(1, *gone) == "no such file: gone.json"
    (desk / "maps").mkdir()
    assert "maps" in fails(1, "evaluate", "maps", *files[2:])
    (desk / "found.json").write_text("{}")
    assert "found.json" in fails(1, *files)

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
    lines = said.err.splitlines()
    assert lines[0].split() == ["average", "recall", "%"] and len(lines) == 7
    assert lines[1].split()[-1] == "50.00" and lines[4].split()[-1] == "-"


def test_output_file(files, desk):
    assert run([*files, "-o", "r.json"]) == 0
    assert json.loads((desk / "r.json").read_text())["metric"] == "recall"


def test_bad_requests(files, desk, fails):
    said = fails(2, *files, "--with-background")
    assert said.startswith("--with-background belongs to --metric miou, not to recall")
    said = fails(2, *files, "--ignore-label", "cow")
    assert said.startswith("--ignore-label belongs to --metric miou, not to recall")
    gone = ("evaluate", "gone.json", *files[2:])
    assert fails(1, *gone) == "no such file: gone.json"
    (desk / "maps").mkdir()
    assert "maps" in fails(1, "evaluate", "maps", *files[2:])
    (desk / "found.json").write_text("{}")
    assert "found.json" in fails(1, *files)

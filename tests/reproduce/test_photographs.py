"""How the claims on photographs are run and summed up."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from ovtool.cli.errors import run

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "reproduce"))
photographs = importlib.import_module("photographs")
PAPERS = [importlib.import_module(f"{paper}_photographs") for paper in ("ovseg", "pacl", "semples")]


def test_the_interval_decides():
    for ends, verdict in (
        ((0.1, 0.3), "holds"),
        ((-0.3, -0.1), "does not hold"),
        ((-0.1, 0.3), "not shown"),
    ):
        difference = photographs.Difference(0.2, 0.4, *ends)
        assert difference.verdict == verdict
    assert difference.cells() == "20.0 | 40.0 | +20.0 [-10.0, 30.0]"
    turned = photographs.reverse(difference)
    assert turned.cells() == "40.0 | 20.0 | -20.0 [-30.0, 10.0]"


def test_a_command_runs_once_and_what_did_not_run_is_not_shown(tmp_path, monkeypatch):
    ran = []

    def answer(bench, words):
        ran.append(words)
        ends = {"miou": {"value": 0.1, "low": 0.05, "high": 0.2}}
        return json.dumps({"miou": 0.3, "other": {"miou": 0.4}, "difference": ends})

    monkeypatch.setattr(photographs.Photographs, "_run", answer)
    claims = [
        photographs.Claim(
            "two are better", "mIoU", "val, 2", [f"segment x -o $WORK/{name}"],
            ["evaluate $WORK/a $WORK/b"], lambda a: photographs.between_files(a[0]),
        )
        for name in ("a", "a", "b")
    ]  # fmt: skip
    known = photographs.Photographs(tmp_path, tmp_path, "photo", only_known=True)
    assert "| not shown |" in list(photographs.table(known, claims))[2] and not ran
    bench = photographs.Photographs(tmp_path, tmp_path, "photo")
    lines = list(photographs.table(bench, claims))
    assert lines[2].endswith("| 30.0 | 40.0 | +10.0 [5.0, 20.0] | holds |")
    made = ["segment", "x", "-o", f"{tmp_path}/a", "--update", "--json"]
    assert ran[0] == made and len(ran) == 3
    assert sum(line.startswith("ovtool evaluate") for line in lines) == 1
    assert list(photographs.table(known, claims))[2] == lines[2]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.__name__)
def test_commands_are_those_that_ovtool_has(paper, capsys, monkeypatch, tmp_path):
    """Each fails for a file that is not there, and for nothing else."""
    monkeypatch.chdir(tmp_path)
    bench = photographs.Photographs(tmp_path, tmp_path / "photos", "photo")
    lines = {line for claim in paper.claims() for line in (*claim.makes, *claim.lines)}
    for line in sorted(lines):
        assert run([*bench._words(line), "--json"]) == 1, line
        said = capsys.readouterr().err
        assert re.search("no such (file|folder)", said), (line, said)

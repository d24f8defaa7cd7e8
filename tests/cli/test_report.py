"""`ovtool report` as it is called."""

import json
import os
import time

from ovtool.cli.errors import run


def test_a_page_is_written_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scores = tmp_path / "scores.json"
    rows = [{"name": "cat", "iou": 0.25, "accuracy": 0.5}]
    scores.write_text(json.dumps({"metric": "miou", "images": 3, "classes": rows}))
    assert run(["report", "scores.json", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    page = tmp_path / "report.html"
    assert answer == {
        "output": "report.html", "bytes": page.stat().st_size, "images": 0, "failures": [],
    }  # fmt: skip
    assert run(["report", "scores.json"]) == 1
    assert "report.html exists; replace it with --overwrite" in capsys.readouterr().err
    assert run(["report"]) == 2


def test_a_page_is_written_again_only_where_something_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scores, page = tmp_path / "scores.json", tmp_path / "report.html"
    rows = [{"name": "cat", "iou": 0.25, "accuracy": 0.5}]
    scores.write_text(json.dumps({"metric": "miou", "images": 3, "classes": rows}))
    assert run(["report", "scores.json", "--dry-run"]) == 0
    assert capsys.readouterr().err == "would draw 0 images, into report.html\n"
    assert not page.exists()

    def is_made(*options):
        before = page.stat().st_mtime_ns if page.exists() else 0
        assert run(["report", "scores.json", "--update", *options]) == 0
        return page.stat().st_mtime_ns != before

    assert is_made() and not is_made()
    assert is_made("--title", "cats") and not is_made("--title", "cats")
    later = time.time() + 100
    os.utime(scores, (later, later))
    assert is_made("--title", "cats")


def test_measures_are_told_from_a_data_set(tmp_path, capsys):
    """The measures of `evaluate` hold the number of images under the name of COCO's section."""
    scores = tmp_path / "scores.json"
    scores.write_text('{"metric": "miou", "images": 3, "miou": 0.5}')
    assert run(["info", str(scores), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "scores"

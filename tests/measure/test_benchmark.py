"""The program that measures speed writes what it measured, and judges no busy machine."""

import json
import time
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarks import table
from benchmarks.measuring import Limits, Setup, one_thread
from benchmarks.table import Row

MEASURE = Path(__file__).parents[2] / "scripts" / "measure"
SETUP = Setup(Path(), False, Limits(1e9, 1e9, 1e-3))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A table and a JSON file of their own, and one row that costs what `cost` says."""
    (tmp_path / "README.md").write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(benchmark, "README", tmp_path / "README.md")
    monkeypatch.setattr(benchmark, "JSON", tmp_path / "benchmark.json")
    cost = {"ours": 0.5}

    def rows(setup):
        return [Row("row", "a work", cost["ours"], "a plain way", 1.0, 2)]

    monkeypatch.setattr(benchmark, "BENCHMARKS", {"some": benchmark.Benchmark(rows, is_quick=True)})
    monkeypatch.setattr(benchmark.Others, "share", lambda self: 0.0)
    return tmp_path, cost


def test_the_table_stands_between_its_markers(place):
    folder, _ = place
    assert benchmark.write(["some"], SETUP) == 0
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| a work | 500 ms | a plain way: 1 s | **2** | 2 |" in text
    assert json.loads((folder / "benchmark.json").read_text())["quick"] == {"row": 2.0}


def test_a_row_that_fell_by_a_third_fails(place, capsys):
    _, cost = place
    benchmark.write(["some"], SETUP)
    cost["ours"] = 0.7
    assert benchmark.compare(["some"], SETUP) == 0
    cost["ours"] = 0.8
    assert benchmark.compare(["some"], SETUP) == 1
    assert "fell by more than a third: a work" in capsys.readouterr().err


def test_a_busy_machine_is_not_judged_and_writes_nothing(place, monkeypatch, capsys):
    folder, cost = place
    benchmark.write(["some"], SETUP)
    before = (folder / "README.md").read_text()
    cost["ours"] = 5.0
    monkeypatch.setattr(benchmark.Others, "share", lambda self: 0.5)
    assert benchmark.compare(["some"], SETUP) == 0
    assert benchmark.write(["some"], SETUP) == 1
    said = capsys.readouterr().err
    assert "not judged, the machine is busy: a work" in said and "some not written" in said
    assert (folder / "README.md").read_text() == before


def test_a_busy_machine_is_refused_at_once(place, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "others_now", lambda: 0.9)
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--write"])
    assert benchmark.main() == 1
    said = capsys.readouterr().err
    assert "load average" in said and "the machine is busy: nothing is written" in said


def test_a_row_goes_into_json_and_back():
    row = Row("key", "a work", 0.25, "a plain way", 1.0, 2, "half of the bandwidth", "GB")
    assert Row.of_data(row.as_data()) == row


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(2.0, "s", "2 s"), (0.0123, "s", "12.3 ms"), (4e-5, "s", "40 us"), (1.5, "GB", "1.50 GB"),
     (0.02, "GB", "20.0 MB")],
)  # fmt: skip
def test_amounts(value, unit, text):
    assert table.amount(value, unit) == text


def test_the_readme_has_the_table_of_the_json():
    assert table.BEGIN in (MEASURE / "README.md").read_text()
    if (MEASURE / "benchmark.json").is_file():
        kept = json.loads((MEASURE / "benchmark.json").read_text())
        rows = [Row.of_data(entry) for rows in kept["rows"].values() for entry in rows]
        assert table.markdown(rows) in (MEASURE / "README.md").read_text()
        assert set(kept["rows"]) <= set(benchmark.BENCHMARKS)


def test_quick_fails_on_a_ratio_that_is_false(place, monkeypatch, capsys):
    folder, _ = place
    monkeypatch.setattr(benchmark, "others_now", lambda: 0.0)
    monkeypatch.setattr(benchmark, "limits_of_machine", lambda: SETUP.limits)
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--quick"])
    table = {"rows": {}, "quick": {"row": 2.9}, "machine": benchmark.machine()}
    (folder / "benchmark.json").write_text(json.dumps(table))
    assert benchmark.main() == 0
    (folder / "benchmark.json").write_text(json.dumps(table | {"quick": {"row": 3.1}}))
    assert benchmark.main() == 1
    assert "fell by more than a third: a work: 2.00, in the table 3.1" in capsys.readouterr().err
    other = {"quick": {"row": 3.1}, "machine": "Abacus, 1 cores, 1 threads, no GPU; Python 1"}
    (folder / "benchmark.json").write_text(json.dumps(table | other))
    assert benchmark.main() == 0
    assert "the table is of another machine, Abacus, 1 cores" in capsys.readouterr().err


def test_quick_leaves_out_what_does_not_fit_its_time(place, monkeypatch, capsys):
    def slow(setup):
        time.sleep(10)
        raise AssertionError

    benchmarks = benchmark.BENCHMARKS | {"slow": benchmark.Benchmark(slow, is_quick=True)}
    monkeypatch.setattr(benchmark, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(benchmark, "QUICK_SECONDS", 0.2)
    assert benchmark.compare(["some", "slow"], SETUP) == 0
    assert "left out, the time is up: slow" in capsys.readouterr().err


def test_quick_measures_the_processor_time_of_one_thread():
    quick = Setup(Path(), True, SETUP.limits)
    ways = {"sleeps": lambda: time.sleep(0.2), "works": lambda: sum(range(2_000_000))}
    cost = quick.medians(ways, 1, warm=False)
    assert cost["sleeps"] < cost["works"]
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before

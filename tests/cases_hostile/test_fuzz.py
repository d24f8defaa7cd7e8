"""A few damaged files for every reader; `scripts/measure/soak.py` reads more."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/measure/fuzz.py"


def test_damaged_files_end_in_errors_of_ours():
    line = [sys.executable, str(SCRIPT), "--cases", "12", "--seconds", "25", "--seed", "7"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert len(counts) >= 20 and all(tally["cases"] for tally in counts.values())
    assert not [line for tally in counts.values() for line in tally["lost"]]

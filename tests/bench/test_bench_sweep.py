"""That bench/sweep.py runs, and what its JSON holds. Its figures are not tested here."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).parents[2] / "bench" / "sweep.py"


@pytest.mark.slow
def test_a_quick_run_writes_a_row_for_every_contestant(tmp_path):
    path = tmp_path / "sweep.json"
    done = subprocess.run(
        [sys.executable, BENCH, "--quick", "--json", path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["steps"] == 20 and result["rounds"] == 1
    assert {"cpu", "cores", "versions", "date"} <= result["machine"].keys()
    rows = result["rows"]
    # The peers are no dependency of the tests: these two are there without them.
    assert {"jdl", "jdl-program"} <= rows.keys()
    assert rows["jdl"]["trials"] == rows["jdl-program"]["trials"] == 20
    # The same trials by two ways: the sweep changes nothing that the program computes.
    assert rows["jdl"]["accuracy"] == pytest.approx(rows["jdl-program"]["accuracy"], abs=1e-6)
    assert rows["jdl"]["compile_seconds"] > 0
    for name, row in rows.items():
        assert len(row["trials_per_second"]) == 1 and row["median"] > 0, name
        assert 0.2 < row["accuracy"] < 0.9, name  # twenty steps: above chance, not yet trained
        if name != "jdl":
            ratio = row["ratio"]
            assert ratio["median"] == pytest.approx(rows["jdl"]["median"] / row["median"])
            assert ratio["min"] <= ratio["median"] <= ratio["max"]

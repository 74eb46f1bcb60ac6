"""A killed sweep, started again, ends with the table of one that was not."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial
from tests.same import assert_same_table

from jdl import sweep
from jdl.engine.journal import Journal
from jdl.engine.snapshot import SNAPSHOT
from jdl.train import CheckpointError

ROOT = pathlib.Path(__file__).parents[2]
QUIET = {"progress": False, "batch_size": 4, "devices": 1}


def start(out, mode="plain", pause=0.03) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.sweep_to_kill", str(out), mode, str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def recorded(out) -> int:
    """Rows in the table of reports, 0 before there is one."""
    try:
        with sqlite3.connect(f"file:{out}/run.sqlite?mode=ro", uri=True) as db:
            return db.execute("SELECT COUNT(*) FROM reports").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def ended(out) -> dict[int, tuple]:
    with sqlite3.connect(f"file:{out}/run.sqlite?mode=ro", uri=True) as db:
        return {
            row[0]: row[1:]
            for row in db.execute(
                "SELECT trial, status, steps, final FROM trials WHERE status = 'done'"
            )
        }


def finish(out, mode="plain") -> str:
    process = start(out, mode)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    return stdout + stderr


def kill_times(out, kills: int, random) -> None:
    """Kills the sweep `kills` times, each at a random moment after it got further."""
    for _ in range(kills):
        process = start(out)
        before = recorded(out)
        try:
            while process.poll() is None and recorded(out) == before:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.3))
            done = ended(out)
        finally:
            process.kill()
            process.communicate()
        after = ended(out)
        # What was recorded stays, to the letter.
        assert {trial: after[trial] for trial in done} == done


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out)
    return out


def test_killed_twice(uninterrupted, tmp_path):
    out = tmp_path / "run"
    kill_times(out, 2, np.random.default_rng(0))
    assert "Resuming" in finish(out)
    assert_same_table(uninterrupted, out)
    assert not (out / SNAPSHOT).exists()


@pytest.mark.slow
def test_killed_ten_times(uninterrupted, tmp_path):
    out = tmp_path / "run"
    kill_times(out, 10, np.random.default_rng(1))
    finish(out)
    assert_same_table(uninterrupted, out)


DECIDERS = ["asha", "pbt", "halving", "adaptive", "optuna"]


def rows(out, table):
    with sqlite3.connect(f"file:{out}/run.sqlite?mode=ro", uri=True) as db:
        return sorted(db.execute(f"SELECT * FROM {table}"))


def kill_often(out, mode, kills, pause, random) -> int:
    """Kills the sweep up to `kills` times, each at a random moment after it got further."""
    killed = 0
    for _ in range(kills):
        before = recorded(out)
        process = start(out, mode, pause)
        try:
            # Going on from a checkpoint takes rows away, which is a moment as good as any.
            while process.poll() is None and recorded(out) == before:
                time.sleep(0.01)
            time.sleep(random.uniform(0.0, 1.5 * pause))
            killed += process.poll() is None
        finally:
            process.kill()
            process.communicate()
        if process.returncode == 0:
            break
    return killed


@pytest.mark.parametrize(
    ("mode", "kills"),
    [pytest.param(mode, 2, id=f"{mode}-twice") for mode in DECIDERS[:2]]
    + [pytest.param(mode, 20, id=f"{mode}-often", marks=pytest.mark.slow) for mode in DECIDERS],
)
def test_killed_while_something_decides(tmp_path, mode, kills):
    """The order of decisions, and with it the whole table, is that of a run never killed."""
    if mode == "optuna":
        pytest.importorskip("optuna")
    finish(tmp_path / "whole", mode)
    # Long enough for all the kills to come before the end.
    pause = 0.01 * kills
    killed = kill_often(tmp_path / "parts", mode, kills, pause, np.random.default_rng(kills))
    assert killed == kills
    finish(tmp_path / "parts", mode)
    assert_same_table(tmp_path / "whole", tmp_path / "parts")
    for table in ("lineage", "events"):
        assert rows(tmp_path / "whole", table) == rows(tmp_path / "parts", table)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_politely(uninterrupted, tmp_path, number):
    out = tmp_path / "run"
    process = start(out)
    while recorded(out) == 0:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Stopping after this segment" in stderr and "to resume" in stderr
    assert (out / SNAPSHOT).exists()
    finish(out)
    assert_same_table(uninterrupted, out)


def make_trial(hp):
    return line_trial(hp["lr"])


def run(out, **options):
    arguments = {"epochs": 2, **QUIET, **options}
    space = {"lr": sweep.log_grid(0.01, 0.1, 4)}
    return sweep.run(make_trial, space, dataset(), out=out, **arguments)


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    first = run(tmp_path / "run")
    again = run(tmp_path / "run")
    assert first.compilations == 1
    np.testing.assert_array_equal(first.curves(), again.curves())
    np.testing.assert_array_equal(first.best.state.weights, again.best.state.weights)
    assert [t.trial for t in again.trials] == [0, 1, 2, 3]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["lock", "run.sqlite"]


def test_a_folder_of_another_specification(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(
        sweep.StoreError, match=r"(?s)another specification:.*steps: 10 there, 5 now"
    ):
        run(tmp_path / "run", epochs=1)
    with pytest.raises(sweep.StoreError, match="seed: 0 there, 7 now"):
        run(tmp_path / "run", seed=7)


def test_other_data_is_another_specification(tmp_path):
    run(tmp_path / "run")
    data = dataset()
    data.train[0][0, 0] += 1
    space = {"lr": sweep.log_grid(0.01, 0.1, 4)}
    with pytest.raises(sweep.StoreError, match="data"):
        sweep.run(make_trial, space, data, epochs=2, out=tmp_path / "run", **QUIET)


@pytest.mark.skipif(os.name != "posix", reason="locks by fcntl")
def test_two_processes_on_one_folder(tmp_path):
    first = Journal(tmp_path / "run")
    with pytest.raises(sweep.StoreError, match="Another process is running in"):
        run(tmp_path / "run")
    first.close()
    run(tmp_path / "run")


def test_a_corrupt_store(tmp_path):
    run(tmp_path / "run")
    (tmp_path / "run" / "run.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(sweep.StoreError, match=r"run.sqlite is damaged or not a run"):
        run(tmp_path / "run")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sweep.StoreError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(sweep.StoreError, match="holds no run"):
        sweep.read(tmp_path)


def interrupted_run(out):
    """A run stopped in the middle, with a checkpoint, by the first report of a search's stop."""
    process = start(out)
    while recorded(out) == 0:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_corrupt_checkpoint_says_what_to_do(uninterrupted, tmp_path):
    out = tmp_path / "run"
    interrupted_run(out)
    path = out / SNAPSHOT
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 0xFF
    path.write_bytes(whole)
    process = start(out)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert CheckpointError.__name__ in stderr and "Delete lanes.safetensors to go on" in stderr
    path.unlink()
    finish(out)
    assert_same_table(uninterrupted, out)

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
from jdl.engine import checkpoint
from jdl.engine.journal import Journal
from jdl.engine.snapshot import SNAPSHOT
from jdl.train import CheckpointError

ROOT = pathlib.Path(__file__).parents[2]
QUIET = {"progress": False, "batch_size": 4, "devices": 1}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Compiled programs are stored, so that a process starts soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield


def start(out, mode="plain", pause=0.03) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.sweep_to_kill", str(out), mode, str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(out, mode="plain") -> str:
    process = start(out, mode)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def rows(out, query) -> list[tuple]:
    """What plain SQL reads from the run; nothing before it has begun."""
    try:
        with sqlite3.connect(f"file:{out}/run.sqlite?mode=ro", uri=True) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def recorded(out) -> int:
    return len(rows(out, "SELECT trial FROM reports"))


def ended(out) -> dict[int, tuple]:
    query = "SELECT trial, status, steps, final, ended FROM trials WHERE ended IS NOT NULL"
    return {row[0]: row[1:] for row in rows(out, query)}


def lost_turns(out) -> int:
    """The turns recorded since the last checkpoint, which a resumed run repeats."""
    ((last,),) = rows(out, "SELECT value FROM meta WHERE key = 'turn'") or [("0",)]
    path = out / SNAPSHOT
    saved = checkpoint.from_bytes(path.read_bytes())[1]["turn"] if path.exists() else 0
    return int(last) - saved


def at_next_record(process, out) -> None:
    """Waits until the process records something, or ends."""
    before = recorded(out)
    # Going on from a checkpoint takes rows away, which is a moment as good as any.
    while process.poll() is None and recorded(out) == before:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(cached, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out)
    return out


def test_killed_twice(uninterrupted, tmp_path):
    out = tmp_path / "run"
    for _ in range(2):
        process = start(out, pause=0.2)
        at_next_record(process, out)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert "Resuming" in finish(out)
    assert_same_table(uninterrupted, out)
    assert not (out / SNAPSHOT).exists()


def test_interrupted_and_then_the_checkpoint_is_damaged(uninterrupted, tmp_path):
    out = tmp_path / "run"
    process = start(out, pause=0.2)
    at_next_record(process, out)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Stopping after this segment" in said and "to resume" in said
    path = out / SNAPSHOT
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 0xFF
    path.write_bytes(damaged)
    process = start(out)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert CheckpointError.__name__ in said and "Delete lanes.safetensors to go on" in said
    path.unlink()
    finish(out)
    assert_same_table(uninterrupted, out)


# Seconds of a segment, so that each run trains for some four seconds.
PAUSES = {
    "plain": 0.2, "asha": 0.15, "halving": 0.15, "pbt": 0.08, "optuna": 0.1, "adaptive": 0.05
}  # fmt: skip
INTERVAL = 0.2  # between checkpoints
ROWS = 4  # at most, each with a segment in flight
CUTS = 7  # of each


@pytest.mark.slow
@pytest.mark.parametrize("mode", PAUSES)
def test_cut_at_any_moment(cached, tmp_path, mode):
    """Cuts drawn over the whole life of a run: the table is that of a run never cut.

    A cut loses the turns that fit between two checkpoints, and those of the segments that
    were in flight when the next one was due.
    """
    if mode == "optuna":
        pytest.importorskip("optuna")
    whole, pause = tmp_path / "whole", PAUSES[mode]
    finish(whole, mode)
    random = np.random.default_rng(len(mode))
    runs, cuts, startup, stay = 0, 0, 1.0, {}
    while cuts < CUTS:
        out, began = tmp_path / f"{runs}", time.monotonic()
        number = {2: signal.SIGTERM, 5: signal.SIGINT}.get(cuts, signal.SIGKILL)
        process, draw = start(out, mode, pause), random.uniform(0, 2)
        if draw < 1:  # before the first segment
            time.sleep(draw * startup)
        else:
            at_next_record(process, out)
            startup = time.monotonic() - began
            time.sleep((draw - 1) * 1.5)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        if process.returncode == 0:  # it was over, or Python lost Ctrl-C in an import
            assert_same_run(whole, out)
            runs, stay = runs + 1, {}
            continue
        cuts += 1
        stay |= ended(out)
        if "Stopping after" in said:
            assert lost_turns(out) == 0
        elif not rows(out, "SELECT 1 FROM meta WHERE key = 'complete' AND value = 'true'"):
            assert lost_turns(out) <= INTERVAL / pause + 1 + ROWS
    finish(out, mode)
    assert_same_run(whole, out)
    # What had ended was not run again, or became the same in the same turn.
    assert stay.items() <= ended(out).items()


def assert_same_run(one, two):
    assert_same_table(one, two)
    for table in ("lineage", "events"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert rows(one, query) == rows(two, query)


def make_trial(hp):
    return line_trial(hp["lr"])


def run(out, **options):
    arguments = {"epochs": 2, **QUIET, **options}
    space = {"lr": sweep.log_grid(0.01, 0.1, 4)}
    return sweep.run(make_trial, space, dataset(), out=out, **arguments)


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    first = run(tmp_path / "run")
    again = run(tmp_path / "run")
    assert first.programs == 1
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

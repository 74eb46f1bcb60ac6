"""Many trials and many sweeps: host time, memory and files."""

from __future__ import annotations

import gc
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial
from tests.sweep.simulated import resident, simulate

from jdl import sweep

ROOT = pathlib.Path(__file__).parents[2]


def test_pretended_trials_cost_the_host_little(tmp_path):
    *_, (_, seconds, _) = simulate(5_000, tmp_path / "run")
    # A hundred times what is wanted of a quiet machine would be a defect of kind, not of load.
    assert seconds / 5_000 < 5e-3
    assert len(list((tmp_path / "run").iterdir())) <= 5


@pytest.mark.slow
def test_a_million_pretended_trials(tmp_path):
    """Queue, stopping and store: flat memory, at most five files; `-s` prints the time."""
    # Without the type checks that tests run under, which cost more than what is measured.
    command = [sys.executable, "-m", "tests.sweep.simulated", "1000000", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    marks, files, cpu = said["marks"], said["files"], said["cpu_seconds"]
    growth = marks[-1][2] - marks[0][2]
    print(f"\n{cpu:.1f} us of processor time a trial, {marks[-1][1]:.1f} of wall; {files} files")
    print(f"memory grew by {growth / 900_000:.0f} bytes a trial after the first 100,000")
    assert files <= 5
    # What ASHA must know of a trial: one score at each rung that it came to.
    assert growth / 900_000 < 150


@pytest.mark.slow
def test_ten_thousand_trials_of_a_tiny_model(tmp_path):
    """Trained for real: one program, five files, all of them ended, the best one right."""
    results = sweep.run(
        lambda hp: line_trial(hp["lr"]),
        {"lr": sweep.log_uniform(1e-3, 1e-1)},
        dataset(),
        trials=10_000,
        steps=10,
        report_every=5,
        batch_size=4,
        lanes=64,
        devices=2,
        stopping=sweep.asha(reduction=2),
        out=tmp_path / "run",
        progress=False,
    )
    assert results.programs - results.stats["compactions"] == 1
    assert results.count("done") + results.count("stopped") == len(results.trials) == 10_000
    assert {t.trial for t in results.trials} == {*range(10_000)}
    assert len(list((tmp_path / "run").iterdir())) <= 5
    assert results.stats["busy"] >= 0.95
    # Whoever was best after the first rung went on, and the losses are those of the rates.
    curves = results.curves("valid_loss")
    assert np.isfinite(curves[:, 0]).all()
    assert np.isfinite(curves[np.argmin(curves[:, 0]), 1])


@pytest.mark.slow
def test_two_hundred_sweeps_leave_no_memory_behind():
    def once():
        results = sweep.run(
            lambda hp: line_trial(hp["lr"]),
            {"lr": sweep.log_uniform(1e-3, 1e-1)},
            dataset(),
            trials=8,
            epochs=2,
            batch_size=4,
            lanes=2,
            devices=2,
            stopping=sweep.asha(reduction=2),
            progress=False,
        )
        assert results.programs == 1

    sizes, arrays = [], []
    for index in range(200):
        once()
        if index in (49, 199):
            gc.collect()
            sizes.append(resident())
            arrays.append(len(jax.live_arrays()))
    print(f"\n{sizes[0] / 2**20:.0f} MiB after 50 sweeps, {sizes[1] / 2**20:.0f} after 200")
    assert sizes[1] < 1.02 * sizes[0]
    assert arrays[0] == arrays[1]

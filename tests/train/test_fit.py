"""`fit`: the best state kept, resumed to the bit, and equal to a lane of a sweep."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep, train
from jdl.engine.group import Group

QUIET = {"progress": False, "batch_size": 4}


def fit(rate=0.05, **options):
    return train.fit(line_trial(rate, steps=40), dataset(), **{"epochs": 4, **QUIET, **options})


def test_equals_a_lane_of_a_sweep():
    space = {"lr": 0.05, "seed": sweep.seeds(1)}
    results = sweep.run(
        lambda hp: line_trial(hp["lr"], steps=40),
        space,
        dataset(),
        epochs=4,
        lanes=1,
        devices=1,
        **QUIET,
    )
    one = fit(keep="last")
    lane = results.trials[0]
    np.testing.assert_array_equal(one.state.masks, lane.state.masks)
    np.testing.assert_array_equal(one.state.x, lane.state.x)
    np.testing.assert_allclose(one.state.weights, lane.state.weights, rtol=1e-6)
    np.testing.assert_allclose(one.curves["valid_loss"], results.curves("valid_loss")[0], rtol=1e-6)
    assert one.status == "done" and one.step == 20 and list(one.steps) == [5, 10, 15, 20]
    assert one.metrics["test_loss"] == pytest.approx(lane.metrics["test_loss"], rel=1e-6)


def test_keeps_the_best_report():
    """A rate at which the loss falls and then rises: the state is that of the turning point."""
    data = dataset()
    valid = (data.valid[0], data.valid[1] + 3.0 * data.valid[0][:, 0])
    result = train.fit(line_trial(0.02, steps=200), data._replace(valid=valid), epochs=40, **QUIET)
    curve = result.curves["valid_loss"]
    best = int(np.argmin(curve))
    assert 0 < best < len(curve) - 1
    assert result.step == result.steps[best] == int(result.state.step)
    np.testing.assert_allclose(
        np.mean((valid[0] @ result.state.weights - valid[1]) ** 2), curve[best], rtol=1e-5
    )
    assert result.metrics["valid_loss"] == curve[best]


def test_resumes_to_the_bit(tmp_path, monkeypatch):
    whole = fit(epochs=8, out=tmp_path / "whole")
    collect, calls = Group.collect, []

    def stopped(self):
        calls.append(None)
        if len(calls) == 4:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return collect(self)

    monkeypatch.setattr(Group, "collect", stopped)
    with pytest.raises(train.Interrupted, match=r"4 reports.*to go on") as stop:
        fit(epochs=8, out=tmp_path / "parts")
    assert stop.value.result.status == "running" and len(stop.value.result.steps) == 4
    monkeypatch.undo()
    parts = fit(epochs=8, out=tmp_path / "parts")
    for name, curve in whole.curves.items():
        np.testing.assert_array_equal(curve, parts.curves[name])
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(parts.state)):
        np.testing.assert_array_equal(a, b)
    assert whole.metrics == parts.metrics


def test_a_finished_run_is_read(tmp_path):
    first, again = (fit(out=tmp_path / "run") for _ in range(2))
    np.testing.assert_array_equal(first.state.weights, again.state.weights)
    assert first.metrics == again.metrics


def test_divergence_keeps_the_best_before_it():
    result = fit(rate=1.0, epochs=8)
    assert result.status == "diverged"
    assert np.isnan(result.curves["valid_loss"][-1])
    assert np.isfinite(result.metrics["valid_loss"])
    assert np.all(np.isfinite(result.state.weights))


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="`keep` must be 'best', 'last' or None"):
        fit(keep="first")
    with pytest.raises(ValueError, match="either `epochs` or `steps`"):
        fit(epochs=None)
    fit(out=tmp_path / "run")
    with pytest.raises(ValueError, match="another specification"):
        fit(out=tmp_path / "run", epochs=5)

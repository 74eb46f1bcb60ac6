"""`fit`: the best state kept, resumed to the bit, and equal to a lane of a sweep."""

from __future__ import annotations

import os
import signal
import warnings

import jax
import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep, train

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


def test_programs_are_found_by_the_next_fit_alike(tmp_path, monkeypatch):
    """The same bits from the second call, which compiles nothing, and others from another rate."""
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path))
    kept = lambda: {path: path.read_bytes() for path in (tmp_path / "programs").iterdir()}  # noqa: E731
    first = fit()
    programs = kept()
    assert len(programs) >= 4  # its start, its steps, and an evaluation of each split
    second = fit()
    assert kept() == programs
    np.testing.assert_array_equal(first.state.weights, second.state.weights)
    np.testing.assert_array_equal(first.curves["valid_loss"], second.curves["valid_loss"])
    other = fit(0.04)
    assert len(kept()) > len(programs)
    assert not np.array_equal(other.state.weights, first.state.weights)


def interrupt_at(report):
    """A callback that sends what Ctrl-C sends, during that report."""

    def callback(told):
        if told.step == report * 5:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def assert_equal_runs(whole, parts):
    for name, curve in whole.curves.items():
        np.testing.assert_array_equal(curve, parts.curves[name])
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(parts.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.metrics == parts.metrics and whole.step == parts.step


def test_resumes_to_the_bit(tmp_path):
    whole = fit(epochs=8, out=tmp_path / "whole")
    with pytest.raises(train.Interrupted, match=r"4 reports.*to resume") as stop:
        fit(epochs=8, out=tmp_path / "parts", callbacks=[interrupt_at(4)])
    assert stop.value.results.status == "running" and len(stop.value.results.steps) == 4
    assert_equal_runs(whole, fit(epochs=8, out=tmp_path / "parts"))


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path):
    """What was reported after the checkpoint is done again, and becomes the same."""

    class KilledError(Exception):
        pass

    def killed(told):
        if told.step == 25:
            raise KilledError

    whole = fit(epochs=8, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(epochs=8, out=tmp_path / "parts", callbacks=[killed], checkpoint_seconds=0.0)
    told = []
    parts = fit(epochs=8, out=tmp_path / "parts", callbacks=[lambda r: told.append(r.step)])
    assert told == [25, 30, 35, 40]
    assert_equal_runs(whole, parts)


def hilly(**options):
    """A run whose validation loss rises a little, falls to its least and then rises for good."""
    data = dataset()
    valid = (data.valid[0], data.valid[1] + 3.0 * data.valid[0][:, 0])
    options = {"epochs": 40, **QUIET, **options}
    return train.fit(line_trial(0.02, steps=200), data._replace(valid=valid), **options)


def stop_by_hand(curve, patience, min_delta):
    best, waited = np.inf, 0
    for index, loss in enumerate(curve):
        waited = 0 if loss < best - min_delta else waited + 1
        best = min(best, loss) if waited == 0 else best
        if waited == patience:
            return index + 1
    return len(curve)


def test_stops_early_and_restores_the_best():
    curve = hilly().curves["valid_loss"]
    ends = []
    for patience, min_delta in ((2, 0.0), (8, 0.0), (8, 0.05)):
        early = hilly(patience=patience, min_delta=min_delta)
        ends.append(stop_by_hand(curve, patience, min_delta))
        assert early.status == "stopped" and len(early.steps) == ends[-1] < len(curve)
        best = int(np.argmin(curve[: ends[-1]]))
        assert early.step == 5 * (best + 1) == early.state.step
        # The test metrics are those of the state that is given back.
        x, y = dataset().test
        expected = np.mean((x @ early.state.weights - y) ** 2)
        assert early.metrics["test_loss"] == pytest.approx(expected, rel=1e-5)
    assert ends[0] < ends[2] < ends[1]


def test_early_stopping_resumes_to_the_bit(tmp_path):
    whole = hilly(patience=8, out=tmp_path / "whole")
    with pytest.raises(train.Interrupted):
        hilly(patience=8, out=tmp_path / "parts", callbacks=[interrupt_at(len(whole.steps) - 2)])
    assert_equal_runs(whole, hilly(patience=8, out=tmp_path / "parts"))
    assert_equal_runs(whole, hilly(patience=8, out=tmp_path / "whole"))


def test_callbacks_are_told_every_report_and_may_stop():
    told = []

    def tell(report):
        told.append(report)
        return report.step == 15

    result = fit(callbacks=[tell])
    assert [report.step for report in told] == [5, 10, 15] == list(result.steps)
    assert result.status == "stopped" and told[0].steps == 20
    curve = result.curves["valid_loss"]
    for index, report in enumerate(told):
        assert {name: c[index] for name, c in result.curves.items()} == report.metrics
        assert report.best == (curve[index] == curve[: index + 1].min())
    assert 0 <= told[0].seconds <= told[-1].seconds


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(callbacks=[train.tensorboard(tmp_path / "logs")])
    (file,) = (tmp_path / "logs").iterdir()
    content = file.read_bytes()
    assert file.name.startswith("events.out") and content.count(b"valid/loss") == 4
    assert b"train/loss" in content


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
    with pytest.raises(ValueError, match="`patience` must be an integer of at least 1, got"):
        fit(patience=0)
    with pytest.raises(ValueError, match=r"`min_delta` must be in \[0, inf\), got min_delta=-1"):
        fit(min_delta=-1)
    with pytest.raises(ValueError, match="a multiple of the 3 devices, got batch_size=4"):
        fit(devices=3)
    fit(out=tmp_path / "run")
    with pytest.raises(ValueError, match="another specification"):
        fit(out=tmp_path / "run", epochs=5)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(train.Interrupted):
        fit(epochs=8, out=tmp_path / "run", callbacks=[interrupt_at(4)])
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(train.CheckpointError, match=r"checkpoint.safetensors .*Delete that file"):
        fit(epochs=8, out=tmp_path / "run")
    path.unlink()
    assert_equal_runs(fit(epochs=8), fit(epochs=8, out=tmp_path / "run"))

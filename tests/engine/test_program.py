"""The compiled segment: lanes on two devices against a loop in NumPy, refilled and evaluated."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from tests.aligned import aligned
from tests.engine.toys import EXAMPLES, dataset, line_trial

from jdl import data
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.keys import trial_keys, trial_words
from jdl.engine.program import Assignment, compile_lanes
from jdl.engine.workload import make_workload, splits_of

RATES = np.array([0.01, 0.03, 0.05, 1e20], np.float32)
STREAMS = np.array([7, 1, 7, 2], np.uint32)
ROOT = np.uint32(11)


@pytest.fixture(scope="module")
def program():
    work = make_workload(
        lambda numbers: line_trial(numbers["lr"]), dataset(), epochs=2, steps=None, batch_size=4,
        report_every=None, eval_batch_size=4, diverged_above=1e6,
    )  # fmt: skip
    shapes = trace_shapes(work, {"lr": np.float32(0)})
    return compile_lanes(work, shapes, lane_mesh(2), 2, 2)


def segment(program, lanes, rates, fresh, finishing, count):
    flags = (np.array(flag, bool) for flag in (fresh, finishing))
    place = lambda a: jax.device_put(a, program.replicated)  # noqa: E731
    assignment = program.place(Assignment({"lr": rates}, trial_words(ROOT, STREAMS), *flags))
    lanes, outcome = program.run(
        lanes, assignment, place(np.int32(count)), place(splits_of(dataset())), any(fresh)
    )
    return jax.tree.map(np.array, lanes), jax.tree.map(np.asarray, outcome)


def error(w, split):
    return np.mean((split[0] @ w - split[1]) ** 2)


def loop(start, stream, rate, steps):
    """Weights after each of `steps` steps from `start`, and the loss before each."""
    x, y = dataset().train
    key = trial_keys(ROOT, stream).data
    indices = np.asarray(data.batch_indices(key, 0, steps, 4, EXAMPLES))
    w, weights, losses = np.asarray(start, np.float64), [], []
    for index in indices:
        losses.append(error(w, (x[index], y[index])))
        w = w - rate * 2 * x[index].T @ (x[index] @ w - y[index]) / 4
        weights.append(w)
    return weights, np.array(losses)


def test_a_segment_is_a_loop_over_lanes(program):
    splits = dataset()
    lanes, outcome = segment(program, program.empty(), RATES, [1] * 4, [1, 0, 0, 1], 2)
    assert program.width == 4 and outcome.reports.shape == (4, 2, 2)
    for lane in range(3):
        weights, losses = loop(lanes.state.start[lane], STREAMS[lane], RATES[lane], 10)
        np.testing.assert_allclose(lanes.state.weights[lane], weights[-1], rtol=1e-4)
        for report in range(2):
            train = losses[5 * report : 5 * report + 5].mean()
            valid = error(weights[5 * report + 4], splits.valid)
            np.testing.assert_allclose(outcome.reports[lane, report], [train, valid], rtol=1e-4)
    # The test split is evaluated once any lane ends; the host looks at those that do.
    ended = error(lanes.state.weights[0], splits.test)
    np.testing.assert_allclose(outcome.final[0], [ended], rtol=1e-5)
    assert outcome.progress.tolist()[:3] == [[10, -1]] * 3
    # The last lane's rate is absurd: it stays at its first finite step and says where it failed.
    assert outcome.progress[3].tolist() == [1, 1] and np.isnan(outcome.reports[3]).all()
    assert np.isnan(outcome.final[3]).all()
    with jax.debug_key_reuse(False):
        starts = [jax.random.normal(trial_keys(ROOT, s).init, (3,)) for s in STREAMS]
    np.testing.assert_array_equal(lanes.state.start, starts)


def test_lanes_that_are_fresh_start_again_and_the_others_go_on(program):
    lanes, first = segment(program, program.empty(), RATES, [1] * 4, [0] * 4, 1)
    # What was not asked for is 0, so that no healthy lane makes a NaN.
    assert not first.reports[:, 1].any() and not first.final.any()
    rates = np.array([0.01, 0.02, 0.05, 0.04], np.float32)
    lanes, second = segment(program, program.place(lanes), rates, [0, 1, 0, 1], [0] * 4, 1)
    for lane, (before, after) in enumerate([(5, 10), (0, 5), (5, 10), (0, 5)]):
        weights, losses = loop(lanes.state.start[lane], STREAMS[lane], rates[lane], 10)
        assert second.progress[lane].tolist() == [after, -1]
        np.testing.assert_allclose(lanes.state.weights[lane], weights[after - 1], rtol=1e-4)
        np.testing.assert_allclose(
            second.reports[lane, 0, 0], losses[before:after].mean(), rtol=1e-4
        )


def test_a_segment_of_no_reports_changes_nothing(program):
    lanes, _ = segment(program, program.empty(), RATES, [1] * 4, [0] * 4, 1)
    same, outcome = segment(program, program.place(lanes), RATES, [0] * 4, [0] * 4, 0)
    jax.tree.map(np.testing.assert_array_equal, lanes, same)
    assert not outcome.reports.any()


def test_what_the_host_places_it_may_write_in(program):
    for size in (4, 2**20):
        array = aligned(np.arange(size, dtype=np.float32))
        placed = program.place(array)
        array[:] = -9
        np.testing.assert_array_equal(placed, np.arange(size))
        assert len(placed.sharding.device_set) == 2
    assert {leaf.shape[0] for leaf in jax.tree.leaves(program.empty())} == {4}


def test_a_lane_without_a_trial_reports_zeros_and_stays_empty(program):
    fresh = [1, 0, 0, 1]
    lanes, outcome = segment(program, program.empty(), RATES, fresh, fresh, 2)
    for lane in (1, 2):
        assert outcome.progress[lane].tolist() == [0, -2]
        assert not outcome.reports[lane].any() and not outcome.final[lane].any()
    assert np.isfinite(outcome.reports[0]).all() and np.isnan(outcome.reports[3]).all()
    lanes, outcome = segment(program, program.place(lanes), RATES, [0, 1, 0, 0], [0] * 4, 1)
    assert outcome.progress[:3].tolist() == [[15, -1], [5, -1], [0, -2]]

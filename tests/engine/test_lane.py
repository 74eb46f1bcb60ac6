"""One lane: its steps, keys and batches against NumPy, and what is left when a step fails."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import EXAMPLES, dataset, line_trial

from jdl import data
from jdl.engine import lane
from jdl.engine.keys import trial_keys
from jdl.engine.trial import Trial
from jdl.engine.workload import make_workload, shapes_of

ROOT, STREAM, RATE = 5, 3, 0.07
WORK = make_workload(
    lambda numbers: line_trial(numbers["lr"]), dataset(), epochs=2, steps=None, batch_size=4,
    report_every=5, eval_batch_size=3, diverged_above=1e6,
)  # fmt: skip


COUNTER = Trial(
    lambda key, batch: jnp.int32(0),
    lambda state, batch, key: (state + 1, {"loss": batch[0], "other": jnp.float32(1)}),
    lambda state, batch: {"loss": state + jnp.mean(batch)},
)


@pytest.mark.parametrize("unroll", [1, 2])
def test_reports_are_those_of_a_loop(unroll):
    """Ten steps in two reports, on the batches and with the keys that the seed names."""
    trial = line_trial(RATE)
    x, y = dataset().train

    @jax.jit
    def two_reports(split):
        keys = trial_keys(ROOT, STREAM)
        at = lane.start_lane(trial, shapes_of((x[:4], y[:4])), keys.init)
        at, one = lane.train_report(trial, WORK, at, split, trial_keys(ROOT, STREAM), unroll)
        return (*lane.train_report(trial, WORK, at, split, trial_keys(ROOT, STREAM), unroll), one)

    at, two, one = two_reports((x, y))
    keys = trial_keys(ROOT, STREAM)
    indices = np.asarray(data.batch_indices(keys.data, 0, 10, 4, EXAMPLES))
    w, losses = np.asarray(at.state.start, np.float64), []
    for index in indices:
        error = x[index] @ w - y[index]
        losses.append(np.mean(error**2))
        w = w - RATE * 2 * x[index].T @ error / 4
    np.testing.assert_array_equal(at.state.x, x[indices])
    np.testing.assert_allclose(at.state.weights, w, rtol=1e-4)
    np.testing.assert_allclose(one["loss"], np.mean(losses[:5]), rtol=1e-5)
    np.testing.assert_allclose(two["loss"], np.mean(losses[5:]), rtol=1e-5)
    assert (at.step, at.diverged) == (10, -1)
    np.testing.assert_allclose(at.first_loss, losses[0], rtol=1e-5)
    with jax.debug_key_reuse(False):
        masks = [jax.random.bits(jax.random.fold_in(keys.trial, t), (2,)) for t in range(10)]
    np.testing.assert_array_equal(at.state.masks, masks)


def test_the_words_of_a_step_are_its_key():
    key = jax.random.key(8)
    with jax.debug_key_reuse(False):
        expected = [jax.random.key_data(jax.random.fold_in(key, t)) for t in (6, 7, 8)]
        np.testing.assert_array_equal(lane.step_words(key, 6, 3), expected)


@pytest.mark.parametrize(
    ("losses", "above", "failed"),
    [
        ([2.0, 3.0, 5.0, 1.0], 3.0, -1),
        ([2.0, 3.0, 6.5, 1.0], 3.0, 2),  # above three times the first
        ([-2.0, 6.5, 1.0, 1.0], 3.0, 1),  # the size of the first counts
        ([0.1, 2.9, 3.5, 1.0], 3.0, 2),  # a first loss below 1 counts as 1
        ([2.0, np.nan, 1.0, 1.0], 3.0, 1),
        ([np.inf, 1.0, 1.0, 1.0], 3.0, 0),
        ([2.0, 1e30, 1.0, 1.0], np.inf, -1),
        ([2.0, -np.inf, 1.0, 1.0], np.inf, 1),
    ],
)
def test_a_lane_that_fails_stays_where_it_was(losses, above, failed):

    @jax.jit
    def four_steps(losses):
        at = lane.start_lane(COUNTER, None, jax.random.key(0))
        rows = jnp.arange(4)[:, None]
        return lane.train_steps(COUNTER, at, losses, rows, jax.random.key(1), above)

    at, metrics = four_steps(jnp.asarray(losses, jnp.float32))
    taken = 4 if failed < 0 else failed
    assert (at.state, at.step, at.diverged) == (taken, taken, failed)
    np.testing.assert_array_equal(
        metrics["loss"], np.array(losses[:taken] + [np.nan] * (4 - taken), np.float32)
    )
    if taken:
        assert at.first_loss == np.float32(losses[0])
    seen = lane.evaluate_lane(COUNTER, at, jnp.arange(3.0), 2)["loss"]
    np.testing.assert_allclose(seen, 5.0 if failed < 0 else np.nan)


def test_without_a_loss_every_metric_must_be_finite():
    def step(state, batch, key):
        return state + 1, {"size": batch, "other": jnp.float32(1)}

    at = lane.start_lane(COUNTER, None, jax.random.key(0))
    for size in (1e30, 7.0, np.nan, 1.0):
        at, metrics = lane.train_step(COUNTER._replace(step=step), at, jnp.float32(size), None, 3.0)
    assert (at.state, at.diverged) == (2, 2) and at.first_loss == 0
    assert np.isnan(metrics["size"]) and np.isnan(metrics["other"])

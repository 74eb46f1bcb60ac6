"""Trials that tune their own numbers: the hypergradient, and lanes that find the same rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.toys import dataset

from jdl import optim, sweep


def loss(weights, batch):
    x, y = batch
    return jnp.mean((x @ weights - y) ** 2)


def make_trial(hp, inner=3):
    return sweep.self_tuning(
        lambda key: jax.random.normal(key, (3,)),
        loss,
        lambda numbers: optim.momentum(numbers["lr"], 0.5),
        {"lr": hp["lr"]},
        meta_rate=hp["meta"],
        inner=inner,
    )


def test_a_step_is_a_training_and_a_sign_of_its_hypergradient():
    x = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    batch = (x, x @ np.array([1.0, -2.0, 0.5], np.float32))  # the ninth example is left over
    for rate, way in ((1e-3, 1), (2.0, -1)):
        trial = make_trial({"lr": rate, "meta": 0.1})
        state = trial.init(jax.random.key(3), batch)
        after, metrics = trial.step(state, batch, jax.random.key(4))
        parts = jax.tree.map(lambda a: a[:8].reshape(4, 2, *a.shape[1:]), batch)
        training, held_out = (jax.tree.map(lambda a, s=s: a[s], parts) for s in (slice(3), 3))
        expected = optim.hypergradient(
            lambda log: optim.momentum(jnp.exp(log), 0.5),
            jnp.log(rate),
            loss,
            lambda w, part=held_out: loss(w, part),
            state.params,
            training,
        )
        np.testing.assert_allclose(after.params, expected.params, rtol=1e-5)
        assert np.sign(expected.gradient) == -way
        assert metrics["lr"] == pytest.approx(rate * np.exp(0.1 * way), rel=1e-5)


def test_lanes_tune_their_own_rate():
    """From rates a thousand times apart, lanes come to a rate that trains."""
    space = {"lr": sweep.log_grid(1e-4, 1e-1, 4), "meta": sweep.choice(0.0, 0.2)}
    results = sweep.run(
        make_trial, space, dataset(), epochs=40, batch_size=20, lanes=4, devices=2, progress=False
    )
    assert results.programs == 1 and results.count("done") == 8
    learnt = results.curves("train_lr")
    for trial in results.trials:
        if trial.config["meta"] == 0.0:
            np.testing.assert_allclose(learnt[trial.trial], trial.config["lr"], rtol=1e-5)
    slow = [t for t in results.trials if t.config["lr"] == pytest.approx(1e-4)]
    fixed, tuned = sorted(slow, key=lambda t: t.config["meta"])
    assert tuned.metrics["train_lr"] > 10 * fixed.metrics["train_lr"]
    assert tuned.metrics["valid_loss"] < 0.3 * fixed.metrics["valid_loss"]


def test_errors():
    with pytest.raises(ValueError, match="`inner` must be an integer of at least 1, got inner=0"):
        make_trial({"lr": 0.1, "meta": 0.1}, inner=0)
    with pytest.raises(ValueError, match="`numbers` needs at least one number"):
        sweep.self_tuning(jax.random.normal, loss, optim.sgd, {})
    trial = make_trial({"lr": 0.1, "meta": 0.1})
    with pytest.raises(ValueError, match="A batch of 2 examples cannot be cut into 4 parts"):
        batch = np.ones((2, 3)), np.ones(2)
        trial.step(trial.init(jax.random.key(0), batch), batch, jax.random.key(1))

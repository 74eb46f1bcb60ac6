"""Models of other libraries train in a sweep through `Trial`; skipped where they are missing."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, optim, sweep
from jdl.train import Trial

SPACE = {"lr": sweep.log_grid(1e-3, 1e-1, 3)}
QUIET = {"progress": False, "epochs": 2, "batch_size": 64, "devices": 1}


class State(NamedTuple):
    params: object
    opt_state: object


def trial_of(init, apply, learning_rate) -> Trial:
    """A classifier from `init(key) -> params` and `apply(params, x) -> logits`."""
    optimizer = optim.adam(learning_rate)

    def loss(params, batch):
        x, labels = batch
        logits = jax.nn.log_softmax(apply(params, x))
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], 1))

    def start(key, batch):
        params = init(key)
        return State(params, optimizer.init(params))

    def step(state, batch, key):
        value, grads = jax.value_and_grad(loss)(state.params, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return State(optim.apply_updates(state.params, updates), opt_state), {"loss": value}

    def evaluate(state, batch):
        right = jnp.argmax(apply(state.params, batch[0]), 1) == batch[1]
        return {"loss": loss(state.params, batch), "accuracy": jnp.mean(right)}

    return Trial(start, step, evaluate)


def check(make_trial):
    digits = data.digits()
    results = sweep.run(make_trial, SPACE, digits, **QUIET)
    assert results.programs == 1
    # Ten classes: two epochs at the best rate are far from chance.
    assert results.best.metrics["test_accuracy"] > 0.85
    first, last = results.curves("valid_loss")[results.best.trial]
    assert last < first
    return results


def test_plain_functions():
    def init(key):
        one, two = jax.random.split(key)
        return {
            "one": jax.random.normal(one, (64, 32)) / 8,
            "two": jax.random.normal(two, (32, 10)) / 6,
        }

    def apply(params, x):
        return jnp.tanh(x @ params["one"]) @ params["two"]

    results = check(lambda hp: trial_of(init, apply, hp["lr"]))
    # The state that is kept is the model: NumPy agrees with its accuracy.
    x, labels = data.digits().test
    params = results.best.params
    logits = np.tanh(x @ params["one"]) @ params["two"]
    accuracy = np.mean(logits.argmax(1) == labels)
    assert results.best.metrics["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_flax():
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(10)(linen.relu(linen.Dense(32)(x)))

    model = Model()
    check(
        lambda hp: trial_of(lambda key: model.init(key, jnp.zeros((1, 64))), model.apply, hp["lr"])
    )


def test_equinox():
    eqx = pytest.importorskip("equinox")

    def make_trial(hp):
        def build(key):
            return eqx.nn.MLP(64, 10, 32, 1, key=key)

        static = eqx.partition(build(jax.random.key(0)), eqx.is_array)[1]

        def init(key):
            return eqx.partition(build(key), eqx.is_array)[0]

        def apply(params, x):
            return jax.vmap(eqx.combine(params, static))(x)

        return trial_of(init, apply, hp["lr"])

    check(make_trial)

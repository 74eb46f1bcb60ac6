"""Trials and data that are quick to compile and whose random streams can be read back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl.data import Dataset
from jdl.data.batches import batch_indices
from jdl.engine.events import Queued
from jdl.engine.keys import trial_keys
from jdl.engine.workload import Workload, make_workload
from jdl.train import Trial

EXAMPLES = 20


def dataset() -> Dataset:
    """Twenty examples of a noisy line, each told apart by its x."""
    random = np.random.default_rng(0)

    def split(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.normal(size=(n, 3)).astype(np.float32)
        return x, (x @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)

    return Dataset(split(EXAMPLES), split(7), split(5))


class LineState(NamedTuple):
    """A linear model that writes down every batch and mask that it was given."""

    weights: jax.Array
    start: jax.Array  # the initial weights
    x: jax.Array  # of every batch, by step
    y: jax.Array
    masks: jax.Array  # random words, by step
    step: jax.Array


def line_trial(learning_rate, steps: int = 10, batch_size: int = 4) -> Trial:
    """Least squares by gradient descent, in plain functions."""

    def init(key, batch):
        start = jax.random.normal(key, (3,))
        return LineState(
            start,
            start,
            jnp.zeros((steps, batch_size, 3)),
            jnp.zeros((steps, batch_size)),
            jnp.zeros((steps, 2), jnp.uint32),
            jnp.int32(0),
        )

    def error(weights, batch):
        x, y = batch
        return jnp.mean((x @ weights - y) ** 2)

    def step(state, batch, key):
        loss, grads = jax.value_and_grad(error)(state.weights, batch)
        state = LineState(
            state.weights - learning_rate * grads,
            state.start,
            state.x.at[state.step].set(batch[0]),
            state.y.at[state.step].set(batch[1]),
            state.masks.at[state.step].set(jax.random.bits(key, (2,))),
            state.step + 1,
        )
        return state, {"loss": loss}

    def evaluate(state, batch):
        return {"loss": error(state.weights, batch)}

    return Trial(init, step, evaluate)


RATES = {3: 0.03, 4: 0.04, 5: 0.05, 6: 0.06, 7: 0.07, 9: 1e20}  # of trials that are by hand
SEED, EVERY, REPORTS = 11, 5, 4


def line_workload() -> Workload:
    """Four reports of five steps."""
    return make_workload(
        lambda numbers: line_trial(numbers["lr"], EVERY * REPORTS), dataset(), epochs=4, steps=None,
        batch_size=4, report_every=EVERY, eval_batch_size=4, diverged_above=1e6,
    )  # fmt: skip


def line_queued(trial: int, stream: int | None = None, rate: float | None = None) -> Queued:
    """A trial of `RATES`, whose stream is not its number."""
    numbers = {"lr": np.float32(RATES[trial] if rate is None else rate)}
    return Queued(trial, numbers, 20 + trial if stream is None else stream)


def line_by_hand(trial: int, reports: int = REPORTS) -> tuple[np.ndarray, np.ndarray, float]:
    """What `line_queued(trial)` comes to alone, in NumPy: weights, reports and test loss."""
    splits, (x, y) = dataset(), dataset().train
    with jax.debug_key_reuse(False):
        keys = trial_keys(np.uint32(SEED), np.uint32(20 + trial))
        w = np.asarray(jax.random.normal(keys.init, (3,)), np.float64)
        indices = np.asarray(batch_indices(keys.data, 0, EVERY * reports, 4, EXAMPLES))

    def error(split: Any) -> float:
        return float(np.mean((split[0] @ w - split[1]) ** 2))

    rows, losses = [], []
    for step, index in enumerate(indices, 1):
        losses.append(error((x[index], y[index])))
        w = w - RATES[trial] * 2 * x[index].T @ (x[index] @ w - y[index]) / 4
        if step % EVERY == 0:
            rows.append([np.mean(losses[-EVERY:]), error(splits.valid)])
    return w, np.array(rows), error(splits.test)

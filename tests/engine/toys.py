"""Trials and data that are quick to compile and whose random streams can be read back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl.data import Dataset
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

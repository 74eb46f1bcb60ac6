"""The trial: one complete training run as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

State = PyTree
Batch = PyTree
Metrics = dict[str, Any]


class Trial(NamedTuple):
    """One complete training run: what a lane of a sweep runs.

    Any model fits; none of the three functions may branch in Python on a
    number that a sweep varies.

    Attributes:
      init: `init(key) -> state`; everything that a step changes.
      step: `step(state, batch, key) -> (state, metrics)`; `batch` is the data
        set's tree of arrays with a leading batch axis, `metrics` a dict of
        scalars. A metric called "loss" tells whether the trial diverged.
      evaluate: `evaluate(state, batch) -> metrics`, each the mean over `batch`.
      bind: for a trial whose `init` needs to know what a batch looks like:
        `bind(batch) -> Trial`, given arrays or `jax.ShapeDtypeStruct`s.
      check: raises where data do not fit the trial, before anything is
        compiled: `check(data)`, given the whole data set as host arrays.
      predict: `predict(state, x, key=None)`, what a trained network says of inputs, one
        row an example: probabilities of a classifier, values of a regression. Ensembles
        average it. A key draws the masks of Monte-Carlo dropout.
      objective: `objective(state, batch, key)`, what a step minimises, penalties
        included, in training mode and differentiable in the state's parameters.
        Diagnostics look at it; without one they look at the evaluated loss.
    """

    init: Callable[[Any], State]
    step: Callable[[State, Batch, Any], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]
    bind: Callable[[Batch], Trial] | None = None
    check: Callable[[Any], None] | None = None
    predict: Callable[..., Any] | None = None
    objective: Callable[[State, Batch, Any], Any] | None = None


def bound(trial: Trial, batch: Batch) -> Trial:
    """`trial` with its `init` told what a batch looks like, if it asks for that."""
    return trial.bind(batch) if trial.bind is not None else trial


def evaluate_split(trial: Trial, state: State, split: Batch, batch_size: int) -> Metrics:
    """The mean of each metric over all of `split`, however unevenly it divides.

    Full batches are scanned and the remainder is evaluated alone, each mean
    weighted by the number of its examples.
    """
    examples = jax.tree.leaves(split)[0].shape[0]
    batch_size = min(batch_size, examples)
    full = examples // batch_size

    def part(start: int, stop: int) -> Batch:
        return jax.tree.map(lambda a: a[start:stop], split)

    if full == 1:
        total = trial.evaluate(state, part(0, batch_size))
        total = jax.tree.map(lambda m: m * batch_size, total)
    else:
        batches = jax.tree.map(
            lambda a: a.reshape(full, batch_size, *a.shape[1:]), part(0, full * batch_size)
        )
        means = jax.lax.map(lambda batch: trial.evaluate(state, batch), batches)
        total = jax.tree.map(lambda m: jnp.sum(m, axis=0) * batch_size, means)
    if rest := examples - full * batch_size:
        last = trial.evaluate(state, part(full * batch_size, examples))
        total = jax.tree.map(lambda a, b: a + b * rest, total, last)
    return jax.tree.map(lambda m: m / examples, total)

"""Several trials as one: they share every batch, so that one stream feeds them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jdl import tree
from jdl.engine.trial import Batch, Metrics, Trial, widened


def side_by_side(
    make_trial: Callable[[dict[str, Any]], Trial],
    numbers: Mapping[str, Any],
    *,
    diverged_above: float = 1e6,
) -> Trial:
    """A trial whose state is a row of trials that train under `vmap` on the same batches.

    For data that stream: `fit` of this trial moves a batch to the device once,
    whatever the number of networks. Where the data fit the device,
    `sweep.run` does more.

    In evaluation, "accuracy" of trial 2 is "accuracy_2", and the plain name is the
    mean over the trials. One whose loss diverges stays as it is, does not count
    in the means and does not end the others.

    Args:
      make_trial: gives the `Trial` of numbers, which are traced.
      numbers: hyperparameters by name, arrays of equal lengths: one value a trial.
      diverged_above: a trial has diverged when a metric is not finite or larger.

    Returns:
      A trial with a state, and with predictions, of a leading axis of trials.
      Member 2 of a state is `jax.tree.map(lambda a: a[2], state)`.

    Raises:
      ValueError: there are no numbers, or their lengths differ.

    >>> import numpy as np
    >>> from jdl import models, optim, train
    >>> row = side_by_side(
    ...     lambda hp: train.classifier(models.mlp((32, 10)), optim.adam(hp["lr"])),
    ...     {"lr": np.array([1e-3, 3e-3, 1e-2])},
    ... )
    """
    rows = {name: jnp.asarray(values) for name, values in numbers.items()}
    lengths = {name: values.shape for name, values in rows.items()}
    if len(set(lengths.values())) != 1 or len(*set(lengths.values())) != 1:
        raise ValueError(
            f"`numbers` must hold arrays of one axis and of equal lengths, got shapes {lengths}."
        )
    (count,) = next(iter(lengths.values()))
    first = make_trial({name: values[0] for name, values in rows.items()})

    def init(key: Any, batch: Batch) -> PyTree:
        keys = jax.random.split(key, count)
        return jax.vmap(lambda hp, key: make_trial(hp).init(key, batch))(rows, keys)

    def means(metrics: Metrics) -> Metrics:
        def mean(values: Array) -> Array:
            sound = jnp.abs(values) <= diverged_above  # which NaN is not
            return jnp.sum(jnp.where(sound, values, 0)) / jnp.sum(sound)

        return {name: mean(values) for name, values in widened(metrics).items()}

    def sound(after: PyTree, metrics: Metrics) -> Any:
        small = [jnp.abs(m) <= diverged_above for m in widened(metrics).values()]
        return jnp.stack(small).all() & tree.all_finite(after)

    def step(state: PyTree, batch: Batch, key: Any) -> tuple[PyTree, Metrics]:
        def one(hp: dict[str, Any], before: PyTree, key: Any) -> tuple[PyTree, Metrics]:
            after, metrics = make_trial(hp).step(before, batch, key)
            return tree.where(sound(after, metrics), after, before), metrics

        state, metrics = jax.vmap(one)(rows, state, jax.random.split(key, count))
        return state, means(metrics)

    def evaluate(state: PyTree, batch: Batch) -> Metrics:
        metrics = jax.vmap(lambda hp, s: make_trial(hp).evaluate(s, batch))(rows, state)
        apart = {f"{name}_{i}": m[i] for name, m in metrics.items() for i in range(count)}
        return means(metrics) | apart

    def predict(state: PyTree, x: Any, key: Any = None) -> Any:
        def one(hp: dict[str, Any], s: PyTree) -> Any:
            run: Any = make_trial(hp).predict
            return run(s, x, key)

        return jnp.moveaxis(jax.vmap(one)(rows, state), 0, 1)

    def objective(state: PyTree, batch: Batch, key: Any) -> Any:
        def one(hp: dict[str, Any], s: PyTree, key: Any) -> Any:
            value: Any = make_trial(hp).objective
            return value(s, batch, key)

        # The sum, whose gradient is for each trial that of its own objective.
        return jnp.sum(jax.vmap(one)(rows, state, jax.random.split(key, count)))

    return Trial(
        init,
        step,
        evaluate,
        check=first.check,
        predict=None if first.predict is None else predict,
        objective=None if first.objective is None else objective,
    )

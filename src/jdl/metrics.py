"""Metrics: one number per example, and averages that are right over uneven batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, Shaped

from jdl import _checks
from jdl._promotion import at_least_float32, promoting


@promoting
def accuracy(
    logits: Num[Array, "batch *steps classes"], targets: Shaped[Array, "*_"]
) -> Float[Array, "batch"]:
    """1 where the largest logit is the target's, else 0; of equal logits the first counts.

    With axes between (the steps of a sequence): the share of them that is right.

    Args:
      logits: one per class.
      targets: integer classes `(batch, *steps)`.

    Raises:
      ValueError: `targets` are no integers of that shape.

    >>> import jax.numpy as jnp
    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    targets = _checks.check_classes("targets", targets, logits.shape[:-1])
    right = (jnp.argmax(logits, -1) == targets).astype(jnp.float32)
    return right.mean(tuple(range(1, right.ndim)))


@promoting
def top_k_accuracy(
    logits: Num[Array, "batch classes"], targets: Shaped[Array, "*_"], k: _checks.Count = 5
) -> Float[Array, "batch"]:
    """1 where fewer than `k` classes come before the target's, else 0.

    A class comes before another if its logit is larger, or equal and its index
    smaller. A target outside [0, classes) is never right.

    Args:
      logits: one per class.
      targets: integer classes.
      k: from 1 to the number of classes.

    Raises:
      ValueError: `k` is outside that range; `targets` are no integers `(batch,)`.
    """
    targets = _checks.check_classes("targets", targets, logits.shape[:1])
    classes = logits.shape[1]
    if _checks.check_count("k", k) > classes:
        raise ValueError(f"`k` must be in [1, {classes}], the number of classes, got k={k}.")
    index = jnp.arange(classes)[None, :]
    own = targets[:, None] == index
    score = jnp.where(own, logits, 0).sum(1, keepdims=True)
    before = (logits > score) | ((logits == score) & (index < targets[:, None]))
    return (own.any(1) & (before.sum(1) < k)).astype(jnp.float32)


def binary_accuracy(
    logits: Num[Array, "batch *tasks"], targets: Shaped[Array, "*_"]
) -> Float[Array, "batch"]:
    """1 where the logit is positive and the target is too (1 or True), or neither; mean over tasks.

    Raises:
      ValueError: shapes differ (`(batch, 1)` may meet `(batch,)`).
    """
    if logits.shape == (*targets.shape, 1):
        logits = logits.reshape(targets.shape)
    if logits.shape != targets.shape:
        raise ValueError(
            f"`targets` must have the logits' shape {logits.shape}, got {targets.shape}."
        )
    right = ((logits > 0) == (targets > 0)).astype(jnp.float32)
    return right.mean(tuple(range(1, right.ndim)))


@promoting
def confusion(
    logits: Num[Array, "batch classes"], targets: Shaped[Array, "*_"]
) -> Float[Array, "classes classes"]:
    """Counts: row the true class, column the one of the largest logit. Batches add up.

    Raises:
      ValueError: `targets` are no integers `(batch,)`.
    """
    targets = _checks.check_classes("targets", targets, logits.shape[:1])
    index = jnp.arange(logits.shape[1])[None, :]
    true = (targets[:, None] == index).astype(jnp.float32)
    predicted = (jnp.argmax(logits, 1)[:, None] == index).astype(jnp.float32)
    return true.T @ predicted


class Average(NamedTuple):
    """A running weighted mean that is exact whatever the sizes of the batches.

    Attributes:
      total: the weighted sum of what was seen.
      weight: the sum of the weights: the number of examples, unless weighted.

    >>> import jax.numpy as jnp
    >>> average = add(add(start(), jnp.array([1.0, 1.0, 1.0])), jnp.array([0.0]))
    >>> float(result(average))
    0.75
    """

    total: Any
    weight: Any


def start() -> Average:
    """The average of nothing yet."""
    return Average(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


@promoting
def add(
    average: Average,
    values: Num[Array, "*shape"] | Bool[Array, "*shape"],
    weights: Shaped[Array, "*_"] | None = None,
) -> Average:
    """`average` with one batch more.

    Args:
      average: from `start` or an earlier `add`.
      values: one per example.
      weights: one per example; a mask leaves padding out, whatever its value,
        NaN included. None is 1 each.

    Raises:
      ValueError: `weights` have another shape than `values`.
    """
    if weights is None:
        weights = jnp.ones(values.shape, jnp.float32)
    if weights.shape != values.shape:
        raise ValueError(
            f"`weights` must have the values' shape {values.shape}, got {weights.shape}."
        )
    values = values.astype(at_least_float32(values))
    weights = weights.astype(values.dtype)
    weighted = jnp.where(weights == 0, 0, weights * values)
    return Average(average.total + weighted.sum(), average.weight + weights.sum())


def result(average: Average) -> Float[Array, ""]:
    """The mean of all examples added, NaN if there were none."""
    return average.total / average.weight

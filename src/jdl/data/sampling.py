"""Which examples to take: cross-validation folds, and draws with unequal weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jdl.data.batches import permute
from jdl.data.split import deal_indices, split_indices

Key = Any


def kfold(
    length: int, folds: int, *, seed: int = 0, labels: Any = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`folds` pairs of (training, validation) indices; each example is validated once.

    Args:
      length: the number of examples.
      folds: from 2 to `length`.
      seed: of the partition.
      labels: integer labels; the folds then differ by at most one in each class.

    Returns:
      int64 index arrays; the validation parts differ in size by at most one.

    >>> [valid.size for _, valid in kfold(10, 3)]
    [4, 3, 3]
    """
    _check_folds(length, folds)
    sizes = tuple(length // folds + (fold < length % folds) for fold in range(folds))
    if labels is None:
        parts = split_indices(length, sizes, seed)
    else:
        parts = deal_indices(length, folds, seed, labels)
    return [
        (np.concatenate([part for i, part in enumerate(parts) if i != fold]), parts[fold])
        for fold in range(folds)
    ]


def fold_indices(
    key: Key, fold: Any, folds: int, length: int
) -> tuple[Integer[Array, "train"], Integer[Array, "valid"]]:
    """The (training, validation) indices of one fold, which may be traced: a fold is a lane.

    Args:
      key: of the partition, the same for all folds.
      fold: in [0, folds), a number or a traced scalar.
      folds: static, from 2 to `length`.
      length: the number of examples, static.

    Returns:
      int32 indices, `length // folds` of them for validation. So that all folds
      have one shape, the `length % folds` examples that are left over stay in
      the training part of every fold.

    >>> train, valid = fold_indices(jax.random.key(0), 2, 3, 9)
    >>> sorted([*train.tolist(), *valid.tolist()])
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    _check_folds(length, folds)
    size = length // folds
    # The order is turned so that this fold's part comes first.
    order = permute((jnp.arange(length) + fold * size) % length, length, key)
    return order[size:], order[:size]


class Sampler(NamedTuple):
    """Walker's alias table: a draw is one look-up, whatever the number of examples.

    Attributes:
      keep: (examples,) the chance that a draw of this row stays.
      alias: (examples,) the example it becomes otherwise.
    """

    keep: Float[Any, "examples"]
    alias: Integer[Any, "examples"]


def sampler(weights: Any) -> Sampler:
    """The table for drawing examples in proportion to `weights`, made on the host.

    Args:
      weights: (examples,) not negative, not all zero; for instance `class_weights(y)`.

    Source: Walker (1977), An Efficient Method for Generating Discrete Random
    Variables with General Distributions; Vose (1991) for making the table.
    """
    weights = np.asarray(weights, np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if weights.ndim != 1 or wrong.any() or not weights.any():
        at = f"weights[{np.argmax(wrong)}]={weights[np.argmax(wrong)]}" if wrong.any() else "none"
        raise ValueError(
            f"`weights` must be one finite number in [0, inf) for each example, and not all 0; "
            f"got shape {weights.shape}, out of range: {at}."
        )
    scaled = weights * (len(weights) / weights.sum())
    keep, alias = np.ones(len(weights)), np.arange(len(weights))
    small = np.flatnonzero(scaled < 1).tolist()
    large = np.flatnonzero(scaled >= 1).tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], alias[low] = scaled[low], high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(large.pop())
    # Rounding may leave a row without its other half: harmless, but a weight of 0 stays undrawn.
    never = weights == 0
    keep[never] = 0
    alias[never & (alias == np.arange(len(weights)))] = np.argmax(weights)
    return Sampler(keep.astype(np.float32), alias.astype(np.int32))


def class_weights(labels: Any) -> np.ndarray:
    """For each example 1 / (the number of its class): with these, every class is drawn as often.

    >>> class_weights([0, 0, 1]).tolist()
    [0.5, 0.5, 1.0]
    """
    _, position, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return 1 / counts[position]


def weighted_indices(
    key: Key, step: Any, steps: int, batch_size: int, table: Sampler
) -> Integer[Array, "steps batch"]:
    """As `batch_indices`, but drawn with replacement in proportion to the table's weights.

    Step `t` draws from `fold_in(key, t)` alone, so the batches do not depend on
    where a segment begins.

    Args:
      key: the trial's key for data.
      step: the first step, may be traced.
      steps: how many, static.
      batch_size: static.
      table: made by `sampler`.

    Returns:
      int32 indices.
    """
    length = len(table.keep)
    keep, alias = jnp.asarray(table.keep), jnp.asarray(table.alias)

    def draw(step: Array) -> Array:
        row_key, keep_key = jax.random.split(jax.random.fold_in(key, step))
        row = jax.random.randint(row_key, (batch_size,), 0, length)
        stays = jax.random.uniform(keep_key, (batch_size,)) < keep[row]
        return jnp.where(stays, row, alias[row])

    return jax.vmap(draw)(jnp.asarray(step, jnp.int32) + jnp.arange(steps))


def _check_folds(length: int, folds: int) -> None:
    if not 2 <= folds <= length:
        raise ValueError(
            f"`folds` must be from 2 to the number of examples, {length}, got folds={folds}."
        )

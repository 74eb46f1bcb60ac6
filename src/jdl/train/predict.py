"""What a trained network says of data on the host, however many there are."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jdl._checks import check_count
from jdl.engine.trial import Batch, Trial


def predict(
    trial: Trial, state: PyTree, x: Any, *, batch_size: int = 1024, key: Any = None
) -> np.ndarray:
    """`trial.predict` over all of `x`, an array (examples, ...) on the host.

    Args:
      trial: which made the state.
      state: as `Fit.state`, or that of a sweep's result.
      x: inputs; memory-mapped arrays are read batch by batch.
      batch_size: the most examples on the device at once.
      key: draws the masks of Monte-Carlo dropout; None is without.

    Raises:
      ValueError: the trial has no `predict`, or `batch_size` is below 1.
    """
    size = max(1, min(check_count("batch_size", batch_size), len(x)))
    run = jax.jit(predictor(trial))
    blocks = []
    # Of no examples too there is a block, which tells the shape of an output.
    for start in range(0, max(1, len(x)), size):
        block = np.asarray(x[start : start + size])
        # Padded to the one size that is compiled.
        rest = np.zeros((size - len(block), *block.shape[1:]), block.dtype)
        own = None if key is None else jax.random.fold_in(key, start)
        said = np.asarray(run(state, np.concatenate([block, rest]), own))
        blocks.append(said[: len(block)])
    return np.concatenate(blocks)


def predictor(trial: Trial) -> Any:
    """`trial.predict`, if it has one."""
    if trial.predict is None:
        raise ValueError(
            "This trial has no `predict`: Trial(..., predict=lambda state, x, key=None: ...)."
        )
    return trial.predict


def evaluate(
    trial: Trial, state: PyTree, split: Batch, *, batch_size: int = 1024
) -> dict[str, float]:
    """The mean of every metric over all of `split`, as `(x, y)` on the host.

    Args:
      trial: which made the state.
      state: as for `predict`.
      split: such as `dataset.test`.
      batch_size: the most examples on the device at once.

    Raises:
      ValueError: `split` is empty, or `batch_size` is below 1.
    """
    if (examples := len(jax.tree.leaves(split)[0])) == 0:
        raise ValueError("`split` must hold at least one example, got none: no mean is defined.")
    size = min(check_count("batch_size", batch_size), examples)
    run = jax.jit(trial.evaluate)
    total: dict[str, float] = {}
    for start in range(0, examples, size):
        stop = min(start + size, examples)
        batch = jax.tree.map(lambda a, start=start, stop=stop: np.asarray(a[start:stop]), split)
        for name, mean in jax.device_get(run(state, batch)).items():
            total[name] = total.get(name, 0.0) + float(mean) * (stop - start) / examples
    return total

"""Cross-validation as a sweep's objective: every fold is a lane of the same program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.data import kfold
from jdl.data.arrays import length
from jdl.data.dataset import Dataset, check, is_labels
from jdl.engine.trial import adapted
from jdl.sweep.dimension import folds as fold_axis
from jdl.sweep.results import Results
from jdl.sweep.run import MakeTrial, run
from jdl.sweep.space import parse_space
from jdl.train import Trial

FOLD = "fold"


def cross_validate(
    make_trial: MakeTrial,
    space: Mapping[str, Any],
    data: Dataset | tuple[Any, ...],
    folds: int = 5,
    *,
    batch_size: int = 32,
    seed: int = 0,
    **arguments: Any,
) -> Results:
    """Judges every configuration by `folds`-fold cross-validation.

    The training and validation splits are joined and dealt into folds, each
    class evenly. For each fold, a lane of one program trains the configuration
    on all other folds. `results.configurations()` gives the mean over folds and
    its standard error. The entry "fold" of a trial's configuration names its
    validation fold. Every batch takes the same number of examples from each
    training fold.

    Args:
      make_trial: as in `run`; it sees no fold.
      space: as in `run`; `trials` counts folds, and seeds if there are any.
      data: as in `run`. A test split is ignored.
      folds: at least 2. All are equally large, so up to `folds - 1` examples are
        not used.
      batch_size: examples in a training step, rounded up to a multiple of `folds - 1`.
      seed: of the partition, and as in `run`.
      arguments: further ones of `run`. After `seconds`, `results.complete` says
        whether the call has to be made again.

    Raises:
      ValueError: the space has an entry "fold", there are fewer examples than
        folds, or there is a population, whose members would copy across folds.
    """
    if FOLD in space:
        raise ValueError(f"`space` must not have an entry {FOLD!r}: cross_validate adds it.")
    if arguments.get("population") is not None:
        raise ValueError(
            "cross_validate takes no `population`: a member that copies one of another fold has "
            "seen what it is validated on."
        )
    whole = {**parse_space(space), FOLD: fold_axis(folds)}
    rows = -(-batch_size // (folds - 1))
    dealt = deal(Dataset(*data), folds, seed)
    return run(by_fold(make_trial), whole, dealt, batch_size=rows, seed=seed, **arguments)


def deal(data: Dataset, folds: int, seed: int = 0) -> Dataset:
    """Arrays (rows, folds, ...), in which each row holds one example of every fold.

    A traced column index can then leave a fold out without copying the data. The
    training and the validation split of the result are the same rows.

    Raises:
      ValueError: there are fewer examples than folds.
    """
    data = check(data)
    splits = [split for split in (data.train, data.valid) if split is not None]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *splits)
    labels = joined[1] if is_labels(joined[1]) else None
    parts = [valid for _, valid in kfold(length(joined), folds, seed=seed, labels=labels)]
    size = min(part.size for part in parts)
    order = np.stack([part[:size] for part in parts], axis=1)
    rows = jax.tree.map(lambda a: np.asarray(a)[order], joined)
    return Dataset(rows, rows, None)


def by_fold(make_trial: MakeTrial) -> MakeTrial:
    """`make_trial` for data from `deal`, training without column `fold` and evaluating on it."""

    def make(hp: dict[str, Any]) -> Trial:
        rest = {name: value for name, value in hp.items() if name != FOLD}
        return _on_fold(make_trial(rest), hp[FOLD])

    return make


def _on_fold(trial: Trial, fold: Any) -> Trial:
    def train_part(batch: Any) -> Any:
        def others(a: Any) -> Any:
            columns = (fold + 1 + jnp.arange(a.shape[1] - 1)) % a.shape[1]
            kept = jnp.take(a, columns, axis=1)
            return kept.reshape(-1, *kept.shape[2:])

        return jax.tree.map(others, batch)

    def valid_part(batch: Any) -> Any:
        return jax.tree.map(lambda a: jnp.take(a, fold, axis=1), batch)

    def check_dealt(data: Dataset) -> None:
        assert trial.check is not None
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), data.train)
        trial.check(Dataset(flat, None, None))

    return adapted(
        trial,
        batch=train_part,
        evaluate=lambda state, batch: trial.evaluate(state, valid_part(batch)),
        check=None if trial.check is None else check_dealt,
    )

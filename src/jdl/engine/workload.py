"""What a group of trials runs: shapes of the data, how many steps, how often it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jdl._checks import check_count, check_number
from jdl.data.arrays import length
from jdl.data.batches import steps_per_epoch
from jdl.data.dataset import Dataset
from jdl.engine.keys import to_keys, to_words
from jdl.engine.trial import Batch, Trial, adapted

Numbers = dict[str, Any]


class Workload(NamedTuple):
    """What a group of trials runs: the static side of a lane program.

    It holds only shapes and dtypes of the data; the splits are passed separately.
    """

    make: Callable[[Numbers], Trial]
    batch: Batch  # of training
    splits: dict[str, Batch]  # by name: train (unless it is a stream), valid, test
    batch_size: int
    report_every: int  # steps
    reports: int  # in a whole trial
    eval_batch_size: int
    diverged_above: float  # in multiples of the first loss

    @property
    def steps(self) -> int:
        """The steps of a whole trial."""
        return self.report_every * self.reports

    def trial(self, numbers: Numbers) -> Trial:
        """The trial of `numbers`, with the keys in its state as words."""
        return adapted(self.make(numbers), inward=to_keys, outward=to_words)


def splits_of(data: Dataset) -> dict[str, Batch]:
    """The splits that are not None, by name."""
    return {name: split for name, split in data._asdict().items() if split is not None}


def shapes_of(arrays: Any) -> Any:
    """The shapes of `arrays`, in the dtypes that JAX gives them."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), arrays
    )


def make_workload(
    make: Callable[[Any], Trial],
    data: Dataset,
    *,
    epochs: int | None,
    steps: int | None,
    batch_size: int,
    report_every: int | None,
    eval_batch_size: int,
    diverged_above: float,
    batch: Batch | None = None,
) -> Workload:
    """Checks the arguments and gives the workload.

    Args:
      make: gives the trial of numbers.
      data: the splits as arrays; the training split of a stream is None.
      epochs: passes over the training split.
      steps: of training, instead of `epochs`.
      batch_size: examples in a training step.
      report_every: steps between reports; None means about an epoch, or all steps
        of a stream.
      eval_batch_size: the most examples evaluated at once.
      diverged_above: as in `sweep.run`.
      batch: a training batch of a stream.

    Raises:
      ValueError: neither or both of `epochs` and `steps` are given, one is below
        1, `report_every` does not divide the steps, or the batch is larger than
        the training split.
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"Give either `epochs` or `steps`, got epochs={epochs}, steps={steps}.")
    epochs = None if epochs is None else check_count("epochs", epochs)
    steps = None if steps is None else check_count("steps", steps)
    report_every = None if report_every is None else check_count("report_every", report_every)
    batch_size = check_count("batch_size", batch_size)
    eval_batch_size = check_count("eval_batch_size", eval_batch_size)
    check_number("diverged_above", diverged_above, "[1, inf]")
    if data.train is None:
        assert steps is not None
        total, every = steps, report_every or steps
    else:
        per_epoch = steps_per_epoch(length(data.train), batch_size)
        batch = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype), data.train
        )
        if epochs is not None:
            total, every = epochs * per_epoch, report_every or per_epoch
        else:
            assert steps is not None
            total, every = steps, report_every or _report_every(steps, per_epoch)
    if total % every:
        raise ValueError(
            f"`report_every` must divide the {total} steps of a trial, got report_every={every}."
        )
    return Workload(
        make=make,
        batch=shapes_of(batch),
        splits=shapes_of(splits_of(data)),
        batch_size=batch_size,
        report_every=every,
        reports=total // every,
        eval_batch_size=eval_batch_size,
        diverged_above=diverged_above,
    )


def _report_every(steps: int, per_epoch: int) -> int:
    """The largest divisor of `steps` within an epoch, or `steps` if that is below a quarter of it.

    >>> _report_every(500, 39), _report_every(78, 39), _report_every(97, 39)
    (25, 39, 97)
    """
    every = next(k for k in range(min(per_epoch, steps), 0, -1) if steps % k == 0)
    return every if 4 * every >= per_epoch else steps

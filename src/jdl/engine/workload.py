"""From the arguments of a run to its workload: how many steps, how often it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jdl._checks import check_number
from jdl.data.batches import steps_per_epoch
from jdl.data.dataset import Dataset
from jdl.engine.program import Workload
from jdl.engine.trial import Trial


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
) -> Workload:
    """Checks the arguments and gives the workload.

    Raises:
      ValueError: neither or both of `epochs` and `steps` are given, one is below
        1, `report_every` does not divide the steps, or the batch is larger than
        the training split.
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"Give either `epochs` or `steps`, got epochs={epochs}, steps={steps}.")
    for name, value in (
        ("epochs", epochs),
        ("steps", steps),
        ("batch_size", batch_size),
        ("report_every", report_every),
        ("eval_batch_size", eval_batch_size),
    ):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"`{name}` must be an integer of at least 1, got {name}={value!r}.")
    check_number("diverged_above", diverged_above, "[1, inf]")
    per_epoch = steps_per_epoch(len(data.train[0]), batch_size)
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
        train=data.train,
        valid=data.valid,
        test=data.test,
        batch_size=batch_size,
        report_every=every,
        reports=total // every,
        eval_batch_size=eval_batch_size,
        diverged_above=diverged_above,
    )


def _report_every(steps: int, per_epoch: int) -> int:
    """The largest divisor of `steps` within an epoch, or all of them if that is a sliver.

    >>> _report_every(500, 39), _report_every(78, 39), _report_every(97, 39)
    (25, 39, 97)
    """
    every = next(k for k in range(min(per_epoch, steps), 0, -1) if steps % k == 0)
    return every if 4 * every >= per_epoch else steps

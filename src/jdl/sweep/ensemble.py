"""The best trials of a sweep, as an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jdl._checks import check_count
from jdl.sweep.records import TrialResult
from jdl.sweep.space import Space, split_static
from jdl.train.ensemble import Ensemble, stacked


def ensemble_of(
    make_trial: Callable[[Any], Any] | None, space: Space, done: Sequence[TrialResult], k: int
) -> Ensemble:
    """The ensemble of the first `k` of trials that have their states.

    Args:
      make_trial: of the sweep.
      space: of the sweep.
      done: done trials, the best first.
      k: at most the number of those with a state.

    Raises:
      ValueError: fewer than `k` trials have their states, or `make_trial` is None.
    """
    k = check_count("k", k)
    if make_trial is None:
        raise ValueError(
            "An ensemble needs make_trial, which a folder does not hold. Call sweep.run again "
            "with the same arguments, which reads a finished run."
        )
    kept = [trial for trial in done if trial.state is not None]
    if len(kept) < k:
        raise ValueError(
            f"`k` must be from 1 to {len(kept)}, the trials whose states were kept, got k={k}. "
            "sweep.run(..., keep=...) says how many are."
        )
    members = []
    for trial in kept[:k]:
        static, numbers = split_static(space, trial.config)
        members.append((dict(static), numbers, trial.state))
    return stacked(make_trial, members, [trial.trial for trial in kept[:k]])

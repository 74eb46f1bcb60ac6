"""The best trials of a sweep, as an ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jdl._checks import check_count
from jdl.sweep.space import from_json, split_static
from jdl.train.ensemble import Ensemble, stacked

if TYPE_CHECKING:
    from jdl.sweep.results import Results


def ensemble_of(results: Results, k: int) -> Ensemble:
    """The ensemble of the `k` best trials of a sweep, by the metric of its goal.

    Args:
      results: of `sweep.run`.
      k: at most the number of trials whose states were kept.

    Raises:
      ValueError: fewer than `k` done trials have their states.
    """
    k = check_count("k", k)
    if results.make_trial is None:
        raise ValueError(
            "An ensemble needs make_trial, which a folder does not hold. Call sweep.run again "
            "with the same arguments, which reads a finished run."
        )
    done = [t for t in results.trials if t.status == "done" and t.state is not None]
    if len(done) < k:
        raise ValueError(
            f"`k` must be from 1 to {len(done)}, the trials whose states were kept, got k={k}. "
            "sweep.run(..., keep=...) says how many are."
        )
    space = from_json(results.specification["space"])
    # Among equal scores the lower trial number wins, as in the journal.
    best = sorted(done, key=lambda t: (-results.score(t), t.trial))[:k]
    members = []
    for trial in best:
        static, numbers = split_static(space, trial.config)
        members.append((dict(static), numbers, trial.state))
    return stacked(results.make_trial, members, [trial.trial for trial in best])

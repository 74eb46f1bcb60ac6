"""What a sweep says of one trial, of where trials ran, and of one configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from jdl.engine.trial import params_of


class TrialResult(NamedTuple):
    """One trial.

    Attributes:
      trial: its number, from 0.
      config: its hyperparameters by name. The numbers of a population's member change
        (see `Results.schedule`); these are those of its last report.
      status: pending, running, done, diverged or stopped.
      steps: finite training steps that it took.
      metrics: the last value of each report, and the test metrics if it is done.
      state: the trial's final state if it was kept, else None.
    """

    trial: int
    config: dict[str, Any]
    status: str
    steps: int
    metrics: dict[str, float]
    state: PyTree | None = None

    @property
    def params(self) -> PyTree | None:
        """The parameters in `state`, as `diagnose.params_of` finds them."""
        return params_of(self.state)


class Lanes(NamedTuple):
    """Where and when trials ran.

    Attributes:
      of: the lane of each trial that started.
      segments: rows of turn, trial and how many reports the trial made in that
        turn; a turn is one compiled segment of one program.
    """

    of: dict[int, int]
    segments: np.ndarray


class Summary(NamedTuple):
    """One configuration, summarised over its seeds.

    Attributes:
      config: its hyperparameters, without the seed.
      trials: their numbers.
      mean: of the metric over the done trials; NaN if there are none.
      stderr: standard error of that mean; NaN below two.
      done: how many trials are done.
    """

    config: dict[str, Any]
    trials: list[int]
    mean: float
    stderr: float
    done: int

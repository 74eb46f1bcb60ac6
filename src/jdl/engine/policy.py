"""What decides in a run, and the seated and paused trials that it decides about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jdl.engine.events import Queued
from jdl.engine.rules import Evolution, Rule


class Seat(NamedTuple):
    """A trial in a lane."""

    queued: Queued
    done: int  # reports
    until: int  # the report of the next decision about it


class Paused(NamedTuple):
    """A trial without a lane, in the middle of its run."""

    group: str
    queued: Queued
    done: int
    score: float  # its last


class Policy(NamedTuple):
    """What decides in a run. A rule remembers what it was told, so it serves one run only.

    Attributes:
      reports: of a whole trial.
      report_every: steps between reports.
      rule: ends trials early.
      population: lets trials copy each other.
      target: the score that ends the whole run.
      adaptive: whether the search depends on what it is told.
    """

    reports: int
    report_every: int
    rule: Rule | None = None
    population: Evolution | None = None
    target: float | None = None
    adaptive: bool = False

    @property
    def ordered(self) -> bool:
        """Whether anything depends on the order of segments, which is then fixed."""
        return self.adaptive or self.decides

    @property
    def decides(self) -> bool:
        """Whether anything is decided after a segment."""
        return bool(self.rule or self.population) or self.target is not None

    def stops(self, trial: int) -> Sequence[int]:
        """The reports after which something is decided about `trial`, ascending."""
        if self.target is not None:
            return range(1, self.reports + 1)
        if self.population is not None:
            every = self.population.every
            return [*range(every, self.reports, every), self.reports]
        return self.rungs(trial) if self.rule else (self.reports,)

    def reached(self, scores: Sequence[float]) -> bool:
        """Whether any of the scores reaches the target."""
        return self.target is not None and max(scores, default=-math.inf) >= self.target

    def rungs(self, trial: int) -> Sequence[int]:
        """The reports after which the rule decides about `trial`."""
        assert self.rule is not None
        return self.rule.rungs(trial, self.reports)

    def seat(self, queued: Queued, done: int) -> Seat:
        """A seat for a trial that has made `done` reports."""
        until = next((r for r in self.stops(queued.trial) if r > done), self.reports)
        return Seat(queued, done, until)

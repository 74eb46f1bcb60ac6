"""The judge: tells a stopping rule what trials reported, in an order that no clock decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jdl.engine.rules import Stopping, Verdicts


class Heard(NamedTuple):
    """What one trial brought in a segment."""

    trial: int
    report: int  # the number of its last one
    scores: Sequence[float]
    diverged: bool


class Judge:
    """A rule at work, and the scores that trials made since their last rungs."""

    def __init__(self, stopping: Stopping, reports: int):
        self._rule = stopping.start()
        self._reports = reports  # of a whole trial
        self._since: dict[int, list[float]] = {}

    def rungs(self, trial: int) -> Sequence[int]:
        """The reports after which the rule decides about `trial`."""
        return self._rule.rungs(trial, self._reports)

    def hear(self, segment: Iterable[Heard]) -> Verdicts:
        """What the rule says after a segment."""
        at: dict[int, list[tuple[int, Sequence[float]]]] = {}
        for trial, report, scores, diverged in sorted(segment):
            rungs = self.rungs(trial)
            if diverged:
                self._since.pop(trial, None)
                rung = next((r for r in rungs if r >= report), None)
                if rung is not None:
                    at.setdefault(rung, []).append((trial, [-math.inf]))
            elif report in rungs:
                curve = [*self._since.pop(trial, ()), *scores]
                at.setdefault(report, []).append((trial, curve))
            elif report == self._reports:
                self._since.pop(trial, None)
            else:
                self._since.setdefault(trial, []).extend(scores)
        said = [
            self._rule.decide(r, [t for t, _ in at[r]], [c for _, c in at[r]]) for r in sorted(at)
        ]
        if len(said) == 1:
            return said[0]
        return Verdicts(*([t for verdicts in said for t in verdicts[i]] for i in range(3)))

    def settle(self) -> Verdicts:
        """What the rule says when nothing can run before it does.

        Raises:
          RuntimeError: nothing, so that the trials that wait would do so for ever.
        """
        verdicts = self._rule.settle()
        if not any(verdicts):
            raise RuntimeError("The stopping rule makes trials wait and settles nothing.")
        return verdicts

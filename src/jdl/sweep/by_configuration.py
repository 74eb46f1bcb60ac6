"""Stopping where configurations are repeated: rules hear of configurations, not of their seeds."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jdl.engine.rules import Rule, Stopping, Verdicts, joined
from jdl.sweep.search import repeats
from jdl.sweep.space import Space
from jdl.sweep.stopping import Curves, combine, combined
from jdl.sweep.values import plain


class Numbered:
    """The configuration of each trial by number, in the order in which the search gave them.

    One that the search gives again is another one, with repeats of its own.
    """

    def __init__(self, space: Space):
        repeated = repeats(space)
        self.count = len(repeated)
        self._axes = {*repeated[0]}
        self._of: dict[int, int] = {}
        self._known: dict[str, int] = {}
        self._given: collections.Counter[str] = collections.Counter()

    def note(self, given: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Numbers the configurations of trials that the search gave."""
        if self.count == 1:
            return
        for trial, config in given:
            whole = repr(plain(tuple(config.items())))
            own = repr(plain(tuple((n, v) for n, v in config.items() if n not in self._axes)))
            key = f"{self._given[whole]} {own}"
            self._given[whole] += 1
            self._of[trial] = self._known.setdefault(key, len(self._known))

    def __getitem__(self, trial: int) -> int:
        return self._of[trial]


def by_configuration(stopping: Stopping, numbered: Numbered) -> Stopping:
    """`stopping` with configurations for trials, where a space repeats each of them.

    A trial waits at a rung until all repeats of its configuration are there or
    have diverged. The rule is then told the mean of their scores, -inf if one
    diverged, and what it says holds for all of them. Rules that compare nothing,
    as `patience`, still judge each trial by itself.
    """
    parts = stopping.parts or (stopping,)
    compared = [part for part in parts if not part.alone]
    if numbered.count == 1 or not compared:
        return stopping
    judge = compared[0] if len(compared) == 1 else combine(*compared)

    def start() -> Rule:
        rule, gone = _judged(judge.start(), numbered)
        rest = [part for part in parts if part.alone or part is compared[0]]
        if len(rest) == 1:
            return rule
        return combined([part.start() if part.alone else rule for part in rest], gone)

    return Stopping(start, f"{stopping.name} by configuration")


def _judged(judge: Rule, numbered: Numbered) -> tuple[Rule, Callable[[Sequence[int]], Verdicts]]:
    """A rule that asks `judge` about configurations, and a report of trials that ended."""
    there: dict[tuple[int, int], dict[int, Sequence[float]]] = {}  # by rung and configuration
    members: dict[int, list[int]] = {}  # trials of a configuration that `judge` was told last
    absent: dict[int, set[int]] = collections.defaultdict(set)  # that will come to no rung
    failed: set[int] = set()  # trials whose last score was -inf: diverged, as far as one knows
    said: dict[int, tuple[int, str]] = {}  # the last rung of a configuration, and the verdict

    def rungs(trial: int, reports: int) -> Sequence[int]:
        return judge.rungs(numbered[trial], reports)

    def decide(rung: int, trials: Sequence[int], curves: Curves) -> Verdicts:
        late: dict[str, list[int]] = {field: [] for field in Verdicts._fields}
        touched = set()
        for trial, curve in zip(trials, curves):
            number = numbered[trial]
            diverged = list(curve) == [-math.inf]
            (failed.add if diverged else failed.discard)(trial)
            (absent[number].add if diverged else absent[number].discard)(trial)
            last, verdict = said.get(number, (0, "go"))
            if rung <= last or verdict != "go":
                late[verdict].append(trial)
            else:
                there.setdefault((rung, number), {})[trial] = curve
                touched.add((rung, number))
        return joined([Verdicts(**late), tell([key for key in touched if complete(key)])])

    def complete(key: tuple[int, int]) -> bool:
        return len({*there[key], *absent[key[1]]}) >= numbered.count

    def tell(keys: Sequence[tuple[int, int]]) -> Verdicts:
        """Tells `judge` of the configurations that are at a rung."""
        by_rung: dict[int, list[tuple[int, Sequence[float]]]] = {}
        for rung, number in sorted(keys):
            here = there.pop((rung, number))
            members[number] = [*here]
            curve: Sequence[float] = [-math.inf]
            if not failed & {*here, *absent[number]}:
                curve = [math.fsum(scores) / len(here) for scores in zip(*here.values())]
            by_rung.setdefault(rung, []).append((number, curve))
        verdicts = []
        for rung, told in by_rung.items():
            verdicts.append(judge.decide(rung, [n for n, _ in told], [c for _, c in told]))
            said.update({number: (rung, "go") for number, _ in told})
        return spread(joined(verdicts))

    def spread(verdicts: Verdicts) -> Verdicts:
        """Verdicts about configurations as such about their trials."""
        for field, numbers in zip(Verdicts._fields, verdicts):
            said.update({number: (said[number][0], field) for number in numbers})
        return Verdicts(*([t for n in numbers for t in members[n]] for numbers in verdicts))

    def settle() -> Verdicts:
        # Some repeats never come, because the search gave no more: the mean is of those there.
        verdicts = tell([*there])
        return verdicts if any(verdicts) else spread(judge.settle())

    def gone(trials: Sequence[int]) -> Verdicts:
        for trial in trials:
            absent[numbered[trial]].add(trial)
        now = {numbered[trial] for trial in trials}
        return tell([key for key in there if key[1] in now and complete(key)])

    return Rule(rungs, decide, settle), gone

"""Synchronous halving of cohorts once they are complete, and Hyperband's brackets."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

from jdl._checks import check_number
from jdl.engine.rules import Rule, Stopping, Verdicts, joined

Curves = Sequence[Sequence[float]]


@functools.cache
def levels(reports: int, reduction: float, grace: float) -> tuple[int, ...]:
    """The rungs of successive halving below `reports`: `grace * reduction ** i`, rounded.

    >>> levels(20, 4, 1), levels(16, 4, 1), levels(3, 3, 4)
    ((1, 4, 16), (1, 4), ())
    """
    rounded = (round(grace * reduction**i) for i in itertools.count())
    return tuple(dict.fromkeys(itertools.takewhile(lambda level: level < reports, rounded)))


def check_halving(reduction: float, grace: int) -> None:
    """Raises ValueError unless the numbers are in range."""
    check_number("reduction", reduction, "(1, inf)")
    check_number("grace", grace, "[1, inf)")


def successive_halving(
    reduction: float = 4.0, grace: int = 1, cohort: int | None = None
) -> Stopping:
    """Synchronous successive halving: the best 1/`reduction` of each cohort go on, rung by rung.

    After report `grace` a trial waits for the rest of its cohort. When all `n`
    have arrived (or diverged) the best `floor(n / reduction)`, at least one,
    go on to report `grace * reduction`, and so on to the end. Ties go to the
    lower trial number. A waiting trial leaves its lane to the next one, and
    its state is kept on the host.

    Args:
      reduction: one of this many trials goes on, above 1.
      grace: reports that every trial may make, at least 1.
      cohort: number of trials that are compared with each other, in the order in
        which they were asked for; None for all of the sweep.

    Raises:
      ValueError: an argument is out of range.

    Source: Jamieson and Talwalkar (2016), Non-stochastic Best Arm
    Identification and Hyperparameter Optimization.
    """
    check_halving(reduction, grace)
    if cohort is not None:
        check_number("cohort", cohort, "[2, inf)")

    def start() -> Rule:
        return _bracketed(
            lambda trial, reports: 0 if cohort is None else trial // cohort,
            lambda bracket, reports: levels(reports, reduction, grace),
            lambda bracket, reports: cohort,
            reduction,
        )

    return Stopping(start, f"successive_halving({reduction}, {grace}, {cohort})")


def hyperband(reduction: float = 3.0, grace: int = 1) -> Stopping:
    """Hyperband: brackets of successive halving, from many short trials to few complete ones.

    With `R` the reports of a whole trial and
    `s_max = floor(log(R / grace) / log(reduction))`, bracket `s = s_max ... 0`
    takes `n = ceil((s_max + 1) / (s + 1) * reduction**s)` trials, whose first
    rung is after `R * reduction**-s` reports. Trials fill the brackets in the
    order in which they were asked for, and then start again with `s_max`.
    `bracket_sizes` gives the size of each.

    Args:
      reduction: one of this many trials goes on, above 1.
      grace: reports that every trial may make, at least 1.

    Raises:
      ValueError: an argument is out of range.

    Source: Li et al. (2018), Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization, algorithm 1.
    """
    check_halving(reduction, grace)

    def bracket_of(trial: int, reports: int) -> int:
        sizes = bracket_sizes(reports, reduction, grace)
        turn, place = divmod(trial, sum(sizes))
        bracket = 0
        while place >= sizes[bracket]:
            place -= sizes[bracket]
            bracket += 1
        return turn * len(sizes) + bracket

    def rungs(bracket: int, reports: int) -> Sequence[int]:
        count = len(bracket_sizes(reports, reduction, grace))
        s = count - 1 - bracket % count
        return sorted({round(reports * reduction ** (i - s)) for i in range(s)})

    def size(bracket: int, reports: int) -> int:
        sizes = bracket_sizes(reports, reduction, grace)
        return sizes[bracket % len(sizes)]

    return Stopping(
        lambda: _bracketed(bracket_of, rungs, size, reduction), f"hyperband({reduction}, {grace})"
    )


@functools.cache
def bracket_sizes(reports: int, reduction: float = 3.0, grace: int = 1) -> tuple[int, ...]:
    """Trials in each bracket of `hyperband`, the one with the shortest trials first.

    Table 1 of the paper:

    >>> bracket_sizes(81)
    (81, 34, 15, 8, 5)
    """
    # Rounding may leave a logarithm slightly below the integer that it should be.
    most = max(0, int(math.log(reports / grace, reduction) + 1e-9))
    return tuple(math.ceil((most + 1) / (s + 1) * reduction**s - 1e-9) for s in range(most, -1, -1))


class _Bracket:
    """Trials that are halved together; each rung waits for all that remain."""

    def __init__(self, reduction: float, size: int | None):
        self._reduction = reduction
        self._size = size  # trials that will reach the next rung; None if unknown
        self._here: dict[int, dict[int, float]] = {}  # rung -> trial -> score

    def come(self, rung: int, trial: int, score: float) -> None:
        """Adds a trial."""
        self._here.setdefault(rung, {})[trial] = score

    def complete(self, rung: int) -> bool:
        """Whether all trials that the rung waits for have arrived."""
        return self._size is not None and len(self._here[rung]) >= self._size

    def waiting(self) -> list[int]:
        """The rungs at which trials wait, ascending."""
        return sorted(self._here)

    def halve(self, rung: int) -> Verdicts:
        """Lets the best go on, ties by the lower number; diverged trials never go on."""
        here = self._here.pop(rung)
        order = sorted(here, key=lambda trial: (-here[trial], trial))
        count = max(1, int(len(order) / self._reduction))
        go = [trial for trial in order[:count] if here[trial] > -math.inf]
        self._size = len(go)
        return Verdicts(go=go, stop=order[len(go) :])


def _bracketed(
    bracket_of: Callable[[int, int], int],
    rungs_of: Callable[[int, int], Sequence[int]],
    size_of: Callable[[int, int], int | None],
    reduction: float,
) -> Rule:
    brackets: dict[int, _Bracket] = {}
    whole = 0  # reports of a trial, told by `rungs`, which every trial is asked for first

    def rungs(trial: int, reports: int) -> Sequence[int]:
        nonlocal whole
        whole = reports
        return rungs_of(bracket_of(trial, reports), reports)

    def decide(rung: int, trials: Sequence[int], curves: Curves) -> Verdicts:
        touched = set()
        for trial, curve in zip(trials, curves):
            number = bracket_of(trial, whole)
            if number not in brackets:
                brackets[number] = _Bracket(reduction, size_of(number, whole))
            brackets[number].come(rung, trial, curve[-1])
            touched.add(number)
        full = [brackets[n] for n in sorted(touched) if brackets[n].complete(rung)]
        return joined([bracket.halve(rung) for bracket in full])

    def settle() -> Verdicts:
        # The cohort will never fill: halve the trials that have arrived.
        for number in sorted(brackets):
            if waiting := brackets[number].waiting():
                return brackets[number].halve(waiting[0])
        return Verdicts()

    return Rule(rungs, decide, settle)

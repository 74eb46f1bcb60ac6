"""Early stopping, which decides at reports which trials go on."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Sequence

from jdl._checks import check_number
from jdl.engine.rules import Rule, Stopping, Verdicts, joined
from jdl.sweep.halving import check_halving, levels

Curves = Sequence[Sequence[float]]


def asha(reduction: float = 4.0, grace: int = 1) -> Stopping:
    """Asynchronous successive halving: a trial goes on while it is in the top 1/`reduction`.

    It decides after reports `r = grace * reduction ** i`. A trial goes on if its
    score is at least the `max(1, floor(n / reduction))`-th best, ties included,
    of the `n` trials that have reached rung `r`, this segment's included. A trial
    is compared with those that came before it, so nothing waits. A diverged trial
    counts as the worst.

    Args:
      reduction: one of this many trials goes on, above 1.
      grace: reports that every trial may make, at least 1.

    Raises:
      ValueError: an argument is out of range.

    Source: Li et al. (2020), A System for Massively Parallel Hyperparameter
    Tuning, in the variant that stops trials and never pauses them.
    """
    check_halving(reduction, grace)

    def start() -> Rule:
        seen: dict[int, _Top] = {}  # by rung

        def decide(rung: int, trials: Sequence[int], curves: Curves) -> Verdicts:
            here = seen.setdefault(rung, _Top(reduction))
            scores = [curve[-1] for curve in curves]
            for score in scores:
                here.add(score)
            best = here.threshold
            return Verdicts(
                go=[t for t, score in zip(trials, scores) if score >= best],
                stop=[t for t, score in zip(trials, scores) if score < best],
            )

        return Rule(lambda trial, reports: levels(reports, reduction, grace), decide)

    return Stopping(start, f"asha({reduction}, {grace})")


class _Top:
    """The best 1/`reduction` of the scores seen so far, and at least the best one.

    With two heaps each score costs one number of memory and logarithmic time.
    """

    def __init__(self, reduction: float):
        self._reduction = reduction
        self._top: list[float] = []  # smallest first
        self._rest: list[float] = []  # largest first, negated

    def add(self, score: float) -> None:
        heapq.heappush(self._rest, -heapq.heappushpop(self._top, score))
        seen = len(self._top) + len(self._rest)
        while len(self._top) < max(1, int(seen / self._reduction)):
            heapq.heappush(self._top, -heapq.heappop(self._rest))

    @property
    def threshold(self) -> float:
        return self._top[0]


def median_stopping(grace: int = 1, trials: int = 5) -> Stopping:
    """Median stopping: a trial ends when its best is below the median of the others' averages.

    At report `r` a trial stops if its best score so far is strictly less than the
    median of the mean scores, over reports `1 ... r`, of the trials done before.

    Args:
      grace: reports that every trial may make, at least 1.
      trials: how many must be done before any is stopped, at least 1.

    Raises:
      ValueError: an argument is out of range.

    Source: Golovin et al. (2017), Google Vizier: A Service for Black-Box
    Optimization, section 3.2.2.
    """
    check_number("grace", grace, "[1, inf)")
    check_number("trials", trials, "[1, inf)")

    def start() -> Rule:
        running: dict[int, list[float]] = {}  # trial -> its scores
        averages: dict[int, list[float]] = {}  # report -> means of the trials done, ascending
        whole = 0

        def rungs(trial: int, reports: int) -> range:
            nonlocal whole
            whole = reports
            return range(1, reports + 1)

        def decide(rung: int, names: Sequence[int], curves: Curves) -> Verdicts:
            stop, go = [], []
            for trial, curve in zip(names, curves):
                scores = running.setdefault(trial, [])
                scores += curve
                others = averages.get(rung, [])
                if rung >= grace and len(others) >= trials and max(scores) < _median(others):
                    stop.append(trial)
                else:
                    go.append(trial)
            for trial in names if rung == whole else stop:
                scores = running.pop(trial)
                # A trial whose last report failed has diverged, and is not done.
                if rung == whole and scores[-1] > -math.inf:
                    total = 0.0
                    for count, score in enumerate(scores, 1):
                        total += score
                        bisect.insort(averages.setdefault(count, []), total / count)
            return Verdicts(go=go, stop=stop)

        return Rule(rungs, decide)

    return Stopping(start, f"median_stopping({grace}, {trials})")


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def patience(reports: int = 5, least: float = 0.0) -> Stopping:
    """Patience: a trial is done when `reports` reports in a row gave no better score.

    A score is better if it exceeds the previous best by more than `least`. A
    trial that ends this way is done, with fewer steps, and its test metrics are
    those at its end.

    Args:
      reports: without improvement, at least 1.
      least: smallest improvement that counts, in units of the metric, at least 0.

    Raises:
      ValueError: an argument is out of range.

    Source: Prechelt (1998), Early Stopping - But When?
    """
    check_number("reports", reports, "[1, inf)")
    check_number("least", least, "[0, inf)")

    def start() -> Rule:
        best: dict[int, tuple[float, int]] = {}  # trial -> best score, its report

        def decide(rung: int, trials: Sequence[int], curves: Curves) -> Verdicts:
            go, finish = [], []
            for trial, curve in zip(trials, curves):
                top, at = best.pop(trial, (-math.inf, 0))
                for report, score in enumerate(curve, rung - len(curve) + 1):
                    if score > top + least:
                        top, at = score, report
                if rung - at >= reports:
                    finish.append(trial)
                else:
                    go.append(trial)
                    best[trial] = top, at
            return Verdicts(go=go, finish=finish)

        return Rule(lambda trial, count: range(1, count), decide)

    return Stopping(start, f"patience({reports}, {least})", alone=True)


def combine(*rules: Stopping) -> Stopping:
    """Combines rules: a trial goes on if none of them ends it.

    If rules end it differently, the one named first counts. A trial waits while
    any of them makes it wait; at most one rule should.

    Raises:
      ValueError: there is no rule.

    >>> combine(asha(), patience(10)).name
    'combine(asha(4.0, 1), patience(10, 0.0))'
    """
    if not rules:
        raise ValueError("`combine` needs at least one rule, got none.")
    return Stopping(
        lambda: combined([stopping.start() for stopping in rules]),
        f"combine({', '.join(stopping.name for stopping in rules)})",
        parts=tuple(part for rule in rules for part in rule.parts or (rule,)),
    )


def combined(
    rules: Sequence[Rule], gone: Callable[[Sequence[int]], Verdicts] | None = None
) -> Rule:
    """Rules as one; `gone` hears which trials ended, and may then name others that wait."""
    heard: list[dict[int, list[float]]] = [{} for _ in rules]  # scores since each rule's last rung
    whole = 0

    def rungs(trial: int, reports: int) -> list[int]:
        nonlocal whole
        whole = reports
        return sorted({r for rule in rules for r in rule.rungs(trial, reports)})

    def ask(index: int, rung: int, trials: Sequence[int], curves: Curves) -> list[Verdicts]:
        """The verdicts of one rule on trials at its rungs and on diverged trials."""
        rule, held = rules[index], heard[index]
        at: dict[int, list[tuple[int, list[float]]]] = {}
        for trial, curve in zip(trials, curves):
            held.setdefault(trial, []).extend(curve)
            diverged = list(curve) == [-math.inf]
            its = [r for r in rule.rungs(trial, whole) if r == rung or (diverged and r > rung)]
            if its:
                at.setdefault(its[0], []).append((trial, list(curve) if diverged else held[trial]))
                del held[trial]
        return [
            rule.decide(r, [t for t, _ in at[r]], [curve for _, curve in at[r]]) for r in sorted(at)
        ]

    def decide(rung: int, trials: Sequence[int], curves: Curves) -> Verdicts:
        go: list[int] = []
        stop: list[int] = []
        finish: list[int] = []
        said = [joined(ask(index, rung, trials, curves)) for index in range(len(rules))]
        named = {trial for verdicts in said for field in verdicts for trial in field}
        waits = {
            trial
            for rule, verdicts in zip(rules, said)
            for trial in trials
            if rung in rule.rungs(trial, whole) and not any(trial in field for field in verdicts)
        }
        for trial in sorted({*trials, *named}):
            ends = [(trial in v.stop, trial in v.finish) for v in said]
            first = next((i for i, either in enumerate(ends) if any(either)), None)
            if first is not None:
                (stop if ends[first][0] else finish).append(trial)
                for held in heard:
                    held.pop(trial, None)
            elif trial not in waits:
                go.append(trial)
        verdicts = Verdicts(go, stop, finish)
        return joined([verdicts, gone([*stop, *finish])]) if gone else verdicts

    def settle() -> Verdicts:
        return next((v for v in (rule.settle() for rule in rules) if any(v)), Verdicts())

    return Rule(rungs, decide, settle)

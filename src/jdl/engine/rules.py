"""The protocols of stopping rules and populations, which decide about running trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Verdicts(NamedTuple):
    """A rule's decisions about trials that reached a rung, now or earlier.

    A trial that reached a rung and is in none of these waits. Its state is put
    aside and its lane is free until a later verdict names it.

    Attributes:
      go: trials that go on.
      stop: trials that end here, as hopeless.
      finish: trials that end here, as done.
    """

    go: Sequence[int] = ()
    stop: Sequence[int] = ()
    finish: Sequence[int] = ()


def joined(verdicts: Sequence[Verdicts]) -> Verdicts:
    """Merges verdicts about different trials."""
    return Verdicts(*([t for v in verdicts for t in v[field]] for field in range(3)))


class Rule(NamedTuple):
    """A stopping rule at work in one run.

    No clock affects the order in which it is told about trials. It must be a
    function of what it is told, because a resumed run tells it the past again.

    Attributes:
      rungs: `rungs(trial, reports)` gives, ascending, the reports after which it
        decides about `trial`, whose whole run has `reports` reports. If the last
        report is among them, it also hears of the end.
      decide: `decide(rung, trials, curves)` is called with all trials that reached
        a rung in one segment, ascending, and the scores of each since the previous
        rung (larger is better, -inf means not finite). A diverged trial counts as
        at its next rung, with a single -inf.
      settle: called when trials wait and nothing else is left to run; it must
        name at least one of them.
    """

    rungs: Callable[[int, int], Sequence[int]]
    decide: Callable[[int, Sequence[int], Sequence[Sequence[float]]], Verdicts]
    settle: Callable[[], Verdicts] = Verdicts


class Stopping(NamedTuple):
    """Early stopping, as passed to a sweep.

    Attributes:
      start: `start()` gives a new `Rule` for one run.
      name: its name in the specification of a run.
      alone: whether it judges each trial by itself, and compares none.
      parts: the rules that it combines.
    """

    start: Callable[[], Rule]
    name: str
    alone: bool = False
    parts: tuple[Stopping, ...] = ()


class Exchange(NamedTuple):
    """An exchange for one member of a population: the state it copies and its new numbers."""

    source: int  # a trial, often its own
    numbers: Mapping[str, Any]


class Evolution(NamedTuple):
    """Decides which members copy which, at reports that all members of a program reach together.

    Attributes:
      every: reports between exchanges.
      evolve: `evolve(report, trials, scores, numbers)` gives an `Exchange` for
        each trial, or None where nothing changes; -inf means that a trial diverged.
        It must be a function of its arguments.
      name: its name in the specification of a run.
    """

    every: int
    evolve: Callable[
        [int, Sequence[int], Sequence[float], Sequence[Mapping[str, Any]]],
        Sequence[Exchange | None],
    ]
    name: str

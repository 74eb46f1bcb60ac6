"""What decides about running trials: the protocols of stopping rules and of populations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Verdicts(NamedTuple):
    """What a rule decided about trials that came to a rung, now or earlier.

    A trial that came to a rung and is in none of these waits: its state is kept
    aside and its lane is free, until a later verdict names it.

    Attributes:
      go: trials that go on.
      stop: trials that end here, as hopeless.
      finish: trials that end here, as done.
    """

    go: Sequence[int] = ()
    stop: Sequence[int] = ()
    finish: Sequence[int] = ()


class Rule(NamedTuple):
    """A stopping rule at work: what it remembers is of one run.

    It is told of trials in an order that no clock decides, and must be a
    function of what it is told: a resumed run tells it the past again.

    Attributes:
      rungs: `rungs(trial, reports)` gives, ascending, the numbers of the reports,
        of the given number in a whole trial, after which it decides about
        `trial`. With the last one among them it hears of the end as well.
      decide: `decide(rung, trials, curves)` is called with all trials that came
        to a rung in one segment, ascending, and for each its scores (larger is
        better, -inf is not finite) since the rung before. A trial that diverged
        comes to its next rung with a single -inf.
      settle: called when nothing else is left to run while trials wait; it must
        name at least one of them.
    """

    rungs: Callable[[int, int], Sequence[int]]
    decide: Callable[[int, Sequence[int], Sequence[Sequence[float]]], Verdicts]
    settle: Callable[[], Verdicts] = Verdicts


class Stopping(NamedTuple):
    """Early stopping, as a sweep is given it.

    Attributes:
      start: `start()` gives the `Rule` of one run, which remembers nothing yet.
      name: what the specification of a run calls it.
    """

    start: Callable[[], Rule]
    name: str


class Exchange(NamedTuple):
    """What a population does to one member: whose state it takes, and its numbers since."""

    source: int  # a trial, often its own
    numbers: Mapping[str, Any]


class Population(NamedTuple):
    """Decides, at reports that all members of a program reach together, who copies whom.

    Attributes:
      every: reports between exchanges.
      evolve: `evolve(report, trials, scores, numbers)` gives an `Exchange` for
        each trial, or None where nothing changes; -inf is a trial that diverged.
        It must be a function of its arguments.
      name: what the specification of a run calls it.
    """

    every: int
    evolve: Callable[
        [int, Sequence[int], Sequence[float], Sequence[Mapping[str, Any]]],
        Sequence[Exchange | None],
    ]
    name: str

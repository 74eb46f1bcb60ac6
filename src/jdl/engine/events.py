"""What a run is made of: the orders that the host gives, and the events that answer them.

A schedule gives orders, an executor carries them out, and what comes of them
is an event. The same events in the same order make the same schedule again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PENDING, RUNNING, DONE, DIVERGED, STOPPED = "pending", "running", "done", "diverged", "stopped"
ENDED = (DONE, DIVERGED, STOPPED)

Numbers = Mapping[str, Any]  # 32-bit scalars by name


class Queued(NamedTuple):
    """A trial that waits for a lane."""

    trial: int
    numbers: Numbers
    stream: int  # names its random stream


# Orders


class Ask(NamedTuple):
    """Ask the search for so many further trials."""

    trials: int


class Prepare(NamedTuple):
    """Wait until the program of a row is compiled."""

    row: int


class Narrow(NamedTuple):
    """Give a row a program of fewer lanes.

    Attributes:
      row: its number.
      lanes: on each device.
      source: the lane that each lane of the narrower row had before; None only
        compiles the program, ahead of its use.
    """

    row: int
    lanes: int
    source: tuple[int, ...] | None = None


class Order(NamedTuple):
    """Run one segment of a row.

    Attributes:
      row: its number.
      reports: how many reports each busy lane makes, unless its trial fails.
      lanes: the busy ones, ascending.
      trials: in those lanes.
      done: reports that these trials had made before.
      fresh: lanes in which a trial starts.
      resumed: lanes in which a trial goes on from the state that was put aside.
      finishing: lanes whose trial makes its last report, and is tested.
      copied: for each lane the one whose state it takes before the segment;
        None where all keep their own.
      changed: lanes whose trial has other numbers from now on.
    """

    row: int
    reports: int
    lanes: tuple[int, ...]
    trials: tuple[int, ...]
    done: tuple[int, ...]
    fresh: tuple[tuple[int, Queued], ...] = ()
    resumed: tuple[tuple[int, Queued], ...] = ()
    finishing: tuple[int, ...] = ()
    copied: tuple[int, ...] | None = None
    changed: tuple[tuple[int, Queued], ...] = ()


class Collect(NamedTuple):
    """Wait for the oldest segment in flight."""

    row: int


class Settle(NamedTuple):
    """Let the rule decide about the trials that wait, because nothing else can run."""


class Wait(NamedTuple):
    """Wait for any program that is being compiled."""


# Events


class Asked(NamedTuple):
    """The search gave trials.

    Attributes:
      wanted: how many were asked for.
      given: the group of each trial, and the trial.
      left: how many further ones the search may give.
    """

    wanted: int
    given: Sequence[tuple[str, Queued]]
    left: float


class Joined(NamedTuple):
    """A row of free lanes joined the run.

    Attributes:
      group: the label of its static group.
      devices: that its lanes are spread over.
      width: lanes over all devices.
      report_seconds: an estimate for one report of one lane.
    """

    group: str
    devices: int
    width: int
    report_seconds: float


class Prepared(NamedTuple):
    """The program of a row is compiled, for `width` lanes."""

    row: int
    width: int


class Segment(NamedTuple):
    """A segment was collected.

    Attributes:
      order: that it carried out.
      scores: of each busy lane, one for every report that its trial made; larger
        is better, and -inf is not finite.
      failed: of each busy lane, the step at which its trial failed, or -1.
      seconds: that it was waited for.
    """

    order: Order
    scores: Sequence[Sequence[float]]
    failed: Sequence[int]
    seconds: float = 0.0


class Settled(NamedTuple):
    """The rule was asked to decide about trials that wait."""


# What a turn brings


class Ended(NamedTuple):
    """How one trial ended.

    Attributes:
      trial: its number.
      status: done, diverged or stopped.
      steps: finite steps that it took.
      score: its last; NaN if it never had one.
    """

    trial: int
    status: str
    steps: int
    score: float


class Bred(NamedTuple):
    """What a population did to one member after a report."""

    trial: int
    report: int
    source: int  # the trial whose state it has since
    numbers: Mapping[str, float]  # its hyperparameters since


class Leaving(NamedTuple):
    """Lanes whose trials leave them after a segment, with something still to be taken.

    Attributes:
      finish: lanes whose trial is done early: its test metrics.
      pause: lanes whose trial waits: its state, put aside.
      keep: lanes, with the score of each, of which the state may be kept.
      drop: trials whose state was put aside and is not needed any more.
    """

    finish: tuple[tuple[int, int], ...] = ()
    pause: tuple[tuple[int, int], ...] = ()
    keep: tuple[tuple[int, int, float], ...] = ()
    drop: tuple[int, ...] = ()


class Record(NamedTuple):
    """What one turn brought, as it is written down.

    Attributes:
      turn: its number.
      kind: "segment" or "settle".
      started: trial and lane of those that took a lane.
      ended: trials that ended, ascending.
      bred: what a population did.
      leaving: what is to be taken from the lanes first.
    """

    turn: int
    kind: str
    started: tuple[tuple[int, int], ...] = ()
    ended: tuple[Ended, ...] = ()
    bred: tuple[Bred, ...] = ()
    leaving: Leaving = Leaving()

"""The orders that the host gives, and the events that answer them.

A schedule gives orders, an executor carries them out, and the results come
back as events. The same events in the same order make the same schedule again.
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
    stream: int  # number of its random stream


# Orders


class Ask(NamedTuple):
    """Ask the search for `trials` more trials."""

    trials: int


class Prepare(NamedTuple):
    """Wait until the program of a row is compiled."""

    row: int


class Narrow(NamedTuple):
    """Give a row a program of fewer lanes.

    Attributes:
      row: its number.
      lanes: on each device.
      source: the old lane of each lane of the narrower row; None only compiles
        the program, ahead of its use.
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
      resumed: lanes in which a trial goes on from its state put aside.
      finishing: lanes whose trial makes its last report, and is tested.
      copied: for each lane, the lane whose state it copies before the segment;
        None if all keep their own.
      changed: lanes whose trial has new numbers from now on.
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
    """Wait until any program has been compiled."""


# Events


class Asked(NamedTuple):
    """The search gave trials.

    Attributes:
      wanted: how many were asked for.
      given: pairs of group label and trial.
      left: how many more the search may give.
    """

    wanted: int
    given: Sequence[tuple[str, Queued]]
    left: float


class Joined(NamedTuple):
    """A row of free lanes joined the run.

    Attributes:
      group: the label of its static group.
      devices: how many its lanes are spread over.
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
      order: the order that it carried out.
      scores: for each busy lane, one per report that its trial made; larger is
        better, and -inf means not finite.
      failed: for each busy lane, the step at which its trial failed, or -1.
      seconds: how long the host waited for it.
    """

    order: Order
    scores: Sequence[Sequence[float]]
    failed: Sequence[int]
    seconds: float = 0.0


class Settled(NamedTuple):
    """The rule was asked to decide about trials that wait."""


# What a turn gives


class Ended(NamedTuple):
    """How one trial ended.

    Attributes:
      trial: its number.
      status: done, diverged or stopped.
      steps: finite steps that it took.
      score: its last; NaN if it has none.
    """

    trial: int
    status: str
    steps: int
    score: float


class Exchanged(NamedTuple):
    """An exchange that a population made for one member after a report."""

    trial: int
    report: int
    source: int  # the trial whose state it took
    numbers: Mapping[str, float]  # its new hyperparameters


class Leaving(NamedTuple):
    """What to take from the lanes that trials leave after a segment.

    Attributes:
      finish: lane and trial of those that finish early, for their test metrics.
      pause: lane and trial of those that wait, for their states to be put aside.
      keep: lane, trial and score of those whose state may be kept.
      drop: trials whose state put aside is no longer needed.
    """

    finish: tuple[tuple[int, int], ...] = ()
    pause: tuple[tuple[int, int], ...] = ()
    keep: tuple[tuple[int, int, float], ...] = ()
    drop: tuple[int, ...] = ()


class Record(NamedTuple):
    """One turn as the journal records it.

    Attributes:
      turn: its number.
      kind: "segment" or "settle".
      started: trial and lane of those that took a lane.
      ended: trials that ended, ascending.
      exchanged: exchanges that the population made.
      leaving: what to take from the lanes first.
    """

    turn: int
    kind: str
    started: tuple[tuple[int, int], ...] = ()
    ended: tuple[Ended, ...] = ()
    exchanged: tuple[Exchanged, ...] = ()
    leaving: Leaving = Leaving()

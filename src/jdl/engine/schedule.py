"""The schedule of a run as a value: where each trial is, and which row is next.

`after` gives the schedule after an event. It is pure except for the rule and
the population of a run, which depend only on what they are told. The same
events in the same order make the same schedule, so a run can go on after an
interruption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdl.engine import decisions
from jdl.engine.cost import Tally, measured
from jdl.engine.decisions import Brought
from jdl.engine.events import (
    STOPPED,
    Asked,
    Ended,
    Joined,
    Narrow,
    Order,
    Prepared,
    Queued,
    Record,
    Segment,
    Settled,
)
from jdl.engine.policy import Paused, Policy, Seat


class Row(NamedTuple):
    """The lanes of one program, and the trials in them.

    Attributes:
      group: the label of its static group.
      devices: how many its lanes are spread over.
      report_seconds: an estimate for one report of one lane.
      seats: the trial in each lane, None where it is free.
      first: the number of its first lane among those of its group.
      ready: whether its program is compiled.
      narrowing: whether a program of fewer lanes is being compiled.
      copied: the lane that each lane copies at the start of the next segment.
      changed: lanes whose trial has new numbers from the next segment on.
      seconds: measured, per report; None before the first segment.
    """

    group: str
    devices: int
    report_seconds: float
    seats: tuple[Seat | None, ...]
    first: int = 0
    ready: bool = False
    narrowing: bool = False
    copied: tuple[int, ...] | None = None
    changed: tuple[int, ...] = ()
    seconds: float | None = None

    @property
    def busy(self) -> list[int]:
        """The lanes that hold a trial."""
        return [lane for lane, seat in enumerate(self.seats) if seat is not None]

    @property
    def free(self) -> int:
        """How many lanes hold no trial."""
        return self.seats.count(None)


class Schedule(NamedTuple):
    """Where each trial of a run is, and which row is next.

    Attributes:
      rows: by number.
      queues: trials that wait for a lane, by group.
      returning: trials that go on, ahead of the queue, by group.
      waiting: trials that the rule keeps aside, by number.
      heard: scores of running trials since their last rungs.
      rotation: rows that are not in flight, the next one first, without those that
        no trial will need again.
      flying: orders in flight, the oldest first.
      turn: how many segments were collected and how often the rule settled.
      left: how many more trials the search may give.
      exhausted: whether the search has no more.
      told: whether a result was told since the search last gave too few trials.
      over: whether the target is reached.
      to_scan: how many rows of the rotation are still to be checked.
      narrowed: whether the next row has just become narrower.
      tally: the progress so far.
    """

    rows: tuple[Row, ...] = ()
    queues: Mapping[str, tuple[Queued, ...]] = {}
    returning: Mapping[str, tuple[Paused, ...]] = {}
    waiting: Mapping[int, Paused] = {}
    heard: Mapping[int, tuple[float, ...]] = {}
    rotation: tuple[int, ...] = ()
    flying: tuple[Order, ...] = ()
    turn: int = 0
    left: float = 0
    exhausted: bool = False
    told: bool = True
    over: bool = False
    to_scan: int = 0
    narrowed: bool = False
    tally: Tally = Tally()

    @property
    def queued(self) -> int:
        """How many trials wait for a lane."""
        return sum(map(len, self.queues.values())) + sum(map(len, self.returning.values()))

    @property
    def running(self) -> int:
        """How many trials are in lanes."""
        return sum(len(row.seats) - row.free for row in self.rows)

    def with_row(self, number: int, row: Row) -> Schedule:
        """A copy in which `row` replaces the row of that number."""
        return self._replace(rows=(*self.rows[:number], row, *self.rows[number + 1 :]))

    def unfinished(self, row: int) -> bool:
        """Whether a row holds a trial, or one waits in its group."""
        return bool(self.in_queue(row)) or self.rows[row].free < len(self.rows[row].seats)

    def closed(self, row: int) -> bool:
        """Whether no trial will need a row again."""
        group = self.rows[row].group
        back = any(paused.group == group for paused in self.waiting.values())
        return (self.exhausted or self.over) and not (self.unfinished(row) or back)

    def in_queue(self, row: int) -> int:
        """How many trials wait for a lane of a row's group."""
        group = self.rows[row].group
        return len(self.queues[group]) + len(self.returning[group])

    def pending(self, policy: Policy) -> bool:
        """Whether any trial waits, or might be asked for."""
        more = not self.exhausted and (self.told or not policy.adaptive)
        return more or bool(self.waiting) or self.queued > 0


def finished(s: Schedule, policy: Policy) -> bool:
    """Whether every trial has ended and the search has no more to give now."""
    more = s.left > 0 and s.pending(policy) and not s.over
    return not (s.waiting or s.queued or s.running or more)


def after(s: Schedule, policy: Policy, event: Any) -> tuple[Schedule, Record | None]:
    """The schedule after an event, and the record of the turn if it was one."""
    match event:
        case Asked(wanted, given, left):
            return _asked(s, policy, wanted, given, left), None
        case Joined(group, devices, width, report_seconds):
            first = sum(len(row.seats) for row in s.rows if row.group == group)
            row = Row(group, devices, report_seconds, (None,) * width, first)
            return s._replace(
                rows=(*s.rows, row),
                queues={group: (), **s.queues},
                returning={group: (), **s.returning},
                rotation=(*s.rotation, len(s.rows)),
            ), None
        case Prepared(number, width):
            row = s.rows[number]
            if width < len(row.seats):
                row = row._replace(seats=row.seats[:width])
            return s.with_row(number, row._replace(ready=True)), None
        case Narrow(number, _, source):
            return _narrow(s, number, source), None
        case Segment():
            return _collected(s, policy, event)
        case Settled():
            brought = decisions.settle(policy, s.waiting)
            return _turned(s, policy, brought, brought.record(s.turn + 1, "settle"))
    raise TypeError(f"{event!r} is not an event.")


def _asked(
    s: Schedule, policy: Policy, wanted: int, given: Sequence[tuple[str, Queued]], left: float
) -> Schedule:
    queues = dict(s.queues)
    for group in {group for group, _ in given}:
        queues[group] = (*queues[group], *(queued for label, queued in given if label == group))
    s = s._replace(queues=queues, left=left, exhausted=s.exhausted or left == 0)
    if len(given) < min(wanted, left + len(given)):
        s = s._replace(exhausted=s.exhausted or not policy.adaptive, told=False)
    return s


def _narrow(s: Schedule, number: int, source: tuple[int, ...] | None) -> Schedule:
    row = s.rows[number]
    if source is None:
        row = row._replace(narrowing=True)
    else:
        seats = tuple(row.seats[lane] for lane in source)
        row = row._replace(seats=seats, narrowing=False)
    return s.with_row(number, row)._replace(narrowed=source is not None)


def _collected(s: Schedule, policy: Policy, segment: Segment) -> tuple[Schedule, Record]:
    number = segment.order.row
    row = s.rows[number]
    queued = s.pending(policy)
    brought = decisions.after_segment(
        policy, segment, row.group, row.seats, s.waiting, s.heard, s.over
    )
    row = row._replace(
        seats=brought.seats,
        copied=brought.copied,
        changed=brought.changed,
        seconds=measured(row.seconds, segment.seconds, segment.order.reports),
    )
    s = s.with_row(number, row)._replace(
        heard=brought.heard,
        rotation=(*s.rotation, number),
        flying=s.flying[1:],
        over=brought.over,
        tally=s.tally.with_segment(segment, len(row.seats), policy.report_every, queued),
    )
    if brought.over:
        s, brought = _cleared(s, policy, brought)
    started = [(queued.trial, row.first + lane) for lane, queued in segment.order.fresh]
    s, record = _turned(s, policy, brought, brought.record(s.turn + 1, "segment", started))
    if s.closed(number):
        s = s._replace(rotation=s.rotation[:-1], to_scan=s.to_scan - 1)
    return s, record


def _cleared(s: Schedule, policy: Policy, brought: Brought) -> tuple[Schedule, Brought]:
    """Stops every trial outside the segments in flight, once the run is over."""
    flying = {order.row for order in s.flying}
    aside = [paused for back in s.returning.values() for paused in back]
    aside += [*brought.released, *brought.waiting.values()]
    stopped = [(queued.trial, 0) for queue in s.queues.values() for queued in queue]
    stopped += [(paused.queued.trial, paused.done) for paused in aside]
    rows = list(s.rows)
    for number, row in enumerate(rows):
        if number not in flying:
            stopped += [(seat.queued.trial, seat.done) for seat in row.seats if seat is not None]
            rows[number] = row._replace(seats=(None,) * len(row.seats), copied=None, changed=())
    scores = {paused.queued.trial: paused.score for paused in brought.waiting.values()}
    every = policy.report_every
    ended = [
        Ended(trial, STOPPED, done * every, scores.get(trial, math.nan)) for trial, done in stopped
    ]
    drop = (*brought.leaving.drop, *(paused.queued.trial for paused in aside))
    brought = brought._replace(
        ended=(*brought.ended, *ended),
        waiting={},
        released=(),
        leaving=brought.leaving._replace(drop=drop, pause=()),
    )
    nothing = dict.fromkeys(s.queues, ())
    return s._replace(rows=tuple(rows), queues=nothing, returning=nothing), brought


def _turned(
    s: Schedule, policy: Policy, brought: Brought, record: Record
) -> tuple[Schedule, Record]:
    """The schedule after a turn; trials that the rule releases wait for lanes again."""
    returning = dict(s.returning)
    for paused in brought.released:
        returning[paused.group] = (*returning[paused.group], paused)
    s = s._replace(
        waiting=brought.waiting,
        returning=returning,
        turn=record.turn,
        told=s.told or bool(record.ended),
        to_scan=len(s.rotation),
        tally=s.tally.with_ended(record.ended, policy.reports, policy.report_every),
    )
    return s, record

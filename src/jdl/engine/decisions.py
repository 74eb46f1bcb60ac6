"""Decisions after a segment: which trials stop, wait, finish or copy another's state.

Every function depends only on the seats and the reports. The result says what
to do with lanes, and the executor does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jdl.engine.events import (
    DIVERGED,
    DONE,
    STOPPED,
    Ended,
    Exchanged,
    Leaving,
    Record,
    Segment,
)
from jdl.engine.policy import Paused, Policy, Seat
from jdl.engine.rules import Verdicts, joined

Seats = Sequence[Seat | None]
Heard = Mapping[int, tuple[float, ...]]  # scores of running trials since their last rungs


class Brought(NamedTuple):
    """The outcome of a turn.

    Attributes:
      seats: of the row.
      heard: scores since the last rungs.
      waiting: trials that the rule keeps aside.
      over: whether the target is reached.
      ended: trials that ended.
      released: trials that the rule lets go on.
      leaving: what to take from lanes.
      exchanged: exchanges that the population made.
      copied: the lane that each lane copies before the next segment.
      changed: lanes whose trial has new numbers.
    """

    seats: tuple[Seat | None, ...]
    heard: Heard
    waiting: Mapping[int, Paused]
    over: bool
    ended: tuple[Ended, ...]
    released: tuple[Paused, ...] = ()
    leaving: Leaving = Leaving()
    exchanged: tuple[Exchanged, ...] = ()
    copied: tuple[int, ...] | None = None
    changed: tuple[int, ...] = ()

    def record(self, turn: int, kind: str, started: Iterable[tuple[int, int]] = ()) -> Record:
        """The turn as the journal records it."""
        ended = tuple(sorted(self.ended))
        return Record(turn, kind, tuple(started), ended, self.exchanged, self.leaving)


def after_segment(
    policy: Policy,
    segment: Segment,
    group: str,
    seats: Seats,
    waiting: Mapping[int, Paused],
    heard: Heard,
    over: bool,
) -> Brought:
    """Ends complete or failed trials, then applies rule, target and population.

    Args:
      policy: of the run.
      segment: the collected one.
      group: of its row.
      seats: of the row while the segment ran.
      waiting: trials that the rule keeps aside.
      heard: scores since the last rungs.
      over: whether the target was reached before.
    """
    order = segment.order
    last = {n: _last(s, order.reports) for n, s in zip(order.lanes, segment.scores)}
    now, ended = _whole(policy, segment, seats, last)
    finish: list[tuple[int, int]] = []
    pause: list[Paused] = []
    paused_lanes: list[tuple[int, int]] = []
    verdicts = Verdicts()

    def leave(lane: int, status: str) -> None:
        seat = now[lane]
        assert seat is not None
        steps = seat.done * policy.report_every
        ended[lane] = Ended(seat.queued.trial, status, steps, last[lane])
        if status == DONE:
            finish.append((lane, seat.queued.trial))
        now[lane] = None

    if policy.rule is not None:
        verdicts, heard = hear(policy, segment, ended, heard)
        stop, done, go = {*verdicts.stop}, {*verdicts.finish}, {*verdicts.go}
        for lane, scores in zip(order.lanes, segment.scores):
            seat = now[lane]
            if seat is None or (trial := seat.queued.trial) in go:
                continue
            if trial in stop:
                leave(lane, STOPPED)
            elif trial in done:
                leave(lane, DONE)
            elif policy.reached(scores):
                continue
            elif seat.done - order.reports + len(scores) in policy.rungs(trial):
                pause.append(Paused(group, seat.queued, seat.done, last[lane]))
                paused_lanes.append((lane, trial))
                now[lane] = None
    for lane, scores in zip(order.lanes, segment.scores):
        if policy.reached(scores):
            over = True
            if now[lane] is not None:
                leave(lane, DONE)
    if over:
        for lane in order.lanes:
            if now[lane] is not None:
                leave(lane, STOPPED)
    for lane, seat in enumerate(now):
        if seat is not None and seat.done >= seat.until:
            now[lane] = policy.seat(seat.queued, seat.done)
    exchanged, copied, changed = _evolve(policy, now, last)
    waiting, released, elsewhere, drop = release(policy, waiting, verdicts)
    waiting = {**waiting, **{paused.queued.trial: paused for paused in pause}}
    keep = tuple((lane, end.trial, end.score) for lane, end in ended.items() if end.status == DONE)
    return Brought(
        tuple(now),
        heard,
        waiting,
        over,
        (*ended.values(), *elsewhere),
        released,
        Leaving(tuple(finish), tuple(paused_lanes), keep, drop),
        exchanged,
        copied,
        changed,
    )


def settle(policy: Policy, waiting: Mapping[int, Paused]) -> Brought:
    """Asks the rule about trials that wait for others that will never reach their rung.

    Raises:
      RuntimeError: the rule names none of them, so they would wait forever.
    """
    assert policy.rule is not None
    verdicts = policy.rule.settle()
    if not any(verdicts):
        raise RuntimeError("The stopping rule keeps trials waiting, but `settle` names none.")
    waiting, released, ended, drop = release(policy, waiting, verdicts)
    return Brought((), {}, waiting, False, ended, released, Leaving(drop=drop))


def _last(scores: Sequence[float], reports: int) -> float:
    """The score of the last report, -inf if the trial failed before it."""
    return scores[-1] if len(scores) == reports and reports else -math.inf


def _whole(
    policy: Policy, segment: Segment, seats: Seats, last: Mapping[int, float]
) -> tuple[list[Seat | None], dict[int, Ended]]:
    """Seats after the segment, and the trials that completed or failed, by lane.

    A failed trial stays in a population, because it may copy another's state.
    """
    now, ended = list(seats), {}
    for lane, failed in zip(segment.order.lanes, segment.failed):
        seat = now[lane]
        assert seat is not None
        seat = seat._replace(done=seat.done + segment.order.reports)
        whole = seat.done == policy.reports
        if whole or (failed >= 0 and policy.population is None):
            status, steps = DONE, seat.done * policy.report_every
            if failed >= 0:
                status, steps = DIVERGED, failed
            ended[lane] = Ended(seat.queued.trial, status, steps, last[lane])
            now[lane] = None
        else:
            now[lane] = seat
    return now, ended


def hear(
    policy: Policy, segment: Segment, ended: Mapping[int, Ended], heard: Heard
) -> tuple[Verdicts, Heard]:
    """Tells the rule the reports, by ascending trial; gives its verdicts and the scores kept.

    A trial at a rung is told with its scores since the previous rung. A diverged
    trial counts as at its next rung, with a single -inf.
    """
    assert policy.rule is not None
    since = dict(heard)
    at: dict[int, list[tuple[int, Sequence[float]]]] = {}
    order = segment.order
    told = sorted(zip(order.trials, order.lanes, order.done, segment.scores))
    for trial, lane, before, scores in told:
        report, rungs = before + len(scores), policy.rungs(trial)
        if lane in ended and ended[lane].status == DIVERGED:
            since.pop(trial, None)
            rung = next((r for r in rungs if r >= report), None)
            if rung is not None:
                at.setdefault(rung, []).append((trial, [-math.inf]))
        elif report in rungs:
            at.setdefault(report, []).append((trial, [*since.pop(trial, ()), *scores]))
        elif report == policy.reports:
            since.pop(trial, None)
        else:
            since[trial] = (*since.get(trial, ()), *scores)
    said = [
        policy.rule.decide(rung, [t for t, _ in at[rung]], [curve for _, curve in at[rung]])
        for rung in sorted(at)
    ]
    return (said[0] if len(said) == 1 else joined(said)), since


def told(ended: Iterable[Ended]) -> list[tuple[int, float]]:
    """What a search is told about ended trials: number and last score, NaN if diverged."""
    return [(e.trial, math.nan if e.status == DIVERGED else e.score) for e in ended]


def release(
    policy: Policy, waiting: Mapping[int, Paused], verdicts: Verdicts
) -> tuple[dict[int, Paused], tuple[Paused, ...], tuple[Ended, ...], tuple[int, ...]]:
    """Applies verdicts to the trials that wait.

    Returns:
      Those that still wait, those that go on, those that ended, and the numbers
      of the latter, whose states are no longer needed.
    """
    left = dict(waiting)
    released = tuple(left.pop(trial) for trial in verdicts.go if trial in left)
    ended = []
    for status, trials in ((STOPPED, verdicts.stop), (DONE, verdicts.finish)):
        for trial in trials:
            if one := left.pop(trial, None):
                ended.append(Ended(trial, status, one.done * policy.report_every, one.score))
    return left, released, tuple(ended), tuple(end.trial for end in ended)


def _evolve(
    policy: Policy, seats: list[Seat | None], last: Mapping[int, float]
) -> tuple[tuple[Exchanged, ...], tuple[int, ...] | None, tuple[int, ...]]:
    """Lets the members of a population copy each other at a report that all have reached.

    Updates the numbers in `seats`.
    """
    there = sorted(
        ((seat.queued.trial, lane, seat) for lane, seat in enumerate(seats) if seat is not None),
    )
    if policy.population is None or not there:
        return (), None, ()
    report = there[0][2].done
    if report % policy.population.every:
        return (), None, ()
    trials = [trial for trial, _, _ in there]
    exchanges = policy.population.evolve(
        report,
        trials,
        [last[lane] for _, lane, _ in there],
        [seat.queued.numbers for _, _, seat in there],
    )
    lane_of = {trial: lane for trial, lane, _ in there}
    copied, exchanged = list(range(len(seats))), []
    for (trial, lane, seat), exchange in zip(there, exchanges):
        if exchange is None:
            continue
        copied[lane] = lane_of[exchange.source]
        numbers = dict(seat.queued.numbers)
        for name, value in exchange.numbers.items():
            numbers[name] = np.asarray(value, np.asarray(numbers[name]).dtype)[()]
        seats[lane] = seat._replace(queued=seat.queued._replace(numbers=numbers))
        now = {name: float(value) for name, value in numbers.items()}
        exchanged.append(Exchanged(trial, report, exchange.source, now))
    moved = tuple(copied) if copied != list(range(len(seats))) else None
    return tuple(exchanged), moved, tuple(lane_of[one.trial] for one in exchanged)

"""Chooses the next order: which row runs, and which trials its free lanes take."""

from __future__ import annotations

from typing import Any

from jdl.engine.cost import reports_ahead, worthwhile
from jdl.engine.events import Ask, Collect, Narrow, Order, Prepare, Settle, Wait
from jdl.engine.policy import Policy
from jdl.engine.schedule import Schedule

BATCH = 4096  # trials asked for at once if the search does not learn
IN_FLIGHT = 2  # segments: the devices compute one while the host reads the other's reports


def next_order(s: Schedule, policy: Policy) -> tuple[Schedule, Any]:
    """The schedule with the next order under way, and that order, None when nothing is left."""
    while s.to_scan and len(s.flying) < IN_FLIGHT:
        number = s.rotation[0]
        if count := _wanted(s, policy, number):
            return s, Ask(count)
        if _startable(s, policy, number):
            if not s.rows[number].ready:
                return s, Prepare(number)
            if narrow := _narrower(s, policy, number):
                return s, narrow
            return _started(s, policy, number)
        s = s._replace(rotation=(*s.rotation[1:], number), to_scan=s.to_scan - 1)
    if s.flying:
        return s, Collect(s.flying[0].row)
    if any(_startable(s, policy, number) for number in s.rotation):
        # The search gave a row trials after this scan had passed it.
        return next_order(s._replace(to_scan=len(s.rotation)), policy)
    if s.waiting:
        return s, Settle()
    return s, Wait() if any(map(s.unfinished, s.rotation)) else None


def _wanted(s: Schedule, policy: Policy, number: int) -> int:
    """How many trials to ask for to fill the lanes of a row."""
    if s.exhausted or s.over or not s.left:
        return 0
    row = s.rows[number]
    if policy.adaptive:
        return max(0, row.free - s.queued) if s.told else 0
    enough = len(s.queues[row.group]) >= len(row.seats) or s.queued > 4 * BATCH
    return 0 if enough else BATCH


def _startable(s: Schedule, policy: Policy, number: int) -> bool:
    row = s.rows[number]
    if not s.unfinished(number):
        return False
    if not policy.ordered:
        return row.ready
    # A partly idle row lets groups with waiting trials go first. Its last trials then run at
    # the end, in a narrower program, and by then a rule knows more of their rivals.
    partly = row.free > 0 and not s.in_queue(number) and policy.population is None
    return not (partly and s.queued)


def _narrower(s: Schedule, policy: Policy, number: int) -> Narrow | None:
    """Halves the lanes of a row once few of them hold a trial and no trial waits.

    Compilation starts when a quarter of the lanes is idle. No clock is read, because
    the last bits of a result may depend on the number of lanes.
    """
    if s.narrowed or not policy.ordered or policy.population or s.pending(policy):
        return None
    row = s.rows[number]
    lanes, busy = len(row.seats) // row.devices, row.busy
    fewer = 1 << max(0, (lanes - 1).bit_length() - 1)
    if fewer == lanes or 4 * len(busy) > 3 * len(row.seats):
        return None
    left = max(policy.reports - row.seats[lane].done for lane in busy)  # type: ignore[union-attr]
    if not row.narrowing:
        worth = worthwhile(left * (lanes - fewer) * row.report_seconds)
        return Narrow(number, fewer) if worth else None
    if len(busy) > fewer * row.devices:
        return None
    idle = [lane for lane, seat in enumerate(row.seats) if seat is None]
    return Narrow(number, fewer, tuple([*busy, *idle][: fewer * row.devices]))


def _started(s: Schedule, policy: Policy, number: int) -> tuple[Schedule, Order]:
    """Starts a segment of a row after its free lanes have taken waiting trials."""
    row = s.rows[number]
    seats = list(row.seats)
    free = [lane for lane, seat in enumerate(seats) if seat is None]
    back = s.returning[row.group][: len(free)]
    new = s.queues[row.group][: len(free) - len(back)]
    resumed = tuple(zip(free, (paused.queued for paused in back)))
    fresh = tuple(zip(free[len(back) :], new))
    for lane, paused in zip(free, back):
        seats[lane] = policy.seat(paused.queued, paused.done)
    for lane, queued in fresh:
        seats[lane] = policy.seat(queued, 0)
    lanes = tuple(lane for lane, seat in enumerate(seats) if seat is not None)
    there = [seat for seat in seats if seat is not None]
    ahead = min((seat.until if policy.ordered else policy.reports) - seat.done for seat in there)
    most = reports_ahead(policy.ordered, row.seconds, row.report_seconds, len(seats) // row.devices)
    reports = min(most, ahead)
    order = Order(
        number,
        reports,
        lanes,
        tuple(seat.queued.trial for seat in there),
        tuple(seat.done for seat in there),
        fresh,
        resumed,
        tuple(n for n, seat in zip(lanes, there) if seat.done + reports == policy.reports),
        row.copied,
        tuple((lane, seats[lane].queued) for lane in row.changed),  # type: ignore[union-attr]
    )
    s = s.with_row(number, row._replace(seats=tuple(seats), copied=None, changed=()))
    s = s._replace(
        returning={**s.returning, row.group: s.returning[row.group][len(back) :]},
        queues={**s.queues, row.group: s.queues[row.group][len(new) :]},
        rotation=s.rotation[1:],
        flying=(*s.flying, order),
        to_scan=len(s.rotation) - 1,
        narrowed=False,
    )
    return s, order

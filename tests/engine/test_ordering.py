"""What is to be done next: orders of schedules that are written out in full."""

from __future__ import annotations

import pytest
from tests.engine.by_hand import (
    Exchanges,
    Script,
    order,
    paused,
    policy,
    queued,
    row,
    schedule,
    seat,
)

from jdl.engine.events import Ask, Collect, Narrow, Order, Prepare, Settle, Wait
from jdl.engine.ordering import next_order

RUNGS = policy(rule=Script((3, 5)).rule)  # ordered
FREE = policy()
QUICK = 0.01  # seconds of a report: a segment is as long as its trials allow


def test_free_lanes_take_trials_that_return_and_then_those_of_the_queue():
    one = row(None, seat(7, 1, 3), None, None, None, report_seconds=QUICK, seconds=9.0)
    queue = tuple(map(queued, (1, 2, 3, 4)))
    s = schedule(
        one, row(group="b"), queues={"a": queue, "b": (queued(5),)},
        returning={"a": (paused(8, 2),), "b": (paused(6, 1, group="b"),)}, narrowed=True,
    )  # fmt: skip
    now, what = next_order(s, RUNGS)
    fresh = (2, queued(1)), (3, queued(2)), (4, queued(3))
    assert what == Order(
        0, 1, (0, 1, 2, 3, 4), (8, 7, 1, 2, 3), (2, 1, 0, 0, 0), fresh, ((0, queued(8)),)
    )
    seats = seat(8, 2, 3), seat(7, 1, 3), seat(1, 0, 3), seat(2, 0, 3), seat(3, 0, 3)
    assert now == s._replace(
        rows=(one._replace(seats=seats), s.rows[1]),
        queues={"a": (queued(4),), "b": (queued(5),)},
        returning={"a": (), "b": (paused(6, 1, group="b"),)},
        rotation=(1,),
        flying=(what,),
        to_scan=1,
        narrowed=False,
    )


def test_more_trials_return_than_lanes_are_free():
    back = paused(8, 2), paused(9, 4)
    s = schedule(row(seat(7, 1), None), returning={"a": back}, queues={"a": (queued(1),)})
    now, what = next_order(s, FREE)
    assert what.resumed == ((1, queued(8)),) and what.fresh == ()
    assert now.returning == {"a": (paused(9, 4),)} and now.queues == {"a": (queued(1),)}


def test_a_segment_ends_where_something_is_decided_in_any_of_its_lanes():
    lanes = seat(7, 1, 5), seat(8, 3, 6), seat(9, 1, 4)
    s = schedule(row(*lanes, report_seconds=QUICK))
    assert next_order(s, RUNGS)[1] == order(3, {0: (7, 1), 1: (8, 3), 2: (9, 1)}, finishing=(1,))
    # Without an order to keep it is as long as was measured, up to the end of a trial.
    for seconds, reports, finishing in ((0.05, 2, ()), (0.001, 3, (1,)), (None, 1, ())):
        s = schedule(row(*lanes, report_seconds=QUICK, seconds=seconds))
        what = next_order(s, FREE)[1]
        assert (what.reports, what.finishing) == (reports, finishing)


def test_an_ordered_segment_is_half_a_second_of_one_devices_lanes():
    """Eight lanes on two devices, a report of 60 ms a lane: four lanes make two reports."""
    lanes = [seat(trial, 0, 5) for trial in range(8)]
    s = schedule(row(*lanes, devices=2, report_seconds=0.06))
    assert next_order(s, RUNGS)[1].reports == 2


def test_what_a_population_did_goes_with_the_next_order():
    it = policy(population=Exchanges(2).population)
    s = schedule(row(seat(4, 2, 4), None, seat(5, 2, 4), copied=(2, 1, 2), changed=(2, 0)))
    now, what = next_order(s, it)
    assert what.copied == (2, 1, 2) and what.changed == ((2, queued(5)), (0, queued(4)))
    assert now.rows[0].copied is None and now.rows[0].changed == ()


def test_two_segments_are_in_flight_and_the_oldest_is_collected():
    one, two = order(1, {0: (1, 0)}, row=2), order(1, {0: (2, 0)}, row=1)
    s = schedule(
        row(seat(3)), row(seat(2)), row(seat(1)), flying=(one, two), rotation=(0,), to_scan=1
    )
    assert next_order(s, RUNGS) == (s, Collect(2))
    now, what = next_order(s._replace(flying=(two,)), RUNGS)
    assert what == order(2, {0: (3, 0)}, row=0) and now.flying == (two, what)
    # Rows that are not to be asked again wait for what is in flight.
    s = s._replace(flying=(two,), to_scan=0)
    assert next_order(s, RUNGS) == (s, Collect(1))


def test_a_partly_idle_row_lets_the_trials_of_others_go_first():
    rows = row(seat(7, 1, 3), None), row(None, group="b")
    s = schedule(*rows, queues={"b": (queued(1),)})
    now, what = next_order(s, RUNGS)
    assert what == order(2, {0: (1, 0)}, row=1, fresh=((0, queued(1)),))
    assert now.rotation == (0,) and now.to_scan == 1
    # Not where its own queue or nobody waits, where it is full, or where no order counts.
    own = s._replace(queues={"a": (queued(2),), "b": (queued(1),)})
    nobody = s._replace(queues={"a": (), "b": ()})
    full = s._replace(rows=(row(seat(7, 1, 3)), rows[1]))
    for other in (own, nobody, full):
        assert next_order(other, RUNGS)[1].row == 0
    assert next_order(s, FREE)[1].row == 0
    assert next_order(s, policy(population=Exchanges(2).population))[1].row == 0


def test_rows_without_work_are_passed_over():
    s = schedule(row(None), row(None, group="b"), row(seat(7, 1), group="c"))
    now, what = next_order(s, RUNGS)
    assert what.row == 2 and now.rotation == (0, 1) and now.to_scan == 2
    assert next_order(schedule(row(None)), RUNGS)[1] is None


def test_a_row_that_is_looked_at_again_when_its_trials_came_meanwhile():
    s = schedule(row(seat(7, 1, 2)), to_scan=0)
    assert next_order(s, RUNGS)[1] == order(1, {0: (7, 1)})


def test_waiting_trials_are_settled_once_nothing_runs():
    s = schedule(row(None), waiting={4: paused(4, 3)})
    now, what = next_order(s, RUNGS)
    assert what == Settle() and now == s._replace(to_scan=0)
    flying = (order(1, {0: (2, 0)}),)
    assert next_order(s._replace(flying=flying), RUNGS)[1] == Collect(0)


def test_programs_are_waited_for():
    s = schedule(row(None, ready=False), row(seat(7, 1), group="b"), queues={"a": (queued(1),)})
    assert next_order(s, RUNGS) == (s, Prepare(0))
    # Where no order counts another row goes first, and any program will do.
    assert next_order(s, FREE)[1].row == 1
    assert next_order(s._replace(rows=s.rows[:1], rotation=(0,), to_scan=1), FREE)[1] == Wait()


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({}, 4096),
        ({"queues": {"a": (queued(1),), "b": ()}}, 4096),
        ({"queues": {"a": (queued(1), queued(2)), "b": ()}}, 0),  # a trial for each lane
        ({"queues": {"a": (), "b": (queued(1),) * 16384}}, 4096),
        ({"queues": {"a": (), "b": (queued(1),) * 16385}}, 0),  # the others have enough
        ({"exhausted": True}, 0),
        ({"over": True}, 0),
        ({"left": 0}, 0),
    ],
)
def test_trials_are_asked_for_in_batches(changed, count):
    rows = row(None, seat(9, 1)), row(seat(8, 1), group="b")
    s = schedule(*rows, exhausted=False, left=7)._replace(**changed)
    for it in (FREE, RUNGS):
        what = next_order(s, it)[1]
        assert what == Ask(count) if count else isinstance(what, Order)


def test_a_search_that_learns_is_asked_for_as_many_as_lanes_are_free():
    it = policy(adaptive=True)
    s = schedule(row(None, seat(9, 1), None, None), left=7, exhausted=False)
    assert next_order(s, it) == (s, Ask(3))
    one = s._replace(queues={"a": (queued(1),)})
    assert next_order(one, it)[1] == Ask(2)
    # Not before it was told something new, once it gave too few.
    assert isinstance(next_order(s._replace(told=False), it)[1], Order)
    full = schedule(row(seat(9, 1)), left=7, exhausted=False, queues={"a": (queued(1),)})
    assert isinstance(next_order(full, it)[1], Order)


def busy(count: int, lanes: int, done: int = 1, **more):
    """A row in whose last lanes `count` trials are."""
    seats = [seat(trial, done, 5) for trial in range(count)]
    return row(*[None] * (lanes - count), *seats, report_seconds=2.0, **more)


@pytest.mark.parametrize(
    ("lanes", "count", "devices", "fewer"),
    [
        (8, 6, 1, 4),  # a quarter is idle
        (8, 7, 1, None),
        (6, 1, 1, 4),
        (5, 1, 1, 4),
        (9, 1, 1, 8),
        (2, 1, 1, 1),
        (1, 1, 1, None),
        (12, 9, 2, 4),  # six lanes on each device
        (2, 1, 2, None),
    ],
)
def test_half_the_lanes_are_compiled_ahead_when_a_quarter_is_idle(lanes, count, devices, fewer):
    s = schedule(busy(count, lanes, devices=devices))
    what = next_order(s, RUNGS)[1]
    if fewer is None:
        assert isinstance(what, Order)
    else:
        assert next_order(s, RUNGS) == (s, Narrow(0, fewer))


def test_a_narrower_program_must_save_more_than_it_costs():
    """Five reports of one lane less, at 1.2 s each: six seconds are not enough."""
    lanes = None, seat(3, 1, 5), seat(4, 5, 6), None, None
    assert isinstance(next_order(schedule(row(*lanes, report_seconds=1.2)), RUNGS)[1], Order)
    s = schedule(row(*lanes, report_seconds=1.21))
    assert next_order(s, RUNGS)[1] == Narrow(0, 4)


def test_the_lanes_move_once_they_fit():
    one = row(
        None, seat(1, 1, 5), None, seat(2, 1, 5), None, None, seat(3, 1, 5), None,
        narrowing=True,
    )  # fmt: skip
    assert next_order(schedule(one), RUNGS)[1] == Narrow(0, 4, (1, 3, 6, 0))
    # On two devices four lanes each become two each.
    two = one._replace(devices=2)
    assert next_order(schedule(two), RUNGS)[1] == Narrow(0, 2, (1, 3, 6, 0))
    crowded = busy(5, 8, narrowing=True)
    assert isinstance(next_order(schedule(crowded), RUNGS)[1], Order)
    assert next_order(schedule(busy(4, 8, narrowing=True)), RUNGS)[1].source == (4, 5, 6, 7)


def test_no_row_is_narrowed_while_it_may_be_needed_or_twice_in_a_turn():
    s = schedule(busy(1, 8))
    assert isinstance(next_order(s, RUNGS)[1], Narrow)
    for other, it in [
        (s._replace(narrowed=True), RUNGS),
        (s._replace(waiting={4: paused(4, 3)}), RUNGS),
        (s._replace(exhausted=False), RUNGS),  # more may come
        (s, FREE),
        (s, policy(population=Exchanges(2).population)),
    ]:
        assert isinstance(next_order(other, it)[1], Order)

"""The schedule after each event: every field of it, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.by_hand import (
    INF,
    NAN,
    Exchanges,
    Script,
    order,
    paused,
    policy,
    queued,
    row,
    schedule,
    seat,
    segment,
)

from jdl.engine.cost import Tally
from jdl.engine.events import (
    DONE,
    STOPPED,
    Asked,
    Ended,
    Joined,
    Leaving,
    Narrow,
    Prepared,
    Record,
    Settled,
)
from jdl.engine.rules import Exchange, Verdicts
from jdl.engine.schedule import Row, Schedule, after, finished

ONE, TWO, THREE = queued(1), queued(2), queued(3)


def test_a_run_begins_with_nothing():
    tally = Tally()
    assert Schedule() == ((), {}, {}, {}, {}, (), (), 0, 0, False, True, False, 0, False, tally)
    assert Row("a", 1, 0.25, ()) == ("a", 1, 0.25, (), 0, False, False, None, (), None)


def test_a_row_that_joins_is_free_and_the_last_in_turn():
    s, record = after(Schedule(), policy(), Joined("a", 2, 4, 0.125))
    assert record is None
    free = Row("a", 2, 0.125, (None,) * 4)
    assert s == Schedule((free,), {"a": ()}, {"a": ()}, rotation=(0,))
    assert (free.busy, free.free, s.running, s.queued) == ([], 4, 0, 0)
    s = s._replace(queues={"a": (ONE,)}, returning={"a": (paused(2, 1),)}, rotation=())
    s, _ = after(s, policy(), Joined("a", 1, 1, 0.25))
    assert s.rotation == (1,) and s.rows[1] == Row("a", 1, 0.25, (None,), first=4)
    assert s.queues == {"a": (ONE,)} and s.returning == {"a": (paused(2, 1),)}


def test_a_program_may_have_fewer_lanes_than_were_wanted():
    s = schedule(row(None, None, None, ready=False), row(None, None, ready=False))
    for width, lanes in ((2, 2), (3, 3), (9, 3)):
        now, record = after(s, policy(), Prepared(0, width))
        assert now == s._replace(rows=(row(*[None] * lanes), s.rows[1])) and record is None
    assert after(s, policy(), Prepared(1, 2))[0].rows == (s.rows[0], row(None, None))


@pytest.mark.parametrize(
    ("adaptive", "wanted", "count", "left", "expected"),
    [
        (False, 3, 3, 5, (False, True)),
        (False, 5, 3, 0, (True, True)),  # all that there were
        (False, 3, 3, 0, (True, True)),
        (False, 5, 3, 4, (True, False)),  # fewer than it had
        (True, 5, 3, 4, (False, False)),
        (True, 5, 3, 2, (False, False)),
        (True, 5, 3, INF, (False, False)),
        (True, 3, 3, 1, (False, True)),
        (True, 5, 3, 0, (True, True)),
    ],
)
def test_trials_that_a_search_gave(adaptive, wanted, count, left, expected):
    given = [("b", ONE), ("a", TWO), ("b", THREE)][:count]
    s = schedule(row(None), row(None, group="b"), queues={"b": (queued(9),)}, exhausted=False)
    now, record = after(s, policy(adaptive=adaptive), Asked(wanted, given, left))
    exhausted, told = expected
    queues = {"a": (TWO,), "b": (queued(9), ONE, THREE)}
    assert now == s._replace(queues=queues, left=left, exhausted=exhausted, told=told)
    assert record is None and now.queued == 4


def test_a_search_that_had_no_more_has_none_later():
    s = schedule(row(None), exhausted=True)
    assert after(s, policy(adaptive=True), Asked(2, [("a", ONE), ("a", TWO)], 3))[0].exhausted


def test_a_narrower_row_keeps_its_trials():
    s = schedule(row(None), row(None, seat(4), None, seat(5), group="b"))
    s, record = after(s, policy(), Narrow(1, 1))
    assert record is None
    assert s.rows[1].narrowing and not s.narrowed and s.rows[1].seats[1] == seat(4)
    now, _ = after(s, policy(), Narrow(1, 1, (3, 1)))
    assert now == s._replace(rows=(s.rows[0], row(seat(5), seat(4), group="b")), narrowed=True)


def test_nothing_else_is_an_event():
    with pytest.raises(TypeError, match="17 is not an event"):
        after(Schedule(), policy(), 17)


def test_a_segment_is_a_turn():
    of = order(2, {0: (4, 4), 2: (5, 1)}, row=1, fresh=((2, queued(5)),))
    other = order(1, {0: (8, 0)}, row=2)
    s = schedule(
        row(None),
        row(seat(4, 4), None, seat(5, 1), group="b"),
        row(seat(8), group="c"),
        flying=(of, other), rotation=(0,), turn=6, to_scan=0, told=False,
        tally=Tally(done=2, reports=3, lane_steps=50),
    )  # fmt: skip
    now, record = after(s, policy(), segment(of, [0.1, 0.3], [0.4, 0.2], seconds=0.5))
    assert record == Record(
        7, "segment", ((5, 2),), (Ended(4, DONE, 60, 0.3),), (), Leaving(keep=((0, 4, 0.3),))
    )
    assert now == s._replace(
        rows=(s.rows[0], row(None, None, seat(5, 3), group="b", seconds=0.25), s.rows[2]),
        rotation=(0, 1),
        flying=(other,),
        turn=7,
        to_scan=2,
        told=True,
        tally=Tally(done=3, reports=7, lane_steps=110, best=0.4),
    )
    assert s.turn == 6 and s.running == 3 and now.running == 2


@pytest.mark.parametrize(
    ("more", "counted"),
    [
        ({}, 0),
        ({"queues": {"a": (ONE,)}}, 20),
        ({"returning": {"a": (paused(2, 1),)}}, 20),
        ({"exhausted": False}, 20),
        ({"waiting": {3: paused(3, 1)}}, 20),
    ],
)
def test_idle_lanes_count_while_trials_wait(more, counted):
    of = order(1, {0: (4, 1)})
    s = schedule(row(seat(4, 1), None), flying=(of,), rotation=(), **more)
    tally = after(s, policy(), segment(of, [0.1]))[0].tally
    assert (tally.queued_steps, tally.busy_steps, tally.lane_steps) == (counted, counted / 2, 20)


def test_what_the_rule_says_moves_trials():
    script = Script((2,), Verdicts(go=[9]))
    of = order(2, {0: (4, 0)})
    s = schedule(
        row(seat(4, 0, 2)), row(None, group="b"), flying=(of,), rotation=(1,), told=False,
        waiting={9: paused(9, 2, 0.7, "b")}, returning={"b": (paused(6, 2, 0.1, "b"),)},
        heard={8: (0.5,)},
    )  # fmt: skip
    now, record = after(s, policy(rule=script.rule), segment(of, [0.1, 0.2]))
    assert now == s._replace(
        rows=(row(None, seconds=0.0125), s.rows[1]),
        waiting={4: paused(4, 2, 0.2)},
        returning={"a": (), "b": (paused(6, 2, 0.1, "b"), paused(9, 2, 0.7, "b"))},
        rotation=(1, 0),
        flying=(),
        turn=1,
        to_scan=2,
        tally=Tally(reports=2, lane_steps=20, queued_steps=20, busy_steps=20, best=0.2),
    )
    assert record == Record(1, "segment", leaving=Leaving(pause=((0, 4),)))


def test_what_a_population_does_is_kept_for_the_next_order():
    members = Exchanges(2, Exchange(5, {"lr": 0.5}), None)
    of = order(2, {0: (4, 0), 1: (5, 0)})
    s = schedule(row(seat(4, 0, 2), seat(5, 0, 2)), flying=(of,), rotation=())
    now, record = after(s, policy(population=members.population), segment(of, [0, 0.1], [0, 0.2]))
    assert now.rows[0].copied == (1, 1) and now.rows[0].changed == (0,)
    assert [one.trial for one in record.exchanged] == [4]


def test_settling_is_a_turn():
    script = Script((2,), settles=Verdicts(go=[3], stop=[4]))
    s = schedule(
        row(None, None), waiting={3: paused(3, 2), 4: paused(4, 2, 0.1), 5: paused(5, 2)},
        turn=8, told=False,
    )  # fmt: skip
    now, record = after(s, policy(rule=script.rule), Settled())
    ended = (Ended(4, STOPPED, 20, 0.1),)
    assert record == Record(9, "settle", (), ended, (), Leaving(drop=(4,)))
    assert now == s._replace(
        waiting={5: paused(5, 2)},
        returning={"a": (paused(3, 2),)},
        turn=9,
        told=True,
        tally=Tally(stopped=1, reports=4),
    )


def test_after_the_target_all_stop_but_what_is_in_flight():
    of, other = order(1, {0: (4, 1)}), order(1, {0: (8, 1)}, row=1)
    s = schedule(
        row(seat(4, 1, 2)),
        row(seat(8, 1, 2), group="b"),
        row(seat(6, 3, 4), None, group="c", copied=(1, 0), changed=(0,)),
        flying=(of, other), rotation=(2,),
        queues={"a": (ONE,), "c": (TWO,)},
        returning={"b": (paused(3, 2, 0.3, "b"),)},
        waiting={7: paused(7, 4, 0.7)},
    )  # fmt: skip
    script = Script((2, 4), Verdicts(go=[4]), Verdicts(go=[8]))
    it = policy(rule=script.rule, target=0.5)
    now, record = after(s, it, segment(of, [0.6]))
    nothing = {"a": (), "b": (), "c": ()}
    assert now._replace(tally=Tally()) == s._replace(
        rows=(row(None, seconds=0.0125), s.rows[1], row(None, None, group="c")),
        queues=nothing,
        returning=nothing,
        waiting={},
        rotation=(2,),
        flying=(other,),
        turn=1,
        over=True,
        to_scan=1,
    )
    assert now.tally == Tally(1, 0, 5, 1 + 4 + 6 + 6 + 4 + 2 + 3, 10, 10, 10, 0.6)
    np.testing.assert_equal(
        tuple(record),
        (
            1, "segment", (),
            (
                Ended(1, STOPPED, 0, NAN), Ended(2, STOPPED, 0, NAN), Ended(3, STOPPED, 20, NAN),
                Ended(4, DONE, 20, 0.6), Ended(6, STOPPED, 30, NAN), Ended(7, STOPPED, 40, 0.7),
            ),
            (),
            Leaving(finish=((0, 4),), keep=((0, 4, 0.6),), drop=(3, 7)),
        ),
    )  # fmt: skip
    last, record = after(now, it, segment(other, [0.1]))
    assert record.ended == (Ended(8, STOPPED, 20, 0.1),) and finished(last, it)


def test_a_trial_released_as_the_target_is_reached_stops_too():
    of = order(1, {0: (4, 1), 1: (5, 1)})
    script = Script((2,), Verdicts(go=[9], finish=[7]))
    s = schedule(
        row(seat(4, 1, 2), seat(5, 1, 2)), flying=(of,), rotation=(),
        waiting={9: paused(9, 2, 0.1), 7: paused(7, 2, 0.2)},
    )  # fmt: skip
    it = policy(rule=script.rule, target=0.5)
    now, record = after(s, it, segment(of, [0.6], [0.3]))
    assert [(e.trial, e.status) for e in record.ended] == [
        (4, DONE), (5, STOPPED), (7, DONE), (9, STOPPED),
    ]  # fmt: skip
    # Nobody needs the lane of the one that the rule made wait, nor what was put aside.
    assert record.leaving == Leaving(((0, 4),), (), ((0, 4, 0.6),), (7, 9, 5))
    assert now.waiting == {} and now.returning == {"a": ()}


def test_a_run_is_finished_when_nobody_waits_runs_or_may_come():
    it, eager = policy(), policy(adaptive=True)
    s = schedule(row(None))
    assert finished(s, it)
    for more in (
        {"waiting": {3: paused(3, 1)}},
        {"queues": {"a": (ONE,)}},
        {"returning": {"a": (paused(3, 1),)}},
        {"rows": (row(seat(3)),)},
        {"left": 1, "exhausted": False},
    ):
        assert not finished(s._replace(**more), it)
    more = s._replace(left=2, exhausted=False)
    assert finished(more._replace(over=True), it)
    assert finished(more._replace(left=0), it)
    assert finished(more._replace(exhausted=True), it)
    # A search that learns has no more to give before it is told something.
    assert finished(more._replace(told=False), eager)
    assert not finished(more, eager) and not finished(more._replace(told=False), it)


def test_what_is_pending():
    s = schedule(row(None))
    assert not s.pending(policy())
    assert s._replace(exhausted=False).pending(policy(adaptive=True))
    assert not s._replace(exhausted=False, told=False).pending(policy(adaptive=True))
    assert s._replace(exhausted=False, told=False).pending(policy())
    assert s._replace(queues={"a": (ONE,)}).pending(policy())
    assert s._replace(returning={"a": (paused(3, 1),)}).pending(policy())
    assert s._replace(waiting={3: paused(3, 1)}).pending(policy())


def test_a_row_is_unfinished_with_a_trial_or_one_in_its_queue():
    rows = row(None, None), row(None, seat(4), group="b"), row(None, group="c")
    s = schedule(*rows, queues={"c": (ONE, TWO)}, returning={"c": (paused(3, 1),)})
    assert [s.unfinished(number) for number in range(3)] == [False, True, True]
    assert [s.in_queue(number) for number in range(3)] == [0, 0, 3]
    assert (rows[1].busy, rows[1].free, s.queued, s.running) == ([1], 1, 3, 1)


def test_a_row_is_closed_once_no_trial_can_need_it():
    rows = row(None), row(seat(4), group="b"), row(None, group="c")
    s = schedule(*rows, queues={"c": (ONE,)})
    assert [s.closed(number) for number in range(3)] == [True, False, False]
    assert not s._replace(exhausted=False).closed(0)
    assert s._replace(exhausted=False, over=True).closed(0)
    assert not s._replace(waiting={3: paused(3, 1, group="a")}).closed(0)
    assert s._replace(waiting={3: paused(3, 1, group="b")}).closed(0)
    of = order(1, {0: (4, 1)}, row=1)
    last = schedule(row(None), row(seat(4, 1, 2), group="b"), flying=(of,), rotation=(0,))
    for exhausted, rotation in ((True, (0,)), (False, (0, 1))):
        it = policy(rule=Script((2,), Verdicts(stop=[4])).rule)
        now, _ = after(last._replace(exhausted=exhausted), it, segment(of, [0.5]))
        assert now.rotation == rotation and now.to_scan == len(rotation)

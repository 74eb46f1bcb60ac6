"""What is decided after a segment: small rows, written out in full, lane by lane."""

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
    seat,
    segment,
)  # fmt: skip

from jdl.engine import decisions
from jdl.engine.decisions import Brought, after_segment
from jdl.engine.events import DIVERGED, DONE, STOPPED, Ended, Exchanged, Leaving, Record
from jdl.engine.rules import Exchange, Verdicts


def after(it, brought, seats, waiting=None, heard=None, over=False):
    return after_segment(it, brought, "a", seats, waiting or {}, heard or {}, over)


def test_trials_that_are_whole_or_failed_leave_their_lanes():
    seats = [seat(7, 4), None, seat(5, 1), seat(9, 2), seat(3, 4)]
    of = order(2, {0: (7, 4), 2: (5, 1), 3: (9, 2), 4: (3, 4)})
    scores = [0.3, 0.4], [0.1, 0.2], [0.6], [0.2, -INF]
    now = after(policy(), segment(of, *scores, failed=[-1, -1, 27, 53]), seats)
    assert now == Brought(
        (None, None, seat(5, 3), None, None),
        {},
        {},
        False,
        (Ended(7, DONE, 60, 0.4), Ended(9, DIVERGED, 27, -INF), Ended(3, DIVERGED, 53, -INF)),
        leaving=Leaving(keep=((0, 7, 0.4),)),
    )


def test_a_trial_may_fail_at_its_first_step_and_in_its_last_report():
    seats = [seat(3), seat(4, 5), seat(5, 5)]
    of = order(1, {0: (3, 0), 1: (4, 5), 2: (5, 5)})
    now = after(policy(), segment(of, [-INF], [-INF], [0.5], failed=[0, 59, -1]), seats)
    assert now.ended == (
        Ended(3, DIVERGED, 0, -INF),
        Ended(4, DIVERGED, 59, -INF),
        Ended(5, DONE, 60, 0.5),
    )
    # A population has no use for a trial that is whole, and that of its first step failed.
    it = policy(population=Exchanges(2).population)
    now = after(it, segment(order(1, {0: (3, 5)}), [-INF], failed=[0]), [seat(3, 5)])
    assert now.ended == (Ended(3, DIVERGED, 0, -INF),)


def test_a_trial_that_failed_stays_in_a_population():
    members = Exchanges(2, None, None)
    of = order(1, {0: (1, 2), 1: (2, 2)})
    now = after(
        policy(population=members.population),
        segment(of, [0.5], [-INF], failed=[-1, 0]),
        [seat(1, 2, 4), seat(2, 2, 4)],
    )
    assert now == Brought((seat(1, 3, 4), seat(2, 3, 4)), {}, {}, False, ())
    assert members.asked == []


def test_a_rule_ends_trials_lets_them_go_or_makes_them_wait():
    script = Script((2, 5), Verdicts(go=[3, 21], stop=[8, 22], finish=[5, 23]))
    lanes = {0: (8, 0), 1: (3, 0), 2: (5, 0), 4: (6, 0)}
    seats = [seat(8, 0, 2), seat(3, 0, 2), seat(5, 0, 2), None, seat(6, 0, 2)]
    waiting = {n: paused(n, 2, n / 100) for n in (21, 22, 23, 24)}
    brought = segment(order(2, lanes), [0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8])
    now = after(policy(rule=script.rule), brought, seats, waiting)
    assert script.asked == [(2, [3, 5, 6, 8], [[0.3, 0.4], [0.5, 0.6], [0.7, 0.8], [0.1, 0.2]])]
    assert now == Brought(
        (None, seat(3, 2, 5), None, None, None),
        {},
        {24: paused(24, 2, 0.24), 6: paused(6, 2, 0.8)},
        False,
        (
            Ended(8, STOPPED, 20, 0.2),
            Ended(5, DONE, 20, 0.6),
            Ended(22, STOPPED, 20, 0.22),
            Ended(23, DONE, 20, 0.23),
        ),
        (paused(21, 2, 0.21),),
        Leaving(((2, 5),), ((4, 6),), ((2, 5, 0.6),), (22, 23)),
    )


def test_between_rungs_trials_go_on_and_what_they_reported_is_kept_for_the_rule():
    script = Script((3, 5))
    now = after(
        policy(rule=script.rule),
        segment(order(2, {0: (8, 0)}), [0.1, 0.2]),
        [seat(8, 0, 3)],
        heard={4: (0.7,)},
    )
    assert now == Brought((seat(8, 2, 3),), {4: (0.7,), 8: (0.1, 0.2)}, {}, False, ())
    assert script.asked == []


def test_a_trial_at_the_target_is_done_and_the_others_stop():
    seats = [seat(1, 1, 2), seat(2, 1, 2), seat(3, 5, 6), None]
    brought = segment(order(1, {0: (1, 1), 1: (2, 1), 2: (3, 5)}), [0.9], [0.2], [0.1])
    now = after(policy(target=0.5), brought, seats)
    assert now == Brought(
        (None,) * 4,
        {},
        {},
        True,
        (Ended(3, DONE, 60, 0.1), Ended(1, DONE, 20, 0.9), Ended(2, STOPPED, 20, 0.2)),
        leaving=Leaving(((0, 1),), (), ((2, 3, 0.1), (0, 1, 0.9))),
    )


def test_after_the_target_every_lane_that_is_collected_stops():
    now = after(policy(target=0.5), segment(order(1, {1: (1, 1)}), [0.2]), [None, seat(1, 1, 2)],
                over=True)  # fmt: skip
    assert now.ended == (Ended(1, STOPPED, 20, 0.2),) and now.seats == (None, None) and now.over


def test_a_target_that_a_whole_trial_reaches_ends_the_run():
    now = after(policy(target=0.5), segment(order(1, {0: (1, 5)}), [0.5]), [seat(1, 5)])
    assert now.over and now.ended == (Ended(1, DONE, 60, 0.5),) and now.leaving.finish == ()


def test_a_target_comes_before_waiting_and_after_the_rules_verdict():
    """Where a rule names neither trial at its rung, the one at the target does not wait."""
    script = Script((2,), Verdicts())
    now = after(
        policy(rule=script.rule, target=0.5),
        segment(order(1, {0: (1, 1), 1: (2, 1)}), [0.9], [0.2]),
        [seat(1, 1, 2), seat(2, 1, 2)],
    )
    assert now.ended == (Ended(1, DONE, 20, 0.9),)
    assert now.waiting == {2: paused(2, 2, 0.2)} and now.leaving.pause == ((1, 2),)
    script = Script((2,), Verdicts(go=[1], stop=[2]))
    now = after(
        policy(rule=script.rule, target=0.5),
        segment(order(1, {0: (1, 1), 1: (2, 1)}), [0.1], [0.9]),
        [seat(1, 1, 2), seat(2, 1, 2)],
    )
    assert now.over
    assert now.ended == (Ended(2, STOPPED, 20, 0.9), Ended(1, STOPPED, 20, 0.1))


def test_a_seat_is_renewed_at_its_decision_and_not_before():
    now = after(policy(target=0.5), segment(order(1, {0: (1, 1)}), [0.2]), [seat(1, 1, 2)])
    assert now.seats == (seat(1, 2, 3),)
    now = after(policy(), segment(order(1, {0: (1, 1)}), [0.2]), [seat(1, 1, 4)])
    assert now.seats == (seat(1, 2, 4),)


def test_what_a_rule_hears_trial_by_trial_and_rung_by_rung():
    """Rungs 2 and 5: scores since the last rung; one that diverged comes to its next rung."""
    script = Script((2, 5), Verdicts(go=[2]), Verdicts(stop=[1], go=[4]))
    lanes = {0: (9, 1), 1: (4, 3), 2: (2, 0), 3: (7, 2), 4: (1, 3), 5: (6, 5)}
    scores = [0.1], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8], [0.9, -INF], [0.2]
    brought = segment(order(2, lanes), *scores)
    ended = {0: Ended(9, DIVERGED, 15, -INF), 4: Ended(1, DIVERGED, 47, -INF)}
    heard = {9: (0.01,), 4: (0.02,), 1: (0.03, 0.04), 6: (0.05,), 55: (0.06,)}
    verdicts, since = decisions.hear(policy(rule=script.rule), brought, ended, heard)
    assert script.asked == [
        (2, [2, 9], [[0.5, 0.6], [-INF]]),
        (5, [1, 4], [[-INF], [0.02, 0.3, 0.4]]),
    ]
    assert since == {7: (0.7, 0.8), 55: (0.06,)}
    assert verdicts == Verdicts([2, 4], [1], [])


def test_one_that_diverged_beyond_every_rung_is_not_told():
    script = Script((2,))
    brought = segment(order(2, {0: (9, 2)}), [0.1, -INF])
    ended = {0: Ended(9, DIVERGED, 33, -INF)}
    verdicts, since = decisions.hear(policy(rule=script.rule), brought, ended, {9: (0.2,)})
    assert (verdicts, since, script.asked) == (Verdicts([], [], []), {}, [])


def test_verdicts_of_one_rung_are_those_of_the_rule():
    said = Verdicts(go=(3,), stop=(4,))
    script = Script((1,), said)
    brought = segment(order(1, {0: (3, 0), 1: (4, 0)}), [0.1], [0.2])
    assert decisions.hear(policy(rule=script.rule), brought, {}, {})[0] is said


def test_waiting_trials_are_settled_by_the_rule():
    waiting = {n: paused(n, 2, n / 10) for n in (1, 2, 3, 4)}
    script = Script((2,), settles=Verdicts(go=[2, 9], stop=[3], finish=[1]))
    now = decisions.settle(policy(rule=script.rule), waiting)
    assert now == Brought(
        (),
        {},
        {4: paused(4, 2, 0.4)},
        False,
        (Ended(3, STOPPED, 20, 0.3), Ended(1, DONE, 20, 0.1)),
        (paused(2, 2, 0.2),),
        Leaving(drop=(3, 1)),
    )
    assert list(waiting) == [1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="keeps trials waiting, but `settle` names none"):
        decisions.settle(policy(rule=Script((2,)).rule), waiting)


def test_a_search_is_told_nan_of_trials_that_diverged():
    ended = [Ended(1, DONE, 60, 0.5), Ended(2, STOPPED, 10, -0.25), Ended(3, DIVERGED, 7, -INF)]
    np.testing.assert_equal(decisions.told(ended), [(1, 0.5), (2, -0.25), (3, NAN)])


def test_members_copy_each_other_at_a_report_that_all_reached():
    members = Exchanges(
        2,
        Exchange(5, {"lr": 0.3}),
        None,
        Exchange(5, {"lr": np.float64(2.0)}),
    )
    seats = [seat(9, 3, 4), seat(5, 3, 4), None, seat(1, 3, 4)]
    of = order(1, {0: (9, 3), 1: (5, 3), 3: (1, 3)})
    now = after(
        policy(population=members.population), segment(of, [-INF], [0.5], [0.25],
        failed=[33, -1, -1]), seats,
    )  # fmt: skip
    rates = [{"lr": np.float32(trial / 4)} for trial in (1, 5, 9)]
    assert members.asked == [(4, [1, 5, 9], [0.25, 0.5, -INF], rates)]
    assert now.copied == (1, 1, 2, 1) and now.changed == (3, 0)
    assert now.exchanged == (
        Exchanged(1, 4, 5, {"lr": float(np.float32(0.3))}),
        Exchanged(9, 4, 5, {"lr": 2.0}),
    )
    assert now.seats[1] == seat(5, 4, 6) and now.seats[2] is None
    for lane, trial, rate in ((0, 9, 2.0), (3, 1, 0.3)):
        there = now.seats[lane]
        assert there.queued == queued(trial)._replace(numbers={"lr": np.float32(rate)})
        assert there.queued.numbers["lr"].dtype == np.float32 and there[1:] == (4, 6)
    assert seats[0] == seat(9, 3, 4)


def test_a_member_may_change_its_numbers_and_keep_its_state():
    members = Exchanges(3, Exchange(2, {"lr": 0.5}))
    now = after(
        policy(population=members.population), segment(order(3, {1: (2, 0)}), [0.1, 0.2, 0.3]),
        [None, seat(2, 0, 3)],
    )  # fmt: skip
    assert now.copied is None and now.changed == (1,)
    assert now.exchanged == (Exchanged(2, 3, 2, {"lr": 0.5}),)
    assert now.seats[1].queued.numbers == {"lr": np.float32(0.5)}


def test_members_that_are_whole_copy_nobody():
    members = Exchanges(3)
    now = after(
        policy(population=members.population), segment(order(3, {0: (2, 3)}), [0.1, 0.2, 0.3]),
        [seat(2, 3)],
    )  # fmt: skip
    assert members.asked == [] and now.exchanged == () and now.copied is None and now.changed == ()
    assert now.ended == (Ended(2, DONE, 60, 0.3),)


def test_a_record_has_the_ended_by_number():
    leaving = Leaving(drop=(4,))
    brought = Brought(
        (), {}, {}, False, (Ended(9, DONE, 60, 0.5), Ended(4, STOPPED, 10, 0.1)),
        leaving=leaving, exchanged=(Exchanged(1, 2, 3, {}),),
    )  # fmt: skip
    assert brought.record(12, "segment", [(7, 1)]) == Record(
        12, "segment", ((7, 1),), (Ended(4, STOPPED, 10, 0.1), Ended(9, DONE, 60, 0.5)),
        (Exchanged(1, 2, 3, {}),), leaving,
    )  # fmt: skip
    assert brought.record(3, "settle").started == ()

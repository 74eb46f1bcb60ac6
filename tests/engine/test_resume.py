"""Going on: journals written by hand, told again turn by turn, or recalled without their lanes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.engine.by_hand import INF, NAN, Script, paused, policy, queued, seat
from tests.engine.pretended import group

from jdl.engine import resume
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.database import StoreError
from jdl.engine.events import (
    DIVERGED,
    DONE,
    STOPPED,
    Asked,
    Ended,
    Joined,
    Leaving,
    Order,
    Prepared,
    Record,
    Segment,
)
from jdl.engine.executor import Taken
from jdl.engine.goal import Goal
from jdl.engine.journal import Journal
from jdl.engine.rules import Verdicts
from jdl.engine.snapshot import Snapshot
from jdl.engine.supply import Given, Supply

GOAL = Goal("loss", -1)


class Run:
    """A journal that is written by hand, and the search of the run."""

    def __init__(self, first=(1, 2), *more, adaptive=False):
        self.journal, self.told, self.counts = Journal(None), [], []
        self.left = sum(map(len, more))
        batches = iter([(first, ["a"]), *((batch, ["b"]) for batch in more)])

        def give(count):
            self.counts.append(count)
            trials, labels = next(batches)
            self.left -= len(trials)
            configs = [(trial, {"lr": trial / 4}) for trial in trials]
            given = [(labels[0], queued(trial)) for trial in trials]
            return Given(given, configs, [group(labels[0], 1, 1)])

        first = give(0)
        self.left = sum(map(len, more))
        self.supply = Supply(
            "grid", first, give, lambda ends: self.told.append(ends), lambda: self.left, adaptive
        )
        self.journal.begin({}, ["loss"], first.configs)

    def turn(self, turn, reports, *ended, kind="segment"):
        ends = tuple(Ended(trial, status, steps, 0.0) for trial, status, steps in ended)
        self.journal.append(Record(turn, kind, (), ends), reports)

    def begun(self, it):
        return resume.begun(it, self.supply.first, self.supply.left(), self.join)

    def join(self, one):
        return Joined(one.label, 1, 2, 0.0625)

    def replay(self):
        return resume.Replay(self.journal, self.supply, GOAL, self.join)


def test_a_run_begins_with_its_first_trials():
    run = Run((1, 2), (3,))
    s = run.begun(policy())
    assert s.queues == {"a": (queued(1), queued(2))} and s.left == 1 and not s.exhausted
    assert (s.to_scan, s.rotation, s.turn, s.told) == (1, (0,), 0, True)
    assert Run().begun(policy()).exhausted


def test_segments_are_told_as_they_were_written():
    run = Run()
    run.turn(1, [(1, 10, 0.5), (1, 20, 0.25), (2, 10, None)], (2, DIVERGED, 13))
    run.turn(3, [(1, 30, 0.125)], (1, DONE, 30))
    replay = run.replay()
    of = Order(0, 2, (0, 1), (1, 2), (0, 0))
    replay.start(of)
    assert replay.collect(0) == Segment(of, [[-0.5, -0.25], [-INF]], [-1, 13])
    # Nothing is written of a turn in which no lane reported anything.
    nothing = Order(0, 1, (1,), (7,), (2,))
    replay.start(nothing)
    assert replay.collect(0) == Segment(nothing, [[]], [-1])
    other = Order(1, 1, (0,), (1,), (2,))
    replay.start(nothing)
    replay.start(other)
    assert replay.collect(1) == Segment(other, [[-0.125]], [-1])
    replay.start(nothing)
    assert replay.collect(0) == Segment(nothing, [[]], [-1])


def test_reports_of_trials_that_were_not_in_these_lanes_are_noticed():
    run = Run()
    run.turn(1, [(1, 10, 0.5), (2, 10, 0.25)])
    replay = run.replay()
    replay.start(Order(0, 1, (0,), (2,), (0,)))
    with pytest.raises(CheckpointError, match=r"turn 1 of the journal .* of trials \[1\], which"):
        replay.collect(0)


def test_a_replay_needs_no_devices():
    replay = Run().replay()
    assert replay.prepare(4).row == 4 and replay.prepare(4).width > 10**9
    assert isinstance(replay.prepare(4), Prepared) and replay.ready() == replay.ready(1) == []
    leaving, of = Leaving(drop=(3,)), Order(0, 1, (0,), (2,), (0,))
    heard = Segment(of, [[0.5]], [-1])
    assert replay.wanted(leaving) is leaving and replay.hear(heard) is heard
    assert replay.take(0, leaving) == Taken()


def test_a_search_is_asked_and_told_again():
    run = Run((1, 2), (3, 4))
    run.journal.asked(0, 7, [(3, {"lr": 0.75}), (4, {"lr": 1.0})])
    replay = run.replay()
    events = replay.ask(7, 0)
    assert events == (Joined("b", 1, 2, 0.0625), Asked(7, [("b", queued(3)), ("b", queued(4))], 0))
    assert run.counts == [0, 7]
    ends = Ended(2, DIVERGED, 3, -INF), Ended(3, DONE, 60, -0.5)
    s = run.begun(policy())
    replay.note(s, Record(1, "segment", (), ends), Taken())
    replay.note(s, Record(2, "segment"), Taken())
    np.testing.assert_equal(run.told, [[(2, NAN), (3, -0.5)]])


def test_a_search_that_gives_something_else_is_noticed():
    run = Run((1, 2), (3, 4))
    run.journal.asked(0, 7, [(3, {"lr": 0.75}), (4, {"lr": 9.0})])
    with pytest.raises(StoreError, match=r"The search grid gives .* for trial 4, but"):
        run.replay().ask(7, 0)


def test_a_replayed_schedule_is_the_one_that_was_lived():
    """Three trials in two lanes; the rule stops the first and makes the second wait."""
    verdicts = Verdicts(stop=[1]), Verdicts(go=[3])
    run = Run((1, 2, 3))
    run.turn(1, [(t, 10 * r, 0.5 / t) for t in (1, 2) for r in (1, 2)], (1, STOPPED, 20))
    run.turn(2, [(3, 10, 0.25), (3, 20, 0.125)])
    for turn, told in [(0, []), (1, [[(1, -0.5)]]), (2, [[(1, -0.5)]])]:
        run.told.clear()
        script = Script((2,), *verdicts)
        it = policy(rule=script.rule)
        s = resume.replayed(run.begun(it), it, run.replay(), turn)
        assert s.turn == turn and run.told == told
    assert s.rows[0].seats == (seat(3, 2, 6), None)
    assert s.waiting == {2: paused(2, 2, -0.25)} and s.queues == {"a": ()}
    assert script.asked[1] == (2, [3], [[-0.25, -0.125]])


def test_a_turn_of_settling_is_a_turn_of_the_journal():
    run = Run((1,))
    run.turn(1, [(1, 10, 0.5), (1, 20, 0.25)])
    run.turn(2, [], kind="settle")
    run.turn(3, [(1, 30, 0.125)])
    script = Script((2, 3), Verdicts(), Verdicts(go=[1]), settles=Verdicts(go=[1]))
    it = policy(rule=script.rule)
    s = resume.replayed(run.begun(it), it, run.replay(), 3)
    assert s.rows[0].seats == (seat(1, 3, 6), None) and s.waiting == {} and s.returning == {"a": ()}
    assert script.asked == [(2, [1], [[-0.5, -0.25]]), (3, [1], [[-0.125]])]


def recalled(run, it, snapshot=None):
    return resume.recalled(run.begun(it), it, run.journal, run.supply, GOAL, run.join, snapshot)


def test_without_lanes_everything_that_did_not_end_starts_again():
    run = Run((1, 2, 5), (3, 4))
    run.turn(1, [(1, 10, 0.5), (1, 20, 0.25), (2, 10, 0.75)])
    run.journal.asked(1, 9, [(3, {"lr": 0.75}), (4, {"lr": 1.0})])
    run.turn(2, [(1, 30, 0.125), (3, 10, 0.5)], (1, DONE, 30), (3, DIVERGED, 14))
    run.turn(4, [], (4, STOPPED, 0))
    s, aside = recalled(run, policy())
    assert aside == {} and s.turn == 4 and s.left == 0 and s.exhausted
    assert s.queues == {"a": (queued(2), queued(5)), "b": ()}
    assert s.returning == {"a": (), "b": ()} and s.rotation == (0, 1) and s.to_scan == 2
    assert run.counts == [0, 9]
    np.testing.assert_equal(run.told, [[], [(1, -0.125), (3, NAN)], [(4, NAN)]])
    # Of six reports each: three, four (one that fails ends in its second report) and six are left.
    assert s.tally[:4] == (1, 1, 1, 3 + 4 + 6) and s.tally.best == -math.inf


def test_the_lanes_of_a_snapshot_go_on():
    run = Run((1, 2, 5, 6))
    run.turn(1, [(1, 10, 0.5), (2, 10, 0.75)])
    run.turn(2, [(1, 20, 0.5)], (1, DONE, 20))
    lanes = {"row|0|lanes|x": np.float32([[1.0], [2.0]]), "aside|6|x": np.float32([6.0])}
    s, aside = recalled(run, policy(), Snapshot(1, lanes, {0: [(1, 1), (2, 1)]}, {6: 3}))
    assert s.queues == {"a": (queued(5),)}
    back = s.returning["a"]
    assert [(p.group, p.queued, p.done) for p in back] == [("a", queued(2), 1), ("a", queued(6), 3)]
    assert all(math.isnan(p.score) for p in back)
    assert {trial: leaves["x"].tolist() for trial, leaves in aside.items()} == {2: [2.0], 6: [6.0]}


def test_a_rule_hears_what_was_written_though_the_lanes_are_lost():
    """What running trials reported since their last rungs is lost with their lanes."""
    verdicts = Verdicts(go=[1]), Verdicts(stop=[2]), Verdicts(stop=[1])
    run = Run((1, 2, 3))
    run.turn(1, [(1, 10, 0.5), (1, 20, 0.25), (2, 10, 0.75)])
    run.turn(2, [(2, 20, 0.125), (3, 10, 0.5)], (2, STOPPED, 20), (3, DIVERGED, 14))
    run.turn(3, [], kind="settle")
    run.turn(4, [(1, 30, 0.5), (1, 40, 0.375)])
    settled = []
    script = Script((2, 4), *verdicts)
    rule = script.rule._replace(settle=lambda: settled.append(len(script.asked)))
    s, _ = recalled(run, policy(rule=rule))
    assert script.asked == [
        (2, [1], [[-0.5, -0.25]]),
        (2, [2, 3], [[-0.75, -0.125], [-INF]]),
        (4, [1], [[-0.5, -0.375]]),
    ]
    assert settled == [2] and s.heard == {}
    lanes = {"row|0|lanes|x": np.float32([[1.0]])}
    run = Run((1, 2))
    run.turn(1, [(1, 10, 0.5), (2, 10, 0.75)])
    s, _ = recalled(run, policy(rule=Script((4,)).rule), Snapshot(1, lanes, {0: [(2, 1)]}, {}))
    assert s.heard == {2: (-0.75,)}

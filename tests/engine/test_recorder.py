"""The home of a run: what it hears of segments, writes, keeps and shows, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.engine.by_hand import INF, NAN, order, paused, policy, queued, row, schedule, seat
from tests.engine.pretended import group

from jdl.engine import checkpoint, recorder
from jdl.engine.cost import Tally
from jdl.engine.events import DIVERGED, DONE, STOPPED, Asked, Ended, Joined, Leaving, Record
from jdl.engine.executor import Taken
from jdl.engine.goal import Goal
from jdl.engine.journal import Journal
from jdl.engine.progress import Progress, Status
from jdl.engine.recorder import Recorder, ended
from jdl.engine.row import Collected
from jdl.engine.supply import Given, Supply

CONFIGS = [(trial, {"lr": trial / 4}) for trial in range(1, 7)]


class Shown(Progress):
    def __init__(self):
        super().__init__(shown=False)
        self.statuses: list[Status] = []

    def update(self, status):
        self.statuses.append(status)


class Home:
    """A recorder, and what it talks to."""

    def __init__(self, sign=-1, trials=9, keep=2, journal=None, given=None):
        self.journal, self.shown, self.told, self.asked = journal, Shown(), [], []
        if journal is None:
            self.journal = Journal(None)
            self.journal.begin({}, ["size", "valid_loss"], CONFIGS)

        def ask(count):
            self.asked.append(count)
            return given

        supply = Supply("grid", Given(), ask, self.told.append, lambda: 12, False)
        join = lambda one: Joined(one.label, 1, 3, 0.25)  # noqa: E731
        self.recorder = Recorder(
            self.journal, supply, Goal("valid_loss", sign), policy(), join, self.shown,
            keep=keep, trials=trials,
        )  # fmt: skip


# Lanes 0, 2 and 3 make three reports of two metrics; the second trial fails in step 27, which is
# of its third report, the third one failed long ago.
ORDER = order(3, {0: (4, 0), 2: (2, 2), 3: (5, 1)}, fresh=((0, queued(4)),))
VALUES = np.array(
    [
        [[1.0, 0.5], [2.0, 0.25], [3.0, INF]],
        [[4.0, NAN], [NAN, NAN], [NAN, NAN]],
        [[NAN, NAN], [NAN, NAN], [NAN, NAN]],
    ]
)
COLLECTED = Collected(
    ORDER, VALUES, np.array([-1, 27, 3]), {4: {"test_loss": 0.75}, 2: {"test_loss": NAN}}, 0.625
)


def test_scores_go_up_to_the_report_in_which_a_trial_failed():
    heard = Home().recorder.hear(COLLECTED)
    assert heard == (ORDER, [[-0.5, -0.25, -INF], [-INF], []], [-1, 27, 3], 0.625)
    assert Home(sign=1).recorder.hear(COLLECTED).scores[0] == [0.5, 0.25, -INF]


@pytest.mark.parametrize(
    ("done", "failed", "made"),
    # Reports of ten steps: step 29 is of the third, 30 of the fourth.
    [(2, 20, 1), (2, 29, 1), (2, 30, 2), (2, 49, 3), (2, -1, 3), (2, 5, 0), (0, 0, 1), (3, 59, 3)],
)
def test_how_many_reports_a_trial_made(done, failed, made):
    of = order(3, {0: (4, done)})
    heard = Home().recorder.hear(Collected(of, np.ones((1, 3, 2)), np.array([failed]), {}))
    assert len(heard.scores[0]) == made


def test_a_turn_is_written_when_it_is_said_so():
    home = Home()
    home.recorder.hear(COLLECTED)
    state = {"w": np.float32([1.5])}
    leaving = Leaving(keep=((0, 4, -0.25),))
    ends = Ended(2, DIVERGED, 27, -INF), Ended(4, DONE, 30, -0.25), Ended(6, STOPPED, 0, NAN)
    record = Record(1, "segment", ((4, 0), (2, 2)), ends, (), leaving)
    home.recorder.note(schedule(row(None)), record, Taken({6: {"test_loss": 9.0}}, {4: state}))
    assert home.journal.reports()[1].shape == (0, 4) and home.journal.scores() == {}
    home.recorder.write()
    np.testing.assert_array_equal(
        home.journal.reports()[1],
        [[2, 30, 4, NAN], [4, 10, 1, 0.5], [4, 20, 2, 0.25], [4, 30, 3, INF]],
    )
    trials = {trial: rest for trial, _, *rest in home.journal.trials()}
    assert trials[4] == ["done", 30, {"test_loss": 0.75}]
    assert trials[2] == ["diverged", 27, {}] and trials[6] == ["stopped", 0, {}]
    assert home.journal.seats() == {2: (1, 2, 1), 4: (1, 0, 1)}
    assert home.journal.scores() == {4: -0.25}
    assert home.journal.state(4)["w"].tolist() == [1.5]
    np.testing.assert_equal(home.told, [[(2, NAN), (4, -0.25), (6, NAN)]])
    # It is written once, and the reports of a segment belong to its turn alone.
    home.recorder.note(schedule(row(None)), Record(2, "settle"), Taken())
    home.recorder.write()
    home.recorder.write()
    assert home.journal.segments().tolist() == [[1, 2, 1], [1, 4, 3]]
    assert [turn.settled for turn in home.journal.history("size")] == [False, True]
    assert len(home.told) == 1


def test_trials_that_are_done_early_have_the_tests_that_were_taken():
    home = Home()
    record = Record(1, "segment", ((5, 0),), (Ended(5, DONE, 20, -0.5),))
    home.recorder.note(schedule(row(None)), record, Taken({5: {"test_loss": 0.375}}))
    home.recorder.write()
    assert home.journal.trials()[4][2:] == ("done", 20, {"test_loss": 0.375})


def test_states_are_taken_of_the_best_alone():
    """Two are kept; of equal scores the earlier trial stays."""
    home = Home()
    keep = lambda *ones: home.recorder.wanted(Leaving(finish=((0, 1),), keep=ones))  # noqa: E731
    leaving = keep((0, 4, -0.5), (1, 5, -INF), (2, 6, -0.75))
    assert leaving == Leaving(finish=((0, 1),), keep=((0, 4, -0.5), (2, 6, -0.75)))
    assert keep((0, 3, -0.875)).keep == ()
    assert keep((1, 2, -0.75)).keep == ((1, 2, -0.75),)  # in place of trial 6
    assert keep((1, 5, -0.75)).keep == ()
    assert keep((0, 1, 0.25), (1, 3, 0.125)).keep == ((0, 1, 0.25), (1, 3, 0.125))


def test_states_that_were_kept_before_count():
    journal = Journal(None)
    journal.begin({}, ["valid_loss"], CONFIGS)
    blob = checkpoint.to_bytes({"w": np.float32(1)})
    states = [(1, -0.5, blob), (2, -0.25, blob)]
    journal.append(Record(1, "segment"), states=states, keep=2)
    home = Home(journal=journal)
    assert home.recorder.wanted(Leaving(keep=((0, 3, -0.75),))).keep == ()
    assert home.recorder.wanted(Leaving(keep=((0, 3, -0.375),))).keep == ((0, 3, -0.375),)


def test_what_the_search_gives_is_written_before_it_is_used():
    given = Given([("b", queued(8))], [(8, {"lr": 2.0})], [group("b", 3, 1)])
    home = Home(given=given)
    events = home.recorder.ask(5, 7)
    assert events == (Joined("b", 1, 3, 0.25), Asked(5, [("b", queued(8))], 12))
    assert home.asked == [5] and home.journal.config(8) == {"lr": 2.0}
    (turn,) = home.journal.history("size")
    assert (turn.turn, turn.asked) == (7, [5])


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])
    return now


def test_what_the_line_of_progress_says(clock):
    journal = Journal(None)
    journal.begin({}, ["valid_loss"], CONFIGS)
    journal.append(Record(1, "segment", (), (Ended(1, DONE, 60, 0), Ended(2, STOPPED, 9, 0))))
    assert ended(journal) == 2
    # Nine trials of six reports, of which two had ended before.
    s = schedule(
        row(seat(4), seat(5), None), queues={"a": (queued(6),)}, waiting={7: paused(7, 2)},
        tally=Tally(done=3, diverged=1, stopped=2, reports=21, best=-0.123456),
    )  # fmt: skip
    for trials, total, fraction in [(9, 9, 21 / 42), (None, 10, 21 / 48), (2, 2, 1.0)]:
        home = Home(journal=journal, trials=trials)
        home.recorder.note(s, Record(2, "settle"), Taken())
        assert home.shown.statuses == [Status(total, 3, 2, 1, 2, fraction, "0.1235", before=2)]
    home = Home(journal=journal, trials=2)
    home.recorder.note(s._replace(tally=Tally(reports=1)), Record(2, "settle"), Taken())
    assert home.shown.statuses[0].fraction == 1.0  # where none is left
    for tally, sign, best in [(Tally(), -1, ""), (Tally(best=2.5), 1, "2.5")]:
        home = Home(journal=journal, sign=sign)
        home.recorder.note(s._replace(tally=tally), Record(2, "settle"), Taken())
        assert home.shown.statuses[0].best == best


def test_the_line_changes_twenty_times_a_second(clock):
    home = Home()
    for after, shown in [(0.0, 1), (0.04, 1), (0.049, 1), (0.0501, 2), (0.09, 2), (0.101, 3)]:
        clock[0] = 100.0 + after
        home.recorder.note(schedule(row(None)), Record(1, "settle"), Taken())
        assert len(home.shown.statuses) == shown
    assert math.isfinite(home.shown.statuses[0].fraction)

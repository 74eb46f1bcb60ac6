"""Whole runs on an executor that trains nothing: budgets, snapshots, and what is said of them."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from tests.engine.pretended import EVERY, REPORTS, PretendedExecutor, group

from jdl.engine import snapshot
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.events import Queued
from jdl.engine.goal import Goal
from jdl.engine.journal import Journal
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.run import Limits, run_trials
from jdl.engine.snapshot import SNAPSHOT
from jdl.engine.supply import Given, Supply

# A target that nothing reaches: every report is a turn, and the order of turns counts.
ORDERED, FREE = Policy(REPORTS, EVERY, target=99.0), Policy(REPORTS, EVERY)


class Said(Progress):
    def __init__(self):
        super().__init__(shown=False)
        self.said: list[str] = []

    def say(self, text):
        self.said.append(text)


class Killed(BaseException):
    pass


class Run:
    """A run in `folder`: trials, each with the label of its group, and groups by label."""

    def __init__(self, folder, trials="aa", policy=ORDERED, **groups):
        self.folder, self.trials, self.policy = folder, trials, policy
        self.groups = groups or {"a": (1, 1)}
        self.progress, self.executor = Said(), PretendedExecutor()

    def start(self, limits=Limits(), at=None, then=None, trials=None, supply=None):  # noqa: B008
        """Runs; before the segment of turn `at` is collected, `then` is called."""
        self.progress, self.executor = Said(), PretendedExecutor()
        collect, self.collected = self.executor.collect, 0

        def counted(row):
            self.collected += 1
            if self.collected == at:
                then()
            return collect(row)

        self.executor.collect, self.compiled = counted, []
        compile_row, join, self.joined = self.executor.compile, self.executor.join, []

        def joining(group, lanes, width):
            self.joined.append((group.label, lanes, width))
            join(group, lanes, width)

        self.executor.join = joining
        self.executor.compile = lambda row: (self.compiled.append(row), compile_row(row))
        groups = [group(label, *size) for label, size in self.groups.items()]
        queued = [
            (label, Queued(trial, {"lr": np.float32(0.1 + trial / 8)}, trial))
            for trial, label in enumerate(self.trials)
        ]
        first = Given(queued, [(q.trial, {"lr": q.trial}) for _, q in queued], groups)
        supply = (supply or given)(first)
        self.journal = Journal(self.folder)
        try:
            self.journal.begin({}, ["valid_loss"], first.configs)
            stats = run_trials(
                self.policy, self.executor, self.journal, supply, Goal("valid_loss", -1),
                self.progress, trials=trials, limits=limits,
            )  # fmt: skip
            self.table = self.journal.reports()[1].tolist()
            self.turn, self.notes = self.journal.last_turn(), self.journal.notes()
            self.lanes = [lane for _, lane, _ in self.journal.seats().values()]
            self.counts, self.rows = self.journal.counts(), self.journal.trials()
            return stats
        finally:
            if self.folder is not None:
                self.journal.close()


def given(first):
    """A search that has no further trials."""
    return Supply("grid", first, lambda n: Given(), lambda ends: None, lambda: 0, False)


def killed():
    raise Killed


@pytest.fixture
def clock(monkeypatch):
    now = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_run_to_its_end(clock):
    one = Run(None, "aab", FREE, a=(2, 1), b=(1, 1))
    stats = one.start(at=2, then=lambda: clock.__setitem__(0, 53.5))
    # Two devices: the rows have four lanes and two, and each makes eight reports of five steps.
    assert (stats.compilations, stats.compactions, stats.complete) == (2, 0, True)
    assert stats.lane_steps == 6 * 8 * 5 and stats.seconds == 3.5 and not stats.out_of_time
    assert stats.busy == 1.0 and stats.compile_seconds == 0.0
    assert one.counts == {"done": 3} and len(one.table) == 24
    assert one.progress.said == [] and "checkpoint" not in one.notes
    assert Limits() == (float("inf"), 10, 30.0)


def test_what_was_compiled_is_counted_and_what_it_took_is_added():
    one = Run(None, "ab", ORDERED, a=(1, 1), b=(1, 1))
    stats = one.start(at=1, then=lambda: one.executor.compiled.extend([2.5, 1.25]))
    assert stats.compilations == 4 and stats.compile_seconds == 3.75
    assert stats.busy == 1.0
    # Two lanes and three trials: the third has no neighbour, and one waits while two run.
    stats = Run(None, "aaa", ORDERED, a=(2, 1)).start()
    assert stats.busy == 1.0 and stats.lane_steps == 2 * 2 * 8 * 5


@pytest.mark.parametrize(("policy", "widths"), [(ORDERED, [6, 5]), (FREE, [4, 10])])
def test_rows_are_as_wide_as_planned_or_as_there_are_devices(policy, widths):
    one = Run(None, "ab", policy, a=(2, 3), b=(5, 1))
    one.start()
    assert one.joined == [("a", 2, widths[0]), ("b", 5, widths[1])]


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_a_budget_begins_with_the_first_turn(tmp_path, clock, seconds):
    """Two trials of eight turns, each of one second; every start makes one turn at least."""
    one = Run(tmp_path)
    turns = 0
    for _ in range(99):
        stats = one_second_a_turn(one, clock, Limits(seconds=seconds))
        made = 1 if seconds == 0 else 4  # the first turn, and until 2.5 s later
        turns = min(16, turns + made)
        assert (one.turn, stats.complete, stats.out_of_time) == (turns, turns == 16, True)
        if stats.complete:
            break
    whole = Run(None)
    whole.start()
    assert whole.table == one.table and whole.rows == one.rows


def one_second_a_turn(one, clock, limits, **more):
    """Starts a run each of whose segments takes a second."""
    collect = PretendedExecutor.collect

    def later(self, row):
        clock[0] += 1.0
        return collect(self, row)

    PretendedExecutor.collect = later
    try:
        return one.start(limits, **more)
    finally:
        PretendedExecutor.collect = collect


@pytest.mark.parametrize(
    ("seconds", "turns"),
    # First after a second, then twice as far apart each, up to what is asked for.
    [(4.0, [1, 3, 7, 11, 15]), (1e9, [1, 3, 7, 15]), (0.5, [*range(1, 16)]),
     (3.0, [1, 3, 6, 9, 12, 15])],
)  # fmt: skip
def test_snapshots_come_at_growing_distances(tmp_path, clock, monkeypatch, seconds, turns):
    written, write = [], snapshot.write

    def noted(journal, taken):
        written.append(taken.turn)
        write(journal, taken)

    monkeypatch.setattr(snapshot, "write", noted)
    stats = one_second_a_turn(Run(tmp_path), clock, Limits(checkpoint_seconds=seconds))
    assert written == turns and stats.complete and not stats.out_of_time


def test_a_killed_run_goes_back_to_its_snapshot(tmp_path, clock):
    """The snapshot is of turn 3, and turns 4 and 5 are made again."""
    one = Run(tmp_path, "aab", ORDERED, a=(1, 1), b=(1, 1))
    with pytest.raises(Killed):
        one_second_a_turn(one, clock, Limits(checkpoint_seconds=1e9), at=6, then=killed)
    stats = one_second_a_turn(one, clock, Limits())
    assert one.collected == 24 - 3 and stats.complete and one.progress.said == []
    assert stats.lane_steps == 21 * 5  # of this process alone
    whole = Run(None, "aab", ORDERED, a=(1, 1), b=(1, 1))
    whole.start()
    assert whole.table == one.table and whole.rows == one.rows


def test_rows_whose_trials_have_ended_are_not_compiled_again(tmp_path):
    one = Run(tmp_path, "ab", Policy(REPORTS, EVERY, adaptive=True), a=(1, 1), b=(1, 1))
    one.start(Limits(seconds=0.0))
    assert one.compiled == [0, 1] and one.counts == {"done": 1, "pending": 1}
    assert one.start().complete and one.compiled == [1] and one.counts == {"done": 2}


def test_a_group_that_comes_later_is_compiled_and_its_plan_noted(tmp_path):
    """A search that learns gives a trial of another group once it is told of the first."""

    def learning(told):
        def supply(first):
            more = Given(
                [("b", Queued(1, {"lr": np.float32(0.3)}, 1))],
                [(1, {"lr": 1})],
                [group("b", 2, 3)],
            )
            left = [1]

            def ask(count):
                given = more if told and left[0] else Given()
                left[0] -= len(given.trials)
                return given

            return Supply("one", first, ask, told.extend, lambda: left[0], True)

        return supply

    it = Policy(REPORTS, EVERY, adaptive=True)
    one = Run(tmp_path, "a", it, a=(2, 1))
    with pytest.raises(Killed):
        one.start(at=2, then=killed, supply=learning([]))
    assert one.compiled == [0, 1] and one.joined == [("a", 2, 2), ("b", 2, 6)]
    # The snapshot is of the turn before any, so that the search is asked and told again.
    assert one.start(supply=learning([]), trials=2).complete
    assert one.notes["plans"]["b"]["lanes"] == 2 and one.counts == {"done": 2}
    assert one.notes["plans"].keys() == {"a", "b"}
    assert one.joined == [("a", 2, 2), ("b", 2, 6)]


@pytest.mark.parametrize(
    ("policy", "lane_bytes", "lanes"),
    [
        (FREE, 10**6, [0, 1, 2, 3, 4]),
        (FREE, 10**6, [0, 1, 2, 3]),
        (FREE, 10**10, [0, 0, 1, 2, 3]),  # five steps of a second in each of two lanes
        (ORDERED, 10**6, [0, 0, 1, 2, 3]),
    ],
)
def test_a_group_of_short_segments_has_two_rows(policy, lane_bytes, lanes):
    """Two devices of two lanes each: a fifth trial waits, or has a lane in another row."""
    one = Run(None, "a" * len(lanes), policy, a=(2, 2, lane_bytes))
    assert one.start().complete and one.joined == [("a", 2, 4)] * (1 + (4 in lanes))
    assert one.counts == {"done": len(lanes)}
    assert sorted(one.lanes) == lanes


def test_where_no_order_counts_all_segments_are_collected_before_it_stops(tmp_path):
    one = Run(tmp_path, "ab", FREE, a=(1, 1), b=(1, 1))
    stats = one.start(Limits(seconds=0.0))
    assert not stats.complete and stats.out_of_time and one.collected == one.turn == 2
    assert [row[:2] for row in one.table] == [[0, 5], [1, 5]]
    # They go on where they were, also in other lanes.
    one.groups = {"a": (3, 1), "b": (1, 1)}
    assert one.start().complete and one.progress.said == [] and one.counts == {"done": 2}
    whole = Run(None, "ab", FREE, a=(1, 1), b=(1, 1))
    whole.start()
    assert whole.table == one.table
    assert one.executor.lane_reports == 2 * 7


def test_a_signal_stops_it_after_the_segment(tmp_path):
    one = Run(tmp_path)
    stats = one.start(at=3, then=lambda: signal.raise_signal(signal.SIGTERM))
    assert (one.turn, stats.complete, stats.out_of_time) == (3, False, False)
    assert one.progress.said == ["Stopping after this segment; interrupt again to stop at once."]
    assert one.notes["checkpoint"] == 3 and (tmp_path / SNAPSHOT).exists()
    assert one.start().complete and one.collected == 13


@pytest.mark.parametrize("policy", [ORDERED, FREE])
def test_a_lost_snapshot_is_said(tmp_path, policy):
    one = Run(tmp_path, "aa", policy)
    one.start(Limits(seconds=0.0))
    (tmp_path / SNAPSHOT).unlink()
    assert one.start().complete
    (said,) = one.progress.said
    assert said.startswith(
        f"lanes.safetensors is missing from {tmp_path}. Trials that were running start again from "
        "their beginning; the records of other trials stay."
    )
    assert said.endswith("may differ from that of an uninterrupted run.") == (policy is ORDERED)
    assert one.counts == {"done": 2} and len(one.table) == 16


def test_a_disk_that_is_full_costs_the_snapshot_alone(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(snapshot, "write", full)
    one = Run(tmp_path)
    assert not one.start(Limits(seconds=0.0)).complete
    assert one.progress.said == [
        "No checkpoint written: No space left on device. Results are safe."
    ]
    monkeypatch.undo()
    # No snapshot was ever written, so that a run whose order counts is made again.
    assert one.start().complete and one.progress.said == [] and one.collected == 16


def test_a_snapshot_that_does_not_fit_the_journal_is_refused(tmp_path):
    one = Run(tmp_path, "aa", ORDERED, a=(2, 1))
    one.start(Limits(seconds=0.0))
    journal = Journal(tmp_path)
    saved = snapshot.read(journal)
    seats = {0: [(1, 1), (0, 1)]}
    snapshot.write(journal, saved._replace(seats=seats))
    journal.close()
    with pytest.raises(CheckpointError, match="have trials in different lanes"):
        one.start()

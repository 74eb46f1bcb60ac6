"""Resumes a run by replaying its journal up to the turn of the snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jdl.engine import decisions
from jdl.engine.checkpoint import CheckpointError
from jdl.engine.events import (
    DIVERGED,
    Asked,
    Ended,
    Joined,
    Leaving,
    Narrow,
    Order,
    Prepared,
    Record,
    Segment,
)
from jdl.engine.executor import Taken
from jdl.engine.goal import Goal
from jdl.engine.group import Group
from jdl.engine.journal import Journal, Turn
from jdl.engine.loop import drive, told
from jdl.engine.policy import Paused, Policy
from jdl.engine.schedule import Schedule
from jdl.engine.snapshot import Snapshot, lanes_by_trial
from jdl.engine.supply import Given, Supply


class Replay:
    """Executor and home that answer from the journal instead of running anything."""

    def __init__(
        self,
        journal: Journal,
        supply: Supply,
        goal: Goal,
        join: Callable[[Group], Joined],
    ):
        self._journal, self._supply, self._goal, self._join = journal, supply, goal, join
        # Before the first turn trials were only asked for.
        self._turns = (turn for turn in journal.history(goal.metric) if turn.turn > 0)
        self._ahead = next(self._turns, None)
        self._turn = 0
        self._flying: dict[int, Order] = {}

    def ask(self, count: int, turn: int) -> tuple[Any, ...]:
        """Asks the search again and checks that it gives the same trials."""
        given = self._supply.ask(count)
        self._journal.check_asked(given.configs, self._supply.name)
        joined = [self._join(group) for group in given.groups]
        return (*joined, Asked(count, given.trials, self._supply.left()))

    def prepare(self, row: int) -> Prepared:
        """Changes no width, because rows join at the width that the run found."""
        return Prepared(row, 2**62)

    def ready(self, least: int = 0) -> list[Prepared]:
        """Gives nothing, because a run whose order counts prepares rows on request."""
        return []

    def narrow(self, order: Narrow) -> None:
        """Compiles nothing."""

    def start(self, order: Order) -> None:
        """Remembers the order and runs nothing."""
        self._flying[order.row] = order

    def collect(self, row: int) -> Segment:
        """The segment as the journal has it."""
        order = self._flying.pop(row)
        turn = self._next()
        if unknown := {*turn.values} - {*order.trials}:
            raise CheckpointError(
                f"{self._journal.folder}: turn {turn.turn} of the journal has reports of trials "
                f"{sorted(unknown)}, which were not in the lanes of that segment."
            )
        scores = [[self._goal.score(v) for v in turn.values.get(t, ())] for t in order.trials]
        ends = [turn.ended.get(trial, ("", -1)) for trial in order.trials]
        failed = [steps if status == DIVERGED else -1 for status, steps in ends]
        return Segment(order, scores, failed)

    def hear(self, collected: Segment) -> Segment:
        """Gives the segment unchanged."""
        return collected

    def wanted(self, leaving: Leaving) -> Leaving:
        """Gives `leaving` unchanged."""
        return leaving

    def take(self, row: int, leaving: Leaving) -> Taken:
        """Takes nothing."""
        return Taken()

    def release(self, row: int) -> None:
        """Holds nothing to release."""

    def note(self, s: Schedule, record: Record, taken: Taken) -> None:
        """Tells the search what the run told it."""
        if record.kind == "settle":
            self._next()
        if record.ended:
            self._supply.tell(decisions.told(record.ended))

    def write(self) -> None:
        """Writes nothing, because the journal has everything."""

    def _next(self) -> Turn:
        self._turn += 1
        turn = self._ahead
        if turn is None or turn.turn > self._turn:
            return Turn(self._turn, {}, {}, {}, False, ())  # no lane reported anything
        self._ahead = next(self._turns, None)
        return turn


def begun(policy: Policy, first: Given, left: float, join: Callable[[Group], Joined]) -> Schedule:
    """The schedule of a run before its first turn."""
    s = Schedule(left=left, exhausted=left == 0)
    asked = Asked(len(first.configs), first.trials, left)
    s = told(s, policy, [*map(join, first.groups), asked])
    return s._replace(to_scan=len(s.rotation))


def replayed(s: Schedule, policy: Policy, replay: Any, turn: int) -> Schedule:
    """Replays `turn` turns and gives the exact schedule that the run had then."""
    return drive(s, policy, replay, replay, lambda s: s.turn >= turn) if turn else s


def recalled(
    s: Schedule,
    policy: Policy,
    journal: Journal,
    supply: Supply,
    goal: Goal,
    join: Callable[[Group], Joined],
    snapshot: Snapshot | None,
) -> tuple[Schedule, Mapping[int, Any]]:
    """A schedule that knows which trials ended, and in which all others wait for a lane.

    It serves runs whose order does not count, and runs whose snapshot is lost.

    Returns:
      The schedule, and the saved lanes of trials that go on, by trial.
    """
    ended: list[Ended] = []
    last: dict[int, float] = {}
    for turn in journal.history(goal.metric):
        s = s._replace(heard=_hear(policy, goal, turn, s.heard))
        last |= {trial: goal.score(values[-1]) for trial, values in turn.values.items()}
        now = [
            Ended(trial, status, steps, last.pop(trial, float("nan")))
            for trial, (status, steps) in turn.ended.items()
        ]
        supply.tell(decisions.told(now))
        ended += now
        for wanted in turn.asked:
            given = supply.ask(wanted)
            journal.check_asked(given.configs, supply.name)
            joined = [join(group) for group in given.groups]
            s = told(s, policy, [*joined, Asked(wanted, given.trials, supply.left())])
        s = s._replace(turn=max(s.turn, turn.turn))
    lanes = lanes_by_trial(snapshot) if snapshot else {}
    gone = {end.trial for end in ended}
    returning, queues = dict(s.returning), dict(s.queues)
    for group, queue in s.queues.items():
        left = [queued for queued in queue if queued.trial not in gone]
        returning[group] = tuple(
            Paused(group, queued, lanes[queued.trial][0], float("nan"))
            for queued in left
            if queued.trial in lanes
        )
        queues[group] = tuple(queued for queued in left if queued.trial not in lanes)
    s = s._replace(
        returning=returning,
        queues=queues,
        heard={trial: scores for trial, scores in s.heard.items() if trial in lanes},
        tally=s.tally.with_ended(ended, policy.reports, policy.report_every),
        to_scan=len(s.rotation),
    )
    aside = {p.queued.trial: lanes[p.queued.trial][1] for back in returning.values() for p in back}
    return s, aside


def _hear(policy: Policy, goal: Goal, turn: Turn, heard: decisions.Heard) -> decisions.Heard:
    """Tells the rule the reports of a turn, without its lanes."""
    if policy.rule is None:
        return heard
    trials = sorted(turn.values)
    scores = [[goal.score(value) for value in turn.values[trial]] for trial in trials]
    done = [turn.steps[t] // policy.report_every - len(c) for t, c in zip(trials, scores)]
    order = Order(0, 0, tuple(range(len(trials))), tuple(trials), tuple(done))
    ended = {
        lane: Ended(trial, *turn.ended[trial], float("nan"))
        for lane, trial in enumerate(trials)
        if trial in turn.ended
    }
    segment = Segment(order, scores, [-1] * len(trials))
    _, heard = decisions.hear(policy, segment, ended, heard)
    if turn.settled:
        policy.rule.settle()
    return heard

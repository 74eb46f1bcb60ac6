"""Carries a run from its first turn or last snapshot to its end or an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jdl.engine import resume, snapshot
from jdl.engine.cost import Stats, Tally, short
from jdl.engine.events import Joined
from jdl.engine.executor import Executor
from jdl.engine.goal import Goal
from jdl.engine.group import Group
from jdl.engine.interrupt import Interrupt
from jdl.engine.journal import Journal
from jdl.engine.loop import collected, drive, told
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.recorder import Recorder
from jdl.engine.schedule import Schedule, finished
from jdl.engine.snapshot import SNAPSHOT
from jdl.engine.supply import Supply

FIRST_SNAPSHOT = 1.0  # seconds; the interval then doubles up to `checkpoint_seconds`


class Limits(NamedTuple):
    """When a run stops and what it keeps.

    Attributes:
      seconds: training time after which it is interrupted.
      keep: for how many trials states are kept.
      checkpoint_seconds: between snapshots, if the run has a folder.
    """

    seconds: float = math.inf
    keep: int = 10
    checkpoint_seconds: float = 30.0


def run_trials(
    policy: Policy,
    executor: Executor,
    journal: Journal,
    supply: Supply,
    goal: Goal,
    progress: Progress,
    *,
    trials: int | None = None,
    limits: Limits,
) -> Stats:
    """Runs until every trial has ended, or until Ctrl-C, SIGTERM or the time limit.

    Args:
      policy: what decides.
      executor: carries orders out.
      journal: records everything, and is what a resumed run goes on from.
      supply: gives the trials.
      goal: what they are judged by.
      progress: shows what is done.
      trials: total number of trials, or None if unknown.
      limits: when to stop and what to keep.
    """
    start = time.monotonic()
    groups: list[Group] = []

    def place(group: Group) -> Joined:
        groups.append(group)
        return _row(group, policy, executor)

    def join(group: Group) -> Joined:
        joined = place(group)
        lanes = joined.width // joined.devices
        executor.join(group, lanes, joined.width)
        executor.compile(len(groups) - 1)
        journal.note(plans=_plans(groups))
        return joined

    s = _resumed(policy, executor, journal, supply, goal, progress, groups, place)
    home = Recorder(journal, supply, goal, policy, join, progress, keep=limits.keep, trials=trials)
    clock = _Clock(limits, s.turn)
    with Interrupt(progress.say) as interrupt:

        def cut(s: Schedule) -> bool:
            return interrupt.requested or clock.over(s)

        while True:
            s = drive(s, policy, executor, home, lambda s: cut(s) or clock.due)
            while s.flying and not policy.ordered:
                s = collected(s, policy, executor, home)
            home.write()
            complete = finished(s, policy)
            if not complete:
                _save(s, executor, journal, progress)
            if complete or not clock.due or cut(s):
                break
            clock.saved()
    tally = s.tally
    return Stats(
        compilations=len(executor.compiled) - executor.found,
        found=executor.found,
        compile_seconds=sum(executor.compiled),
        seconds=time.monotonic() - start,
        lane_steps=tally.lane_steps,
        complete=complete,
        compactions=executor.narrowed,
        busy=tally.busy,
        out_of_time=clock.over(s),
    )


class _Clock:
    """Says when a snapshot is due and when the time is over."""

    def __init__(self, limits: Limits, turn: int):
        self._limits, self._first, self._end = limits, turn, math.inf
        self._every = min(FIRST_SNAPSHOT, limits.checkpoint_seconds)
        self._last = time.monotonic()

    def over(self, s: Schedule) -> bool:
        """Whether the training time is up; compilation and the first segment do not count."""
        if s.turn > self._first and self._end == math.inf:
            self._end = time.monotonic() + self._limits.seconds
        return time.monotonic() >= self._end

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def saved(self) -> None:
        self._last = time.monotonic()
        self._every = min(self._limits.checkpoint_seconds, 2 * self._every)


def _row(group: Group, policy: Policy, executor: Executor) -> Joined:
    """The row of a group, with the width and the devices of its plan.

    A run whose order does not count uses the present devices instead.
    """
    devices = group.plan.devices if policy.ordered else executor.devices
    return Joined(group.label, devices, group.plan.lanes * devices, group.report_seconds)


def _plans(groups: Sequence[Group]) -> dict[str, Any]:
    return {group.label: group.plan._asdict() for group in groups}


def _resumed(
    policy: Policy,
    executor: Executor,
    journal: Journal,
    supply: Supply,
    goal: Goal,
    progress: Progress,
    groups: list[Group],
    place: Callable[[Group], Joined],
) -> Schedule:
    """Rebuilds the schedule from journal and snapshot, and loads its lanes into the executor."""
    saved = snapshot.read(journal)
    lost = saved is None and journal.notes().get("checkpoint") is not None
    if lost:
        progress.say(
            f"{SNAPSHOT} is missing from {journal.folder}. Trials that were running start again "
            "from their beginning; the records of other trials stay."
            + (
                " The finished table may differ from that of an uninterrupted run."
                if policy.ordered
                else ""
            )
        )
    turn = saved.turn if saved else 0
    if policy.ordered and lost:
        journal.forget_running()
    elif policy.ordered:
        journal.roll_back(turn)
    s = resume.begun(policy, supply.first, supply.left(), place)
    aside: Any = {}
    if policy.ordered and not lost:
        s = resume.replayed(s, policy, resume.Replay(journal, supply, goal, place), turn)
    else:
        s, aside = resume.recalled(s, policy, journal, supply, goal, place, saved)
    if executor.doubles and not policy.ordered:
        s = _doubled(s, policy, [*groups], place)
    for number, (group, row) in enumerate(zip(groups, s.rows)):
        executor.join(group, len(row.seats) // row.devices, len(row.seats))
        if s.unfinished(number):
            executor.compile(number)
    if policy.ordered and saved is not None:
        snapshot.check(s, saved)
        executor.load(saved.arrays, s.flying)
    executor.put_aside(aside)
    return s._replace(tally=Tally(s.tally.done, s.tally.diverged, s.tally.stopped))


def _doubled(
    s: Schedule, policy: Policy, groups: Sequence[Group], place: Callable[[Group], Joined]
) -> Schedule:
    """Adds a second row to groups of short segments with more trials than one row holds.

    One of the rows computes while the host reads the reports of the other.
    """
    for number, group in enumerate(groups):
        lanes = len(s.rows[number].seats)
        if s.in_queue(number) > lanes and short(group.report_seconds * group.plan.lanes):
            s = told(s, policy, [place(group)])
    return s._replace(to_scan=len(s.rotation))


def _save(s: Schedule, executor: Executor, journal: Journal, progress: Progress) -> None:
    """Writes a snapshot to the run's folder, if it has one."""
    if journal.folder is None:
        return
    try:
        snapshot.write(journal, snapshot.take(s, executor.save(snapshot.held(s))))
    except OSError as error:
        # No record is lost; a resumed run only repeats more turns.
        progress.say(f"No checkpoint written: {error}. Results are safe.")

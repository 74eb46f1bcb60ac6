"""A run from its first turn, or from its last snapshot, to its end or to an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jdl.engine import resume, snapshot
from jdl.engine.cost import Stats, Tally
from jdl.engine.events import Joined
from jdl.engine.executor import Executor, Group
from jdl.engine.goal import Goal
from jdl.engine.interrupt import Interrupt
from jdl.engine.journal import Journal
from jdl.engine.loop import collected, drive
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.recorder import Recorder
from jdl.engine.schedule import Schedule, finished
from jdl.engine.snapshot import SNAPSHOT
from jdl.engine.supply import Supply

FIRST_SNAPSHOT = 1.0  # seconds; the next are twice as far apart each, up to what is asked for


class Limits(NamedTuple):
    """When a run stops and what it keeps.

    Attributes:
      seconds: of training after which it is interrupted.
      keep: of how many trials the states are kept.
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
    """Runs until every trial has ended, or until Ctrl-C, SIGTERM or the end of the time.

    Args:
      policy: what decides.
      executor: carries orders out.
      journal: where everything is written, and what a resumed run goes on from.
      supply: gives the trials.
      goal: what they are judged by.
      progress: shows what is done.
      trials: how many there will be, None if that is unknown.
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
    with Interrupt(progress) as interrupt:

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
        compilations=len(executor.compiled),
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
        """Whether training took its time: neither compilation nor the first segment counts."""
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
    """The row of a group: as wide as its plan says, on as many devices as the plan is for.

    Where no order counts, it is as wide as the devices that there are now.
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
    """The schedule that the journal and the snapshot lead to, with its lanes in the executor."""
    saved = snapshot.read(journal)
    lost = saved is None and journal.notes().get("checkpoint") is not None
    if lost:
        progress.say(
            f"{SNAPSHOT} is gone from {journal.folder}: trials that were running start again from "
            "their beginning, and what is recorded of others stays."
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
    for number, (group, row) in enumerate(zip(groups, s.rows)):
        executor.join(group, len(row.seats) // row.devices, len(row.seats))
        if s.unfinished(number):
            executor.compile(number)
    if policy.ordered and saved is not None:
        snapshot.check(s, saved)
        executor.load(saved.arrays, s.flying)
    executor.put_aside(aside)
    return s._replace(tally=Tally(s.tally.done, s.tally.diverged, s.tally.stopped))


def _save(s: Schedule, executor: Executor, journal: Journal, progress: Progress) -> None:
    """Writes a snapshot to the run's folder, if it has one."""
    if journal.folder is None:
        return
    try:
        snapshot.write(journal, snapshot.take(s, executor.save(snapshot.held(s))))
    except OSError as error:
        # Nothing recorded is lost: a resumed run makes more of its turns again.
        progress.say(f"No checkpoint written: {error}. Results are safe.")

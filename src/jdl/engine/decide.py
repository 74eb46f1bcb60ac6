"""What is decided after a segment: who stops, waits, is done, or takes over another's lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdl.engine import store
from jdl.engine.group import FREE, Group, Segment
from jdl.engine.judge import Heard, Judge
from jdl.engine.resume import Waiting
from jdl.engine.rules import Population, Stopping, Verdicts
from jdl.engine.workload import Workload


class Decision(NamedTuple):
    """What came of it; the lanes are as it says already."""

    ended: list[tuple[int, store.Ended]]  # in lanes of the group
    elsewhere: list[tuple[store.Ended, float]]  # without a lane, or in another group: last score
    bred: list[store.Bred]


class Decider:
    """Knows the rule, the population and the target of a run, and the trials that wait."""

    def __init__(
        self,
        work: Workload,
        stopping: Stopping | None,
        population: Population | None,
        target: float | None,
    ):
        self._work = work
        self.judge = Judge(stopping, work.reports) if stopping else None
        self._population, self._target = population, target
        self.waiting: dict[int, Waiting] = {}  # trials that the rule keeps aside
        self.over = False  # the target is reached

    @property
    def decides(self) -> bool:
        """Whether anything is decided here at all."""
        return bool(self.judge or self._population or self._target is not None)

    @property
    def copies(self) -> bool:
        """Whether trials copy each other."""
        return self._population is not None

    def stops(self, trial: int) -> Sequence[int]:
        """The reports after which something is decided about `trial`, ascending."""
        last = self._work.reports
        if self._target is not None:
            return range(1, last + 1)
        if self._population is not None:
            return [*range(self._population.every, last, self._population.every), last]
        return self.judge.rungs(trial) if self.judge else (last,)

    def after(
        self, group: Group, segment: Segment, scores: np.ndarray, groups: Sequence[Group]
    ) -> Decision:
        """Decides after a segment of `group`, of whose trials `scores` has the reports."""
        ended, elsewhere = self._judged(group, segment, scores)
        gone = {lane for lane, _ in (*segment.ended, *ended)}
        left = [i for i, lane in enumerate(segment.busy) if lane not in gone]
        if self._target is not None and np.any(scores >= self._target):
            self.over = True
            reached = [segment.busy[i] for i in left if np.any(scores[i] >= self._target)]
            ended += group.finish(reached) if reached else []
        if self.over:
            lanes = [segment.busy[i] for i in left]
            ended += [(n, group.stop(n)) for n in lanes if group.trial[n] != FREE]
            elsewhere += self._clear(groups)
        busy = group.busy
        for lane in busy[group.done[busy] >= group.until[busy]].tolist():
            group.set_next_stop(lane)
        return Decision(ended, elsewhere, self._breed(group, segment, scores))

    def _judged(
        self, group: Group, segment: Segment, scores: np.ndarray
    ) -> tuple[list[tuple[int, store.Ended]], list[tuple[store.Ended, float]]]:
        """Lets the rule decide, and does in this group's lanes what it says."""
        if self.judge is None:
            return [], []
        diverged = {e.trial for _, e in segment.ended if e.status == store.DIVERGED}
        report = (group.done[segment.busy] - segment.reports + segment.made).tolist()
        verdicts = self.judge.hear(
            Heard(trial, report[i], scores[i, : segment.made[i]].tolist(), trial in diverged)
            for i, trial in enumerate(segment.trials)
        )
        stop, finish, go = set(verdicts.stop), set(verdicts.finish), set(verdicts.go)
        ended: list[tuple[int, store.Ended]] = []
        finishing: list[int] = []
        for i, (lane, trial) in enumerate(zip(segment.busy, segment.trials)):
            if group.trial[lane] == FREE or trial in go:
                continue
            if trial in stop:
                ended.append((lane, group.stop(lane)))
            elif trial in finish:
                finishing.append(lane)
            elif report[i] in self.judge.rungs(trial):
                queued, saved = group.pause(lane)
                self.waiting[trial] = Waiting(group, queued, saved, float(scores[i, -1]))
        if finishing:
            ended += group.finish(finishing)
        return ended, self._release(verdicts)

    def settle(self) -> list[tuple[store.Ended, float]]:
        """Asks the rule to decide about trials that wait for others who will never come."""
        assert self.judge is not None
        return self._release(self.judge.settle())

    def _release(self, verdicts: Verdicts) -> list[tuple[store.Ended, float]]:
        """Does what the rule says of trials that wait."""
        for trial in verdicts.go:
            if one := self.waiting.pop(trial, None):
                one.group.returning.append((one.queued, one.saved))
        ended: list[tuple[store.Ended, float]] = []
        for status, trials in ((store.STOPPED, verdicts.stop), (store.DONE, verdicts.finish)):
            for trial in trials:
                if one := self.waiting.pop(trial, None):
                    steps = one.saved.reports * self._work.report_every
                    ended.append((store.Ended(trial, status, steps, {}), one.score))
        return ended

    def _clear(self, groups: Sequence[Group]) -> list[tuple[store.Ended, float]]:
        """Stops, once the run is over, whatever is in no segment in flight."""
        ended: list[store.Ended] = []
        for group in groups:
            waits = [*group.queue, *(queued for queued, _ in group.returning)]
            ended += [store.Ended(queued.trial, store.STOPPED, 0, {}) for queued in waits]
            group.queue.clear()
            group.returning.clear()
            if group.flight is None:
                ended += [group.stop(lane) for lane in group.busy.tolist()]
        never = float("nan")
        return [(e, never) for e in ended] + self._release(Verdicts(stop=sorted(self.waiting)))

    def _breed(self, group: Group, segment: Segment, scores: np.ndarray) -> list[store.Bred]:
        """Lets the members of a population copy each other, at a report that all have reached."""
        if self._population is None or not group.busy.size:
            return []
        order = sorted(group.busy.tolist(), key=lambda lane: group.trial[lane])
        report = int(group.done[order[0]])
        if report % self._population.every:
            return []
        trials = [int(group.trial[lane]) for lane in order]
        last = dict(zip(segment.busy, scores[:, -1].tolist()))
        numbers = [group.queued(lane).numbers for lane in order]
        exchanges = self._population.evolve(report, trials, [last[n] for n in order], numbers)
        lane_of = dict(zip(trials, order))
        source = np.arange(group.width)
        bred: list[store.Bred] = []
        for lane, trial, exchange in zip(order, trials, exchanges):
            if exchange is None:
                continue
            source[lane] = lane_of[exchange.source]
            group.set_numbers(lane, exchange.numbers)
            now = {name: float(value) for name, value in group.queued(lane).numbers.items()}
            bred.append(store.Bred(trial, report, exchange.source, now))
        if np.any(source != np.arange(group.width)):
            group.take_lanes(source)
        return bred

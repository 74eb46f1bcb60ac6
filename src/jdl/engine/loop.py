"""The host's loop: groups take turns on the devices; what segments bring goes into the store."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jdl.engine import resume, store
from jdl.engine.compaction import Compaction
from jdl.engine.decide import Decider
from jdl.engine.goal import Goal
from jdl.engine.group import Group
from jdl.engine.interrupt import Interrupt
from jdl.engine.judge import Heard
from jdl.engine.keeper import Keeper
from jdl.engine.memory import out_of_memory
from jdl.engine.pace import Pace, Stats
from jdl.engine.program import LaneProgram
from jdl.engine.progress import Progress, Status
from jdl.engine.resume import CHECKPOINT, Waiting
from jdl.engine.rules import Population, Stopping
from jdl.engine.supply import BATCH, NO_SUPPLY, Supply

FIRST_CHECKPOINT = 1.0  # seconds; the next are twice as far apart each, up to what is asked for


class Loop:
    """Runs groups of trials to their end, or to an interruption.

    Where nothing decides, the order of segments does not matter: groups run when
    they are compiled, segments are as long as time suggests, and a resumed run
    leaves out what has ended. Where a rule, a population or an adaptive search
    decides, the run is `ordered`: groups take turns in a fixed order, segments
    end where something is decided, and a resumed run goes back to the turn of
    its last checkpoint and makes the later ones again, to the bit.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        db: store.Store,
        goal: Goal,
        *,
        supply: Supply = NO_SUPPLY,
        stopping: Stopping | None = None,
        population: Population | None = None,
        target: float | None = None,
        seconds: float = math.inf,
        trials: int | None = None,
        keep: int = 10,
        keep_best: bool = False,
        checkpoint_seconds: float = 30.0,
        progress: Progress,
    ):
        """Takes what is to run.

        Args:
          groups: of trials, with those in their queues that are known.
          db: where what they bring is written.
          goal: what they are judged by.
          supply: gives further trials.
          stopping: ends trials early.
          population: lets trials copy each other.
          target: the metric at which the whole run is over.
          seconds: after which the run is interrupted.
          trials: how many there will be at most, if anybody knows.
          keep: of how many trials the states are kept.
          keep_best: keep the state of a trial at its best report, not at its end.
          checkpoint_seconds: between checkpoints, if the store has a folder.
          progress: shows what is done.
        """
        self._db, self._goal, self._supply = db, goal, supply
        self._groups: list[Group] = []
        self._rotation: deque[Group] = deque()  # those not flying, the next one first
        self._flying: deque[Group] = deque()
        self._work = groups[0].work
        reached = None if target is None else goal.score(target)
        self._decider = Decider(self._work, stopping, population, reached)
        self._seconds, self._trials = seconds, trials
        self.ordered = self._decider.decides or supply.adaptive
        self._pace = Pace(self.ordered, keep_best)
        self._keep_best, self._keep = keep_best, keep
        self._checkpoint_seconds, self._progress = checkpoint_seconds, progress
        self._next_checkpoint = FIRST_CHECKPOINT
        self._exhausted = supply.left() == 0
        self._told = True  # something, since the search last had nothing
        self._turn = 0
        self._built: list[LaneProgram] = []
        self._compiling: dict[Group, Future[LaneProgram]] = {}
        self._compaction = Compaction()
        self._data: Any = None
        self._best = -math.inf
        self._unwritten: list[dict[str, Any]] = []
        self._reports_done = 0
        self._last_shown = 0.0
        for group in groups:
            self._join(group)

    def _join(self, group: Group) -> None:
        """Takes a group in, which waits for its turns from now on."""
        group.stops = self._decider.stops
        group.stops_matter = self.ordered
        group.revives = self._decider.copies
        self._groups.append(group)
        self._rotation.append(group)

    def run(self, data: Any) -> Stats:
        """Runs until every trial has ended, or until Ctrl-C, SIGTERM or the end of the time.

        Args:
          data: the splits, as host arrays.
        """
        self._start = time.monotonic()
        self._host_data = data
        self._resume()
        self._ends = {status: 0 for status in store.ENDED} | self._db.counts()
        self._before = sum(self._ends[status] for status in store.ENDED)
        self._last_checkpoint = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jdl-compile")
        self._interrupt = Interrupt(self._progress)
        try:
            with self._interrupt:
                for group in self._groups:
                    self._compile_if_needed(group)
                for group in self._flying:
                    self._ready(group)
                self._turns()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
        return Stats(
            compilations=len(self._built) + self._compaction.count - self._compaction.used,
            compile_seconds=sum(p.compile_seconds for p in self._built),
            seconds=time.monotonic() - self._start,
            lane_steps=self._pace.lane_steps,
            complete=not self._unfinished,
            compactions=self._compaction.count,
            busy=self._pace.busy,
            out_of_time=self._out_of_time,
        )

    @property
    def _out_of_time(self) -> bool:
        return time.monotonic() - self._start >= self._seconds

    @property
    def _stop_requested(self) -> bool:
        return self._interrupt.requested or self._out_of_time

    @property
    def _unfinished(self) -> bool:
        # A search cut off between two batches has nothing running, and yet more to give.
        cut = self._stop_requested and self._pending and self._supply.left() > 0
        ready = any(group.unfinished for group in self._groups)
        return bool(self._decider.waiting) or ready or (cut and not self._decider.over)

    # Turns

    def _turns(self) -> None:
        while not self._stop_requested:
            # Two groups in flight: one computes while the host reads the other's reports.
            while len(self._flying) < 2 and (group := self._next_group()):
                group.dispatch(self._pace.reports_of(group))
                self._flying.append(group)
            self._write()
            if self._flying:
                self._collect(self._flying.popleft())
            elif self._decider.waiting:
                self._settle()
            elif self._compiling:
                next(iter(self._compiling.values())).result()
            else:
                return
            if time.monotonic() - self._last_checkpoint >= self._next_checkpoint:
                self.write_checkpoint()
        self.write_checkpoint()

    def _next_group(self) -> Group | None:
        """The group whose turn it is, ready to start; None if no group has anything to run."""
        for _ in range(len(self._rotation)):
            group = self._rotation.popleft()
            self._fill(group)
            if group.unfinished and not self._yields(group) and self._ready(group):
                if self.ordered and not self._decider.copies and not self._pending:
                    self._built += self._compaction.consider(group, self._pool)
                return group
            self._rotation.append(group)
        return None

    def _yields(self, group: Group) -> bool:
        """Whether `group`, some of whose lanes nobody wants, leaves its turn to full ones.

        Its last trials then run at the end, in a narrower program, and a rule has
        heard of more of their rivals by then.
        """
        if not self.ordered or self._decider.copies or group.waiting or not group.free:
            return False
        return any(other.waiting for other in self._groups)

    def _fill(self, group: Group) -> None:
        """Asks for further trials where `group` has lanes for them."""
        while not self._exhausted and not self._decider.over:
            waiting = sum(g.waiting for g in self._groups)
            if self._supply.left() == 0:
                self._exhausted = True
                return
            if self._supply.adaptive:
                wanted = group.free - waiting
                if wanted < 1 or not self._told:
                    return
            else:
                wanted = BATCH
                if len(group.queue) >= group.width or waiting > 4 * BATCH:
                    return
            self._ask(wanted, again=False)

    def _ask(self, wanted: int, again: bool, gone: Container[int] = ()) -> None:
        """Asks for trials, now or `again` in a resumed run, and queues those not `gone`."""
        known = {*self._groups}
        given = self._supply.ask(wanted, self._turn, again)
        for group, queued in given:
            if group not in known:
                self._join(group)
                known.add(group)
            if queued.trial not in gone:
                group.queue.append(queued)
        if len(given) < min(wanted, self._supply.left() + len(given)):
            self._exhausted = not self._supply.adaptive
            self._told = False

    def _compile_if_needed(self, group: Group) -> None:
        if group.program is None and group not in self._compiling and group.unfinished:
            self._compiling[group] = self._pool.submit(group.build)

    def _ready(self, group: Group) -> bool:
        """Whether `group` has a program; in an ordered run it does, however long that takes."""
        if group.program is None:
            self._compile_if_needed(group)
            future = self._compiling[group]
            if not (self.ordered or future.done()):
                return False
            self._show()
            program = future.result()
            del self._compiling[group]
            self._prepare(group, program)
        return True

    def _prepare(self, group: Group, program: LaneProgram) -> None:
        self._built.append(program)
        if self._data is None:
            self._data = jax.device_put(self._host_data, program.replicated)
        try:
            group.prepare(program, self._data)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error) or group.lanes_per_device == 1:
                raise
            fewer = group.lanes_per_device // 2
            group.say(f"Narrowed to {fewer} lanes a device: running ran out of memory.")
            self._prepare(group, group.build(fewer))

    @property
    def _pending(self) -> bool:
        """Whether any trial waits, or might be asked for."""
        more = not self._exhausted and (self._told or not self._supply.adaptive)
        return more or bool(self._decider.waiting) or any(group.waiting for group in self._groups)

    # What segments bring

    def _collect(self, group: Group) -> None:
        start = time.monotonic()
        queued = bool(group.waiting) or self._pending
        segment = group.collect()
        self._turn += 1
        self._pace.took(group, segment, time.monotonic() - start, queued)
        column = group.names.index(self._goal.metric)
        scores = self._goal.scores(segment.values[:, :, column])
        last = dict(zip(segment.busy, scores[:, -1].tolist()))
        trial_of = dict(zip(segment.busy, segment.trials))
        ended = list(segment.ended)
        elsewhere: list[tuple[store.Ended, float]] = []
        bred: list[store.Bred] = []
        if self.ordered:
            decision = self._decider.after(group, segment, scores, self._groups)
            ended += decision.ended
            elsewhere, bred = decision.elsewhere, decision.bred
        if self._keep_best:
            candidates = [(lane, trial_of[lane], score) for lane, score in last.items()]
        else:
            candidates = [(n, end.trial, last[n]) for n, end in ended if end.status == store.DONE]
        self._record(
            [(end, last[lane]) for lane, end in ended],
            elsewhere,
            reports=segment.rows,
            started=segment.started,
            states=self._keeper.states(group, candidates),
            bred=bred,
        )
        self._rotation.append(group)
        self._reports_done += int(segment.made.sum())
        self._best = max(self._best, float(np.max(scores, initial=-math.inf)))

    def _record(
        self,
        ended: Sequence[tuple[store.Ended, float]],
        elsewhere: Sequence[tuple[store.Ended, float]],
        **brought: Any,
    ) -> None:
        """Notes what a turn brought, to be written while the next segments run, and tells it."""
        both = sorted((*ended, *elsewhere), key=lambda pair: pair[0].trial)
        ends = [end for end, _ in both]
        self._unwritten.append(
            {"ended": ends, "turn": self._turn, "keep": self._keeper.most} | brought
        )
        for end in ends:
            self._ends[end.status] += 1
            # What a trial that ended early will not do is done.
            left = self._work.reports - -(-end.steps // self._work.report_every)
            self._reports_done += max(0, left)
        self._tell([(end.trial, end.status, score) for end, score in both])

    def _tell(self, ended: Sequence[tuple[int, str, float]]) -> None:
        """Tells the search how the trials that ended in a turn did, ascending."""
        if ended:
            self._told = True
            self._supply.tell(
                [(t, math.nan if status == store.DIVERGED else s) for t, status, s in ended]
            )

    def _write(self) -> None:
        """Writes what segments brought, while the next ones already run."""
        for brought in self._unwritten:
            self._db.record(**brought)
        if self._unwritten:
            self._show()
        self._unwritten.clear()

    def _settle(self) -> None:
        """Asks the rule to decide about trials that wait, because nothing else can run."""
        self._turn += 1
        elsewhere = self._decider.settle()
        self._record([], elsewhere, event="settle")

    # Checkpoints, and going on from them

    def write_checkpoint(self) -> None:
        """Writes every lane to the run's folder, if it has one, atomically."""
        if self._db.folder is not None:
            if not self.ordered:
                while self._flying:
                    self._collect(self._flying.popleft())
            self._write()
            try:
                resume.write(
                    self._db, self._turn, self._rotation, self._flying, self._decider.waiting
                )
            except OSError as error:
                # Nothing recorded is lost: a resumed run makes more of its turns again.
                self._progress.say(f"No checkpoint written: {error}. Results are safe.")
        self._last_checkpoint = time.monotonic()
        self._next_checkpoint = min(self._checkpoint_seconds, 2 * self._next_checkpoint)

    def _resume(self) -> None:
        """Goes on where the folder's checkpoint is, and tells the past as it is recorded."""
        self._next_checkpoint = min(self._next_checkpoint, self._checkpoint_seconds)
        self._turn = self._db.last_turn()
        point = resume.read(self._db)
        lost = point is None and self._db.notes().get("checkpoint") is not None
        if lost:
            self._progress.say(
                f"{CHECKPOINT} is gone from {self._db.folder}: trials that were running start "
                "again from their beginning, and what is recorded of others stays."
                + ("" if not self.ordered else " The finished table may be another than without.")
            )
        if self.ordered and lost:
            self._db.forget_running()
        elif self.ordered:
            self._turn = point.turn if point else 0
            self._db.roll_back(self._turn)
        self._keeper = Keeper(self._keep, self._db.scores())
        gone = frozenset(self._db.ended().tolist())
        for group in self._groups:
            group.queue = deque(q for q in group.queue if q.trial not in gone)
        self._recall(gone)
        if point is not None and self.ordered:
            self._restore(point)
        elif point is not None:
            saved = resume.by_trial(point)
            for group in self._groups:
                back = [q for q in group.queue if q.trial in saved]
                group.returning.extend((queued, saved[queued.trial]) for queued in back)
                group.queue = deque(q for q in group.queue if q.trial not in saved)

    def _recall(self, gone: Container[int]) -> None:
        """Tells the rule and the search what they were told before an interruption."""
        last: dict[int, float] = {}
        every = self._work.report_every
        for turn in self._db.history(self._goal.metric):
            ends = dict(turn.ended)
            curves: dict[int, list[float]] = {}
            at: dict[int, int] = {}
            for trial, step, value in turn.reports:
                score = self._goal.score(math.nan if value is None else value)
                curves.setdefault(trial, []).append(score)
                at[trial], last[trial] = step // every, score
            if self._decider.judge is not None:
                heard = [
                    Heard(trial, at[trial], scores, ends.get(trial) == store.DIVERGED)
                    for trial, scores in curves.items()
                ]
                self._decider.judge.hear(heard)
                if any(kind == "settle" for kind, _ in turn.events):
                    self._decider.judge.settle()
            self._tell([(t, status, last.pop(t, math.nan)) for t, status in turn.ended])
            for kind, wanted in turn.events:
                if kind == "ask":
                    self._ask(wanted, True, gone)

    def _restore(self, point: resume.Point) -> None:
        """Seats everybody where they were after the turn of the checkpoint."""
        groups = {group.label: group for group in self._groups}
        away = {*point.waiting}
        for label, (arrays, notes) in point.groups.items():
            groups[label].restore(arrays, notes)
            away |= {*groups[label].trial.tolist()}
        queued = {q.trial: q for group in self._groups for q in group.queue}
        for trial, (label, saved, score) in point.waiting.items():
            self._decider.waiting[trial] = Waiting(groups[label], queued[trial], saved, score)
        for trial in point.returning:
            one = self._decider.waiting.pop(trial)
            one.group.returning.append((one.queued, one.saved))
        for group in self._groups:
            group.queue = deque(q for q in group.queue if q.trial not in away)
        self._rotation = deque(groups[label] for label in point.rotation)
        self._flying = deque(groups[label] for label in point.flying)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last_shown < 0.05:
            return
        self._last_shown = now
        known = sum(self._ends[status] for status in store.ENDED) + sum(
            int(group.busy.size) + group.waiting for group in self._groups
        )
        trials = self._trials or known + len(self._decider.waiting)
        total = max(1, (trials - self._before) * self._work.reports)
        self._progress.update(
            Status(
                trials=trials,
                done=self._ends[store.DONE],
                running=sum(int(group.busy.size) for group in self._groups),
                diverged=self._ends[store.DIVERGED],
                stopped=self._ends[store.STOPPED],
                fraction=min(1.0, self._reports_done / total),
                best=f"{self._goal.sign * self._best:.4g}" if math.isfinite(self._best) else "",
                before=self._before,
            )
        )

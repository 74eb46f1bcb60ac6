"""The host's loop: groups take turns on the devices; what segments bring goes into the store."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.engine import checkpoint, store
from jdl.engine.goal import Goal
from jdl.engine.group import Group, Saved, Segment
from jdl.engine.progress import Progress, Status

CHECKPOINT = "lanes.safetensors"
SEGMENT_SECONDS = 0.1  # below that, the host's share of a segment shows


class Stopping(NamedTuple):
    """Decides which trials go on.

    Attributes:
      rungs: `rungs(reports)` gives the numbers of the reports, of the given
        number in a whole trial, after which it decides.
      decide: `decide(rung, trials, scores)` says for each trial whether it
        stops; larger scores are better. A resumed run tells it the past again
        and ignores the answer, so a trial may come to a rung twice.
      name: what the specification of a run calls it.
    """

    rungs: Callable[[int], Sequence[int]]
    decide: Callable[[int, Sequence[int], Sequence[float]], Sequence[bool]]
    name: str


class Stats(NamedTuple):
    """What a run cost.

    Attributes:
      compilations: programs compiled.
      compile_seconds: the sum over them.
      seconds: wall time, compilation included where it was waited for.
      lane_steps: training steps of all lanes, with those that lanes idled.
      complete: whether every trial ended; False after an interruption.
    """

    compilations: int
    compile_seconds: float
    seconds: float
    lane_steps: int
    complete: bool


class Loop:
    """Runs groups of trials to their end, or to an interruption."""

    def __init__(
        self,
        groups: Sequence[Group],
        db: store.Store,
        goal: Goal,
        *,
        stopping: Stopping | None = None,
        keep: int = 10,
        keep_best: bool = False,
        checkpoint_seconds: float = 30.0,
        progress: Progress,
    ):
        """Takes what is to run.

        Args:
          groups: of trials.
          db: where what they bring is written.
          goal: what they are judged by.
          stopping: ends trials early.
          keep: of how many trials the states are kept.
          keep_best: keep the state of a trial at its best report, not at its end.
          checkpoint_seconds: between checkpoints, if the store has a folder.
          progress: shows what is done.
        """
        self._groups, self._db, self._goal = groups, db, goal
        self._stopping, self._keep, self._keep_best = stopping, keep, keep_best
        self._checkpoint_seconds, self._progress = checkpoint_seconds, progress
        self._kept = db.scores()
        self._lane_steps = 0
        self._pace: dict[int, float] = {}  # seconds of a report, by group
        self._ends = {store.DONE: 0, store.DIVERGED: 0, store.STOPPED: 0}
        self._best = -math.inf
        self._unwritten: list[tuple[Any, ...]] = []
        self._stop_requested = False
        self._reports_done = 0
        self._reports_total = 0

    def run(self, data: Any, saved: dict[int, Saved]) -> Stats:
        """Runs until every trial has ended, or until Ctrl-C or SIGTERM.

        Args:
          data: the splits, as host arrays.
          saved: trials in the middle, from a checkpoint.
        """
        start = time.monotonic()
        for _, _, status, _, _ in self._db.trials():
            if status in self._ends:
                self._ends[status] += 1
        self._before = sum(self._ends.values())
        self._trials = self._before + sum(len(g.queue) for g in self._groups)
        self._reports_total = sum(len(g.queue) * g.work.reports for g in self._groups)
        self._last_checkpoint = time.monotonic()
        self._recall()
        pool = ThreadPoolExecutor(1, thread_name_prefix="jdl-compile")
        waiting = deque((group, pool.submit(group.compile)) for group in self._groups)
        try:
            with self._interruptible():
                self._turns(waiting, data, saved)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        programs = [g.program for g in self._groups if g.program is not None]
        return Stats(
            compilations=len(programs),
            compile_seconds=sum(p.compile_seconds for p in programs),
            seconds=time.monotonic() - start,
            lane_steps=self._lane_steps,
            complete=not self._stop_requested
            and not any(group.unfinished for group in self._groups),
        )

    def _recall(self) -> None:
        """Tells the stopping rule what it was told before an interruption."""
        if self._stopping is None:
            return
        names, table = self._db.reports()
        work = self._groups[0].work
        for rung in self._stopping.rungs(work.reports):
            rows = table[table[:, 1] == rung * work.report_every]
            if len(rows):
                scores = rows[:, 2 + names.index(self._goal.metric)].tolist()
                trials = rows[:, 0].astype(int).tolist()
                self._stopping.decide(rung, trials, [self._goal.score(s) for s in scores])

    def _turns(
        self, waiting: deque[tuple[Group, Future[None]]], data: Any, saved: dict[int, Saved]
    ) -> None:
        ready: deque[Group] = deque()
        flying: deque[Group] = deque()
        placed = None
        while waiting or ready or flying:
            while waiting and (waiting[0][1].done() or not (ready or flying)):
                group, compiled = waiting.popleft()
                self._show()
                compiled.result()
                assert group.program is not None
                if placed is None:
                    placed = jax.device_put(data, group.program.replicated)
                group.prepare(placed, saved)
                ready.append(group)
            # Two groups in flight: one computes while the host reads the other's reports.
            while ready and len(flying) < 2 and not self._stop_requested:
                group = ready.popleft()
                group.dispatch(self._reports_of(group))
                flying.append(group)
            self._write()
            due = time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds
            for _ in range(len(flying) if due else min(1, len(flying))):
                group = flying.popleft()
                self._collect(group)
                if group.unfinished:
                    ready.append(group)
            if due:
                self.write_checkpoint()
            if self._stop_requested and not flying:
                break
        self._write()
        if self._stop_requested:
            self.write_checkpoint()

    def _reports_of(self, group: Group) -> int:
        """How many reports the next segment of `group` makes."""
        pace = self._pace.get(id(group))
        if pace is None or self._keep_best:
            most = 1
        else:
            most = max(1, round(SEGMENT_SECONDS / pace))
        if self._stopping is not None:
            rungs = self._stopping.rungs(group.work.reports)
            seated = set(group.done[group.busy].tolist()) | {0}
            most = min([most, *(r - done for r in rungs for done in seated if r > done)])
        return most

    def _collect(self, group: Group) -> None:
        start = time.monotonic()
        segment = group.collect()
        seconds = time.monotonic() - start
        if id(group) in self._pace or seconds > SEGMENT_SECONDS:
            self._pace[id(group)] = max(seconds, 1e-4) / segment.reports
        else:
            self._pace[id(group)] = max(seconds / segment.reports, SEGMENT_SECONDS / 8)
        self._lane_steps += group.width * segment.reports * group.work.report_every
        ended = list(segment.ended)
        column = group.names.index(self._goal.metric)
        scores = [self._goal.score(float(row[column])) for row in segment.last]
        gone = {lane for lane, _ in ended}
        ended += self._stopped(group, segment, scores, gone)
        if self._keep_best:
            candidates = list(zip(segment.busy, segment.trials, scores))
        else:
            score_of = dict(zip(segment.busy, scores))
            candidates = [
                (lane, end.trial, score_of[lane]) for lane, end in ended if end.status == store.DONE
            ]
        states = self._best_states(group, candidates)
        ends = [end for _, end in ended]
        self._unwritten.append((segment.rows, ends, segment.started, states, self._keep))
        self._reports_done += len(segment.busy) * segment.reports
        for _, end in ended:
            self._ends[end.status] += 1
            # What a trial that ended early will not do is done.
            left = group.work.reports - -(-end.steps // group.work.report_every)
            self._reports_done += max(0, left) if end.status != store.DONE else 0
        self._best = max([self._best, *scores])

    def _write(self) -> None:
        """Writes what segments brought, while the next ones already run."""
        for brought in self._unwritten:
            self._db.record(*brought)
        if self._unwritten:
            self._show()
        self._unwritten.clear()

    def _stopped(
        self, group: Group, segment: Segment, scores: list[float], gone: set[int]
    ) -> list[tuple[int, store.Ended]]:
        if self._stopping is None:
            return []
        ended = []
        rungs = self._stopping.rungs(group.work.reports)
        for rung in rungs:
            at = [
                i
                for i, lane in enumerate(segment.busy)
                if lane not in gone and group.done[lane] == rung
            ]
            if at:
                verdicts = self._stopping.decide(
                    rung, [segment.trials[i] for i in at], [scores[i] for i in at]
                )
                ended += [
                    (segment.busy[i], group.stop(segment.busy[i]))
                    for i, stops in zip(at, verdicts)
                    if stops
                ]
        return ended

    def _best_states(
        self, group: Group, candidates: Sequence[tuple[int, int, float]]
    ) -> list[tuple[int, float, bytes]]:
        """The states of those lanes, of (lane, trial, score), that are among the best so far."""
        states = []
        for lane, trial, score in candidates:
            kept = self._kept
            others = [kept[t] for t in kept if t != trial]
            beaten = len(others) >= self._keep and score <= min(others, default=math.inf)
            if beaten or score == -math.inf or score <= kept.get(trial, -math.inf):
                continue
            states.append((trial, score, checkpoint.to_bytes(group.lane_state(lane))))
            kept[trial] = score
            if len(kept) > self._keep:
                # As the store does: of equal scores the later trial goes.
                del kept[min(kept, key=lambda t: (kept[t], -t))]
        return states

    def write_checkpoint(self) -> None:
        """Writes every lane to the run's folder, if it has one, atomically."""
        self._last_checkpoint = time.monotonic()
        if self._db.folder is None:
            return
        self._write()
        arrays: dict[str, Any] = {}
        notes: dict[str, Any] = {}
        for group in self._groups:
            leaves, seats = group.snapshot()
            arrays |= {f"{group.label}|{path}": leaf for path, leaf in leaves.items()}
            notes[group.label] = seats
        try:
            checkpoint.write_atomically(
                self._db.folder / CHECKPOINT, checkpoint.to_bytes(arrays, notes)
            )
        except OSError as error:
            # Nothing recorded is lost: running trials would start again from their beginning.
            self._progress.say(f"No checkpoint written: {error}. Results are safe.")

    def _show(self) -> None:
        self._progress.update(
            Status(
                trials=self._trials,
                done=self._ends[store.DONE],
                running=sum(int(group.busy.size) for group in self._groups),
                diverged=self._ends[store.DIVERGED],
                stopped=self._ends[store.STOPPED],
                fraction=self._reports_done / max(1, self._reports_total),
                best=f"{self._goal.sign * self._best:.4g}" if math.isfinite(self._best) else "",
                before=self._before,
            )
        )

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turns the first Ctrl-C or SIGTERM into a request to stop after the segment in flight."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def request(number: int, frame: Any) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True
            self._progress.say("Stopping after this segment; once more to stop at once.")

        for number in numbers:
            signal.signal(number, request)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def read_checkpoint(db: store.Store) -> dict[int, Saved]:
    """The trials in the middle of their run, by number, from the folder's checkpoint.

    Raises:
      CheckpointError: the checkpoint is damaged; the message says what to do.
    """
    path = None if db.folder is None else db.folder / CHECKPOINT
    if path is None or not path.exists():
        return {}
    try:
        leaves, notes = checkpoint.from_bytes(path.read_bytes(), str(path))
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(
            f"{error} Delete that file to go on: recorded results stay, and trials that were "
            "running start again from their beginning."
        ) from error
    saved = {}
    for label, seats in notes.items():
        prefix = f"{label}|"
        mine = {p[len(prefix) :]: leaf for p, leaf in leaves.items() if p.startswith(prefix)}
        for lane, (trial, reports) in enumerate(zip(seats["trials"], seats["reports"])):
            if trial >= 0:
                saved[trial] = Saved(reports, {path: np.array(a[lane]) for path, a in mine.items()})
    return saved

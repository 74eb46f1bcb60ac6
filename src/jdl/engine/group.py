"""A group of trials that share one lane program: the host's side of its queue and its lanes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jdl import tree
from jdl.engine import checkpoint, store
from jdl.engine.plan import Plan
from jdl.engine.program import (
    Assignment,
    LaneProgram,
    Outcome,
    Shapes,
    Workload,
    compile_lanes,
)

FREE = -1


class Queued(NamedTuple):
    """A trial that waits for a lane."""

    trial: int
    numbers: Mapping[str, Any]  # 32-bit scalars
    stream: int  # names its random stream


class Saved(NamedTuple):
    """A trial in the middle of its run, as a checkpoint holds it."""

    reports: int  # done
    leaves: Mapping[str, np.ndarray]  # of its lane, by path


class Segment(NamedTuple):
    """What one segment of a group brought."""

    reports: int  # that each busy lane made
    busy: list[int]  # lanes
    trials: list[int]  # of the busy lanes
    started: list[int]  # trials
    rows: list[tuple[Any, ...]]  # trial, step, metrics by sorted name
    ended: list[tuple[int, store.Ended]]  # lane, how its trial ended
    last: np.ndarray  # (busy, metrics): the latest report of each busy lane


class Group:
    """The queue, the lanes and the compiled program of one static group."""

    def __init__(
        self,
        label: str,
        work: Workload,
        shapes: Shapes,
        plan: Plan,
        queue: Sequence[Queued],
        mesh: Mesh,
        root: int,
    ):
        self.label = label
        self.work = work
        self.shapes = shapes
        self.plan = plan
        self.queue = deque(queue)
        self.names = sorted(shapes.reports)
        self.final_names = sorted(shapes.final)
        self.width = plan.lanes * mesh.size
        self.trial = np.full(self.width, FREE, np.int64)
        self.done = np.zeros(self.width, np.int64)  # reports of each lane's trial
        self.program: LaneProgram | None = None
        self._mesh, self._root = mesh, root
        example = queue[0].numbers
        self._example = example
        self._numbers = {
            name: np.full(self.width, n, np.asarray(n).dtype) for name, n in example.items()
        }
        self._stream = np.zeros(self.width, np.uint32)
        self._assignment: Assignment | None = None
        self._flight: tuple[Outcome, int, list[int]] | None = None

    def compile(self) -> None:
        """Compiles the program; everything else needs that first."""
        self.program = compile_lanes(
            self.work, dict(self._example), self._mesh, self.plan.lanes, self.plan.unroll
        )

    def prepare(self, data: Any, saved: Mapping[int, Saved]) -> None:
        """Takes the data set, already on the devices, and the trials that a checkpoint holds."""
        assert self.program is not None
        self._data = data
        self._seed = jax.device_put(np.uint32(self._root), self.program.replicated)
        self._lanes = self.program.empty()
        returning = [q for q in self.queue if q.trial in saved][: self.width]
        if returning:
            lanes = jax.tree.map(np.array, self._lanes)
            leaves = tree.named_leaves(lanes)
            for lane, queued in enumerate(returning):
                self._seat(lane, queued)
                self.done[lane] = saved[queued.trial].reports
                one = jax.tree.map(lambda a: a[0], lanes)
                checkpoint.fill(one, saved[queued.trial].leaves, "the checkpoint")
                for path, leaf in saved[queued.trial].leaves.items():
                    leaves[path][lane] = leaf
            seated = {q.trial for q in returning}
            self.queue = deque(q for q in self.queue if q.trial not in seated)
            self._lanes = self.program.place(lanes)

    def _seat(self, lane: int, queued: Queued) -> None:
        self.trial[lane] = queued.trial
        self.done[lane] = 0
        self._stream[lane] = queued.stream
        for name, value in queued.numbers.items():
            self._numbers[name][lane] = value

    @property
    def busy(self) -> np.ndarray:
        """The lanes that hold a trial."""
        return np.flatnonzero(self.trial != FREE)

    @property
    def unfinished(self) -> bool:
        """Whether trials are queued or in lanes."""
        return bool(self.queue) or bool(np.any(self.trial != FREE))

    @property
    def in_flight(self) -> bool:
        """Whether a segment was dispatched and not collected."""
        return self._flight is not None

    def dispatch(self, most: int) -> None:
        """Starts a segment of at most `most` reports, after free lanes took queued trials."""
        assert self.program is not None
        free = np.flatnonzero(self.trial == FREE)
        seats = list(zip(free, itertools.islice(self.queue, len(free))))
        for lane, queued in seats:
            self._seat(int(lane), queued)
            self.queue.popleft()
        fresh = np.zeros(self.width, bool)
        fresh[[lane for lane, _ in seats]] = True
        busy = self.busy
        count = int(min(most, np.min(self.work.reports - self.done[busy])))
        finishing = np.zeros(self.width, bool)
        finishing[busy] = self.done[busy] + count == self.work.reports
        flagged = bool(seats) or bool(finishing.any())
        if self._assignment is None or flagged:
            self._assignment = self.program.place(
                Assignment(self._numbers, self._stream, fresh, finishing)
            )
        self._lanes, outcome = self.program.run(
            self._lanes,
            self._assignment,
            self._seed,
            jax.device_put(np.int32(count), self.program.replicated),
            self._data,
        )
        self._flight = outcome, count, [queued.trial for _, queued in seats]
        if flagged:
            self._assignment = None  # flags are of one segment alone

    def collect(self) -> Segment:
        """Waits for the segment in flight, frees the lanes whose trial ended, and reports."""
        assert self._flight is not None
        outcome, count, started = self._flight
        reports, final, progress = (np.asarray(part) for part in outcome)
        self._flight = None
        every = self.work.report_every
        busy = [int(lane) for lane in self.busy]
        rows: list[tuple[Any, ...]] = []
        ended: list[tuple[int, store.Ended]] = []
        trials = [int(self.trial[lane]) for lane in busy]
        for lane, trial in zip(busy, trials):
            step, failed = (int(value) for value in progress[lane])
            first = int(self.done[lane]) + 1
            # A diverged trial reports up to the one in which it failed.
            made = count if failed < 0 else min(count, failed // every + 2 - first)
            rows += [
                (trial, (first + i) * every, *values)
                for i, values in enumerate(reports[lane, : max(made, 0)].tolist())
            ]
            self.done[lane] += count
            if failed >= 0:
                ended.append((lane, store.Ended(trial, store.DIVERGED, failed, {})))
            elif self.done[lane] == self.work.reports:
                values = dict(zip(self.final_names, final[lane].tolist()))
                ended.append((lane, store.Ended(trial, store.DONE, step, values)))
        for lane, _ in ended:
            self.trial[lane] = FREE
        last = reports[busy, count - 1]
        return Segment(count, busy, trials, started, rows, ended, last)

    def stop(self, lane: int) -> store.Ended:
        """Takes the trial out of `lane` before its end."""
        trial, steps = int(self.trial[lane]), int(self.done[lane]) * self.work.report_every
        self.trial[lane] = FREE
        return store.Ended(trial, store.STOPPED, steps, {})

    def lane_state(self, lane: int) -> Any:
        """The trial state in `lane` after the last segment, as host arrays."""
        return jax.tree.map(lambda a: _slice(a, lane), self._lanes.state)

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All lanes by path as host arrays, and which trial is how far in each."""
        notes = {"trials": self.trial.tolist(), "reports": self.done.tolist()}
        if self.program is None or not self.busy.size:
            return {}, {"trials": [], "reports": []}
        return tree.named_leaves(jax.device_get(self._lanes)), notes


def _slice(array: Any, lane: int) -> np.ndarray:
    """One lane of a sharded array, copied from the one device that holds it."""
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        if start <= lane < stop:
            return np.array(np.asarray(shard.data)[lane - start])
    raise IndexError(f"lane {lane} is not on a device of this process")

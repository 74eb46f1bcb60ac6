"""A group of trials that share one lane program: the host's side of its queue and its lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jdl import tree
from jdl.engine import checkpoint, store
from jdl.engine.contract import Shapes
from jdl.engine.memory import widest_that_fits
from jdl.engine.moves import move_lanes
from jdl.engine.plan import Plan
from jdl.engine.program import Assignment, LaneProgram, Outcome, compile_lanes
from jdl.engine.workload import Workload

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

    reports: int  # that each busy lane made, unless its trial failed
    busy: list[int]  # lanes
    trials: list[int]  # of the busy lanes
    made: np.ndarray  # (busy,): reports of each, up to the one in which its trial failed
    started: list[tuple[int, int]]  # trial, lane
    rows: list[tuple[Any, ...]]  # trial, step, metrics by sorted name
    ended: list[tuple[int, store.Ended]]  # lane, how its trial ended
    values: np.ndarray  # (busy, reports, metrics)


class Flight(NamedTuple):
    """A segment that was dispatched and not collected."""

    outcome: Outcome
    reports: int
    started: list[tuple[int, int]]


class Group:
    """The queue, the lanes and the compiled program of one static group."""

    def __init__(
        self,
        label: str,
        work: Workload,
        shapes: Shapes,
        plan: Plan,
        queue: Iterable[Queued],
        mesh: Mesh,
        root: int,
    ):
        self.label = label
        self.work = work
        self.shapes = shapes
        self.plan = plan
        self.queue = deque(queue)
        self.returning: deque[tuple[Queued, Saved]] = deque()  # go before the queue
        self.names = sorted(shapes.reports)
        self.final_names = sorted(shapes.final)
        self.program: LaneProgram | None = None
        # Where a population decides, a lane that failed may be given another's state.
        self.revives = False
        self.say: Callable[[str], None] = lambda words: None
        # The reports after which something is decided about a trial, ascending.
        self.stops: Callable[[int], Sequence[int]] = lambda trial: (work.reports,)
        self.stops_matter = False  # a segment ends at the first of them
        self.flight: Flight | None = None
        self._mesh, self._root = mesh, root
        self._assignment: Assignment | None = None
        self._lanes: Any = None
        self._set_width(plan.lanes * mesh.size, self.queue[0].numbers)

    def _set_width(self, width: int, example: Mapping[str, Any]) -> None:
        self.width = width
        self.trial = np.full(width, FREE, np.int64)
        self.done = np.zeros(width, np.int64)  # reports of each lane's trial
        self.until = np.zeros(width, np.int64)  # the report at which something is next decided
        self.numbers = {n: np.full(width, v, np.asarray(v).dtype) for n, v in example.items()}
        self.stream = np.zeros(width, np.uint32)

    def build(self, lanes: int | None = None) -> LaneProgram:
        """Compiles a program of `lanes` lanes a device, or of as many as fit; on any thread.

        Raises:
          MemoryError: not even one lane fits the device.
        """

        def build(lanes: int) -> LaneProgram:
            return compile_lanes(self.work, self.shapes, self._mesh, lanes, self.plan.unroll)

        return widest_that_fits(build, lanes or self.lanes_per_device, self._mesh, self.say)

    @property
    def devices(self) -> int:
        """How many devices the lanes are spread over."""
        return self._mesh.size

    @property
    def lanes_per_device(self) -> int:
        """The lanes that each device runs."""
        return self.width // self._mesh.size

    def prepare(self, program: LaneProgram, data: Any) -> None:
        """Takes the compiled program, and the data set that is already on the devices.

        Raises:
          MemoryError: the program is of fewer lanes than are taken already.
        """
        if program.width != self.width:
            if self.busy.size or self._lanes is not None:
                raise MemoryError(
                    f"{self.label}: the checkpoint is of {self.width} lanes, of which only "
                    f"{program.width} fit the devices now. Delete it to start its trials again."
                )
            self._set_width(program.width, {name: v[0] for name, v in self.numbers.items()})
        self.program = program
        self._data = data
        self._seed = jax.device_put(np.uint32(self._root), program.replicated)
        if self._lanes is None:
            self._lanes = program.empty()
            nobody = np.zeros(self.width, bool)
            try:
                # A segment of no reports: what runs out of memory does so before any trial starts.
                jax.block_until_ready(self._run(nobody, nobody, 0))
            except jax.errors.JaxRuntimeError:
                self._lanes = self._assignment = None
                raise
        elif isinstance(jax.tree.leaves(self._lanes)[0], np.ndarray):
            self._lanes = program.place(self._lanes)

    def _seat(self, lane: int, queued: Queued, done: int = 0) -> None:
        self.trial[lane] = queued.trial
        self.done[lane] = done
        self.stream[lane] = queued.stream
        for name, value in queued.numbers.items():
            self.numbers[name][lane] = value
        self.set_next_stop(lane)

    def set_next_stop(self, lane: int) -> None:
        """Looks up the next report at which something is decided about the trial in `lane`."""
        stops = self.stops(int(self.trial[lane]))
        done = self.done[lane]
        self.until[lane] = next((r for r in stops if r > done), self.work.reports)

    def queued(self, lane: int) -> Queued:
        """The trial in `lane`, as one that waits."""
        numbers = {name: values[lane] for name, values in self.numbers.items()}
        return Queued(int(self.trial[lane]), numbers, int(self.stream[lane]))

    @property
    def busy(self) -> np.ndarray:
        """The lanes that hold a trial."""
        return np.flatnonzero(self.trial != FREE)

    @property
    def free(self) -> int:
        """How many lanes hold no trial."""
        return int(np.count_nonzero(self.trial == FREE))

    @property
    def waiting(self) -> int:
        """How many trials wait for a lane."""
        return len(self.queue) + len(self.returning)

    @property
    def unfinished(self) -> bool:
        """Whether trials are queued or in lanes."""
        return bool(self.waiting) or bool(np.any(self.trial != FREE))

    def dispatch(self, most: int) -> None:
        """Starts a segment of at most `most` reports, after free lanes took trials that wait."""
        lanes = [int(lane) for lane in np.flatnonzero(self.trial == FREE)]
        seats = list(zip(lanes, [self.queue.popleft() for _ in self._to_seat(lanes)]))
        for lane, queued in seats:
            self._seat(lane, queued)
        fresh = np.zeros(self.width, bool)
        fresh[[lane for lane, _ in seats]] = True
        busy = self.busy
        ahead = self.until[busy] if self.stops_matter else self.work.reports
        count = int(min(most, np.min(ahead - self.done[busy])))
        finishing = np.zeros(self.width, bool)
        finishing[busy] = self.done[busy] + count == self.work.reports
        outcome = self._run(fresh, finishing, count)
        self.flight = Flight(outcome, count, [(queued.trial, lane) for lane, queued in seats])

    def _to_seat(self, lanes: list[int]) -> range:
        """Seats those that return, and says for how many lanes the queue has a trial."""
        if self.returning and lanes:
            host = self._host_lanes()
            while self.returning and lanes:
                lane = lanes.pop(0)
                queued, saved = self.returning.popleft()
                self._put(host, lane, saved)
                self._seat(lane, queued, saved.reports)
            assert self.program is not None
            self._lanes = self.program.place(host)
            self._assignment = None
        return range(min(len(lanes), len(self.queue)))

    def _host_lanes(self) -> Any:
        return jax.tree.map(np.array, self._lanes)

    def _put(self, host: Any, lane: int, saved: Saved) -> None:
        checkpoint.fill(jax.tree.map(lambda a: a[0], host), saved.leaves, "the checkpoint")
        leaves = tree.named_leaves(host)
        for path, leaf in saved.leaves.items():
            leaves[path][lane] = leaf

    def _run(self, fresh: np.ndarray, finishing: np.ndarray, count: int) -> Outcome:
        assert self.program is not None
        flagged = bool(fresh.any()) or bool(finishing.any())
        if self._assignment is None or flagged:
            self._assignment = self.program.place(
                Assignment(self.numbers, self.stream, fresh, finishing)
            )
        self._lanes, outcome = self.program.run(
            self._lanes,
            self._assignment,
            self._seed,
            jax.device_put(np.int32(count), self.program.replicated),
            self._data,
        )
        if flagged:
            self._assignment = None  # flags are of one segment alone
        return outcome

    def collect(self) -> Segment:
        """Waits for the segment in flight, frees the lanes whose trial ended, and reports."""
        assert self.flight is not None
        outcome, count, started = self.flight
        reports, final, progress = (np.asarray(part) for part in outcome)
        self.flight = None
        every = self.work.report_every
        busy = self.busy
        trials = self.trial[busy]
        steps, failed = progress[busy].T
        values = reports[busy, :count]
        first = self.done[busy] + 1
        # A diverged trial reports up to the one in which it failed.
        made = np.where(failed < 0, count, np.clip(failed // every + 2 - first, 0, count))
        index = first[:, None] + np.arange(count)
        there = np.arange(count) < made[:, None]
        columns = (
            np.repeat(trials, made).tolist(),
            (index[there] * every).tolist(),
            *values[there].T.tolist(),
        )
        self.done[busy] += count
        whole = self.done[busy] == self.work.reports
        over = whole if self.revives else whole | (failed >= 0)
        ended: list[tuple[int, store.Ended]] = []
        for at in np.flatnonzero(over):
            lane, trial = int(busy[at]), int(trials[at])
            if failed[at] >= 0:
                end = store.Ended(trial, store.DIVERGED, int(failed[at]), {})
            else:
                last = dict(zip(self.final_names, final[lane].tolist()))
                end = store.Ended(trial, store.DONE, int(steps[at]), last)
            ended.append((lane, end))
            self.trial[lane] = FREE
        rows = list(zip(*columns))
        return Segment(count, busy.tolist(), trials.tolist(), made, started, rows, ended, values)

    def stop(self, lane: int) -> store.Ended:
        """Takes the trial out of `lane` before its end."""
        trial, steps = int(self.trial[lane]), int(self.done[lane]) * self.work.report_every
        self.trial[lane] = FREE
        return store.Ended(trial, store.STOPPED, steps, {})

    def finish(self, lanes: Sequence[int]) -> list[tuple[int, store.Ended]]:
        """Ends the trials in `lanes` as done, after a segment that only evaluates them."""
        finishing = np.zeros(self.width, bool)
        finishing[list(lanes)] = True
        final = np.asarray(self._run(np.zeros(self.width, bool), finishing, 0).final)
        ended = []
        for lane in lanes:
            end = self.stop(lane)
            values = dict(zip(self.final_names, final[lane].tolist()))
            ended.append((lane, end._replace(status=store.DONE, final=values)))
        return ended

    def pause(self, lane: int) -> tuple[Queued, Saved]:
        """Takes the trial out of `lane` so that it can return later."""
        queued = self.queued(lane)
        leaves = tree.named_leaves(jax.tree.map(lambda a: _slice(a, lane), self._lanes))
        self.trial[lane] = FREE
        return queued, Saved(int(self.done[lane]), leaves)

    def lane_state(self, lane: int) -> Any:
        """The trial state in `lane` after the last segment, as host arrays."""
        return jax.tree.map(lambda a: _slice(a, lane), self._lanes.state)

    def take_lanes(self, source: np.ndarray, program: LaneProgram | None = None) -> None:
        """Gives lane `i` what lane `source[i]` holds on the device, to the bit.

        Args:
          source: a lane for each; of another number of lanes with `program`.
          program: of that other width, which takes over; seats move along.
        """
        assert self.program is not None
        target = program or self.program
        self._lanes = move_lanes(self._lanes, source, target.sharding)
        self._assignment = None
        if program is None:
            return
        self.program, self.width = program, len(source)
        for name in ("trial", "done", "until", "stream"):
            setattr(self, name, getattr(self, name)[source])
        self.numbers = {name: values[source] for name, values in self.numbers.items()}
        # Of a lane that several took, the first is its own.
        again = np.ones(len(source), bool)
        again[np.unique(source, return_index=True)[1]] = False
        self.trial[again] = FREE

    def set_numbers(self, lane: int, numbers: Mapping[str, Any]) -> None:
        """Changes the numbers of the trial in `lane` from the next segment on."""
        for name, value in numbers.items():
            self.numbers[name][lane] = value
        self._assignment = None

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All lanes by path as host arrays, and what the host knows of them."""
        if self._lanes is None or not (self.busy.size or self.flight):
            return {}, {}
        arrays = {
            f"lanes|{p}": a for p, a in tree.named_leaves(jax.device_get(self._lanes)).items()
        }
        arrays |= {f"numbers|{name}": values for name, values in self.numbers.items()}
        arrays |= {"trial": self.trial, "done": self.done, "stream": self.stream}
        arrays["until"] = self.until
        notes: dict[str, Any] = {}
        if self.flight is not None:
            outcome, notes["reports"], notes["started"] = self.flight
            arrays |= {f"flight|{i}": np.asarray(part) for i, part in enumerate(outcome)}
        return arrays, notes

    def restore(self, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
        """Takes what `snapshot` gave, at its width or, on other devices, the next that they have.

        Raises:
          CheckpointError: the lanes are of another program.
        """
        if not arrays:
            return
        width = -(-len(arrays["trial"]) // self._mesh.size) * self._mesh.size
        self._set_width(width, {name: values[0] for name, values in self.numbers.items()})

        def wider(array: np.ndarray, fill: Any = 0) -> np.ndarray:
            more = np.full((width - len(array), *array.shape[1:]), fill, array.dtype)
            return np.concatenate([array, more])

        self.trial = wider(arrays["trial"], FREE)
        self.done, self.stream = wider(arrays["done"]), wider(arrays["stream"])
        self.until = wider(arrays["until"])
        self.numbers = {name: wider(arrays[f"numbers|{name}"]) for name in self.numbers}
        prefix = "lanes|"
        leaves = {p[len(prefix) :]: wider(a) for p, a in arrays.items() if p.startswith(prefix)}
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype), self.shapes.lane
        )
        self._lanes = checkpoint.fill(like, leaves, "the checkpoint")
        if "reports" in notes:
            parts: Any = [wider(arrays[f"flight|{i}"]) for i in range(3)]
            started = [(trial, lane) for trial, lane in notes["started"]]
            self.flight = Flight(Outcome(*parts), notes["reports"], started)


def _slice(array: Any, lane: int) -> np.ndarray:
    """One lane of a sharded array, copied from the one device that holds it."""
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        if start <= lane < stop:
            return np.array(np.asarray(shard.data)[lane - start])
    raise IndexError(f"lane {lane} is not on a device of this process")

"""A row of lanes on the devices: a compiled program, its lanes, and one segment at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jdl import tree
from jdl.engine import checkpoint
from jdl.engine.events import Order, Queued
from jdl.engine.keys import trial_words
from jdl.engine.program import Assignment, LaneProgram, Outcome

Leaves = Mapping[str, np.ndarray]  # of one lane, by path


class Collected(NamedTuple):
    """The results of a segment.

    Attributes:
      order: the order that it carried out.
      values: (busy lanes, reports, metrics), metrics by sorted name.
      failed: (busy lanes,), the step at which the trial failed, or -1.
      tests: the test metrics of each trial that made its last report.
      seconds: how long the host waited for the segment.
    """

    order: Order
    values: np.ndarray
    failed: np.ndarray
    tests: Mapping[int, Mapping[str, float]]
    seconds: float = 0.0


class Row:
    """The lanes of one program.

    A row may be wider than its program, which then runs once for each block of
    lanes. A run can thus go on with fewer devices, bit for bit.
    """

    def __init__(self, program: LaneProgram, width: int, seed: int, data: Any):
        """Takes a compiled program, whose lanes are empty.

        Args:
          program: of the row's lanes on each device.
          width: lanes of the row.
          seed: the root of all random streams.
          data: the splits, on the devices.
        """
        self._program, self._data = program, data
        self._seed = seed
        blocks = -(-width // program.width)
        self._blocks: list[Any] = [program.empty() for _ in range(blocks)]
        self._numbers = {
            name: np.ones(blocks * program.width, number.dtype)
            for name, number in program.shapes.numbers.items()
        }
        self._stream = np.zeros(blocks * program.width, np.uint32)
        self._assigned: list[Assignment] | None = None  # on the devices, while nothing changes
        self._flight: tuple[Order, list[Outcome]] | None = None

    def warm_up(self) -> None:
        """Runs a segment of no reports, so that memory runs out before any trial starts."""
        jax.block_until_ready(self._run(0))

    def start(self, order: Order, aside: Mapping[int, Leaves]) -> None:
        """Starts a segment.

        Args:
          order: of this row.
          aside: the saved lanes of trials that go on, by trial.
        """
        if order.copied is not None:
            self._copy(order.copied)
        if order.resumed:
            self._put({lane: aside[queued.trial] for lane, queued in order.resumed})
        changes = (*order.fresh, *order.resumed, *order.changed)
        for lane, queued in changes:
            self._seat(lane, queued)
        fresh = [lane for lane, _ in order.fresh]
        self._flight = order, self._run(order.reports, fresh, order.finishing, bool(changes))

    def collect(self) -> Collected:
        """Waits for the segment in flight."""
        assert self._flight is not None
        order, outcomes = self._flight
        self._flight = None
        parts = [[np.asarray(part) for part in outcome] for outcome in outcomes]
        reports, final, progress = (np.concatenate(part) for part in zip(*parts))
        lanes = list(order.lanes)
        names = sorted(self._program.shapes.final)
        trials = dict(zip(order.lanes, order.trials))
        tests = {trials[n]: dict(zip(names, final[n].tolist())) for n in order.finishing}
        return Collected(order, reports[lanes, : order.reports], progress[lanes, 1], tests)

    def tests(self, lanes: Sequence[int]) -> list[dict[str, float]]:
        """The current test metrics of the trials in `lanes`."""
        final = np.concatenate([np.asarray(o.final) for o in self._run(0, (), lanes)])
        names = sorted(self._program.shapes.final)
        return [dict(zip(names, final[lane].tolist())) for lane in lanes]

    def lane(self, lane: int) -> Any:
        """The contents of `lane`, as host arrays."""
        block, at = divmod(lane, self._program.width)
        return jax.tree.map(lambda a: _slice(a, at), self._blocks[block])

    def narrow(self, program: LaneProgram, source: Sequence[int]) -> None:
        """Takes a narrower program, whose lane `i` takes over lane `source[i]`."""
        arrays = {path: array[list(source)] for path, array in self.save().items()}
        self._program = program
        self.load(arrays, len(source), None)

    def save(self) -> dict[str, np.ndarray]:
        """Everything that the row holds, a segment in flight included, as host arrays by path."""
        arrays = {f"numbers|{name}": values for name, values in self._numbers.items()}
        arrays["stream"] = self._stream
        host = [tree.named_leaves(jax.device_get(lanes)) for lanes in self._blocks]
        arrays |= {f"lanes|{path}": np.concatenate([b[path] for b in host]) for path in host[0]}
        if self._flight is not None:
            outcomes = [[np.asarray(part) for part in one] for one in self._flight[1]]
            arrays |= {f"flight|{i}": np.concatenate(part) for i, part in enumerate(zip(*outcomes))}
        return arrays

    def load(self, arrays: Mapping[str, np.ndarray], width: int, flying: Order | None) -> None:
        """Restores what `save` gave, on the present devices.

        Args:
          arrays: by path.
          width: lanes of the row.
          flying: the order of the segment that was in flight.

        Raises:
          CheckpointError: the lanes are of another program.
        """
        size = self._program.width
        starts = range(0, width, size)
        fitted = {path: _fitted(a, len(starts) * size) for path, a in arrays.items()}
        self._stream = fitted["stream"]
        self._numbers = {name: fitted[f"numbers|{name}"] for name in self._numbers}
        prefix = "lanes|"
        leaves = {p.removeprefix(prefix): a for p, a in fitted.items() if p.startswith(prefix)}
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((len(self._stream), *a.shape), a.dtype),
            self._program.shapes.lane,
        )
        lanes = checkpoint.fill(like, leaves, "the checkpoint")
        self._blocks = [
            self._program.place(jax.tree.map(lambda a, s=start: a[s : s + size], lanes))
            for start in starts
        ]
        self._assigned = None
        if flying is not None:
            parts = [fitted[f"flight|{i}"] for i in range(len(Outcome._fields))]
            self._flight = flying, [_part(parts, s, size) for s in starts]

    def _seat(self, lane: int, queued: Queued) -> None:
        self._stream[lane] = queued.stream
        for name, value in queued.numbers.items():
            self._numbers[name][lane] = value

    def _put(self, lanes: Mapping[int, Leaves]) -> None:
        """Overwrites lanes with saved ones."""
        size = self._program.width
        for block in {lane // size for lane in lanes}:
            host = jax.tree.map(np.array, self._blocks[block])
            leaves = tree.named_leaves(host)
            for lane, saved in lanes.items():
                if lane // size != block:
                    continue
                checkpoint.fill(self._program.shapes.lane, saved, "the checkpoint")
                for path, leaf in saved.items():
                    leaves[path][lane % size] = leaf
            self._blocks[block] = self._program.place(host)

    def _copy(self, source: Sequence[int]) -> None:
        """Copies lane `source[i]` to lane `i`, bit for bit."""
        if len(self._blocks) == 1:
            rest = range(len(source), self._program.width)
            moved = move_lanes(self._blocks[0], [*source, *rest], self._program.sharding)
            self._blocks = [moved]
        else:
            self._put(
                {
                    lane: tree.named_leaves(self.lane(other))
                    for lane, other in enumerate(source)
                    if lane != other
                }
            )

    def _run(
        self,
        count: int,
        fresh: Sequence[int] = (),
        finishing: Sequence[int] = (),
        changed: bool = False,
    ) -> list[Outcome]:
        size, replicated = self._program.width, self._program.replicated
        flagged = len(fresh) + len(finishing) > 0
        assigned = self._assigned
        if assigned is None or flagged or changed:
            starts, ends = np.zeros(len(self._stream), bool), np.zeros(len(self._stream), bool)
            starts[list(fresh)] = True
            ends[list(finishing)] = True
            keys = trial_words(self._seed, self._stream)
            whole = Assignment(self._numbers, keys, starts, ends)
            assigned = [
                self._program.place(jax.tree.map(lambda a, s=start: a[s : s + size], whole))
                for start in range(0, len(starts), size)
            ]
        # Flags hold for one segment only.
        self._assigned = None if flagged else assigned
        reports = jax.device_put(np.int32(count), replicated)
        outcomes = []
        for index, assignment in enumerate(assigned):
            self._blocks[index], outcome = self._program.run(
                self._blocks[index], assignment, reports, self._data, len(fresh) > 0
            )
            outcomes.append(outcome)
        return outcomes


def _part(parts: Sequence[np.ndarray], start: int, size: int) -> Any:
    return Outcome(*(part[start : start + size] for part in parts))  # type: ignore[arg-type]


def _fitted(array: np.ndarray, width: int) -> np.ndarray:
    """The first `width` lanes, padded with copies of the last, which compute what it does."""
    return array[np.minimum(np.arange(width), len(array) - 1)]


def move_lanes(lanes: Any, source: Sequence[int], sharding: NamedSharding) -> Any:
    """Gathers lanes, bit for bit; lane `i` of the result is lane `source[i]` of `lanes`.

    Args:
      lanes: a pytree whose every leaf has a leading lane axis.
      source: the old lane of each lane of the result.
      sharding: of the lane axis of the result.
    """
    return _gather(sharding)(lanes, jnp.asarray(source, jnp.int32))


@functools.lru_cache(maxsize=8)
def _gather(sharding: NamedSharding) -> Any:
    def gather(lanes: Any, source: Any) -> Any:
        return jax.tree.map(lambda a: jnp.take(a, source, axis=0), lanes)

    return jax.jit(gather, out_shardings=sharding)


def _slice(array: Any, lane: int) -> np.ndarray:
    """One lane of a sharded array, copied from the one device that holds it."""
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        if start <= lane < stop:
            return np.array(np.asarray(shard.data)[lane - start])
    raise IndexError(f"lane {lane} is not on a device of this process")

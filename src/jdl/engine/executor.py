"""The protocol of an executor, which carries out orders, and the one for local devices.

A schedule knows rows by number and needs only this protocol, so an executor
may keep rows of lanes anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from jdl import tree
from jdl.engine.contract import Shapes
from jdl.engine.cost import report_seconds
from jdl.engine.events import Leaving, Narrow, Order, Prepared
from jdl.engine.memory import out_of_memory, widest_that_fits
from jdl.engine.plan import Plan
from jdl.engine.program import LaneProgram, compile_lanes
from jdl.engine.row import Collected, Leaves, Row
from jdl.engine.workload import Workload


class Group(NamedTuple):
    """Trials that differ only in numbers, and so share a program.

    Attributes:
      label: the static values that they share.
      work: what they run.
      shapes: of one lane.
      plan: how they are laid out.
    """

    label: str
    work: Workload
    shapes: Shapes
    plan: Plan

    @property
    def report_seconds(self) -> float:
        """An estimate for one report of one lane, the same every time."""
        return report_seconds(self.work.report_every, self.plan.lane_bytes)


class Taken(NamedTuple):
    """What was taken from lanes that trials left.

    Attributes:
      tests: the test metrics of trials that finished early, by trial.
      states: those that may be kept, by trial.
    """

    tests: Mapping[int, Mapping[str, float]] = {}
    states: Mapping[int, Any] = {}


@runtime_checkable
class Worker(Protocol):
    """Carries out the orders of a schedule, which knows rows by number."""

    def prepare(self, row: int) -> Prepared:
        """Waits until the program of a row is compiled."""

    def ready(self, least: int = 0) -> Sequence[Prepared]:
        """Gives the rows compiled since the last call, after waiting for at least `least`."""

    def narrow(self, order: Narrow) -> None:
        """Compiles a narrower program, or moves the row onto it."""

    def start(self, order: Order) -> None:
        """Starts a segment."""

    def collect(self, row: int) -> Any:
        """Waits for the row's segment in flight, and gives what `Home.hear` takes."""

    def take(self, row: int, leaving: Leaving) -> Taken:
        """Takes what `leaving` names from the lanes of a row."""


@runtime_checkable
class Executor(Worker, Protocol):
    """Holds rows of lanes, numbered in the order in which they join.

    Attributes:
      devices: how many there are.
      compiled: the compile seconds of each program.
      narrowed: how many programs were compiled for fewer lanes of a row.
    """

    devices: int
    compiled: list[float]
    narrowed: int

    def join(self, group: Group, lanes: int, width: int) -> None:
        """Makes a row of `width` lanes; a device runs `lanes` of them at once."""

    def compile(self, row: int) -> None:
        """Starts compiling the program of a row in the background."""

    def save(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The contents of `rows`, segments in flight included, and every state put aside."""

    def load(self, arrays: Mapping[str, np.ndarray], flying: Sequence[Order]) -> None:
        """Restores what `save` gave, with the orders that were in flight then."""

    def put_aside(self, lanes: Mapping[int, Leaves]) -> None:
        """Stores the lanes of trials that will go on, by trial."""


class LocalExecutor:
    """Runs segments on this process's devices in order, while one thread compiles ahead."""

    def __init__(self, mesh: Mesh, data: Any, seed: int, say: Callable[[str], None]):
        """Takes the devices and the data.

        Args:
          mesh: the devices.
          data: the splits by name, as host arrays.
          seed: the root of all random streams.
          say: receives a message when something is narrowed.
        """
        self.devices = mesh.size
        self.compiled: list[float] = []  # seconds that each program took
        self.narrowed = 0
        self._mesh, self._host_data, self._seed, self._say = mesh, data, seed, say
        self._data: Any = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jdl-compile")
        self._groups: list[tuple[Group, int, int]] = []  # lanes on a device, lanes of the row
        self._coming: dict[int, Future[LaneProgram]] = {}
        self._rows: dict[int, Row] = {}
        self._aside: dict[int, Leaves] = {}  # states without a lane, by trial

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self, group: Group, lanes: int, width: int) -> None:
        """Makes a row, which takes no device memory until it is prepared."""
        self._groups.append((group, lanes, width))

    def compile(self, row: int) -> None:
        """Starts compiling on the thread."""
        if row not in self._coming and row not in self._rows:
            group, lanes, _ = self._groups[row]
            self._coming[row] = self._pool.submit(self._compile, group, lanes)

    def prepare(self, row: int) -> Prepared:
        """Takes the compiled program, narrowed if it does not fit the devices.

        Raises:
          MemoryError: not even one lane fits.
        """
        self.compile(row)
        program = self._coming.pop(row).result()
        group, lanes, width = self._groups[row]
        if self._data is None:
            self._data = jax.device_put(self._host_data, program.replicated)
        while True:
            fitting = min(lanes, program.width // self._mesh.size)
            made = Row(program, width * fitting // lanes, self._seed, self._data)
            try:
                made.warm_up()
                break
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error) or fitting == 1:
                    raise
            self._say(f"Narrowed to {fitting // 2} lanes a device: a segment ran out of memory.")
            program = self._compile(group, fitting // 2)
        self._rows[row] = made
        self._groups[row] = group, fitting, width * fitting // lanes
        return Prepared(row, self._groups[row][2])

    def ready(self, least: int = 0) -> list[Prepared]:
        """Prepares the rows whose programs are compiled."""
        if least and self._coming:
            wait(self._coming.values(), return_when=FIRST_COMPLETED)
        return [self.prepare(row) for row in sorted(self._coming) if self._coming[row].done()]

    def narrow(self, order: Narrow) -> None:
        """Compiles on the thread, or waits for the program and moves the lanes."""
        group, *_ = self._groups[order.row]
        if order.row not in self._coming:
            self.narrowed += 1
            self._coming[order.row] = self._pool.submit(self._compile, group, order.lanes)
        if order.source is not None:
            self._rows[order.row].narrow(self._coming.pop(order.row).result(), order.source)
            self._groups[order.row] = group, order.lanes, len(order.source)

    def start(self, order: Order) -> None:
        """Starts a segment and returns while it runs."""
        if order.row not in self._rows:
            self.prepare(order.row)
        self._rows[order.row].start(order, self._aside)
        for _, queued in order.resumed:
            del self._aside[queued.trial]

    def collect(self, row: int) -> Collected:
        """Waits for the segment of a row."""
        start = time.monotonic()
        return self._rows[row].collect()._replace(seconds=time.monotonic() - start)

    def take(self, row: int, leaving: Leaving) -> Taken:
        """Takes test metrics and states of trials that leave their lanes."""
        for lane, trial in leaving.pause:
            self._aside[trial] = tree.named_leaves(self._rows[row].lane(lane))
        for trial in leaving.drop:
            self._aside.pop(trial, None)
        states = {trial: self._rows[row].lane(lane).state for lane, trial, _ in leaving.keep}
        lanes = [lane for lane, _ in leaving.finish]
        tests = self._rows[row].tests(lanes) if lanes else []
        return Taken(dict(zip((trial for _, trial in leaving.finish), tests)), states)

    def save(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """The contents of `rows` and every state put aside, by path."""
        arrays: dict[str, np.ndarray] = {}
        for number in rows:
            saved = self._rows[number].save()
            arrays |= {f"row|{number}|{path}": leaf for path, leaf in saved.items()}
        for trial, leaves in self._aside.items():
            arrays |= {f"aside|{trial}|{path}": leaf for path, leaf in leaves.items()}
        return arrays

    def load(self, arrays: Mapping[str, np.ndarray], flying: Sequence[Order]) -> None:
        """Restores what `save` gave, before any segment is started.

        Raises:
          MemoryError: the lanes of a row no longer fit the devices.
          CheckpointError: they are of another program.
        """
        orders = {order.row: order for order in flying}
        parts: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for path, leaf in arrays.items():
            kind, place, rest = path.split("|", 2)
            parts.setdefault((kind, int(place)), {})[rest] = leaf
        for (kind, number), leaves in parts.items():
            if kind == "aside":
                self._aside[number] = leaves
            else:
                group, _, width = self._groups[number]
                if (fitting := self.prepare(number).width) < width:
                    raise MemoryError(
                        f"{group.label}: the checkpoint has {width} lanes, but only {fitting} "
                        "fit the devices now. Delete it to start its trials again."
                    )
                self._rows[number].load(leaves, width, orders.get(number))

    def put_aside(self, lanes: Mapping[int, Leaves]) -> None:
        """Stores the lanes of trials that will go on."""
        self._aside |= lanes

    def _compile(self, group: Group, lanes: int) -> LaneProgram:
        def build(lanes: int) -> LaneProgram:
            start = time.perf_counter()
            program = compile_lanes(group.work, group.shapes, self._mesh, lanes, group.plan.unroll)
            self.compiled.append(time.perf_counter() - start)
            return program

        return widest_that_fits(build, lanes, self._mesh, self._say)

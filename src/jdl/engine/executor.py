"""The protocol of an executor, which carries out orders, and the one for local devices.

A schedule knows rows by number and needs only this protocol, so an executor
may keep rows of lanes anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from jdl import tree
from jdl.engine.compiler import Compiler
from jdl.engine.events import Leaving, Narrow, Order, Prepared
from jdl.engine.group import Group
from jdl.engine.memory import out_of_memory
from jdl.engine.row import Collected, Leaves, Row


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

    def release(self, row: int) -> None:
        """Frees the program and the lanes of a row that no trial will need again."""


@runtime_checkable
class Executor(Worker, Protocol):
    """Holds rows of lanes, numbered in the order in which they join.

    Attributes:
      devices: how many there are.
      doubles: whether a group may have two rows, so that one computes while the host
        reads the other's reports.
      narrowed: how many programs were compiled for fewer lanes of a row.
    """

    devices: int
    doubles: bool
    narrowed: int

    @property
    def compiled(self) -> list[float]:
        """The seconds in which each program was compiled or found."""

    @property
    def found(self) -> int:
        """How many of the programs were in the cache."""

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
        # On an accelerator the lanes of one row are meant to fill its memory.
        self.doubles = mesh.devices.flat[0].platform == "cpu"
        self.narrowed = 0
        self._compiler = Compiler(mesh, say)
        self._host_data, self._seed, self._say = data, seed, say
        self._data: Any = None
        self._groups: list[tuple[Group, int, int]] = []  # lanes on a device, lanes of the row
        self._rows: dict[int, Row] = {}
        self._aside: dict[int, Leaves] = {}  # states without a lane, by trial

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self._compiler.close()

    @property
    def compiled(self) -> list[float]:
        """The seconds in which each program was compiled or found."""
        return self._compiler.seconds

    @property
    def found(self) -> int:
        """How many of the programs were in the cache."""
        return self._compiler.found

    def join(self, group: Group, lanes: int, width: int) -> None:
        """Makes a row, which takes no device memory until it is prepared."""
        self._groups.append((group, lanes, width))

    def compile(self, row: int) -> None:
        """Starts compiling on the thread."""
        if row not in self._compiler and row not in self._rows:
            group, lanes, _ = self._groups[row]
            self._compiler.begin(row, group, lanes)

    def prepare(self, row: int) -> Prepared:
        """Takes the compiled program, narrowed if it does not fit the devices.

        Raises:
          MemoryError: not even one lane fits.
        """
        self.compile(row)
        program = self._compiler.take(row)
        group, lanes, width = self._groups[row]
        if self._data is None:
            self._data = jax.device_put(self._host_data, program.replicated)
        while True:
            fitting = min(lanes, program.width // self.devices)
            made = Row(program, width * fitting // lanes, self._seed, self._data)
            try:
                made.warm_up()
                break
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error) or fitting == 1:
                    raise
            self._say(f"Narrowed to {fitting // 2} lanes a device: a segment ran out of memory.")
            program = self._compiler.now(group, fitting // 2)
        self._rows[row] = made
        self._groups[row] = group, fitting, width * fitting // lanes
        return Prepared(row, self._groups[row][2])

    def ready(self, least: int = 0) -> list[Prepared]:
        """Prepares the rows whose programs are compiled."""
        return [self.prepare(row) for row in self._compiler.done(least)]

    def narrow(self, order: Narrow) -> None:
        """Compiles on the thread, or waits for the program and moves the lanes."""
        group, *_ = self._groups[order.row]
        if order.row not in self._compiler:
            self.narrowed += 1
            self._compiler.begin(order.row, group, order.lanes)
        if order.source is not None:
            self._rows[order.row].narrow(self._compiler.take(order.row), order.source)
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

    def release(self, row: int) -> None:
        """Frees the program and the lanes of a row."""
        self._compiler.forget(row)  # a narrower one may be on its way
        del self._rows[row]

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

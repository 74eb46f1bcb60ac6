"""Compiles lane programs on threads, while the lanes of other rows train."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from jax.sharding import Mesh

from jdl.engine.devices import usable_cores
from jdl.engine.group import Group
from jdl.engine.memory import widest_that_fits
from jdl.engine.program import LaneProgram, compile_lanes


class Compiler:
    """The programs being compiled, by row, in the order of requests."""

    def __init__(self, mesh: Mesh, say: Callable[[str], None]):
        """Takes the devices.

        Args:
          mesh: the devices.
          say: receives a message when a program is narrowed.
        """
        self.seconds: list[float] = []  # of each program
        self.found = 0  # of these, how many the cache had
        self._mesh, self._say = mesh, say
        # What draws weights outlives its group, because later groups of its model share it.
        self._drawing: deque[Any] = deque(maxlen=16)
        # XLA compiles a lane program on little more than one core.
        self._pool = ThreadPoolExecutor(min(4, usable_cores()), thread_name_prefix="jdl-compile")
        self._coming: dict[int, tuple[Future[LaneProgram], str, int]] = {}

    def close(self) -> None:
        """Drops the programs whose compilation has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, row: int, group: Group, lanes: int) -> None:
        """Compiles a program of `lanes` lanes a device, or of as many as fit, on a thread."""
        # Two rows of a group run the same program.
        same = [f for f, label, n in self._coming.values() if (label, n) == (group.label, lanes)]
        future = same[0] if same else self._pool.submit(self.now, group, lanes)
        self._coming[row] = future, group.label, lanes

    def __contains__(self, row: int) -> bool:
        return row in self._coming

    def take(self, row: int) -> LaneProgram:
        """Waits for the program of a row."""
        return self._coming.pop(row)[0].result()

    def forget(self, row: int) -> None:
        """Gives up a program that a row no longer needs."""
        self._coming.pop(row, None)

    def done(self, least: int = 0) -> list[int]:
        """The rows whose program is compiled, after waiting for `least` of them."""
        if least and self._coming:
            wait([future for future, *_ in self._coming.values()], return_when=FIRST_COMPLETED)
        return sorted(row for row, (future, *_) in self._coming.items() if future.done())

    def now(self, group: Group, lanes: int) -> LaneProgram:
        """Compiles a program of `lanes` lanes a device, or of as many as fit.

        Raises:
          MemoryError: not even one lane fits the device.
        """

        def build(lanes: int) -> LaneProgram:
            start = time.perf_counter()
            program = compile_lanes(group.work, group.shapes, self._mesh, lanes, group.plan.unroll)
            self.seconds.append(time.perf_counter() - start)
            self.found += program.found
            self._drawing.append(program.refill.draw)
            return program

        return widest_that_fits(build, lanes, self._mesh, self._say)

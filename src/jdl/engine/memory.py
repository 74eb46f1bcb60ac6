"""Checks by the compiler's figures whether a program fits its device."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jdl.engine.program import LaneProgram

# The share of a device's memory that programs may take: allocators lose some to fragmentation,
# and two segments are in flight.
SHARE = 0.9


def program_bytes(program: LaneProgram) -> int:
    """The memory that `program` takes on one device while it runs, temporaries included.

    Lanes are donated, so their old and new states count once. Trials begin before
    a segment runs; what is drawn for them lies beside the lanes meanwhile.
    """
    memory = program.memory
    if memory is None:
        return 0
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    running = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    drawing = program.refill.memory
    if drawing is None:
        return int(running)
    drawn = drawing.output_size_in_bytes + drawing.temp_size_in_bytes
    return int(max(running, memory.argument_size_in_bytes + drawn))


def device_bytes(mesh: Mesh) -> int | None:
    """The memory of one device of `mesh` that programs may take, None if unknown.

    CPU devices share the available memory of the system.
    """
    device = mesh.devices.flat[0]
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit")
        return None if limit is None else int(SHARE * limit)
    free = _available()
    return None if free is None else int(SHARE * free / mesh.size)


def _available() -> int | None:
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def widest_that_fits(
    build: Callable[[int], LaneProgram], lanes: int, mesh: Mesh, say: Callable[[str], None]
) -> LaneProgram:
    """Compiles a program of `lanes` lanes a device, or of as many as fit.

    The width shrinks in proportion if the compiler's figure exceeds the device's
    memory, and by half if the compiler itself runs out of memory.

    Args:
      build: compiles a program for a number of lanes a device.
      lanes: how many are wanted.
      mesh: the devices.
      say: receives a message when something is narrowed.

    Raises:
      MemoryError: not even one lane fits; the message has the figures.
    """
    while True:
        room = device_bytes(mesh)
        try:
            program = build(lanes)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error) or lanes == 1:
                raise
            lanes, why = lanes // 2, "compiling ran out of memory"
        else:
            needed = program_bytes(program)
            if room is None or needed <= room:
                return program
            if lanes == 1:
                raise MemoryError(
                    f"One lane needs {readable(needed)}, but only {readable(room)} is available on "
                    "a device. Use a smaller batch_size or eval_batch_size, or a smaller model."
                )
            why = f"{lanes} lanes need {readable(needed)}, but the device has {readable(room)}"
            lanes = max(1, min(lanes - 1, int(lanes * room / needed)))
        say(f"Narrowed to {lanes} lanes a device: {why}.")


def out_of_memory(error: Exception) -> bool:
    """Whether a device ran out of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def readable(count: Any) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"

"""The planner, which chooses how many lanes run side by side and on which devices."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jdl import tree
from jdl._checks import check_count
from jdl.engine.contract import Shapes
from jdl.engine.memory import readable
from jdl.engine.workload import Workload


class Plan(NamedTuple):
    """How a group of trials is laid out.

    Attributes:
      lanes: lanes on each device, run under `vmap`.
      devices: how many the lanes of a run are spread over.
      unroll: training steps per iteration of the compiled loop.
      lane_bytes: an estimate of the bytes that one lane touches in a step.
      reason: why, as a phrase for the user.
    """

    lanes: int
    devices: int
    unroll: int
    lane_bytes: int
    reason: str


def use_all_cores() -> None:
    """Gives JAX one CPU device per core, if its backend has not started yet.

    Has no effect if the user has set the number, here or in XLA_FLAGS, or JAX is already running.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if jax.config.jax_num_cpu_devices == -1:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", _usable_cores())


def check_compiles() -> None:
    """Raises RuntimeError where JAX is told to compile nothing."""
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise RuntimeError(
            "jax_disable_jit (JAX_DISABLE_JIT) is on, but all training here is compiled. Turn it "
            "off; to look at a trial step by step, call its `init` and `step` themselves."
        )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lane_mesh(devices: int | Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "lanes", over the local devices.

    Args:
      devices: how many of them, or which; None for all.

    Raises:
      ValueError: there are fewer than asked for.
    """
    local = jax.local_devices()
    if devices is None:
        chosen = local
    elif not isinstance(devices, Sequence):
        devices = check_count("devices", devices, 0)
        if not 1 <= devices <= len(local):
            raise ValueError(
                f"`devices` must be from 1 to {len(local)}, the local devices, got {devices}. On a "
                "CPU, jax.config.update('jax_num_cpu_devices', n) before JAX starts makes n."
            )
        chosen = local[:devices]
    else:
        chosen = list(devices)
        if not chosen:
            raise ValueError("`devices` needs at least one device, got none.")
    return Mesh(np.array(chosen), ("lanes",))


def cache_bytes() -> int:
    """The size of a core's second-level cache, 1 MiB where it cannot be read."""
    try:
        text = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.rstrip("K")) * 1024
    except (OSError, ValueError):
        return 2**20


def lane_bytes(work: Workload, shapes: Shapes) -> int:
    """The bytes one lane touches in a step: state, gradients and a batch with its activations."""
    state = tree.nbytes(shapes.lane.state)
    batch = tree.nbytes(work.batch)
    return state + state // 2 + 4 * batch


def make_plan(work: Workload, shapes: Shapes, trials: int, mesh: Mesh, lanes: Any = None) -> Plan:
    """Chooses the width for `trials` trials of `work`.

    A CPU gets 2 to 32 lanes, about as many as a core's cache holds, because more are
    slower. An accelerator gets as many as half its memory holds.

    Args:
      work: what the trials run.
      shapes: of one lane.
      trials: how many there are to run.
      mesh: the devices.
      lanes: the width on each device, if the user gives it.

    Raises:
      ValueError: `lanes` is below 1, or not even one lane fits the device.
    """
    each = lane_bytes(work, shapes)
    device = mesh.devices.flat[0]
    unroll = 2 if each <= 2**20 else 1
    if lanes is not None:
        if isinstance(lanes, str):
            raise ValueError(f"`lanes` must be a number, 'tune' or None, got lanes={lanes!r}.")
        lanes = check_count("lanes", lanes)
        return Plan(lanes, mesh.size, unroll, each, f"{lanes} lanes a device, as given")
    if device.platform == "cpu":
        # Twice the cache, because not all that a step touches is alive at once: an MLP
        # 64-32-10 with Adam (75 KiB a lane, 1 MiB of cache) runs 340, 357 and 373 trials
        # a second at 13, 16 and 32 lanes on each of two cores.
        # At least 2: an MLP 784-512-512-10 with 2 lanes takes 0.72 of the time with 1. A CNN and a
        # transformer are faster with 1, by 1.2 and 1.4, which only `lanes="tune"` finds out.
        cache = 2 * cache_bytes()
        most = min(32, max(2, cache // each))
        why = f"{readable(each)} a lane, twice the cache is {readable(cache)}"
    else:
        stats = device.memory_stats() or {}
        memory = stats.get("bytes_limit", 16 * 2**30) // 2 - tree.nbytes(work.splits)
        most = min(4096, memory // each)
        why = f"{readable(each)} a lane, {readable(max(0, memory))} of memory for lanes"
        if most < 1:
            raise ValueError(f"Not even one lane fits {device.device_kind}: {why}.")
    width = even_width(int(most), trials, mesh.size)
    reason = f"{width} lanes on each of {mesh.size} devices: {why}"
    return Plan(width, mesh.size, unroll, each, reason)


def even_width(most: int, trials: int, devices: int) -> int:
    """The smallest width that needs no more rounds than `most` lanes on each device."""
    rounds = math.ceil(trials / (most * devices))
    return max(1, math.ceil(trials / (rounds * devices)))

"""The planner, which chooses how many lanes run side by side."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jdl import tree
from jdl._checks import check_count
from jdl.engine.contract import Shapes
from jdl.engine.devices import cache_bytes
from jdl.engine.memory import readable
from jdl.engine.trial import params_of
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


def lane_bytes(work: Workload, shapes: Shapes) -> int:
    """The bytes one lane touches in a step: state, a batch and what products write.

    Half as much again as the products write stands for what lies between them.
    """
    return tree.nbytes(shapes.lane.state) + tree.nbytes(work.batch) + 3 * shapes.written // 2


def activation_bytes(shapes: Shapes) -> int:
    """The part of what a step's products write that is not the parameters' gradient."""
    return max(0, shapes.written - tree.nbytes(params_of(shapes.lane.state)))


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
    unroll = 2 if _pays_to_unroll(work, each, trials) else 1
    if lanes is not None:
        if isinstance(lanes, str):
            raise ValueError(f"`lanes` must be a number, 'tune' or None, got lanes={lanes!r}.")
        lanes = check_count("lanes", lanes)
        return Plan(lanes, mesh.size, unroll, each, f"{lanes} lanes a device, as given")
    if device.platform == "cpu":
        # Twice the cache, because not all that a step touches is alive at once: an MLP
        # 64-32-10 with Adam (75 KiB a lane, 1 MiB of cache) runs 340, 357 and 373 trials
        # a second at 13, 16 and 32 lanes on each of two cores.
        # At least 2: an MLP 784-512-512-10 with 2 lanes takes 0.72 of the time with 1. But a CNN
        # and a transformer, whose activations alone fill a cache, take 1.2 and 1.3 times as long.
        cache = 2 * cache_bytes()
        least = 1 if activation_bytes(shapes) > cache_bytes() else 2
        most = min(32, max(least, cache // each))
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


def _pays_to_unroll(work: Workload, each: int, trials: int) -> bool:
    """Whether two steps per iteration save more time than they cost to compile.

    A step of a lane of up to 1 MiB takes some 5 us for each 64 KiB. Unrolling saves
    5 % of it, and costs 0.7 s a program, half of what one takes without. An odd
    number of steps to a report would need a third copy of the step.
    """
    if each > 2**20 or work.report_every % 2:
        return False
    return 0.05 * 5e-6 * max(1, each / 2**16) * work.steps * trials > 0.7


def even_width(most: int, trials: int, devices: int) -> int:
    """The smallest width that needs no more rounds than `most` lanes on each device."""
    rounds = math.ceil(trials / (most * devices))
    return max(1, math.ceil(trials / (rounds * devices)))

"""Times widths for `lanes="tune"`, and remembers the best for each device and program."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jdl.engine import cache
from jdl.engine.checkpoint import write_atomically
from jdl.engine.contract import Shapes
from jdl.engine.keys import trial_words
from jdl.engine.memory import device_bytes, out_of_memory, program_bytes
from jdl.engine.plan import Plan, even_width
from jdl.engine.program import Assignment, LaneProgram, compile_lanes
from jdl.engine.trial import Batch
from jdl.engine.workload import Workload

SECONDS = 0.3  # least training time per timing of a width
ROUNDS = 3  # the compared widths take turns, because a machine's speed drifts


def tuned(
    work: Workload,
    shapes: Shapes,
    plan: Plan,
    trials: int,
    mesh: Mesh,
    numbers: Mapping[str, Any],
    data: Mapping[str, Batch],
    say: Callable[[str], None],
) -> Plan:
    """Finds the fastest plan by timing widths around the estimated one.

    Half and twice as many lanes are compiled and timed in turns, and so on around
    the fastest; widths that do not fit the devices are left out. The result is
    kept in a file of the user's cache, by device, program, batch and versions.

    Args:
      work: what the trials run.
      shapes: of one lane.
      plan: as estimated.
      trials: how many there are to run.
      mesh: the devices.
      numbers: of one trial, to train with.
      data: the splits by name, to train on.
      say: receives the time of each width.
    """
    key, most = _key(shapes, work, mesh), max(1, -(-trials // mesh.size))
    known = _known(key)
    # Few trials limit the widths that were timed; with more trials the best may be wider.
    if known is None or 2 * known["lanes"] > known["most"] < most:
        known = _search(work, shapes, plan, most, mesh, numbers, data, say)
        if not known["seconds"]:
            return plan  # compiling it reports what does not fit
        _remember(key, known)
    lanes = even_width(known["lanes"], trials, mesh.size)
    micro = known["seconds"][str(known["lanes"])] * 1e6
    reason = f"{lanes} lanes on each of {mesh.size} devices: timed, {micro:.3g} us a step of one"
    return plan._replace(lanes=lanes, reason=reason)


def _search(
    work: Workload,
    shapes: Shapes,
    plan: Plan,
    most: int,
    mesh: Mesh,
    numbers: Mapping[str, Any],
    data: Mapping[str, Batch],
    say: Callable[[str], None],
) -> dict[str, Any]:
    programs: dict[int, Any] = {}  # None if it does not fit
    seconds: dict[int, float] = {}

    def around(lanes: int) -> list[int]:
        return sorted({w for w in (lanes // 2, lanes, 2 * lanes) if 1 <= w <= most})

    def program_of(lanes: int) -> Any:
        program = compile_lanes(work, shapes, mesh, lanes, plan.unroll)
        room = device_bytes(mesh)
        return program if room is None or program_bytes(program) <= room else None

    best = min(1 << round(math.log2(plan.lanes)), most)
    while new := [lanes for lanes in around(best) if lanes not in programs]:
        for lanes in new:
            seconds[lanes] = math.inf
            programs[lanes] = _or_none(program_of, lanes)
        for lanes in around(best) * ROUNDS:
            if program := programs[lanes]:
                taken = _or_none(step_seconds, program, work, numbers, data)
                seconds[lanes] = math.inf if taken is None else min(seconds[lanes], taken)
                programs[lanes] = None if taken is None else program
        for lanes in new:
            micro = f"{1e6 * seconds[lanes]:.3g} us a step of one"
            say(f"{lanes} lanes a device: {micro if programs[lanes] else 'too many to fit'}.")
        best = min(around(best), key=lambda lanes: (seconds[lanes], lanes))
    fitting = {str(lanes): s for lanes, s in sorted(seconds.items()) if s < math.inf}
    return {"lanes": best, "seconds": fitting, "most": most}


def _or_none(make: Callable[..., Any], *arguments: Any) -> Any:
    """What `make` gives, or None if memory ran out."""
    try:
        return make(*arguments)
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        return None


def step_seconds(
    program: LaneProgram, work: Workload, numbers: Mapping[str, Any], data: Mapping[str, Batch]
) -> float:
    """The least of `step_times`."""
    return min(step_times(program, work, numbers, data))


def step_times(
    program: LaneProgram, work: Workload, numbers: Mapping[str, Any], data: Mapping[str, Batch]
) -> list[float]:
    """Seconds per training step and lane when all lanes train, evaluation included.

    One figure for each of at least two segments, after one that is not counted.
    """
    width = program.width
    every = {name: np.full(width, v, np.asarray(v).dtype) for name, v in numbers.items()}
    keys, off = trial_words(0, np.arange(width, dtype=np.uint32)), np.zeros(width, bool)
    first = program.place(Assignment(every, keys, ~off, off))
    later = program.place(Assignment(every, keys, off, off))
    splits = jax.device_put(dict(data), program.replicated)

    def run(lanes: Any, assignment: Assignment, reports: int) -> tuple[Any, float]:
        count = jax.device_put(np.int32(reports), program.replicated)
        start = time.perf_counter()
        lanes, outcome = program.run(lanes, assignment, count, splits, assignment is first)
        jax.block_until_ready(outcome)
        return lanes, time.perf_counter() - start

    lanes, _ = run(program.empty(), first, 1)
    lanes, once = run(lanes, later, 1)
    reports = int(min(work.reports, max(1, SECONDS / 3 / once)))
    times: list[float] = []
    while (sum(times) < SECONDS and len(times) < 100) or len(times) < 2:
        lanes, taken = run(lanes, later, reports)
        times.append(taken)
    return [taken / (width * reports * work.report_every) for taken in times]


def _key(shapes: Shapes, work: Workload, mesh: Mesh) -> str:
    device = mesh.devices.flat[0]
    facts = [device.platform, device.device_kind, mesh.size, os.cpu_count(), jax.__version__]
    facts += [shapes.program, work.batch_size, work.report_every]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _path() -> pathlib.Path | None:
    place = cache.folder()
    return place and place / "widths.json"


def _read() -> dict[str, Any]:
    path = _path()
    try:
        known = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _known(key: str) -> dict[str, Any] | None:
    """What `_search` found before, or None if nothing is stored or the file is damaged."""
    match _read().get(key):
        case {"lanes": int(lanes), "most": int(), "seconds": {**seconds}} as known if (
            lanes > 0 and isinstance(seconds.get(str(lanes)), float)
        ):
            return known
    return None


def _remember(key: str, known: dict[str, Any]) -> None:
    if (path := _path()) is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**_read(), key: known}, indent=1).encode())
    except OSError:
        pass  # timed again the next time

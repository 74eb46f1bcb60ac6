"""Lanes: how many trials a second an MLP's lane program trains, by the number of lanes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdl import data, models, optim, train
from jdl.bench.measurement import Measurement, counts
from jdl.engine.contract import trace_shapes
from jdl.engine.devices import lane_mesh
from jdl.engine.memory import program_bytes
from jdl.engine.plan import make_plan
from jdl.engine.program import compile_lanes
from jdl.engine.trial import Trial
from jdl.engine.tune import step_times
from jdl.engine.workload import make_workload, splits_of

BATCH = 32
HIDDEN = 32
TRIALS = 1000  # of the sweep that the program is planned for


def trial(hp: dict[str, Any]) -> Trial:
    """An MLP 64-32-10 that Adam trains."""
    return train.classifier(models.mlp((HIDDEN, 10)), optim.adam(hp["lr"]))


def measured(width: int, steps: int) -> Measurement:
    """A training step of every lane, `width` of them on each local device.

    The trial is an MLP 64-32-10 on the digits, as a sweep runs it: batches of 32, `steps` steps,
    then the validation metrics, whose time is shared out among the steps. A call of the
    measurement is one step of all lanes.

    Args:
      width: lanes on each device.
      steps: of a trial.

    Returns:
      A measurement with details `lanes` (on all devices), `steps` (of a trial), `program_bytes`
      (on one device, as the compiler says) and `compile_seconds` (little if the program was
      found in the cache).
    """
    mesh, splits = lane_mesh(), data.digits()
    work = make_workload(
        trial,
        splits,
        epochs=None,
        steps=steps,
        batch_size=BATCH,
        report_every=steps,
        eval_batch_size=1024,
        diverged_above=float("inf"),
    )
    numbers = {"lr": np.float32(1e-3)}
    shapes = trace_shapes(work, numbers)
    plan = make_plan(work, shapes, TRIALS, mesh, width)
    program = compile_lanes(work, shapes, mesh, width, plan.unroll)
    lanes = program.width
    times = step_times(program, work, numbers, splits_of(splits))
    flops, moved = step_counts(work.batch)
    return Measurement(
        "lanes",
        f"{lanes} lane{'s' * (lanes != 1)}",
        f"MLP 64-{HIDDEN}-10, batch {BATCH}",
        "float32",
        mesh.size,
        lanes * flops,
        lanes * moved,
        [lanes * taken for taken in times],
        {
            "lanes": lanes,
            "steps": steps,
            "program_bytes": program_bytes(program),
            "compile_seconds": program.compile_seconds,
        },
    )


def step_counts(batch: Any) -> tuple[int, int]:
    """The FLOPs and the bytes of one training step of one lane."""
    made = trial({"lr": 1e-3})
    key = jax.random.key(0)
    state = jax.eval_shape(made.init, key, batch)
    return counts(lambda state, batch: made.step(state, batch, key), state, batch)

"""jdl: a sweep, the same into a folder, and the engine's compiled program alone."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sweep_contestants.base import BATCH, CLASSES, HIDDEN, HIGH, LOW, Ready, Round


def _make_trial(hp: dict[str, Any]) -> Any:
    from jdl import nn, optim, train

    model = nn.chain(nn.dense(HIDDEN), nn.relu, nn.dense(CLASSES))
    return train.classifier(model, optim.adam(hp["lr"]))


def _splits() -> Any:
    from jdl import data

    # The peers evaluate the validation split only, so there is no test split to evaluate here.
    return data.digits()._replace(test=None)


def jdl_sweep(steps: int, folder: bool = False) -> Ready:
    """`sweep.run`, as a user calls it; it compiles in every call."""
    from jdl import sweep

    splits = _splits()

    def turn(rates: Sequence[float]) -> Round:
        configs = iter([{"lr": rate} for rate in rates])
        given = sweep.Search(
            lambda n: [c for _, c in zip(range(n), configs)], lambda *_: None, "given"
        )
        temporary = tempfile.TemporaryDirectory()
        results = sweep.run(
            _make_trial,
            {"lr": sweep.log_uniform(LOW, HIGH)},
            splits,
            trials=len(rates),
            steps=steps,
            report_every=steps,
            batch_size=BATCH,
            search=given,
            out=temporary.name if folder else None,
            progress=False,
        )
        temporary.cleanup()
        accuracy = [trial.metrics["valid_accuracy"] for trial in results.trials]
        return Round(accuracy, results.stats["compile_seconds"], results.plans)

    return Ready(turn)


def jdl_folder(steps: int) -> Ready:
    """The same with a run's folder on disk."""
    return jdl_sweep(steps, folder=True)


def jdl_program(steps: int) -> Ready:
    """The engine's compiled segment, called without its host's loop, at the width of the plan."""
    import jax

    from jdl.engine.contract import trace_shapes
    from jdl.engine.devices import lane_mesh, use_all_cores
    from jdl.engine.keys import trial_words
    from jdl.engine.plan import make_plan
    from jdl.engine.program import Assignment, LaneProgram, compile_lanes
    from jdl.engine.workload import make_workload, splits_of

    use_all_cores()
    dataset = _splits()
    work = make_workload(
        _make_trial,
        dataset,
        epochs=None,
        steps=steps,
        batch_size=BATCH,
        report_every=steps,
        eval_batch_size=1024,
        diverged_above=1e6,
    )
    mesh, example = lane_mesh(), {"lr": np.float32(LOW)}
    shapes = trace_shapes(work, example)
    programs: dict[int, LaneProgram] = {}  # by width, which depends on the number of trials

    def turn(rates: Sequence[float]) -> Round:
        plan = make_plan(work, shapes, len(rates), mesh)
        compile_seconds = 0.0
        start = time.perf_counter()
        if plan.lanes not in programs:
            programs[plan.lanes] = compile_lanes(work, shapes, mesh, plan.lanes, plan.unroll)
            compile_seconds = time.perf_counter() - start
        program = programs[plan.lanes]
        width, every = program.width, np.ones(program.width, bool)
        segments = math.ceil(len(rates) / width)
        padded = np.resize(np.asarray(rates, np.float32), segments * width).reshape(-1, width)
        streams = np.arange(segments * width, dtype=np.uint32).reshape(-1, width)
        data = jax.device_put(splits_of(dataset), program.replicated)
        count = jax.device_put(np.int32(1), program.replicated)
        lanes, outcomes = program.empty(), []
        for rate, stream in zip(padded, streams):
            assignment = jax.device_put(
                Assignment({"lr": rate}, trial_words(0, stream), every, every), program.sharding
            )
            lanes, outcome = program.run(lanes, assignment, count, data, True)
            outcomes.append(outcome.reports)
        column = sorted(shapes.reports).index("valid_accuracy")
        accuracy = np.concatenate([np.asarray(reports)[:, 0, column] for reports in outcomes])
        return Round(accuracy[: len(rates)].tolist(), compile_seconds, {"lanes": plan.lanes})

    return Ready(turn)

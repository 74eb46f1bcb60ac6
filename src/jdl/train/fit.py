"""`fit`: one training run, as the lane engine with one lane."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree

from jdl.data.dataset import Dataset, check
from jdl.engine import checkpoint, store
from jdl.engine.goal import Goal, choose_goal
from jdl.engine.group import Group, Queued
from jdl.engine.keys import to_keys
from jdl.engine.loop import CHECKPOINT, Loop
from jdl.engine.plan import lane_mesh, make_plan, use_all_cores
from jdl.engine.program import check_data, trace_shapes
from jdl.engine.progress import Progress
from jdl.engine.specification import fingerprint
from jdl.engine.trial import Trial
from jdl.engine.workload import make_workload


class Fit(NamedTuple):
    """What a training run gave.

    Attributes:
      state: the trial's state at its best report, or at its last one.
      step: training steps that `state` has seen.
      metrics: what was reported at that step; the test metrics are of the last.
      curves: every reported metric, one value a report.
      steps: the training step of each report.
      status: done, diverged, or running if it was interrupted.
    """

    state: PyTree
    step: int
    metrics: dict[str, float]
    curves: dict[str, Float[np.ndarray, " reports"]]
    steps: Int[np.ndarray, " reports"]
    status: str

    @property
    def params(self) -> PyTree:
        """`state.params`, or the state itself if it has none."""
        return getattr(self.state, "params", self.state)


class Interrupted(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM ended early; `result` holds what is done."""

    def __init__(self, message: str, result: Any):
        super().__init__(message)
        self.result = result


def fit(
    trial: Trial,
    data: Dataset | tuple[Any, ...],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    metric: str | None = None,
    goal: str | None = None,
    keep: str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    report_every: int | None = None,
    checkpoint_seconds: float = 30.0,
    eval_batch_size: int = 1024,
    diverged_above: float = 1e6,
    progress: bool = True,
) -> Fit:
    """Trains one trial, on the first local device, as a lane of a sweep would be.

    Args:
      trial: what to train.
      data: a `Dataset`, or `(train, valid, test)` with each `(x, y)` or None.
      epochs: passes over the training split, the remainder of a batch dropped.
      steps: training steps, instead of `epochs`.
      batch_size: examples in a training step.
      metric: what reports are judged by, as in `sweep.run`.
      goal: "max" or "min"; None maximises accuracies and minimises the rest.
      keep: "best", the state at the best report, or "last"; None keeps the best
        where there is a validation split.
      seed: the root of all random numbers.
      out: the run's folder. The same call with the same folder resumes.
      report_every: steps between reports; an epoch if `epochs` is given.
      checkpoint_seconds: between checkpoints.
      eval_batch_size: the most examples evaluated at once.
      diverged_above: as in `sweep.run`.
      progress: show a line of progress on standard error.

    Raises:
      ValueError: an argument is wrong, or the folder belongs to another run;
        before anything is compiled.
      Interrupted: Ctrl-C or SIGTERM; what is done is saved.
    """
    use_all_cores()
    dataset = Dataset(*data)
    check(dataset)
    if keep not in (None, "best", "last"):
        raise ValueError(f"`keep` must be 'best', 'last' or None, got keep={keep!r}.")
    keep = keep or ("last" if dataset.valid is None else "best")
    work = make_workload(
        lambda numbers: trial,
        data=dataset,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        report_every=report_every,
        eval_batch_size=eval_batch_size,
        diverged_above=diverged_above,
    )
    check_data(trial, work)
    shapes = trace_shapes(work, {})
    judged_by = choose_goal(set(shapes.reports), metric, goal)
    mesh = lane_mesh(1)
    db = store.Store(out)
    shown = Progress(progress)
    try:
        specification = {
            "steps": work.steps,
            "report_every": work.report_every,
            "batch_size": batch_size,
            "seed": seed,
            "metric": judged_by.metric,
            "goal": "max" if judged_by.sign > 0 else "min",
            "keep": keep,
            "program": shapes.program,
            "data": fingerprint(dataset),
        }
        if not db.begin(specification, sorted(shapes.reports)):
            db.add_trials([(0, {})])
        ((_, _, status, _, _),) = db.trials()
        complete = True
        if status not in store.ENDED:
            plan = make_plan(work, shapes, 1, mesh, 1)
            group = Group("fit", work, shapes, plan, [Queued(0, {}, 0)], mesh, seed)
            loop = Loop(
                [group],
                db,
                judged_by,
                keep=1,
                keep_best=keep == "best",
                checkpoint_seconds=checkpoint_seconds,
                progress=shown,
            )
            complete = loop.run(work.data).complete
        result = _result(db, shapes.lane.state, work.report_every, judged_by, keep)
        if db.folder is not None and complete:
            (db.folder / CHECKPOINT).unlink(missing_ok=True)
    finally:
        shown.close()
        db.close()
    if not complete:
        where = f" Run the same again to go on with {out}." if out is not None else ""
        raise Interrupted(f"Stopped after {len(result.steps)} reports.{where}", result)
    return result


def _result(
    db: store.Store, state_like: PyTree, report_every: int, judged_by: Goal, keep: str
) -> Fit:
    ((_, _, status, _, final),) = db.trials()
    names, table = db.reports()
    curves = {name: table[:, 2 + column] for column, name in enumerate(names)}
    steps = table[:, 1].astype(int)
    leaves = db.state(0)
    state = None if leaves is None else to_keys(checkpoint.fill(state_like, leaves))
    at = len(table) - 1
    if keep == "best" and len(table):
        at = int(np.argmax([judged_by.score(value) for value in curves[judged_by.metric]]))
    metrics = {name: float(curve[at]) for name, curve in curves.items()} if len(table) else {}
    return Fit(state, int(steps[at]) if len(table) else 0, metrics | final, curves, steps, status)

"""`fit`: one training run, on one device or with its batches split over many."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from jdl import tree
from jdl._checks import check_count, check_number, check_seed
from jdl.data.batches import steps_per_epoch
from jdl.data.dataset import Dataset, check
from jdl.data.source import Position, Reader, Stream
from jdl.data.stream import batches
from jdl.engine import checkpoint
from jdl.engine.contract import crc32, fingerprint, trace_shapes
from jdl.engine.devices import check_compiles, use_all_cores
from jdl.engine.events import ENDED, RUNNING, Ended, Record
from jdl.engine.goal import choose_goal
from jdl.engine.interrupt import Interrupted
from jdl.engine.journal import Journal
from jdl.engine.keys import to_keys, to_words, trial_keys
from jdl.engine.progress import Progress
from jdl.engine.snapshot import check_owner
from jdl.engine.trial import Batch, Trial, params_of
from jdl.engine.workload import make_workload, splits_of
from jdl.train.layout import make_layout
from jdl.train.programs import make_programs
from jdl.train.training import CHECKPOINT, STATE, Callback, Training


class Fit(NamedTuple):
    """The results of a training run.

    Attributes:
      state: the trial's state at its best report, or the last one that is finite if
        no report was the best.
      step: training steps that `state` has seen.
      metrics: what was reported at that step, and the test metrics of `state`.
      curves: every reported metric, one value a report.
      steps: the training step of each report.
      status: done, stopped early, diverged, or running if it was interrupted.
    """

    state: PyTree
    step: int
    metrics: dict[str, float]
    curves: dict[str, Float[np.ndarray, " reports"]]
    steps: Int[np.ndarray, " reports"]
    status: str

    @property
    def params(self) -> PyTree:
        """The parameters in `state`, as `diagnose.params_of` finds them."""
        return params_of(self.state)


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
    patience: int | None = None,
    min_delta: float = 0.0,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    state: PyTree | None = None,
    out: str | os.PathLike[str] | None = None,
    report_every: int | None = None,
    resident: bool = True,
    devices: int | Sequence[Any] = 1,
    split_state: bool = False,
    checkpoint_seconds: float = 30.0,
    eval_batch_size: int = 1024,
    diverged_above: float = 1e6,
    progress: bool = True,
) -> Fit:
    """Trains one trial; on one device the result is that of a lane of a sweep.

    On several devices each batch is split over them. The compiler partitions the
    program of a single device, so gradients are summed and batch norm's
    statistics are those of the whole batch.

    Args:
      trial: what to train.
      data: a `Dataset`, or `(train, valid, test)` with each `(x, y)` or None;
        the training split may be a `data.Stream`.
      epochs: passes over the training split, the remainder of a batch dropped.
      steps: training steps, instead of `epochs`.
      batch_size: examples in a training step, over all devices.
      metric: what judges reports, as in `sweep.run`.
      goal: "max" or "min"; None maximises accuracies and minimises the rest.
      keep: "best", the state at the best report, or "last"; None keeps the best
        if there is a validation split.
      patience: stop early after this many reports in a row without a new best;
        None trains to the end.
      min_delta: by how much a report must be better to count for `patience`.
      callbacks: each is called with every `Report`, on the host; a true return
        value ends the run. A resumed run repeats the reports that came after its
        checkpoint.
      seed: the root of all random numbers.
      state: what training goes on from, a tree as `trial.init` gives, such as
        `Fit.state` of another run; None begins with `trial.init`. Steps are counted
        from 0 all the same.
      out: the run's folder. The same call with the same folder resumes, to the bit.
      report_every: steps between reports; an epoch if `epochs` is given. A run
        can resume only at a report.
      resident: keep the training split on the device; False streams its batches,
        the same ones in the same order, for data that are too large (memory-mapped
        arrays are read batch by batch).
      devices: how many local devices, or which.
      split_state: split large parameters and their averages over the devices too.
      checkpoint_seconds: between checkpoints.
      eval_batch_size: the most examples evaluated at once.
      diverged_above: as in `sweep.run`.
      progress: show a progress line on standard error.

    Raises:
      ValueError: an argument is wrong, or the folder belongs to another run;
        before anything is compiled.
      Interrupted: Ctrl-C or SIGTERM ended the run; its progress is saved.
    """
    check_compiles()
    use_all_cores()
    if keep not in (None, "best", "last"):
        raise ValueError(f"`keep` must be 'best', 'last' or None, got keep={keep!r}.")
    seed = check_seed(seed)
    patience = None if patience is None else check_count("patience", patience)
    check_number("min_delta", min_delta, "[0, inf)")
    dataset, stream, first = Dataset(*data), None, None
    if isinstance(dataset.train, Stream):
        stream, dataset = dataset.train, dataset._replace(train=None)  # type: ignore[arg-type]
        steps, report_every = _length(stream, epochs, steps, report_every)
        epochs, first = None, _first_batch(stream, check_count("batch_size", batch_size))
        first, *held = (
            None if split is None else check(Dataset(split)).train
            for split in (first, dataset.valid, dataset.test)
        )
        dataset = Dataset(None, *held)  # type: ignore[arg-type]
    else:
        dataset = check(dataset)
    dataset = jax.tree.map(np.asarray, dataset)  # JAX does not take memory maps
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
        batch=first,
    )
    streams = stream is not None or not resident
    splits = splits_of(dataset)
    if streams:
        splits.pop("train", None)  # its batches are moved to the devices one by one
    layout = make_layout(devices, split_state, batch_size)
    if trial.check is not None:
        trial.check(dataset if first is None else dataset._replace(train=first))
    shapes = trace_shapes(work, {})
    started_from = None if state is None else _like(shapes.lane.state, state)
    judged_by = choose_goal(set(shapes.reports), metric, goal)
    db = Journal(out)
    shown = Progress(progress)
    try:
        specification = {
            "steps": work.steps,
            "report_every": work.report_every,
            "batch_size": batch_size,
            "seed": seed,
            "keep": keep,
            "patience": patience,
            "min_delta": min_delta,
            "resident": resident and stream is None,
            "program": shapes.program,
            "data": fingerprint(dataset),
        } | judged_by.to_json()
        if started_from is not None:
            specification["state"] = crc32(started_from)
        db.begin(specification, sorted(shapes.reports), [(0, {})])
        ((_, _, status, _, _),) = db.trials()
        programs = make_programs(work, shapes, layout)
        if status not in ENDED:
            training = Training(
                work,
                shapes,
                programs,
                layout,
                db,
                judged_by,
                shown,
                keep_best=keep == "best",
                patience=patience,
                min_delta=min_delta,
                callbacks=callbacks,
                checkpoint_seconds=checkpoint_seconds,
            )

            def read(step: int, position: Position | None) -> Reader:
                source = stream or _from_arrays(dataset.train, batch_size, seed)
                return Reader(source, batch_size, step, position)

            outcome = training.run(seed, splits, read if streams else None, started_from)
            status, state, step = outcome
            if status in ENDED:
                test = jax.device_put(dataset.test, layout.everywhere)
                _end(db, test, programs, outcome)
        else:
            state, step = _finished(db, shapes.lane.state)
        result = _result(db, state, step, status, split_state)
    finally:
        shown.close()
        db.close()
    if status == RUNNING:
        where = f" Run the same again to resume {out}." if out is not None else ""
        raise Interrupted(f"Stopped after {len(result.steps)} reports.{where}", result)
    return result


def _like(like: PyTree, state: PyTree) -> PyTree:
    """`state` with its keys as words, checked against the shapes `like`."""

    def leaf(a: Any) -> np.ndarray:
        array = np.asarray(a)
        # A Python number has the type that JAX gives it.
        dtype = array.dtype if hasattr(a, "dtype") else jax.dtypes.canonicalize_dtype(array.dtype)
        return array.astype(dtype, copy=False)

    leaves = tree.named_leaves(jax.tree.map(leaf, to_words(state)))
    return checkpoint.fill(like, leaves, "`state`")


def _length(
    stream: Stream, epochs: int | None, steps: int | None, report_every: int | None
) -> tuple[int | None, int | None]:
    """The training steps on a stream, and those between reports."""
    if epochs is None:
        return steps, report_every
    if stream.steps_per_epoch is None:
        raise ValueError(
            "`epochs` of a stream need Stream(source, steps_per_epoch=...); or give `steps`."
        )
    if steps is not None:
        raise ValueError(f"Give either `epochs` or `steps`, got epochs={epochs}, steps={steps}.")
    check_count("epochs", epochs)
    return epochs * stream.steps_per_epoch, report_every or stream.steps_per_epoch


def _first_batch(stream: Stream, batch_size: int) -> Batch:
    """The first batch of a stream, a pair (x, y)."""
    reader = Reader(stream, batch_size)
    try:
        first = reader.peek()
    finally:
        reader.close()
    if not isinstance(first, tuple) or len(first) != 2:
        raise ValueError(f"A stream's batches must be pairs (x, y), got {type(first).__name__}.")
    return first


def _from_arrays(train: Batch, batch_size: int, seed: int) -> Stream:
    """The batches that the resident program would draw."""
    key = trial_keys(np.uint32(seed), np.uint32(0)).data
    per_epoch = steps_per_epoch(len(jax.tree.leaves(train)[0]), batch_size)
    return Stream(lambda step: batches(train, key, batch_size, start=step), per_epoch)


def _end(db: Journal, test: Batch | None, programs: Any, outcome: Any) -> None:
    """Writes the kept state and how the run ended, then drops the checkpoint."""
    final: dict[str, float] = {}
    if test is not None:
        means = jax.device_get(programs.evaluate(outcome.state, test))
        final = {f"test_{name}": float(mean) for name, mean in means.items()}
    steps = int(db.reports()[1][-1, 1])
    turn = db.last_turn()
    if db.folder is not None:
        notes = {"run": db.notes()["run"], "turn": turn, "step": outcome.step}
        blob = checkpoint.to_bytes(jax.device_get(outcome.state), notes)
        checkpoint.write_atomically(db.folder / STATE, blob)
    ended = Ended(0, outcome.status, steps, math.nan)
    db.append(Record(turn + 1, "segment", ended=(ended,)), tests={0: final})
    if db.folder is not None:
        (db.folder / CHECKPOINT).unlink(missing_ok=True)


def _finished(db: Journal, like: PyTree) -> tuple[PyTree, int]:
    """The state that a finished run kept, and its step."""
    assert db.folder is not None
    path = db.folder / STATE
    if not path.exists():
        raise checkpoint.CheckpointError(
            f"{path} is missing: the state that this finished run kept. Give another folder to "
            "train again."
        )
    leaves, notes = checkpoint.from_bytes(path.read_bytes(), str(path))
    check_owner(db, path, notes)
    return checkpoint.fill(like, leaves, str(path)), notes["step"]


def _result(db: Journal, state: PyTree, step: int, status: str, split_state: bool) -> Fit:
    ((_, _, _, _, final),) = db.trials()
    names, table = db.reports()
    curves = {name: table[:, 2 + column] for column, name in enumerate(names)}
    steps = table[:, 1].astype(int)
    # A state split over devices may not fit on the host or on one of them.
    state = state if split_state else jax.device_get(state)
    at = int(np.searchsorted(steps, step)) if step in steps else len(steps) - 1
    metrics = {name: float(curve[at]) for name, curve in curves.items()} if len(steps) else {}
    return Fit(to_keys(state), step, metrics | final, curves, steps, status)

"""`sweep.run`: many trials of one function as one compiled program per static group."""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jdl.data.dataset import Dataset, check
from jdl.engine import store
from jdl.engine.goal import choose_goal
from jdl.engine.group import Group, Queued
from jdl.engine.loop import CHECKPOINT, Loop, Stopping, read_checkpoint
from jdl.engine.plan import Plan, lane_mesh, make_plan, use_all_cores
from jdl.engine.program import Shapes, Workload, check_data, trace_shapes
from jdl.engine.progress import Progress
from jdl.engine.specification import fingerprint
from jdl.engine.trial import Trial
from jdl.engine.workload import make_workload
from jdl.sweep.results import Results
from jdl.sweep.search import Config, Search, make_search
from jdl.sweep.space import (
    Space,
    as_scalars,
    names,
    parse_space,
    seed_axis,
    split_static,
    to_json,
)

MakeTrial = Callable[[dict[str, Any]], Trial]


class Interrupted(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM ended early; `results` holds what is done.

    The same call with the same folder goes on from there.
    """

    def __init__(self, message: str, results: Any):
        super().__init__(message)
        self.results = results


def run(
    make_trial: MakeTrial,
    space: Mapping[str, Any],
    data: Dataset | tuple[Any, ...],
    *,
    trials: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    search: str | Search | None = None,
    stopping: Stopping | None = None,
    metric: str | None = None,
    goal: str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    report_every: int | None = None,
    devices: int | Sequence[Any] | None = None,
    lanes: int | None = None,
    keep: int = 10,
    checkpoint_seconds: float = 30.0,
    eval_batch_size: int = 1024,
    diverged_above: float = 1e6,
    progress: bool = True,
) -> Results:
    """Trains every trial of a search space, many at once, and gives their results.

    Trials that differ only in numbers are lanes of one compiled program; each
    combination of static values (strings, tuples, whatever is marked static)
    is a program of its own, compiled once. A trial draws the same initial
    weights, batches and masks whatever the lanes, devices and other trials are.

    Args:
      make_trial: gives the `Trial` of a configuration, a dict by the names of
        the space. Its numbers may be traced, so no `if` may look at them.
      space: what each hyperparameter may be: dimensions and plain values.
      data: a `Dataset`, or `(train, valid, test)` with each `(x, y)` or None.
      trials: how many to run, seeds counted; None for all of a grid.
      epochs: passes over the training split, the remainder of a batch dropped.
      steps: training steps, instead of `epochs`.
      batch_size: examples in a training step.
      search: "grid", "random" or a `Search`; None takes a grid where the space
        is finite and `trials` is not given.
      stopping: ends hopeless trials early, as `asha()` does.
      metric: what trials are judged by; "valid_accuracy" if it is reported,
        else "valid_loss", else "train_loss".
      goal: "max" or "min"; None maximises accuracies and minimises the rest.
      seed: the root of all random numbers, search included.
      out: the run's folder. The same call with the same folder resumes; None
        keeps everything in memory.
      report_every: steps between reports; an epoch if `epochs` is given.
      devices: how many local devices, or which; None for all.
      lanes: lanes on each device; None lets the planner choose, and say why.
      keep: how many of the best trials' final states are kept.
      checkpoint_seconds: between checkpoints of running trials.
      eval_batch_size: the most examples evaluated at once.
      diverged_above: a trial has diverged when its loss is not finite, or is
        above this many times its first loss (or this number, if that is
        larger); inf judges by finiteness alone.
      progress: show a line of progress on standard error.

    Raises:
      ValueError: an argument is wrong, or the folder belongs to another run;
        always before anything is compiled.
      Interrupted: Ctrl-C or SIGTERM; what is done is saved.
    """
    use_all_cores()
    parsed = parse_space(space)
    dataset = Dataset(*data)
    check(dataset)
    searcher = search if isinstance(search, Search) else make_search(search, parsed, trials, seed)
    configs = searcher.ask(trials or 2**31)
    if not configs:
        raise ValueError("The search gave no configuration to try.")
    mesh = lane_mesh(devices)
    workload = functools.partial(
        make_workload,
        data=dataset,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        report_every=report_every,
        eval_batch_size=eval_batch_size,
        diverged_above=diverged_above,
    )
    programs = _programs(make_trial, parsed, configs, workload, mesh, lanes)
    reported = sorted(programs[0].shapes.reports)
    judged_by = choose_goal(set(reported), metric, goal)
    work = programs[0].work
    specification = {
        "programs": {program.label: program.shapes.program for program in programs},
        "space": to_json(parsed),
        "search": searcher.name,
        "stopping": stopping.name if stopping else None,
        "trials": len(configs),
        "steps": work.steps,
        "report_every": work.report_every,
        "batch_size": batch_size,
        "seed": seed,
        "metric": judged_by.metric,
        "goal": "max" if judged_by.sign > 0 else "min",
        "diverged_above": diverged_above,
        "data": fingerprint(dataset),
    }
    db = store.Store(out)
    shown = Progress(progress)
    try:
        if db.begin(specification, reported):
            ended = {trial for trial, _, status, _, _ in db.trials() if status in store.ENDED}
            shown.say(f"Resuming {out}: {len(ended)} of {len(configs)} trials had ended.")
        else:
            ended = set()
            db.add_trials(list(enumerate(configs)))
        complete = True
        if groups := _groups(programs, ended, mesh, seed, shown):
            loop = Loop(
                groups,
                db,
                judged_by,
                stopping=stopping,
                keep=keep,
                checkpoint_seconds=checkpoint_seconds,
                progress=shown,
            )
            stats = loop.run(work.data, read_checkpoint(db))
            complete = stats.complete
            db.note(plans={g.label: g.plan._asdict() for g in groups}, stats=stats._asdict())
        if db.folder is not None and complete:
            (db.folder / CHECKPOINT).unlink(missing_ok=True)
        state_of = {q.trial: p.shapes.lane.state for p in programs for q in p.queue}
        results = Results.read(db, state_of.__getitem__)
        results.make_trial = make_trial
    finally:
        shown.close()
        db.close()
    if not complete:
        where = f" Run the same again to go on with {out}." if out is not None else ""
        message = f"{results.count('done')} of {len(configs)} trials done.{where}"
        shown.say(message)
        raise Interrupted(message, results)
    return results


class _Program(NamedTuple):
    """What the trials of one combination of static values share."""

    label: str
    work: Workload
    shapes: Shapes
    plan: Plan
    queue: list[Queued]


def _programs(
    make_trial: MakeTrial,
    space: Space,
    configs: Sequence[Config],
    workload: Callable[..., Workload],
    mesh: Mesh,
    lanes: int | None,
) -> list[_Program]:
    """Sorts the trials by their static values, traces one trial of each kind and plans it."""
    axis = seed_axis(space)
    by_static: dict[tuple[tuple[str, Any], ...], list[Queued]] = {}
    for trial, config in enumerate(configs):
        static, numbers = split_static(space, config)
        stream = config[axis] if axis else trial
        by_static.setdefault(static, []).append(Queued(trial, as_scalars(numbers), stream))
    programs = []
    for static, queue in by_static.items():
        _try_extremes(make_trial, dict(static), [configs[queued.trial] for queued in queue])
        work = workload(make=_with_static(make_trial, dict(static)))
        check_data(make_trial(dict(configs[queue[0].trial])), work)
        label = names(static)
        shapes = _trace(work, queue[0], label)
        # The plan is of all trials, so that a resumed run is laid out as the first was.
        plan = make_plan(work, shapes, len(queue), mesh, lanes)
        programs.append(_Program(label, work, shapes, plan, queue))
    first = programs[0]
    for program in programs:
        if program.shapes.reports.keys() != first.shapes.reports.keys():
            raise ValueError(
                f"Every trial must report the same metrics, but {program.label} reports "
                f"{sorted(program.shapes.reports)} and {first.label} reports "
                f"{sorted(first.shapes.reports)}."
            )
    return programs


def _groups(
    programs: Sequence[_Program],
    ended: set[int],
    mesh: Mesh,
    seed: int,
    shown: Progress,
) -> list[Group]:
    """The groups that still have trials to run."""
    groups = []
    for label, work, shapes, plan, queue in programs:
        if waiting := [queued for queued in queue if queued.trial not in ended]:
            groups.append(Group(label, work, shapes, plan, waiting, mesh, seed))
    for reason, count in collections.Counter(group.plan.reason for group in groups).items():
        shown.say(f"{count} {'programs' if count > 1 else 'program'}: {reason}")
    return groups


def _with_static(make_trial: MakeTrial, static: dict[str, Any]) -> Callable[[Any], Trial]:
    return lambda numbers: make_trial({**static, **numbers})


def _try_extremes(make_trial: MakeTrial, static: dict[str, Any], configs: Sequence[Config]) -> None:
    """Makes the trials with the smallest and the largest of each number, outside any trace.

    A constructor checks its numbers where they are concrete, so a rate out of
    range is found here, with its name, and not by a network that diverges.
    """
    numbers = [name for name in configs[0] if name not in static]
    extremes = {0}
    for name in numbers:
        values = [config[name] for config in configs]
        extremes |= {int(np.argmin(values)), int(np.argmax(values))}
    for index in sorted(extremes):
        try:
            trial = make_trial(dict(configs[index]))
        except Exception as error:
            error.add_note(f"make_trial was called with {configs[index]}.")
            raise
        if not isinstance(trial, Trial):
            raise TypeError(f"make_trial must give a jdl.train.Trial, got {type(trial).__name__}.")


def _trace(work: Workload, queued: Queued, label: str) -> Shapes:
    try:
        return trace_shapes(work, dict(queued.numbers))
    except TypeError as error:  # of which JAX's errors about traced values are kinds
        traced = isinstance(error, jax.errors.JAXTypeError) or "concrete value" in str(error)
        if not traced:
            error.add_note(f"While the trial of {label or 'this space'} was traced.")
            raise
        raise ValueError(
            "make_trial, or the trial that it makes, used a hyperparameter as a Python value (in "
            "an `if`, as a shape, or in NumPy), but numbers of a space are traced. If it sets a "
            "shape, mark it: sweep.choice(32, 64, static=True) or sweep.integer(1, 4, "
            f"static=True). If it switches something off, give that as a value.\n{error}"
        ) from error
    except Exception as error:
        error.add_note(f"While the trial of {label or 'this space'} was traced.")
        raise

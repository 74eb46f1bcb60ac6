"""`sweep.run`: many trials of one function as one compiled program per static group."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jdl._checks import check_count, check_number, check_seed
from jdl.data.dataset import Dataset, check
from jdl.diagnose.monitor import watched
from jdl.engine.contract import fingerprint
from jdl.engine.devices import check_compiles, lane_mesh, use_all_cores
from jdl.engine.executor import LocalExecutor
from jdl.engine.goal import choose_goal
from jdl.engine.interrupt import Interrupted
from jdl.engine.journal import Journal, recorded_plans
from jdl.engine.names import check_metrics
from jdl.engine.ordering import BATCH
from jdl.engine.policy import Policy
from jdl.engine.progress import Progress
from jdl.engine.recorder import ended
from jdl.engine.rules import Stopping
from jdl.engine.run import Limits, run_trials
from jdl.engine.snapshot import SNAPSHOT
from jdl.engine.workload import make_workload, splits_of
from jdl.sweep.by_configuration import by_configuration
from jdl.sweep.making import MakeTrial, Making
from jdl.sweep.parts import Part, take_part
from jdl.sweep.population import Population
from jdl.sweep.results import Results
from jdl.sweep.search import Config, Search, make_search
from jdl.sweep.space import parse_space, to_json
from jdl.sweep.trials import Trials
from jdl.sweep.values import plain


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
    monitors: Sequence[Any] = (),
    population: Population | None = None,
    target: float | None = None,
    seconds: float | None = None,
    metric: str | None = None,
    goal: str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    report_every: int | None = None,
    devices: int | Sequence[Any] | None = None,
    lanes: int | str | None = None,
    keep: int = 10,
    checkpoint_seconds: float = 30.0,
    eval_batch_size: int = 1024,
    diverged_above: float = 1e6,
    part: tuple[int, int] | None = None,
    progress: bool = True,
) -> Results:
    """Trains every trial of a search space, many at once, and gives their results.

    Trials that differ only in numbers are lanes of one compiled program; each
    combination of static values (strings, tuples, anything marked static) is a
    program of its own, compiled once. A trial draws the same initial weights,
    batches and masks regardless of lanes, devices and other trials.

    Args:
      make_trial: gives the `Trial` of a configuration, a dict by the names of
        the space. Its numbers may be traced, so no `if` may look at them.
      space: the dimension or the plain value of each hyperparameter.
      data: a `Dataset`, or `(train, valid, test)` with each `(x, y)` or None.
      trials: how many to run, seeds counted; None for all of a grid.
      epochs: passes over the training split, the remainder of a batch dropped.
      steps: training steps, instead of `epochs`.
      batch_size: examples in a training step.
      search: "grid", "random", "sobol" or a `Search`; None takes a grid if the
        space is finite and `trials` is not given.
      stopping: ends hopeless trials early, as `asha()` does. Seeds and folds of a
        configuration go on or stop together, judged by their mean.
      population: lets trials copy each other while they train, as `pbt()` does.
      monitors: what to record of every lane at every report besides its metrics:
        "update_ratio", "dead_share", ... (see `diagnose.monitored`).
      target: a value of the metric. Once a trial reports it, the run is over:
        that trial is done, and the others are stopped.
      seconds: a budget of training time for this call, without start-up and
        compilation; at least one segment is trained. When it is used up, the running
        trials are saved and the results so far are returned; the same call with the
        same folder goes on. Only this cut depends on the clock.
      metric: what judges trials; "valid_accuracy" if it is reported, else
        "valid_loss", else "train_loss".
      goal: "max" or "min"; None maximises accuracies and minimises losses, and
        must be given for a metric whose name does not tell.
      seed: the root of all random numbers, search included.
      out: the run's folder. The same call with the same folder resumes; None
        keeps everything in memory.
      report_every: steps between reports; an epoch if `epochs` is given.
      devices: how many local devices, or which; None for all.
      lanes: lanes on each device. None lets the planner estimate them and say why;
        "tune" makes it time a few widths first, some seconds each, and remember the
        best for this device and program.
      keep: for how many of the best trials the final states are kept.
      checkpoint_seconds: between checkpoints of running trials.
      eval_batch_size: the most examples evaluated at once.
      diverged_above: a trial has diverged when its loss is not finite, or is
        above this many times its first loss (or this number, if that is
        larger); inf judges by finiteness alone.
      part: `(k, n)` runs the k-th of n parts of the trials, for job arrays; `merge` makes
        one run of all parts, bit for bit that of the whole where `lanes` is given or parts
        are large. It works with searches that do not learn, and without `stopping`,
        `population` and `target`, which compare trials of all parts.
      progress: show a progress line on standard error.

    Raises:
      ValueError: an argument is wrong, or the folder belongs to another run;
        always before anything is compiled.
      Interrupted: Ctrl-C or SIGTERM ended the run; its progress is saved.
    """
    check_compiles()
    use_all_cores()
    if seconds is not None:
        check_number("seconds", seconds, "(0, inf)")
    seed, keep = check_seed(seed), check_count("keep", keep, 0)
    trials = None if trials is None else check_count("trials", trials)
    if out is not None and not isinstance(out, str | os.PathLike):
        raise TypeError(f"`out` must be the path of a folder or None, got out={out!r}.")
    if not isinstance(space, Mapping):
        raise TypeError(f"`space` must be a dict of dimensions, got {type(space).__name__}.")
    if target is not None:
        check_number("target", target, "(-inf, inf)")
    check_number("checkpoint_seconds", checkpoint_seconds, "[0, inf]")
    check_kind("stopping", stopping, Stopping, "asha")
    check_kind("population", population, Population, "pbt")
    parsed = parse_space(space)
    if not isinstance(data, tuple | list):
        raise TypeError(
            f"`data` must be a Dataset or (train, valid, test), got {type(data).__name__}."
        )
    dataset = check(Dataset(*data))
    searcher = search if isinstance(search, Search) else make_search(search, parsed, trials, seed)
    own: Part | None = None
    if part is not None:
        for name, given in (
            ("stopping", stopping), ("population", population), ("target", target)
        ):  # fmt: skip
            if given is not None:
                raise ValueError(
                    f"`{name}` compares trials of all parts, so it cannot be used with `part`."
                )
        searcher, own = take_part(searcher, parsed, trials, part)
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
    shown = Progress(progress)
    mesh = lane_mesh(devices)
    making = Making(
        watched(make_trial, monitors) if monitors else make_trial,
        workload,
        dataset,
        mesh,
        lanes,
        members=population is not None,
        plans=recorded_plans(out),
        say=shown.say,
    )
    source = Trials(making, parsed, searcher, trials=None if own else trials, part=own)
    supply = source.supply()
    groups = supply.first.groups
    _check_deciders(source, searcher, stopping, population)
    if stopping is not None:
        stopping = by_configuration(stopping, source.numbered)
    work, reported = groups[0].work, sorted(groups[0].shapes.reports)
    for metrics in (reported, groups[0].shapes.final):
        check_metrics(metrics, parsed)
    judged_by = choose_goal(set(reported), metric, goal)
    specification = {
        "programs": {group.label: group.shapes.program for group in groups},
        "space": to_json(parsed),
        "search": searcher.name,
        "stopping": stopping.name if stopping else None,
        "population": population.name if population else None,
        "target": target,
        "trials": source.count,
        "steps": work.steps,
        "report_every": work.report_every,
        "batch_size": batch_size,
        "seed": seed,
        "diverged_above": diverged_above,
        "data": fingerprint(dataset),
    } | judged_by.to_json()
    if own is not None:
        specification["part"] = own.to_json()
    policy = Policy(
        work.reports,
        work.report_every,
        stopping.start() if stopping else None,
        population.start(parsed, seed) if population else None,
        None if target is None else judged_by.score(target),
        searcher.adaptive,
    )
    journal = Journal(out)
    try:
        plans = {group.label: group.plan._asdict() for group in groups}
        if journal.begin(specification, reported, supply.first.configs, plans=plans, keep=keep):
            journal.check_asked(supply.first.configs, searcher.name)
            total = source.count or "many"
            shown.say(f"Resuming {out}: {ended(journal)} of {total} trials had ended.")
        complete, late = journal.notes().get("complete", False), False
        if not complete:
            with LocalExecutor(mesh, splits_of(dataset), seed, shown.say) as executor:
                stats = run_trials(
                    policy,
                    executor,
                    journal,
                    supply,
                    judged_by,
                    shown,
                    trials=source.count,
                    limits=Limits(
                        math.inf if seconds is None else seconds, keep, checkpoint_seconds
                    ),
                )
            complete, late = stats.complete, stats.out_of_time
            journal.note(stats=stats._asdict(), search=searcher.facts(), complete=complete)
        if journal.folder is not None and complete:
            (journal.folder / SNAPSHOT).unlink(missing_ok=True)
        results = Results.read(
            journal, lambda trial: source.state_like(_tuples(journal.config(trial)))
        )
        results.make_trial = make_trial
    finally:
        shown.close()
        journal.close()
    if not complete:
        where = f" Run the same again to resume {out}." if out is not None else ""
        why = f"The {seconds:g} seconds are over; " if late else ""
        message = f"{why}{results.count('done')} of {len(results.trials)} trials done.{where}"
        if not late:
            raise Interrupted(message, results)
        shown.say(message)
    return results


def _tuples(config: Config) -> Config:
    """`config` as it was before JSON, which has no tuples."""
    return {name: plain(v) for name, v in config.items()}


def check_kind(name: str, given: Any, kind: type[Any], example: str) -> None:
    """Raises ValueError unless `given` is None or what `sweep.example()` gives."""
    if given is not None and not isinstance(given, kind):
        raise ValueError(f"`{name}` must be as sweep.{example}() gives it, got {given!r}.")


def _check_deciders(
    source: Trials, search: Search, stopping: Stopping | None, population: Population | None
) -> None:
    if population is None:
        return
    for name, given in (
        ("stopping", stopping is not None),
        ("an adaptive search", search.adaptive),
    ):
        if given:
            raise ValueError(f"A population trains all members to the end, so leave out {name}.")
    if source.count is None or source.count > BATCH:
        raise ValueError(
            f"A population has at most {BATCH} members, all known from the start, got "
            f"trials={source.count}."
        )

"""A sweep's results as points: each configuration over its seeds, by static group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.sweep.dimension import REPEATS
from jdl.sweep.space import Static, from_json, word


class Point(NamedTuple):
    """One configuration over its seeds.

    Attributes:
      x: its value of the hyperparameter drawn.
      mean: of the metric over the seeds that were done; NaN if none was.
      stderr: its standard error; NaN below two.
      done: seeds that were done.
      diverged: seeds that diverged.
      early: the mean over the seeds that were stopped early, as they were then;
        NaN if none was.
      best: whether no other configuration of its group at this `x` is better.
      rank: among all configurations, from 0 for the best.
    """

    x: Any
    mean: float
    stderr: float
    done: int
    diverged: int
    early: float
    best: bool
    rank: int

    @property
    def span(self) -> tuple[float, float]:
        """The ends of the error bar."""
        error = 0.0 if math.isnan(self.stderr) else self.stderr
        return self.mean - error, self.mean + error


def points_by_group(results: Any, name: str, metric: str) -> dict[str, list[Point]]:
    """The points of each static group by its label, along the hyperparameter `name`."""
    statics = [n for n in varying(results, static=True) if n != name]
    space = from_json(results.specification["space"])
    orders = {n: {repr(value): i for i, value in enumerate(space[n].points or ())} for n in statics}
    present = {Static((n, t.config[n]) for n in statics if n in t.config) for t in results.trials}
    ordered = sorted(
        present, key=lambda key: [(statics.index(n), orders[n][repr(v)]) for n, v in key]
    )
    groups: dict[str, list[Point]] = {group_label(dict(key)): [] for key in ordered}
    trials = {trial.trial: trial for trial in results.trials}
    seen: set[tuple[str, Any]] = set()
    for rank, summary in enumerate(results.configurations(metric)):
        if name not in summary.config:
            continue  # a conditional one: here is nothing to draw it against
        label = group_of(summary.config, statics)
        at = summary.config[name]
        first = (label, repr(at)) not in seen and not math.isnan(summary.mean)
        seen |= {(label, repr(at))} if first else set()
        mine = [trials[trial] for trial in summary.trials]
        diverged = sum(trial.status == "diverged" for trial in mine)
        early = [t.metrics.get(metric, math.nan) for t in mine if t.status == "stopped"]
        halfway = float(np.mean(early)) if early else math.nan
        groups[label].append(
            Point(at, summary.mean, summary.stderr, summary.done, diverged, halfway, first, rank)
        )
    return groups


def repeated(results: Any) -> str:
    """What a mean is taken over: seeds, folds, or both."""
    if results.specification.get("population"):
        return "seeds"
    kinds = [next(iter(e)) for e in results.specification["space"].values()]
    return " and ".join(kind for kind in REPEATS if kind in kinds) or "seeds"


def averaged(results: Any, summaries: Iterable[Any]) -> str:
    """Of how many seeds the means of `summaries` are, to be appended to a title.

    Empty where no mean is of more than one.
    """
    of = {s.done for s in summaries if s.done}
    if max(of, default=1) < 2:
        return ""
    least, most = min(of), max(of)
    n = f"{most}" if least == most else f"n = {least} to {most}"
    return f"; mean ± standard error over {n} {repeated(results)}"


def varying(results: Any, static: bool) -> list[str]:
    """The static or the traced hyperparameters, seeds aside, that take more than one value."""
    space = from_json(results.specification["space"])
    names = [n for n in space if space[n].kind not in REPEATS and space[n].static == static]
    return [n for n in names if len({repr(v) for v in values_of(results, n)}) > 1]


def group_of(config: Mapping[str, Any], statics: Sequence[str]) -> str:
    """The label of the group that `config` belongs to, `statics` being those that vary."""
    return group_label({name: config[name] for name in statics if name in config})


def group_label(statics: Mapping[str, Any]) -> str:
    """A group as a legend names it.

    >>> group_label({"optimizer": "adam"}), group_label({"optimizer": "adam", "hidden": 64})
    ('adam', 'adam hidden=64')

    Texts that could be read otherwise are in quotes.

    >>> group_label({"first": "a b", "second": "c"}), group_label({"first": "a", "second": "b c"})
    ("'a b' c", "a 'b c'")
    """
    return " ".join(
        word(value)
        if isinstance(value, str) and not value[:1].isdigit()
        else f"{word(name)}={word(value)}"
        for name, value in statics.items()
    )


def values_of(results: Any, name: str) -> list[Any]:
    """The hyperparameter `name` of every trial that has it."""
    return [trial.config[name] for trial in results.trials if name in trial.config]


def is_number(values: Iterable[Any]) -> bool:
    """Whether all `values` are numbers, truth values not counted."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def is_log(entry: Mapping[str, Any], values: Sequence[Any]) -> bool:
    """Whether an axis of `values`, of the space's `entry`, is drawn logarithmic."""
    if not is_number(values) or min(values, default=0) <= 0:
        return False
    even = {"uniform", "grid", "integer"} & set(entry)
    return bool({"log_uniform", "log_grid"} & set(entry)) or (
        not even and max(values) / min(values) >= 100
    )


def words(metric: str) -> str:
    """A metric's name as an axis says it.

    >>> words("valid_accuracy"), words("train_loss"), words("speed")
    ('validation accuracy', 'training loss', 'speed')
    """
    for prefix, text in (("valid_", "validation "), ("train_", "training "), ("test_", "test ")):
        if metric.startswith(prefix):
            return text + metric.removeprefix(prefix).replace("_", " ")
    return metric.replace("_", " ")

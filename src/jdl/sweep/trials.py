"""Sorts the batches that a search gives by program; traces, plans and queues their trials."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jdl.data.dataset import Dataset
from jdl.engine.contract import Shapes, trace_shapes
from jdl.engine.events import Queued
from jdl.engine.group import Group
from jdl.engine.ordering import BATCH
from jdl.engine.plan import Plan, make_plan
from jdl.engine.progress import Progress
from jdl.engine.supply import Given, Supply
from jdl.engine.trial import Trial
from jdl.engine.tune import tuned
from jdl.engine.workload import Workload, splits_of
from jdl.sweep.dimension import REPEATS
from jdl.sweep.search import Config, Search
from jdl.sweep.space import Space, as_scalars, names, seed_axis, split_static

MakeTrial = Callable[[dict[str, Any]], Trial]
Static = tuple[tuple[str, Any], ...]


class Trials:
    """The trials of a sweep, numbered as the search gives them and grouped by static values.

    The first trial of a group makes the group.
    """

    def __init__(
        self,
        make_trial: MakeTrial,
        space: Space,
        search: Search,
        workload: Callable[..., Workload],
        data: Dataset,
        mesh: Mesh,
        *,
        trials: int | None,
        lanes: int | str | None,
        members: bool,
        plans: Mapping[str, Any],
        shown: Progress,
    ):
        """Takes the parts that make trials.

        Args:
          make_trial: gives the trial of a configuration.
          space: the parsed space.
          search: gives the configurations.
          workload: gives the workload of a group from `make`, which makes its trials.
          data: what they train on.
          mesh: the devices.
          trials: their maximum number.
          lanes: on each device, if the user gives it; "tune" times widths.
          members: whether every trial needs a lane of its own from the start.
          plans: those of a resumed run, by label, which stay as they are.
          shown: prints the plans.
        """
        self._make_trial, self._space, self._search = make_trial, space, search
        self._workload, self._data, self._mesh = workload, data, mesh
        self._most = math.inf if trials is None else trials
        self._lanes, self._members, self._plans, self._shown = lanes, members, plans, shown
        self._axis = seed_axis(space)
        self._by_static: dict[Static, Group] = {}
        self._running: dict[int, Config] = {}  # trials that have not ended
        self._asked = 0
        self._dry = False  # the search said that it has no more

    @property
    def groups(self) -> list[Group]:
        """The groups, in the order of their first trials."""
        return list(self._by_static.values())

    @property
    def count(self) -> int | None:
        """The total number of trials, or None if unknown."""
        known = self._asked if self._dry else self._most
        return int(known) if math.isfinite(known) else None

    def supply(self) -> Supply:
        """The first trials, and the source of more.

        Raises:
          ValueError: the search gives none, or one that cannot run.
        """
        first = self._give(1 if self._search.adaptive else BATCH)
        if not first.trials:
            raise ValueError("The search gave no configuration to try.")
        if not self._search.adaptive:  # its first program may use few numbers
            self._say_unused({name for _, config in first.configs for name in config})
        return Supply(
            self._search.name, first, self._give, self._tell, self._left, self._search.adaptive
        )

    def _say_unused(self, names: set[str]) -> None:
        """Reports numbers that no trial uses, for instance because a name is misspelt."""
        used = frozenset[str]().union(*(group.shapes.used for group in self.groups))
        swept = [n for n, d in self._space.items() if not d.static and d.kind not in REPEATS]
        if unused := [name for name in swept if name in names - used]:
            self._shown.say(
                f"No trial depends on {', '.join(unused)}. Does make_trial read another name?"
            )

    def state_like(self, config: Config) -> Any:
        """The shapes of the state of the trial of `config`."""
        static, numbers = split_static(self._space, config)
        if static not in self._by_static:
            example = Queued(0, as_scalars(numbers), 0)
            self._by_static[static] = self._group(static, [config], example)
        return self._by_static[static].shapes.lane.state

    def _left(self) -> float:
        return 0 if self._dry else self._most - self._asked

    def _ask(self, wanted: int) -> list[tuple[int, Config]]:
        wanted = int(min(wanted, self._left()))
        configs = self._search.ask(wanted) if wanted else []
        for config in configs[:1]:
            _check_names(self._space, config)
        if len(configs) < wanted and not self._search.adaptive:
            self._dry = True
        given = list(enumerate(configs, self._asked))
        self._asked += len(configs)
        self._running |= given
        return given

    def _give(self, wanted: int) -> Given:
        given = self._ask(wanted)
        known = {*self._by_static}
        trials = self._sort(given) if given else []
        new = [group for static, group in self._by_static.items() if static not in known]
        return Given(trials, given, new)

    def _tell(self, scores: Sequence[tuple[int, float]]) -> None:
        told = [(self._running.pop(trial), score) for trial, score in scores]
        self._search.tell([config for config, _ in told], [score for _, score in told])

    def _sort(self, given: Sequence[tuple[int, Config]]) -> list[tuple[str, Queued]]:
        """Finds the group of each trial, and makes the groups that are missing."""
        by_static: dict[Static, list[Config]] = {}
        trials = []
        for trial, config in given:
            static, numbers = split_static(self._space, config)
            by_static.setdefault(static, []).append(config)
            stream = config[self._axis] if self._axis else trial
            trials.append((static, Queued(trial, as_scalars(numbers), stream)))
        new = []
        for static, configs in by_static.items():
            _try_extremes(self._make_trial, dict(static), configs)
            if static not in self._by_static:
                example = next(queued for s, queued in trials if s == static)
                self._by_static[static] = self._group(static, configs, example)
                new.append(self._by_static[static])
        self._say(new)
        return [(self._by_static[static].label, queued) for static, queued in trials]

    def _group(self, static: Static, configs: Sequence[Config], example: Queued) -> Group:
        work = self._workload(make=_with_static(self._make_trial, dict(static)))
        check = self._make_trial(dict(configs[0])).check
        if check is not None:
            check(self._data)
        label = names(static)
        shapes = _trace(work, example, label)
        group = Group(label, work, shapes, self._plan(work, shapes, label, configs, example))
        _check_metrics([*self._by_static.values(), group])
        return group

    def _plan(
        self,
        work: Workload,
        shapes: Shapes,
        label: str,
        configs: Sequence[Config],
        example: Queued,
    ) -> Plan:
        if label in self._plans:
            return Plan(**self._plans[label])
        expected, width = self._expected(len(configs)), self._width(configs)
        plan = make_plan(work, shapes, expected, self._mesh, None if width == "tune" else width)
        if width == "tune":
            say = self._shown.say
            data = splits_of(self._data)
            plan = tuned(work, shapes, plan, expected, self._mesh, example.numbers, data, say)
        return plan

    def _width(self, configs: Sequence[Config]) -> Any:
        if not self._members:
            return self._lanes
        least = -(-len(configs) // self._mesh.size)
        if isinstance(self._lanes, int) and self._lanes < least:
            raise ValueError(
                f"A population needs a lane for each of its members, here {least} on each device "
                f"for {len(configs)}, got lanes={self._lanes}."
            )
        return self._lanes if isinstance(self._lanes, int) else least

    def _expected(self, here: int) -> int:
        """Estimates a group's total from the `here` trials that it has in this batch."""
        if self._left() == 0:
            return here
        if self._search.adaptive or not math.isfinite(self._most):
            return int(min(self._most, 2**31))
        return math.ceil(here * self._most / self._asked)

    def _say(self, groups: Iterable[Group]) -> None:
        for reason, count in collections.Counter(group.plan.reason for group in groups).items():
            self._shown.say(f"{count} {'programs' if count > 1 else 'program'}: {reason}")


def _check_names(space: Space, config: Config) -> None:
    there = {name for name, dimension in space.items() if not dimension.when}
    wrong = sorted({*config} - {*space}) or sorted(there - {*config})
    if wrong:
        raise ValueError(
            f"The search gives {config}, but the space has {', '.join(space)}. Make the search "
            f"for this space ({wrong[0]!r} is only in one of them)."
        )


def _check_metrics(groups: Sequence[Group]) -> None:
    first, last = groups[0], groups[-1]
    if last.shapes.reports.keys() != first.shapes.reports.keys():
        raise ValueError(
            f"Every trial must report the same metrics, but {last.label} reports "
            f"{sorted(last.shapes.reports)} and {first.label} reports "
            f"{sorted(first.shapes.reports)}."
        )


def _with_static(make_trial: MakeTrial, static: dict[str, Any]) -> Callable[[Any], Trial]:
    return lambda numbers: make_trial({**static, **numbers})


def _try_extremes(make_trial: MakeTrial, static: dict[str, Any], configs: Sequence[Config]) -> None:
    """Makes the trials with the smallest and the largest value of each number, without a trace.

    A constructor checks concrete numbers, so a rate out of range fails here by
    name, instead of making a network diverge.
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
            raise TypeError(
                f"make_trial must return a jdl.train.Trial, got {type(trial).__name__}."
            )


def _trace(work: Workload, queued: Queued, label: str) -> Shapes:
    try:
        return trace_shapes(work, dict(queued.numbers))
    except TypeError as error:  # JAX's errors about traced values are among these
        words = ("concrete value", "cannot be traced")
        traced = isinstance(error, jax.errors.JAXTypeError) or any(w in str(error) for w in words)
        if not traced:
            error.add_note(f"While the trial of {label or 'this space'} was traced.")
            raise
        raise ValueError(
            "make_trial, or the trial that it makes, used a hyperparameter as a Python value (in "
            "an `if`, as a shape, or in NumPy), but numbers of a space are traced. If it sets a "
            "shape, mark it static: sweep.choice(32, 64, static=True) or sweep.integer(1, 4, "
            f"static=True). If it switches something off, use a value that does so.\n{error}"
        ) from error
    except Exception as error:
        error.add_note(f"While the trial of {label or 'this space'} was traced.")
        raise

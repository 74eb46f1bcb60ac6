"""Numbers the trials that a search gives, and sorts them into groups by static values."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jdl.engine.events import Queued
from jdl.engine.group import Group
from jdl.engine.ordering import BATCH
from jdl.engine.supply import Given, Supply
from jdl.sweep.by_configuration import Numbered
from jdl.sweep.dimension import REPEATS
from jdl.sweep.making import Making, Static
from jdl.sweep.parts import Part
from jdl.sweep.search import Config, Search
from jdl.sweep.space import Space, as_scalars, seed_axis, split_static


class Trials:
    """The trials of a sweep, numbered as the search gives them and grouped by static values.

    The first trial of a group makes the group.
    """

    def __init__(
        self,
        making: Making,
        space: Space,
        search: Search,
        *,
        trials: int | None,
        part: Part | None = None,
    ):
        """Takes what makes trials.

        Args:
          making: makes groups.
          space: the parsed space.
          search: gives the configurations.
          trials: their maximum number.
          part: of a larger sweep that `search` gives the configurations of.
        """
        self._making, self._space, self._search = making, space, search
        self._most = math.inf if trials is None else trials
        self._axis, self._part = seed_axis(space), part
        self.numbered = Numbered(space)
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
            raise ValueError(
                f"The search {self._search.name} gave no configuration to try. A search that one "
                "sweep has used is empty; make another for each sweep."
            )
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
            self._making.say(
                f"No trial depends on {', '.join(unused)}. Does make_trial read another name?"
            )

    def state_like(self, config: Config) -> Any:
        """The shapes of the state of the trial of `config`."""
        static, numbers = split_static(self._space, config)
        if static not in self._by_static:
            example = Queued(0, as_scalars(numbers), 0)
            self._by_static[static] = self._making.group(static, [config], example, 1, 1)
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
        self.numbered.note(given)
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
        trials, first = [], self._part.first if self._part else 0
        for trial, config in given:
            static, numbers = split_static(self._space, config)
            by_static.setdefault(static, []).append(config)
            stream = config[self._axis] if self._axis else trial + first
            trials.append((static, Queued(trial, as_scalars(numbers), stream)))
        new = []
        for static, configs in by_static.items():
            self._making.try_extremes(static, configs)
            if static not in self._by_static:
                example = next(queued for s, queued in trials if s == static)
                expected = self._expected(len(configs))
                whole = self._part.by_program[static] if self._part else expected
                group = self._making.group(static, configs, example, expected, whole)
                self._by_static[static] = group
                _check_metrics(self.groups)
                new.append(group)
        self._say(new)
        return [(self._by_static[static].label, queued) for static, queued in trials]

    def _expected(self, here: int) -> int:
        """Estimates a group's total from the `here` trials that it has in this batch."""
        if self._left() == 0:
            return here
        if self._search.adaptive or not math.isfinite(self._most):
            return int(min(self._most, 2**31))
        return math.ceil(here * self._most / self._asked)

    def _say(self, groups: Iterable[Group]) -> None:
        for reason, count in collections.Counter(group.plan.reason for group in groups).items():
            self._making.say(f"{count} {'programs' if count > 1 else 'program'}: {reason}")


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

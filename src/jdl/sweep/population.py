"""Population-based training, in which bad members copy good ones and explore."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_number
from jdl.engine.events import Exchanged
from jdl.engine.rules import Evolution, Exchange
from jdl.sweep.dimension import REPEATS, Dimension, nearest
from jdl.sweep.space import Space


class Population(NamedTuple):
    """Population-based training, as passed to a sweep.

    Attributes:
      start: `start(space, seed)` gives the `Evolution` of one run.
      name: its name in the specification of a run.
    """

    start: Callable[[Space, int], Evolution]
    name: str


def pbt(
    every: int = 1,
    quantile: float = 0.2,
    perturb: tuple[float, float] = (0.8, 1.2),
    resample: float = 0.25,
) -> Population:
    """Population-based training: all trials train side by side, and their numbers change.

    After every `every` reports the trials of a program are ranked by their last
    score. Each of the worst `floor(quantile * n)`, at least one, takes over the
    whole state (weights, optimizer, schedule) of one of as many best, drawn at
    random, and with it that one's numbers, each changed: drawn anew from the
    space with probability `resample`, else multiplied by one of `perturb`, and
    kept within the space. A number of finitely many values moves to the next
    one up or down instead, and an integer moves by at least one. A trial that
    diverged always copies.

    Members copy each other, so seeds of a space do not repeat a configuration:
    every member is one of its own.

    Args:
      every: reports between exchanges, at least 1.
      quantile: the share of the population that copies, and is copied, in (0, 0.5].
      perturb: factors, one of which is drawn for each number.
      resample: the probability that a number is drawn anew, in [0, 1].

    Raises:
      ValueError: an argument is out of range.

    Source: Jaderberg et al. (2017), Population Based Training of Neural
    Networks, with truncation selection and both ways to explore.
    """
    check_number("every", every, "[1, inf)")
    check_number("quantile", quantile, "(0, 0.5]")
    check_number("resample", resample, "[0, 1]")
    for factor in perturb:
        check_number("perturb", factor, "(0, inf)")

    def start(space: Space, seed: int) -> Evolution:
        free = {n: d for n, d in space.items() if d.kind not in REPEATS and not d.static}
        if not any(d.points is None or len(d.points) > 1 for d in free.values()):
            raise ValueError("A population needs a number that varies, and the space has none.")

        def explore(random: np.random.Generator, numbers: Mapping[str, Any]) -> dict[str, Any]:
            changed = {}
            for name, value in numbers.items():
                if name not in free:
                    continue
                anew, u, factor = random.random(), random.random(), random.choice(perturb)
                if anew < resample:
                    changed[name] = free[name].at(u)
                else:
                    changed[name] = _moved(free[name], value, float(factor))
            return changed

        def evolve(
            report: int,
            trials: Sequence[int],
            scores: Sequence[float],
            numbers: Sequence[Mapping[str, Any]],
        ) -> list[Exchange | None]:
            count = max(1, int(quantile * len(trials)))
            order = sorted(range(len(trials)), key=lambda i: (-scores[i], trials[i]))
            best = [i for i in order[:count] if scores[i] > -math.inf]
            worst = {*order[len(order) - min(count, len(order) // 2) :]}
            exchanges: list[Exchange | None] = []
            for i, trial in enumerate(trials):
                if not best or i in best or not (i in worst or scores[i] == -math.inf):
                    exchanges.append(None)
                    continue
                random = np.random.default_rng([seed, report, trial])
                source = best[int(random.integers(len(best)))]
                exchanges.append(Exchange(trials[source], explore(random, numbers[source])))
            return exchanges

        return Evolution(every, evolve, name)

    name = f"pbt({every}, {quantile}, {list(perturb)}, {resample})"
    return Population(start, name)


def _moved(dimension: Dimension, value: Any, factor: float) -> Any:
    """`value` times `factor` within the dimension, or its neighbour in that direction."""
    now = nearest(dimension, value)
    up = (factor > 1) - (factor < 1)
    if dimension.points is not None:
        points = sorted(dimension.points)
        return points[min(max(points.index(now) + up, 0), len(points) - 1)]
    moved = nearest(dimension, now * factor)
    if dimension.kind == "integer" and moved == now:
        return nearest(dimension, now + (up if now >= 0 else -up))
    return moved


def restored(exchanged: Sequence[Exchanged], space: Space) -> list[Exchanged]:
    """`exchanged` with the values of the space for the numbers that the lanes held."""

    def value(name: str, number: float) -> Any:
        near = nearest(space[name], number)
        return near if np.float32(near) == np.float32(number) else number

    return [
        one._replace(numbers={n: value(n, x) for n, x in one.numbers.items()}) for one in exchanged
    ]


def used(
    exchanged: Sequence[Exchanged], configs: Sequence[Mapping[str, Any]], reports: int, name: str
) -> np.ndarray:
    """The value of the hyperparameter `name` in each report of each member: (trials, reports).

    It is NaN for a member whose configuration lacks it.
    """
    values = np.array([[float(config.get(name, math.nan))] * reports for config in configs])
    for one in sorted(exchanged, key=lambda b: b.report):
        if name in one.numbers:
            values[one.trial, one.report :] = one.numbers[name]
    return values


def ancestry(exchanged: Sequence[Exchanged], trial: int, reports: int) -> np.ndarray:
    """Which member made each report of the weights that `trial` ends with: (reports,)."""
    source = {(one.trial, one.report): one.source for one in exchanged}
    line = np.empty(reports, int)
    for report in range(reports, 0, -1):
        trial = source.get((trial, report), trial) if report < reports else trial
        line[report - 1] = trial
    return line

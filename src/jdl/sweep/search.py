"""Searches, which choose the configurations of a sweep in batches."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_count
from jdl.sweep.dimension import REPEATS
from jdl.sweep.space import Space, combinations, configuration, finite, order, parse_space

Config = dict[str, Any]
Constraint = Callable[[Config], bool]
MOST_REJECTED = 10_000  # draws in a row


class Search(NamedTuple):
    """Decides which configurations to try.

    Attributes:
      ask: `ask(n)` gives up to `n` more configurations. It gives fewer if it has no
        more, or must first hear the scores of earlier ones. The search is over
        when it gives none while no trial is left to run.
      tell: `tell(configs, scores)` takes the scores of configurations that ended in
        the same segment, in the order in which they were asked for. Larger is
        better, NaN is a diverged trial, and a trial that was stopped early has
        its last score.
      name: its name in the specification of a sweep.
      adaptive: whether what it gives depends on what it is told. Then it is first
        asked for one configuration and later for as many as there are free lanes,
        in an order that does not depend on a clock. It must be a function of
        its calls, because a resumed sweep repeats them.
      facts: figures to record at the end, such as how many draws a constraint
        rejected.
    """

    ask: Callable[[int], list[Config]]
    tell: Callable[[Sequence[Config], Sequence[float]], None]
    name: str
    adaptive: bool = False
    facts: Callable[[], dict[str, Any]] = dict


def _ignore(configs: Sequence[Config], scores: Sequence[float]) -> None:
    """The `tell` of a search that does not learn."""


def _from_iterator(
    configs: Iterator[Config], name: str, facts: Callable[[], dict[str, Any]]
) -> Search:
    return Search(lambda n: list(itertools.islice(configs, n)), _ignore, name, facts=facts)


def grid_search(space: Mapping[str, Any], constraint: Constraint | None = None) -> Search:
    """Every combination of a finite space, the last dimension varying fastest.

    Args:
      space: the dimension of each hyperparameter, with finitely many values.
      constraint: says whether to try a configuration, given without its seed.

    Raises:
      ValueError: a dimension has infinitely many values, or no combination
        satisfies the constraint.

    >>> from jdl import sweep
    >>> space = {"low": sweep.integer(1, 3), "high": sweep.integer(1, 3)}
    >>> search = sweep.grid_search(space, lambda config: config["low"] < config["high"])
    >>> [tuple(config.values()) for config in search.ask(10)], search.facts()
    ([(1, 2), (1, 3), (2, 3)], {'rejected': 6})
    """
    parsed = parse_space(space)
    for name, dimension in parsed.items():
        if dimension.points is None:
            raise ValueError(
                f"A grid needs finitely many values of `{name}`, got {dimension.kind}"
                f"({dimension.arguments}). Use log_grid, grid or choice, or a random search."
            )
    filtered = _Filter(parsed, constraint)
    if constraint is not None and not any(map(_Filter(parsed, constraint), combinations(parsed))):
        raise ValueError("No combination of the grid satisfies the constraint.")
    configs = filter(filtered, combinations(parsed))
    return _from_iterator(configs, "grid" + filtered.name, filtered.facts)


def random_search(
    space: Mapping[str, Any], trials: int, seed: int = 0, constraint: Constraint | None = None
) -> Search:
    """`trials` independent draws, each configuration with every seed of the space in turn.

    Every hyperparameter has a stream of its own, so adding trials or another
    hyperparameter does not change earlier draws.

    Args:
      space: the dimension of each hyperparameter.
      trials: how many to draw, seeds counted.
      seed: of the draws.
      constraint: says whether to try a configuration, given without its seed;
        one that it rejects is counted and drawn again.

    Raises:
      ValueError: `trials` is below 1, or, when asked, 10,000 draws in a row are
        rejected.
    """
    parsed = parse_space(space)
    streams = {
        name: np.random.default_rng([seed, zlib.crc32(name.encode())])
        for name in free_names(parsed)
    }

    def draws() -> Iterator[dict[str, float]]:
        while True:
            yield {name: stream.random() for name, stream in streams.items()}

    return _drawn("random", parsed, trials, draws(), constraint)


def sobol_search(
    space: Mapping[str, Any], trials: int, seed: int = 0, constraint: Constraint | None = None
) -> Search:
    """`trials` points of a scrambled Sobol sequence, which fills the space more evenly than chance.

    Any interval of a one-dimensional projection holds nearly its share of the
    points, and so does any box of few dimensions. A power of two of
    configurations is the most even. Each conditional hyperparameter has a
    coordinate, which goes unused where it does not exist.

    Args:
      space: the dimension of each hyperparameter.
      trials: how many to draw, seeds counted.
      seed: of the scrambling.
      constraint: as in `random_search`.

    Raises:
      ValueError: as in `random_search`.

    Source: Owen (1998), Scrambling Sobol' and Niederreiter-Xing points; the
    sequence is SciPy's.

    >>> from jdl import sweep
    >>> configs = sweep.sobol_search({"rate": sweep.uniform(0.0, 8.0)}, 8).ask(8)
    >>> sorted(int(config["rate"]) for config in configs)
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    parsed = parse_space(space)
    # A constant needs no coordinate.
    names = [name for name in free_names(parsed) if parsed[name].points is None]
    names += [name for name in free_names(parsed) if len(parsed[name].points or ()) > 1]

    def draws() -> Iterator[dict[str, float]]:
        from scipy.stats import qmc

        sequence = qmc.Sobol(max(1, len(names)), scramble=True, rng=np.random.default_rng(seed))
        still = dict.fromkeys(parsed, 0.0)
        while True:
            for point in sequence.random(64):
                yield still | dict(zip(names, np.minimum(point, 1 - 2.0**-53).tolist()))

    return _drawn("sobol", parsed, trials, draws(), constraint)


def free_names(space: Space) -> list[str]:
    """The hyperparameters that a search chooses, all except axes that repeat a configuration."""
    return [name for name, dimension in space.items() if dimension.kind not in REPEATS]


def repeats(space: Space) -> list[Config]:
    """The values that repeat a configuration, such as its seeds; one empty entry if none do.

    >>> from jdl import sweep
    >>> repeats(parse_space({"lr": 0.1, "seed": sweep.seeds(2)}))
    [{'seed': 0}, {'seed': 1}]
    """
    axes = {name: d.points or () for name, d in space.items() if d.kind in REPEATS}
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


def _drawn(
    kind: str,
    space: Space,
    trials: int,
    draws: Iterator[dict[str, float]],
    constraint: Constraint | None,
) -> Search:
    """A search that turns quantiles by name into configurations, each with its repeats."""
    trials = check_count("trials", trials)
    filtered = _Filter(space, constraint)
    own = {name: space[name] for name in free_names(space)}
    placed, again = order(own), repeats(space)

    def configs() -> Iterator[Config]:
        rejected = 0
        for quantiles in draws:
            values = {name: own[name].at(quantiles[name]) for name in own}
            config = configuration(own, values.__getitem__, placed)
            if not filtered(config):
                rejected += 1
                if rejected == MOST_REJECTED:
                    raise ValueError(
                        f"{MOST_REJECTED:,} draws in a row do not satisfy the constraint, the last "
                        f"{config}. Narrow the space to where it can hold."
                    )
                continue
            rejected = 0
            for repeat in again:
                both = config | repeat
                yield {name: both[name] for name in space if name in both}

    every = itertools.islice(configs(), trials)
    return _from_iterator(every, kind + filtered.name, filtered.facts)


def limited(space: Space, constraint: Constraint | None) -> _Filter:
    """The constraint as a function of a configuration that counts what it rejects."""
    return _Filter(space, constraint)


class _Filter:
    """A constraint that counts what it rejects."""

    def __init__(self, space: Space, constraint: Constraint | None):
        self._constraint = constraint
        self._repeats = [name for name, d in space.items() if d.kind in REPEATS]
        self._rejected = 0
        self.name = ""
        if constraint is not None:
            # A resumed run must have the same constraint. A function's name does not identify it,
            # but its verdicts on some draws do.
            random = np.random.default_rng(0)
            panel = (
                configuration(space, lambda name: space[name].at(random.random()))
                for _ in range(256)
            )
            verdicts = bytes(self._verdict(config) for config in panel)
            self.name = f" under a constraint ({zlib.crc32(verdicts):08x})"

    def _without_repeats(self, config: Config) -> Config:
        return {name: value for name, value in config.items() if name not in self._repeats}

    def _verdict(self, config: Config) -> bool:
        if self._constraint is None:
            return True
        given = self._without_repeats(config)
        try:
            return bool(self._constraint(given))
        except Exception as error:
            error.add_note(f"The constraint was called with {given}.")
            raise

    def __call__(self, config: Config) -> bool:
        accepted = self._verdict(config)
        self._rejected += not accepted
        return accepted

    def facts(self) -> dict[str, Any]:
        return {"rejected": self._rejected} if self._constraint is not None else {}


def make_search(kind: str | None, space: Space, trials: int | None, seed: int) -> Search:
    """The search that a sweep's arguments ask for.

    Args:
      kind: "grid", "random", "sobol", or None: a grid if the space is finite and
        `trials` is not given, else random.
      space: the parsed space.
      trials: how many to run; None for all of a grid.
      seed: of the random draws.

    Raises:
      ValueError: the arguments contradict each other, or `trials` is below 1.
    """
    if trials is not None:
        trials = check_count("trials", trials)
    if kind is None:
        kind = "grid" if trials is None and finite(space) else "random"
    if kind == "grid":
        if trials is not None:
            raise ValueError(
                f"A grid tries every combination, so leave `trials` out or use a random search, "
                f"got trials={trials}."
            )
        return grid_search(space)
    if kind in ("random", "sobol"):
        if trials is None:
            raise ValueError(f"A {kind} search needs `trials`, the number of trials to run.")
        return (random_search if kind == "random" else sobol_search)(space, trials, seed)
    raise ValueError(
        f"`search` must be 'grid', 'random', 'sobol' or a Search, got search={kind!r}."
    )

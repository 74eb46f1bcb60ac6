"""Search: which configurations a sweep tries, asked for in batches."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdl.sweep.space import Space, finite, seed_axis

Config = dict[str, Any]


class Search(NamedTuple):
    """Decides what to try.

    Attributes:
      ask: `ask(n)` gives up to `n` further configurations; fewer if it has no
        more, or no more before it is told how earlier ones did. The search is
        over when it gives none while no trial is left to run.
      tell: `tell(configs, scores)` says how asked ones did, those that ended in
        the same segment together and in the order in which they were asked;
        larger is better, NaN is a diverged trial, and of a trial that was
        stopped early it is the last score.
      name: what the specification of a sweep calls it.
      adaptive: whether what it gives depends on what it is told. Then it is
        asked for no more than there are free lanes, first for one, and a sweep
        keeps to an order that depends on no clock. It must be a function of
        the calls: a resumed sweep makes the same ones again.
    """

    ask: Callable[[int], list[Config]]
    tell: Callable[[Sequence[Config], Sequence[float]], None]
    name: str
    adaptive: bool = False


def _ignore(configs: Sequence[Config], scores: Sequence[float]) -> None:
    """Tells a search that does not learn."""


def _from_iterator(configs: Iterator[Config], name: str) -> Search:
    return Search(lambda n: list(itertools.islice(configs, n)), _ignore, name)


def grid_search(space: Space) -> Search:
    """Every combination of a finite space, the last dimension varying fastest.

    Raises:
      ValueError: a dimension has infinitely many values.
    """
    for name, dimension in space.items():
        if dimension.points is None:
            raise ValueError(
                f"A grid needs finitely many values of `{name}`, got {dimension.kind}"
                f"({dimension.arguments}). Use log_grid, grid or choice, or search='random'."
            )
    product = itertools.product(*(d.points or () for d in space.values()))
    return _from_iterator((dict(zip(space, values)) for values in product), "grid")


def random_search(space: Space, trials: int, seed: int = 0) -> Search:
    """`trials` independent draws, each configuration with every seed of the space in turn.

    Every hyperparameter has a stream of its own, so that adding trials, or
    another hyperparameter, leaves the earlier draws as they were.
    """
    axis = seed_axis(space)
    repeats = space[axis].points if axis else None

    def configs() -> Iterator[Config]:
        streams = {
            name: np.random.default_rng([seed, zlib.crc32(name.encode())])
            for name in space
            if name != axis
        }
        while True:
            drawn = {name: space[name].at(stream.random()) for name, stream in streams.items()}
            for repeat in repeats or (None,):
                yield {name: repeat if name == axis else drawn[name] for name in space}

    return _from_iterator(itertools.islice(configs(), trials), "random")


def make_search(kind: str | None, space: Space, trials: int | None, seed: int) -> Search:
    """The search that a sweep's arguments ask for.

    Args:
      kind: "grid", "random", or None: a grid if the space is finite and
        `trials` is not given, else random.
      space: the parsed space.
      trials: how many to run; None for all of a grid.
      seed: of the random draws.

    Raises:
      ValueError: the arguments contradict each other, or `trials` is below 1.
    """
    if trials is not None and (not isinstance(trials, int) or trials < 1):
        raise ValueError(f"`trials` must be an integer of at least 1, got trials={trials!r}.")
    if kind is None:
        kind = "grid" if trials is None and finite(space) else "random"
    if kind == "grid":
        if trials is not None:
            raise ValueError(
                f"A grid tries every combination: leave `trials` out, or use search='random', "
                f"got trials={trials}."
            )
        return grid_search(space)
    if kind == "random":
        if trials is None:
            raise ValueError("A random search needs `trials`, the number of trials to run.")
        return random_search(space, trials, seed)
    raise ValueError(f"`search` must be 'grid', 'random' or a Search, got search={kind!r}.")

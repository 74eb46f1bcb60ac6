"""Coarse to fine: a wide search with few epochs, then narrower and longer ones around the best."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jdl._checks import check_number
from jdl.data.dataset import Dataset
from jdl.sweep.dimension import Dimension, choice, integer, log_grid, log_uniform, uniform
from jdl.sweep.dimension import grid as even_grid
from jdl.sweep.results import Results
from jdl.sweep.run import MakeTrial, run
from jdl.sweep.space import Space, parse_space
from jdl.sweep.values import among

EDGE = 0.1  # share of a range's width; a best value this close to an end is at the edge


class Stage(NamedTuple):
    """One stage of a coarse-to-fine search.

    Attributes:
      space: what it searched.
      results: what it found.
      moved: the numbers whose range moved past an end of the previous stage's range.
    """

    space: Space
    results: Results
    moved: tuple[str, ...]


class CoarseToFine(NamedTuple):
    """The results of a coarse-to-fine search.

    Attributes:
      stages: in order.
      final: the results of the last, which trained longest.
      complete: whether all stages came to their end. If not, the last one here
        was cut by its `seconds`, and the same call with the same `out` goes on.
    """

    stages: list[Stage]
    final: Results
    complete: bool = True


def coarse_to_fine(
    make_trial: MakeTrial,
    space: Mapping[str, Any],
    data: Dataset | tuple[Any, ...],
    stages: Sequence[tuple[int, int | None]],
    *,
    shrink: float = 0.3,
    limits: Mapping[str, tuple[float, float]] | None = None,
    out: str | os.PathLike[str] | None = None,
    search: str | None = None,
    seed: int = 0,
    **arguments: Any,
) -> CoarseToFine:
    """Searches wide with few epochs, then around the best configuration with more.

    After a stage every range becomes `shrink` times as wide (in its logarithm
    if it is logarithmic), centred on the best value by the mean over seeds. If
    the best lies within a tenth of an end, the range keeps its width and moves
    past that end, which corrects a bad first guess. Choices keep the options
    that occur in the best quarter of configurations.

    Args:
      make_trial: as in `run`.
      space: of the first stage.
      data: as in `run`.
      stages: epochs and trials of each, trials None for all of a grid; as in
        `[(1, 100), (4, 40), (16, 20)]`.
      shrink: the share of a range's width that remains, in (0, 1).
      limits: by name, the ends past which a range never moves. Without one, a
        logarithmic range moves freely, and any other stays in its first range.
      out: a folder in which each stage has its own; a stage resumes as a run does.
      search: as in `run`; each stage draws anew.
      seed: the root of all random numbers; a stage's is this plus its number.
      arguments: further ones of `run`, each for every stage: `seconds` is the
        budget of one stage in one call.

    Returns:
      Each stage and the final results; where a stage is cut by `seconds`, those
      so far, and the same call goes on with that stage.

    Raises:
      ValueError: an argument is wrong, or a stage leaves no trial done.

    >>> from jdl import sweep
    >>> wide = sweep.parse_space({"lr": sweep.log_uniform(1e-4, 1.0)})
    >>> fine, moved = sweep.narrowed(wide, wide, {"lr": 0.01}, [{"lr": 0.01}], 0.5, {})
    >>> [round(end, 6) for end in fine["lr"].arguments], moved
    ([0.001, 0.1], ())
    """
    check_number("shrink", shrink, "(0, 1)")
    if not stages:
        raise ValueError("`stages` needs at least one pair of epochs and trials, got none.")
    first = now = parse_space(space)
    if unknown := [name for name in limits or {} if name not in first]:
        raise ValueError(f"`limits` names {unknown[0]!r}, which is not in the space.")
    found: list[Stage] = []
    moved: tuple[str, ...] = ()
    for number, (epochs, trials) in enumerate(stages):
        results = run(
            make_trial,
            now,
            data,
            epochs=epochs,
            trials=trials,
            search=search,
            seed=seed + number,
            out=None if out is None else pathlib.Path(out) / f"stage-{number}",
            **arguments,
        )
        found.append(Stage(now, results, moved))
        if not results.complete:
            return CoarseToFine(found, results, complete=False)
        if number + 1 < len(stages):
            ranked = [s for s in results.configurations() if s.done]
            if not ranked:
                raise ValueError(
                    f"No trial of stage {number} finished: "
                    f"{results.count('diverged')} of {len(results.trials)} diverged. Change the "
                    "ranges."
                )
            good = [s.config for s in ranked[: math.ceil(len(ranked) / 4)]]
            now, moved = narrowed(first, now, ranked[0].config, good, shrink, limits or {})
    return CoarseToFine(found, found[-1].results)


def narrowed(
    first: Space,
    now: Space,
    best: Mapping[str, Any],
    good: Sequence[Mapping[str, Any]],
    shrink: float,
    limits: Mapping[str, tuple[float, float]],
) -> tuple[Space, tuple[str, ...]]:
    """The space of the next stage, and the numbers whose range moved past its end.

    Args:
      first: the space of the first stage.
      now: that of the last stage.
      best: its best configuration.
      good: its best quarter.
      shrink: the share of a range's width that remains.
      limits: ends past which a range never moves.
    """
    fine: Space = {}
    moved = []
    for name, dimension in now.items():
        if name not in best or len(dimension.points or (0, 0)) == 1:
            fine[name] = dimension
        elif dimension.kind in _REMAKE:
            ends = limits.get(name) or _own_limits(first[name])
            fine[name], past = _range(dimension, best[name], shrink, ends)
            moved += [name] if past else []
        elif dimension.kind == "choice":
            fine[name] = _only(dimension, [c[name] for c in good if name in c])
        else:
            fine[name] = dimension
    # Removing an option also removes the conditions that require it.
    for name, dimension in fine.items():
        when = tuple(
            (other, tuple(v for v in values if among(v, _points(fine, other))))
            for other, values in dimension.when
        )
        if all(values for _, values in when):
            fine[name] = dimension._replace(when=when)
    gone = [
        name
        for name, d in fine.items()
        if any(not any(among(v, _points(fine, other)) for v in values) for other, values in d.when)
    ]
    return {name: d for name, d in fine.items() if name not in gone}, tuple(moved)


def _points(space: Space, name: str) -> tuple[Any, ...]:
    return space[name].points or () if name in space else ()


# Remakes a range of each kind from its new ends and its former arguments.
_REMAKE: dict[str, Callable[[float, float, Dimension], Dimension]] = {
    "uniform": lambda low, high, _: uniform(low, high),
    "log_uniform": lambda low, high, _: log_uniform(low, high),
    "grid": lambda low, high, was: even_grid(low, high, was.arguments[2]),
    "log_grid": lambda low, high, was: log_grid(low, high, was.arguments[2]),
    "integer": lambda low, high, was: integer(round(low), round(high), static=was.static),
}


def _ends(dimension: Dimension) -> tuple[float, float]:
    arguments = dimension.arguments
    if isinstance(arguments, Mapping):
        return float(arguments["low"]), float(arguments["high"])
    return float(arguments[0]), float(arguments[1])


def _own_limits(dimension: Dimension) -> tuple[float, float]:
    return (0.0, math.inf) if dimension.kind.startswith("log") else _ends(dimension)


def _range(
    dimension: Dimension, best: float, shrink: float, limits: tuple[float, float]
) -> tuple[Dimension, bool]:
    """The range around `best`, and whether it moved past an end of the old one."""
    log = dimension.kind.startswith("log")
    into, back = (math.log, math.exp) if log else (float, float)
    low, high = map(into, _ends(dimension))
    at, width = into(best), high - low
    edge = min(at - low, high - at) < EDGE * width
    half = 0.5 * (width if edge else shrink * width)
    least = into(limits[0]) if limits[0] > 0 or not log else -math.inf
    most = into(limits[1]) if math.isfinite(limits[1]) else math.inf
    # A limit cuts a range off instead of pushing it back.
    start, stop = max(at - half, least), min(at + half, most)
    past = start < low - 1e-9 * width or stop > high + 1e-9 * width
    if edge and not past:
        # At a limit the range cannot move, so it narrows instead.
        half = 0.5 * shrink * width
        start, stop = max(at - half, least), min(at + half, most)
    if dimension.kind == "integer":
        start, stop = math.floor(start), math.ceil(stop)
        if start == stop:
            return dimension._replace(points=(int(start),), at=lambda u: int(start)), False
    try:
        made = _REMAKE[dimension.kind](back(start), back(stop), dimension)
    except ValueError:
        # Its values would be the same number in float32: the range is as narrow as it can be.
        return dimension, False
    return made._replace(when=dimension.when), past


def _only(dimension: Dimension, kept: Sequence[Any]) -> Dimension:
    options = [point for point in dimension.points or () if among(point, kept)]
    if not options:
        return dimension
    numbers = all(isinstance(o, int | float) and not isinstance(o, bool) for o in options)
    return choice(*options, static=dimension.static if numbers else None)._replace(
        when=dimension.when
    )

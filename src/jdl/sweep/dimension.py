"""Dimensions: what one hyperparameter may be, and when it exists."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_number

# The axes that repeat every configuration, and over which results are averaged.
REPEATS = ("seeds", "folds")


class Dimension(NamedTuple):
    """What one hyperparameter may be.

    Attributes:
      kind: the name of the function here that made it.
      arguments: that function's arguments, as JSON holds them.
      static: whether it changes the program: each of its values is compiled apart.
      points: all its values, in order; None where there are infinitely many.
      at: the value at quantile `u` in [0, 1); uniform `u` draw it at random.
      when: the conditions under which it exists, each the name of another
        hyperparameter and the values that it must have one of; see `when`.
    """

    kind: str
    arguments: Any
    static: bool
    points: tuple[Any, ...] | None
    at: Callable[[float], Any]
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def uniform(low: float, high: float) -> Dimension:
    """A real number from `low` to `high`, every one as likely.

    >>> uniform(0.0, 0.5).at(0.5)
    0.25
    """
    _check_bounds("uniform", low, high)
    return Dimension("uniform", [low, high], False, None, lambda u: low + u * (high - low))


def log_uniform(low: float, high: float) -> Dimension:
    """A positive real number from `low` to `high`, its logarithm uniform.

    >>> round(log_uniform(1e-4, 1.0).at(0.5), 6)
    0.01
    """
    _check_bounds("log_uniform", low, high, "(0, inf)")
    ratio = math.log(high / low)
    return Dimension(
        "log_uniform", [low, high], False, None, lambda u: min(high, low * math.exp(u * ratio))
    )


def integer(low: int, high: int, *, static: bool = False) -> Dimension:
    """An integer from `low` to `high`, both included.

    Args:
      low: the smallest.
      high: the largest.
      static: set it for what changes a shape, as a width or a depth does.

    >>> integer(1, 6).at(0.99)
    6
    """
    for name, end in (("low", low), ("high", high)):
        if int(end) != end:
            raise ValueError(f"`{name}` of integer must be a whole number, got {name}={end}.")
    _check_bounds("integer", low, high)
    points = tuple(range(int(low), int(high) + 1)) if high - low < 10_000 else None
    span = int(high) - int(low) + 1
    arguments = {"low": low, "high": high, "static": True} if static else [low, high]
    return Dimension("integer", arguments, static, points, lambda u: int(low) + int(u * span))


def choice(*options: Any, static: bool | None = None) -> Dimension:
    """One of `options`, each as likely.

    Strings, booleans, None and tuples are static (each is a program of its
    own); numbers are traced unless `static=True`, which widths and depths need.

    >>> choice("sgd", "adam").static, choice(0.1, 0.2).static
    (True, False)
    """
    if not options:
        raise ValueError("`choice` needs at least one option, got none.")
    if len(options) == 1 and isinstance(options[0], list):
        raise ValueError(
            f"`choice` takes its options one by one, choice({', '.join(map(repr, options[0]))}), "
            f"got one list {options[0]}; the tuple is one option."
        )
    plain = tuple(tuple(o) if isinstance(o, list) else o for o in options)
    numeric = all(isinstance(o, int | float) and not isinstance(o, bool) for o in plain)
    if static is False and not numeric:
        raise ValueError(f"Only numbers can be traced, got choice{plain} with static=False.")
    fixed = not numeric if static is None else static
    if numeric and not fixed and any(isinstance(o, float) for o in plain):
        plain = tuple(float(o) for o in options)
    explicit = numeric and fixed
    written = [list(o) if isinstance(o, tuple) else o for o in plain]
    arguments: Any = {"options": written, "static": True} if explicit else written
    return Dimension("choice", arguments, fixed, plain, lambda u: plain[int(u * len(plain))])


def log_grid(low: float, high: float, count: int) -> Dimension:
    """`count` numbers from `low` to `high`, evenly spaced in their logarithm.

    >>> [round(x, 6) for x in log_grid(1e-3, 1e-1, 3).points]
    [0.001, 0.01, 0.1]
    """
    _check_bounds("log_grid", low, high, "(0, inf)")
    _check_count("log_grid", count)
    points = tuple(float(f"{x:.6g}") for x in np.geomspace(low, high, count))
    return Dimension(
        "log_grid", [low, high, count], False, points, lambda u: points[int(u * count)]
    )


def grid(low: float, high: float, count: int) -> Dimension:
    """`count` numbers from `low` to `high`, evenly spaced.

    >>> grid(0.0, 1.0, 3).points
    (0.0, 0.5, 1.0)
    """
    _check_bounds("grid", low, high)
    _check_count("grid", count)
    points = tuple(float(f"{x:.12g}") for x in np.linspace(low, high, count))
    return Dimension("grid", [low, high, count], False, points, lambda u: points[int(u * count)])


def seeds(count: int) -> Dimension:
    """The seeds 0 to `count - 1`: each configuration is trained once with every one.

    Where a space has seeds, the seed alone names a trial's random stream, so
    all configurations are compared on the same initial weights, batches and
    masks.
    """
    _check_count("seeds", count)
    return Dimension("seeds", count, False, tuple(range(count)), lambda u: int(u * count))


def folds(count: int) -> Dimension:
    """The folds 0 to `count - 1` of a cross-validation; `sweep.cross_validate` adds it itself."""
    _check_count("folds", count)
    if count < 2:
        raise ValueError(f"`count` of `folds` must be at least 2, got {count}.")
    return Dimension("folds", count, False, tuple(range(count)), lambda u: int(u * count))


def when(name: str, values: Any, then: Any) -> Dimension:
    """A hyperparameter that exists only where another one has one of some values.

    Where it does not exist, a configuration has no entry of its name, and a
    table shows a dash. The other one must be static (a choice of strings, say):
    whether a number exists is part of the program. It may be conditional itself.

    Args:
      name: the other hyperparameter.
      values: a value of it, or a list or tuple of values, any of which will do.
      then: the dimension, or the plain value, that it has there.

    Raises:
      ValueError: `values` is empty, or `then` is an axis of seeds.

    >>> from jdl import sweep
    >>> space = {
    ...     "optimizer": sweep.choice("sgd", "momentum"),
    ...     "mu": sweep.when("optimizer", "momentum", sweep.choice(0.5, 0.9)),
    ... }
    >>> [tuple(config.values()) for config in sweep.grid_search(space).ask(10)]
    [('sgd',), ('momentum', 0.5), ('momentum', 0.9)]
    """
    options = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not options:
        raise ValueError(f"`values` of when({name!r}, ...) must be at least one, got none.")
    dimension = as_dimension(then)
    if dimension.kind in REPEATS:
        raise ValueError(f"An axis of {dimension.kind} cannot depend on `{name}`.")
    before = dict(dimension.when)
    both = tuple(value for value in options if value in before.get(name, options))
    return dimension._replace(when=tuple((before | {name: both}).items()))


def as_dimension(value: Any) -> Dimension:
    """`value` itself if it is a dimension, else the dimension that holds just it."""
    if isinstance(value, Dimension):
        return value
    if isinstance(value, list) and any(isinstance(v, float) for v in value):
        several = ", ".join(map(str, value))
        raise ValueError(
            f"A list of numbers is neither one value nor a dimension: sweep.choice({several}) "
            f"tries each, the tuple ({several}) is one value. Got {value}."
        )
    # A lone plain value, a width or a name, is part of the program.
    return choice(value, static=True if not isinstance(value, float) else None)


KINDS: dict[str, Callable[..., Dimension]] = {
    "uniform": uniform,
    "log_uniform": log_uniform,
    "integer": integer,
    "choice": choice,
    "log_grid": log_grid,
    "grid": grid,
    "seeds": seeds,
    "folds": folds,
}


def _check_bounds(kind: str, low: Any, high: Any, interval: str = "(-inf, inf)") -> None:
    for name, end in (("low", low), ("high", high)):
        try:
            check_number(name, end, interval)
        except (TypeError, ValueError) as error:
            which = str(error).replace(f"`{name}`", f"`{name}` of `{kind}`", 1)
            raise type(error)(which) from None
    if not low < high:
        raise ValueError(
            f"`{kind}` needs low < high, got low={low}, high={high}."
            + (" The bounds are reversed." if low > high else " Write the number itself instead.")
        )


def _check_count(kind: str, count: Any) -> None:
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"`count` of `{kind}` must be an integer of at least 1, got {count!r}.")

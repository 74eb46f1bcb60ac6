"""Dimensions: what one hyperparameter may be, and when it exists."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_number
from jdl.sweep.values import Real, Whole, among, check_apart, check_held, listed, plain

# The axes that repeat every configuration, and over which results are averaged.
REPEATS = ("seeds", "folds")


class Dimension(NamedTuple):
    """What one hyperparameter may be.

    Attributes:
      kind: the name of the function here that made it.
      arguments: that function's arguments, as JSON holds them.
      static: whether it changes the program: each of its values is compiled apart.
      points: all its values, in order; None where there are infinitely many.
      at: the value at quantile `u` in [0, 1]; uniform `u` draw it at random.
      when: the conditions under which it exists, each the name of another
        hyperparameter and the values that it must have one of; see `when`.
    """

    kind: str
    arguments: Any
    static: bool
    points: tuple[Any, ...] | None
    at: Callable[[float], Any]
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def uniform(low: Real, high: Real) -> Dimension:
    """A real number from `low` to `high`, every one as likely.

    >>> uniform(0.0, 0.5).at(0.5)
    0.25
    """
    low, high = _bounds("uniform", low, high)
    last = float(high)
    return Dimension(
        "uniform", [low, high], False, None, lambda u: min(last, low + u * (high - low))
    )


def log_uniform(low: Real, high: Real) -> Dimension:
    """A positive real number from `low` to `high`, its logarithm uniform.

    >>> round(log_uniform(1e-4, 1.0).at(0.5), 6)
    0.01
    """
    low, high = _bounds("log_uniform", low, high, "(0, inf)")
    ratio, last = math.log(high / low), float(high)
    return Dimension(
        "log_uniform",
        [low, high],
        False,
        None,
        lambda u: min(last, low * math.exp(u * ratio)) if u < 1 else last,
    )


def integer(low: Whole, high: Whole, *, static: bool = False) -> Dimension:
    """An integer from `low` to `high`, both included.

    Args:
      low: the smallest.
      high: the largest.
      static: set it for what changes a shape, as a width or a depth does.

    >>> integer(1, 6).at(0.99)
    6
    """
    low, high = _bounds("integer", low, high, static=static)
    for name, end in (("low", low), ("high", high)):
        if int(end) != end:
            raise ValueError(f"`{name}` of integer must be a whole number, got {name}={end}.")
    low, high = int(low), int(high)
    span = high - low + 1
    points = tuple(range(low, high + 1)) if span <= 10_000 else None
    arguments = {"low": low, "high": high, "static": True} if static else [low, high]
    return Dimension("integer", arguments, static, points, lambda u: min(high, low + int(u * span)))


def choice(*options: Any, static: bool | None = None) -> Dimension:
    """One of `options`, each as likely.

    Strings, booleans, None and tuples are static (each is a program of its
    own); numbers are traced unless `static=True`, which widths and depths need.
    Values of different types differ, even if Python calls them equal: `True`
    and `1` are two programs.

    >>> choice("sgd", "adam").static, choice(0.1, 0.2).static
    (True, False)
    """
    if not options:
        raise ValueError("`choice` needs at least one option, got none.")
    if len(options) == 1 and (
        isinstance(options[0], list) or getattr(options[0], "shape", ()) != ()
    ):
        raise ValueError(
            f"`choice` takes its options one by one, choice({', '.join(map(repr, options[0]))}), "
            f"got one list {options[0]}; the tuple is one option."
        )
    points = plain(options)
    numeric = all(isinstance(o, int | float) and not isinstance(o, bool) for o in points)
    if static is False and not numeric:
        raise ValueError(f"Only numbers can be traced, got choice{points} with static=False.")
    fixed = not numeric if static is None else static
    if not fixed:
        whole = all(isinstance(o, int) for o in points)
        for option in points:
            check_held("An option of `choice`", option, whole)
        if not whole:
            check_apart("choice", points)
            points = tuple(map(float, points))
    arguments: Any = listed(points)
    if numeric and fixed:
        arguments = {"options": arguments, "static": True}
    return Dimension("choice", arguments, fixed, points, _pick(points))


def log_grid(low: Real, high: Real, count: Whole) -> Dimension:
    """`count` numbers from `low` to `high`, evenly spaced in their logarithm.

    >>> [round(x, 6) for x in log_grid(1e-3, 1e-1, 3).points]
    [0.001, 0.01, 0.1]
    """
    low, high = _bounds("log_grid", low, high, "(0, inf)")
    count = _count("log_grid", count)
    points = _between("log_grid", low, high, np.geomspace(low, high, count), 6)
    return Dimension("log_grid", [low, high, count], False, points, _pick(points))


def grid(low: Real, high: Real, count: Whole) -> Dimension:
    """`count` numbers from `low` to `high`, evenly spaced.

    >>> grid(0.0, 1.0, 3).points
    (0.0, 0.5, 1.0)
    """
    low, high = _bounds("grid", low, high)
    count = _count("grid", count)
    points = _between("grid", low, high, np.linspace(low, high, count), 12)
    return Dimension("grid", [low, high, count], False, points, _pick(points))


def seeds(count: Whole) -> Dimension:
    """The seeds 0 to `count - 1`: each configuration is trained once with every one.

    Where a space has seeds, the seed alone names a trial's random stream, so
    all configurations are compared on the same initial weights, batches and
    masks. A stopping rule judges a configuration by the mean over its seeds,
    which go on or stop together.
    """
    count = _count("seeds", count)
    points = tuple(range(count))
    return Dimension("seeds", count, False, points, _pick(points))


def folds(count: Whole) -> Dimension:
    """The folds 0 to `count - 1` of a cross-validation; `sweep.cross_validate` adds it itself."""
    count = _count("folds", count)
    if count < 2:
        raise ValueError(f"`count` of `folds` must be at least 2, got {count}.")
    points = tuple(range(count))
    return Dimension("folds", count, False, points, _pick(points))


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
    options = plain(values if isinstance(values, list | tuple) else (values,))
    if not options:
        raise ValueError(f"`values` of when({name!r}, ...) must be at least one, got none.")
    dimension = as_dimension(then)
    if dimension.kind in REPEATS:
        raise ValueError(f"An axis of {dimension.kind} cannot depend on `{name}`.")
    before = dict(dimension.when)
    both = tuple(value for value in options if among(value, before.get(name, options)))
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
    value = plain(value)
    return choice(value, static=None if isinstance(value, float) else True)


def nearest(dimension: Dimension, number: Real) -> Any:
    """The value of a dimension of numbers that is nearest to `number`, such as a lane's.

    A lane holds 32 bits, so 0.2 comes back from it as 0.20000000298.

    >>> nearest(choice(0.1, 0.2), np.float32(0.2)), nearest(integer(1, 10**6), 5.0)
    (0.2, 5)
    """
    value = plain(number)
    if dimension.points is not None:
        return min(dimension.points, key=lambda point: abs(point - value))
    ends = dimension.arguments
    low, high = (ends["low"], ends["high"]) if isinstance(ends, dict) else ends
    inside = min(high, max(low, value))
    return round(inside) if dimension.kind == "integer" else float(inside)


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


def _pick(points: tuple[Any, ...]) -> Callable[[float], Any]:
    """Gives the point at a quantile."""
    return lambda u: points[min(int(u * len(points)), len(points) - 1)]


def _bounds(
    kind: str, low: Any, high: Any, interval: str = "(-inf, inf)", static: bool = False
) -> tuple[Any, Any]:
    """The bounds as Python numbers, in order and such as a lane holds unless they are static."""
    ends = []
    for name, end in (("low", low), ("high", high)):
        if np.ndim(end):
            raise TypeError(f"`{name}` of `{kind}` must be one number, got {end!r}.")
        try:
            check_number(name, end, interval)
            ends.append(plain(end))
        except (TypeError, ValueError) as error:
            which = str(error).replace(f"`{name}`", f"`{name}` of `{kind}`", 1)
            which = which if which.startswith("`") else f"`{name}` of `{kind}`: {which}"
            raise type(error)(which) from None
        if not static:
            check_held(f"`{name}` of `{kind}`", ends[-1], kind == "integer")
    low, high = ends
    if not low < high:
        raise ValueError(
            f"`{kind}` needs low < high, got low={low}, high={high}."
            + (" The bounds are reversed." if low > high else " Write the number itself instead.")
        )
    if not static and kind != "integer":
        check_apart(kind, ends)
    return low, high


def _between(kind: str, low: Any, high: Any, values: np.ndarray, digits: int) -> tuple[float, ...]:
    """`values` rounded to `digits`, for tables, with the ends as they were given."""
    exact = [float(value) for value in values]
    rounded = [float(f"{value:.{digits}g}") for value in values]
    for points in (exact, rounded):
        points[-1:] = [float(high)]
        points[0] = float(low)
    # A range narrower than the rounding keeps all digits.
    points = rounded if all(a < b for a, b in itertools.pairwise(rounded)) else exact
    check_apart(kind, points)
    return tuple(points)


def _count(kind: str, count: Any) -> int:
    try:
        number = 0 if isinstance(count, bool) else operator.index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`count` of `{kind}` must be an integer of at least 1, got {count!r}.")
    check_held(f"`count` of `{kind}`", number)
    return number

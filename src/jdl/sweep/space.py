"""Search spaces: what each hyperparameter may be, what is static, how a space is written."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jdl._checks import check_number


class Dimension(NamedTuple):
    """What one hyperparameter may be.

    Attributes:
      kind: the name of the function here that made it.
      arguments: that function's arguments, as JSON holds them.
      static: whether it changes the program: each of its values is compiled apart.
      points: all its values, in order; None where there are infinitely many.
      at: the value at quantile `u` in [0, 1); uniform `u` draw it at random.
    """

    kind: str
    arguments: Any
    static: bool
    points: tuple[Any, ...] | None
    at: Callable[[float], Any]


Space = dict[str, Dimension]


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


_KINDS: dict[str, Callable[..., Dimension]] = {
    "uniform": uniform,
    "log_uniform": log_uniform,
    "integer": integer,
    "choice": choice,
    "log_grid": log_grid,
    "grid": grid,
    "seeds": seeds,
}


def _check_bounds(kind: str, low: Any, high: Any, interval: str = "(-inf, inf)") -> None:
    check_number(f"low` of `{kind}", low, interval)
    check_number(f"high` of `{kind}", high, interval)
    if not low < high:
        raise ValueError(
            f"`{kind}` needs low < high, got low={low}, high={high}."
            + (" The bounds are reversed." if low > high else " Write the number itself instead.")
        )


def _check_count(kind: str, count: Any) -> None:
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"`count` of `{kind}` must be an integer of at least 1, got {count!r}.")


def parse_space(space: Mapping[str, Any]) -> Space:
    """A space with every plain value turned into the dimension that holds just it.

    Raises:
      ValueError: the space is empty, a name is no string, or there is more than
        one axis of seeds.

    >>> parse_space({"lr": log_uniform(1e-4, 1.0), "width": 64})["width"].points
    (64,)
    """
    if not space:
        raise ValueError(
            "The space is empty: name at least one hyperparameter, as in "
            '{"lr": sweep.log_uniform(1e-4, 1.0)}.'
        )
    parsed: Space = {}
    for name, dimension in space.items():
        if not isinstance(name, str):
            raise ValueError(f"A hyperparameter's name must be a string, got {name!r}.")
        if not isinstance(dimension, Dimension):
            # A lone plain value, a width or a name, is part of the program.
            dimension = choice(dimension, static=True if not isinstance(dimension, float) else None)
        parsed[name] = dimension
    if len(axes := [name for name, d in parsed.items() if d.kind == "seeds"]) > 1:
        raise ValueError(f"A space has at most one axis of seeds, got {', '.join(axes)}.")
    return parsed


def seed_axis(space: Space) -> str | None:
    """The name of the axis of seeds, or None."""
    return next((name for name, d in space.items() if d.kind == "seeds"), None)


def to_json(space: Mapping[str, Any]) -> dict[str, Any]:
    """The space as plain data: `{"lr": {"log_uniform": [0.0001, 1.0]}}`.

    >>> to_json({"lr": log_uniform(1e-4, 1.0), "seed": seeds(4)})
    {'lr': {'log_uniform': [0.0001, 1.0]}, 'seed': {'seeds': 4}}
    """
    return {name: {d.kind: d.arguments} for name, d in parse_space(space).items()}


def from_json(data: Mapping[str, Any]) -> Space:
    """The inverse of `to_json`; a plain value stands for itself.

    Raises:
      ValueError: an entry names no kind of dimension, or its arguments are wrong.

    >>> from_json({"lr": {"log_grid": [0.001, 0.1, 3]}, "width": 64})["lr"].points
    (0.001, 0.01, 0.1)
    """
    space: dict[str, Any] = {}
    for name, entry in data.items():
        if not isinstance(entry, Mapping):
            space[name] = entry
            continue
        kind, arguments = next(iter(entry.items()), (None, None))
        if len(entry) != 1 or kind not in _KINDS:
            raise ValueError(
                f"`{name}` must be a value or one of {', '.join(_KINDS)} with its arguments, as in "
                f'{{"log_uniform": [1e-4, 1.0]}}, got {dict(entry)}.'
            )
        try:
            if isinstance(arguments, Mapping):
                options = arguments.get("options", ())
                rest = {k: v for k, v in arguments.items() if k != "options"}
                space[name] = _KINDS[kind](*options, **rest)
            else:
                space[name] = _KINDS[kind](
                    *(arguments if isinstance(arguments, list) else [arguments])
                )
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{name}`: {error}") from error
    return parse_space(space)


def from_toml(path: str) -> Space:
    """The space written in a TOML file, its entries as in `from_json`.

        lr = {log_uniform = [1e-4, 1.0]}
        optimizer = {choice = ["sgd", "adam"]}
        seed = {seeds = 4}

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not TOML, or an entry is wrong; the message names it.
    """
    with open(path, "rb") as file:
        try:
            return from_json(tomllib.load(file))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def split_static(
    space: Space, config: Mapping[str, Any]
) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """The static part of a configuration, hashable, and its numbers."""
    static = tuple((name, config[name]) for name, d in space.items() if d.static)
    return static, {name: config[name] for name, d in space.items() if not d.static}


def as_scalars(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as the 32-bit scalars that a lane holds."""
    return {
        name: np.int32(value) if isinstance(value, int | np.integer) else np.float32(value)
        for name, value in numbers.items()
    }


def finite(space: Space) -> bool:
    """Whether the space is a grid: every dimension has finitely many values."""
    return all(d.points is not None for d in space.values())


def names(items: Iterable[tuple[str, Any]]) -> str:
    """A static part as a person reads it: "optimizer=adam width=64".

    >>> names([("optimizer", "adam"), ("width", 64)])
    'optimizer=adam width=64'
    """
    return " ".join(f"{name}={value}" for name, value in items)

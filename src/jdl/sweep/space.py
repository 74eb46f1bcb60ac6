"""Search spaces: dimensions by name, their conditions, what is static, how a space is written."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jdl._paths import expanded
from jdl.engine.names import check_name
from jdl.sweep.dimension import KINDS, Dimension, as_dimension, when
from jdl.sweep.values import among, check_held, listed, plain

Space = dict[str, Dimension]


class Static(tuple[tuple[str, Any], ...]):
    """The static part of a configuration: names and values, equal only if the types are too.

    >>> Static([("a", True)]) == Static([("a", 1)])
    False
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


def parse_space(space: Mapping[str, Any]) -> Space:
    """A space with every plain value turned into the dimension that holds just it.

    Raises:
      ValueError: the space is empty, a name is no text or that of a column which
        every table of trials has ("trial", "status", "steps"), a value is none that a
        hyperparameter may have, or there is more than one axis of seeds.

    >>> from jdl import sweep
    >>> parse_space({"lr": sweep.log_uniform(1e-4, 1.0), "width": 64})["width"].points
    (64,)
    """
    if not space:
        raise ValueError(
            "The space is empty: name at least one hyperparameter, as in "
            '{"lr": sweep.log_uniform(1e-4, 1.0)}.'
        )
    parsed: Space = {}
    for name, dimension in space.items():
        check_name("hyperparameter", name)
        try:
            parsed[name] = as_dimension(dimension)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`{name}`: {error}") from error
    if len(axes := [name for name, d in parsed.items() if d.kind == "seeds"]) > 1:
        raise ValueError(f"A space has at most one axis of seeds, got {', '.join(axes)}.")
    order(parsed)
    return parsed


def order(space: Space) -> list[str]:
    """The names of a space, each after those that its conditions ask for.

    Raises:
      ValueError: a condition asks for what is not in the space, is not static
        or never has the value, or conditions ask for each other.
    """
    for name, dimension in space.items():
        for other, values in dimension.when:
            if other not in space:
                raise ValueError(
                    f"`{name}` exists only for some `{other}`, which is not in the space: "
                    f"{', '.join(space)}."
                )
            points = space[other].points or ()
            if not space[other].static:
                raise ValueError(
                    f"`{name}` depends on `{other}`, so `{other}` must be static, as a choice of "
                    f"strings is, or choice(..., static=True); got {space[other].kind}."
                )
            if missing := [v for v in values if not among(v, points)]:
                raise ValueError(
                    f"`{name}` exists for `{other}` {missing[0]!r}, but `{other}` is one of "
                    f"{', '.join(map(repr, points))}."
                )
    placed: list[str] = []
    while len(placed) < len(space):
        ready = [
            name
            for name, d in space.items()
            if name not in placed and all(other in placed for other, _ in d.when)
        ]
        if not ready:
            left = ", ".join(name for name in space if name not in placed)
            raise ValueError(f"The conditions of {left} depend on each other in a circle.")
        placed += ready
    return placed


def exists(dimension: Dimension, config: Mapping[str, Any]) -> bool:
    """Whether a hyperparameter exists in `config`, which holds those that it depends on."""
    return all(other in config and among(config[other], values) for other, values in dimension.when)


def configuration(
    space: Space, value: Callable[[str], Any], placed: Sequence[str] | None = None
) -> dict[str, Any]:
    """The configuration in which every hyperparameter that exists is `value(name)`.

    Args:
      space: parsed.
      value: gives the value of a hyperparameter.
      placed: `order(space)`, to compute it once.

    >>> from jdl.sweep import choice, uniform, when
    >>> space = parse_space({"a": choice("x", "y"), "b": when("a", "y", uniform(0, 1))})
    >>> configuration(space, lambda name: space[name].at(0.25))
    {'a': 'x'}
    """
    config: dict[str, Any] = {}
    for name in order(space) if placed is None else placed:
        if exists(space[name], config):
            config[name] = value(name)
    return {name: config[name] for name in space if name in config}


def combinations(space: Space) -> Iterator[dict[str, Any]]:
    """Every configuration of a finite space, the last dimension varying fastest."""
    names = order(space)

    def extend(config: dict[str, Any], left: list[str]) -> Iterator[dict[str, Any]]:
        if not left:
            yield {name: config[name] for name in space if name in config}
            return
        name, *rest = left
        if not exists(space[name], config):
            yield from extend(config, rest)
            return
        for point in space[name].points or ():
            yield from extend({**config, name: point}, rest)

    return extend({}, names)


def seed_axis(space: Space) -> str | None:
    """The name of the axis of seeds, or None."""
    return next((name for name, d in space.items() if d.kind == "seeds"), None)


def to_json(space: Mapping[str, Any]) -> dict[str, Any]:
    """The space as plain data: `{"lr": {"log_uniform": [0.0001, 1.0]}}`.

    >>> from jdl import sweep
    >>> to_json({"lr": sweep.log_uniform(1e-4, 1.0), "seed": sweep.seeds(4)})
    {'lr': {'log_uniform': [0.0001, 1.0]}, 'seed': {'seeds': 4}}
    """
    written: dict[str, Any] = {}
    for name, d in parse_space(space).items():
        written[name] = {d.kind: d.arguments}
        if d.when:
            written[name]["when"] = {other: listed(values) for other, values in d.when}
    return written


def from_json(data: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Space:
    """The inverse of `to_json`; a plain value stands for itself.

    Args:
      data: entries as `to_json` writes them.
      base: a space that they replace entries of, or add to.

    Raises:
      ValueError: an entry names no kind of dimension, or its arguments are wrong.

    >>> from_json({"lr": {"log_grid": [0.001, 0.1, 3]}, "width": 64})["lr"].points
    (0.001, 0.01, 0.1)
    """
    space: dict[str, Any] = dict(base or {})
    for name, entry in data.items():
        if not isinstance(entry, Mapping):
            space[name] = entry
            continue
        conditions = entry.get("when", {})
        own = {key: value for key, value in entry.items() if key != "when"}
        kind, arguments = next(iter(own.items()), (None, None))
        if len(own) != 1 or kind not in KINDS:
            raise ValueError(
                f"`{name}` must be a value or one of {', '.join(KINDS)} with its arguments, as in "
                f'{{"log_uniform": [1e-4, 1.0]}}, got {dict(entry)}.'
            )
        if not isinstance(conditions, Mapping):
            raise ValueError(
                f"`when` of `{name}` must name hyperparameters and their values, as in "
                f'{{"optimizer": ["momentum"]}}, got {conditions!r}.'
            )
        try:
            if isinstance(arguments, Mapping):
                options = plain(arguments.get("options", ()))
                rest = {k: v for k, v in arguments.items() if k != "options"}
                space[name] = KINDS[kind](*options, **rest)
            else:
                space[name] = KINDS[kind](
                    *(plain(arguments) if isinstance(arguments, list) else [arguments])
                )
            for other, values in conditions.items():
                options = values if isinstance(values, list) else [values]
                space[name] = when(other, options, space[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{name}`: {error}") from error
    return parse_space(space)


def from_toml(path: str | os.PathLike[str], base: Mapping[str, Any] | None = None) -> Space:
    """The space written in a TOML file, its entries and `base` as in `from_json`.

        lr = {log_uniform = [1e-4, 1.0]}
        optimizer = {choice = ["sgd", "adam"]}
        seed = {seeds = 4}
        mu = {uniform = [0.5, 0.99], when = {optimizer = ["momentum"]}}

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not TOML, or an entry is wrong; the message names it.
    """
    content = expanded(path).read_bytes()
    try:
        # Editors of Windows put a byte-order mark in front.
        return from_json(tomllib.loads(content.decode("utf-8-sig")), base)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def split_static(
    space: Space, config: Mapping[str, Any]
) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """The static part of a configuration, hashable, and its numbers."""
    there = [(name, d) for name, d in space.items() if name in config]
    static = Static((name, plain(config[name])) for name, d in there if d.static)
    return static, {name: config[name] for name, d in there if not d.static}


def as_scalars(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as the 32-bit scalars that a lane holds.

    Raises:
      ValueError: one does not fit.
    """
    scalars: dict[str, Any] = {}
    for name, value in numbers.items():
        number = plain(value)
        check_held(f"`{name}`", number)
        scalars[name] = np.int32(number) if isinstance(number, int) else np.float32(number)
    return scalars


def finite(space: Space) -> bool:
    """Whether the space is a grid: every dimension has finitely many values."""
    return all(d.points is not None for d in space.values())


def names(items: Iterable[tuple[str, Any]]) -> str:
    """A static part as a person reads it; what could be read otherwise is in quotes.

    >>> names([("optimizer", "adam"), ("width", 64), ("depth", "64"), ("an option", "a b")])
    "optimizer=adam width=64 depth='64' 'an option'='a b'"
    """
    return " ".join(f"{word(name)}={word(value)}" for name, value in items)


def word(value: Any) -> str:
    """A name or a value in a label, in quotes where it could be read otherwise."""
    if not isinstance(value, str):
        return repr(value)
    word = re.fullmatch(r"[\w.+-]+", value) and value not in ("None", "True", "False")
    try:
        float(value)
    except ValueError:
        return value if word else repr(value)
    return repr(value)

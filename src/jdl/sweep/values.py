"""Checks of hyperparameter values: plain, distinguished by type, and within the device's range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Real = Any
"""A Python number, or a NumPy or JAX scalar."""

Whole = Any
"""A Python integer, or a NumPy or JAX integer scalar."""

_TINY, _MAX = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_INT = np.iinfo(np.int32)


def plain(value: Any) -> Any:
    """Converts `value` to Python's own types: scalars to numbers, lists to tuples.

    Raises:
      TypeError: it is none of these: a dict, a function or an array, for instance.
      ValueError: it is NaN.

    >>> plain([np.int64(3), ["a", True]])
    (3, ('a', True))
    """
    if type(value) in (list, tuple):
        return tuple(map(plain, value))
    shown = value
    if getattr(value, "shape", None) == () and not isinstance(value, np.ma.MaskedArray):
        value = value.item() if value.dtype.kind not in "mM" else None
    if shown is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # of an enumeration, too
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            raise ValueError("NaN is no value of a hyperparameter.")
        if math.isinf(number) != np.isinf(value) or (number == 0) != (value == 0):
            raise ValueError(f"{value!r} is beyond float64.")  # a long double may be
        return number
    raise TypeError(
        "a value of a hyperparameter must be a string, a number, a boolean, None, or a tuple of "
        f"such, got {shown!r}. For anything else give a name, and look it up in make_trial."
    )


def listed(value: Any) -> Any:
    """`value` with tuples as lists, as JSON and TOML have them."""
    return [listed(v) for v in value] if isinstance(value, tuple) else value


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are one: `True`, `1` and `1.0` are three."""
    return repr(a) == repr(b)


def among(value: Any, values: Any) -> bool:
    """Whether `value` is one of `values`."""
    return any(same(value, other) for other in values)


def check_held(name: str, value: float, whole: bool | None = None) -> None:
    """Raises ValueError unless `value` fits 32 bits without becoming 0 or infinite.

    Args:
      name: what the message says.
      value: a plain number.
      whole: whether it is held as an integer; None for those that are integers.

    >>> check_held("`lr`", 1e-50)
    Traceback (most recent call last):
    ...
    ValueError: `lr` is 1e-50, but numbers of a space are float32: 0, or 1.2e-38 to 3.4e+38 in size.
    """
    if isinstance(value, int) if whole is None else whole:
        if not _INT.min <= value <= _INT.max:
            raise ValueError(
                f"{name} is {value}, but integers of a space are int32, from {_INT.min} to "
                f"{_INT.max}; with static=True they may be larger."
            )
    elif value and not (_TINY <= abs(value) <= _MAX or abs(value) == math.inf):
        raise ValueError(
            f"{name} is {value}, but numbers of a space are float32: 0, or {_TINY:.2g} to "
            f"{_MAX:.2g} in size."
        )


def check_apart(kind: str, values: Any) -> None:
    """Raises ValueError if two different values are the same number in float32."""
    seen: dict[float, Any] = {}
    for value in values:
        other = seen.setdefault(float(np.float32(value)), value)
        if other is not value and not same(other, value):
            raise ValueError(
                f"`{kind}` has {other!r} and {value!r}, which are the same number in float32."
            )

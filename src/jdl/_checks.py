"""Checks of numbers that work where the number is concrete and pass where it is traced."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Count = Any
"""A Python, NumPy or concrete JAX integer: what every argument that counts something may be."""


def check_number(name: str, value: Any, interval: str, fix: str = "") -> None:
    """Raises unless `value` lies in `interval`, written as in "[0, 1)" or "(0, inf)".

    A traced number and a schedule (any callable) pass: their values are not
    known yet. Comparison is NumPy's, so that no program is compiled for it.

    Args:
      name: the argument's name, as the user wrote it.
      value: a scalar, or an array whose every element is checked.
      interval: round brackets leave the end out, square ones take it in.
      fix: a sentence appended to the message, for a misuse with a known remedy.

    Raises:
      TypeError: `value` is not a number.
      ValueError: `value` lies outside `interval`, or is NaN.

    >>> check_number("b1", 0.9, "[0, 1)")
    >>> check_number("b1", 1.5, "[0, 1)")
    Traceback (most recent call last):
    ...
    ValueError: `b1` must be in [0, 1), got b1=1.5.
    """
    if isinstance(value, jax.core.Tracer) or callable(value):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise TypeError(f"`{name}` must be a number in {interval}, got {name}={value!r}.")
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = array > low if interval[0] == "(" else array >= low
    below = array < high if interval[-1] == ")" else array <= high
    if not np.all(above & below):
        shown = value if isinstance(value, int | float) else array
        raise ValueError(
            f"`{name}` must be in {interval}, got {name}={shown}." + (f" {fix}" if fix else "")
        )


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Returns `value` as an int; raises unless it is an integer of at least `least`.

    Python, NumPy and concrete JAX integers pass. A bool does not, nor does a traced
    integer: a count sets a shape or the number of turns of a loop in Python.

    Args:
      name: the argument's name, as the user wrote it.
      value: what the user gave.
      least: the smallest count allowed.

    Raises:
      TypeError: `value` is not a concrete integer.
      ValueError: `value` is below `least`.

    >>> import numpy as np
    >>> check_count("features", np.int64(3))
    3
    >>> check_count("features", 0)
    Traceback (most recent call last):
    ...
    ValueError: `features` must be an integer of at least 1, got features=0.
    """
    message = f"`{name}` must be an integer of at least {least}, got {name}={value!r}."
    if isinstance(value, jax.core.Tracer):
        raise TypeError(message + " It must be known when the program is built, not traced.")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if isinstance(value, bool) or (isinstance(value, np.ndarray) and value.dtype.kind == "b"):
        raise TypeError(message)
    if count < least:
        raise ValueError(message)
    return count


def check_seed(seed: Any) -> int:
    """Returns `seed` as an int; raises unless it fits the 32 bits of a random key's root.

    >>> check_seed(3)
    3
    """
    if (number := check_count("seed", seed, 0)) >= 2**32:
        raise ValueError(f"`seed` must be below 2**32, got seed={seed!r}.")
    return number


def wide_integers(x: Any) -> jax.Array:
    """`x` in a signed type of 32 bits or more, where -1 and a number of classes are themselves.

    Comparing with a Python number happens in the array's own type, and 256 is 0 in uint8.
    """
    wide = jnp.int64 if x.dtype.itemsize > 4 else jnp.int32
    return jnp.asarray(x, jax.dtypes.canonicalize_dtype(wide))


def check_classes(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    """Returns `value` as `wide_integers`; raises unless it holds integers in `shape`.

    Raises:
      ValueError: `value` has another shape, or is of no integer type.
    """
    if value.shape != shape or value.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` as integer classes must have shape {shape}, got {value.dtype} of shape "
            f"{value.shape}."
        )
    return wide_integers(value)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raises ValueError unless `value` is one of `choices`, naming them all.

    >>> check_choice("form", "ahead", ["lookahead", "rewritten"])
    Traceback (most recent call last):
    ...
    ValueError: `form` must be one of 'lookahead', 'rewritten', got form='ahead'.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}, got {name}={value!r}.")

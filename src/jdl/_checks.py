"""Checks of numbers that work where the number is concrete and pass where it is traced."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


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
    if not (np.issubdtype(array.dtype, np.number) or jax.dtypes.issubdtype(array.dtype, np.number)):
        raise TypeError(f"`{name}` must be a number in {interval}, got {name}={value!r}.")
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = array > low if interval[0] == "(" else array >= low
    below = array < high if interval[-1] == ")" else array <= high
    if not np.all(above & below):
        shown = value if isinstance(value, int | float) else array
        raise ValueError(
            f"`{name}` must be in {interval}, got {name}={shown}." + (f" {fix}" if fix else "")
        )


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

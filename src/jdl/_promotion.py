"""Types that meet in jdl's own formulas, under whatever promotion the program around asks for.

With `jax.numpy_dtype_promotion("strict")` a user finds mixed types in a program; the formulas
here mix them on purpose, a float32 moment with a bfloat16 gradient, a rate with a count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Function = TypeVar("Function", bound=Callable[..., Any])


def promoting(function: Function) -> Function:
    """`function` with JAX's standard promotion inside."""

    @functools.wraps(function)
    def wrapped(*args: Any, **keywords: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **keywords)

    return wrapped  # type: ignore[return-value]


@promoting
def widest(*dtypes: Any) -> Any:
    """The type that holds all of `dtypes`, of arrays or of types."""
    return jnp.result_type(*(getattr(x, "dtype", x) for x in dtypes))


def at_least_float32(x: Any) -> Any:
    """float32, or the type of `x` (an array, or a type) if that is wider or complex."""
    return widest(x, jnp.float32)

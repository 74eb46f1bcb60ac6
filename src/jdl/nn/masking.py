"""Padded sequences: padding, whatever it holds, reaches no real step and no gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp

from jdl.nn.base import Key, Layer, Masked, Params, State

Function = TypeVar("Function", bound=Callable[..., Any])


def real_steps(values: Any, mask: Any) -> Any:
    """`values` with 0 at padding; on the way back, 0 for whatever gradient comes from there."""
    real = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return jnp.where(real, values, 0)


def filled(x: Masked) -> Any:
    """The values of `x` with each sequence's first step at padding, 0 where it has none.

    For functions that know nothing of padding: at 0 some have no derivative.
    """
    values = real_steps(x.values, x.mask)
    real = x.mask.reshape(x.mask.shape + (1,) * (values.ndim - x.mask.ndim))
    return jnp.where(real, values, values[:, :1])


def of_values(function: Function) -> Function:
    """`function(x, ...)` of arrays, and of the values of `Masked` steps."""

    @functools.wraps(function)
    def wrapped(x: Any, *args: Any, **keywords: Any) -> Any:
        if not isinstance(x, Masked):
            return function(x, *args, **keywords)
        return Masked(real_steps(function(filled(x), *args, **keywords), x.mask), x.mask)

    return wrapped  # type: ignore[return-value]


def on_steps(layer: Layer) -> Layer:
    """`layer`, which treats each step alone, of arrays and of the values of `Masked` steps."""

    def init(key: Key, x: Any) -> tuple[Params, State]:
        return layer.init(key, x.values if isinstance(x, Masked) else x)

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        if not isinstance(x, Masked):
            return layer.apply(params, state, x, key=key, train=train)
        y, state = layer.apply(params, state, filled(x), key=key, train=train)
        return Masked(real_steps(y, x.mask), x.mask), state

    return layer._replace(init=init, apply=apply)


def refuse_masked(x: Any, name: str) -> None:
    """Raises TypeError where `x` is `Masked`, for layers that mix steps."""
    if isinstance(x, Masked):
        raise TypeError(f"{name} takes arrays: it would mix padding with real steps of `Masked`.")

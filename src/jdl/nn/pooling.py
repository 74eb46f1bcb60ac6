"""Pooling of images and sequences, not of `Masked` steps: over windows, or all of space."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from jdl._promotion import at_least_float32, promoting
from jdl.nn.base import Key, Layer, Params, State, as_floating
from jdl.nn.convolution import Padding, Sizes, paddings, sizes
from jdl.nn.masking import refuse_masked
from jdl.nn.sharding import along_batch


def max_pool(window: Sizes = 2, stride: Sizes | None = None, padding: Padding = "VALID") -> Layer:
    """The largest value of each window, channel by channel; not of `Masked` steps.

    Args:
      window: its size: one number for every axis of space, or one each.
      stride: its step; None is the window's size, so that windows do not overlap.
      padding: as in `convolve`; what is added is -inf and never the maximum.

    Returns:
      A layer without parameters. The gradient goes to the maximum, and where
      several are equal to the first of them in row-major order, as in torch
      and `lax.reduce_window`. (After a ReLU ties at zero are common.)

    Raises:
      ValueError, TypeError: a size is not a positive integer, or does not fit.

    >>> import jax.numpy as jnp
    >>> layer = max_pool(2)
    >>> layer.apply({}, {}, jnp.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1))[0].ravel().tolist()
    [3.0, 5.0]
    """
    return _layer("max_pool", lambda x: _max(x, *_windows(x, window, stride, padding)))


def avg_pool(
    window: Sizes = 2,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    *,
    count_padding: bool = True,
) -> Layer:
    """The mean of each window, channel by channel; not of `Masked` steps.

    Args:
      window: as in `max_pool`.
      stride: as in `max_pool`.
      padding: as in `convolve`; what is added is zero.
      count_padding: whether the mean divides by the window's size, as torch's
        and flax's do, or by how many values of the input it covers.

    Returns:
      A layer without parameters.

    Raises:
      ValueError, TypeError: a size is not a positive integer, or does not fit.

    >>> import jax.numpy as jnp
    >>> layer = avg_pool(2)
    >>> layer.apply({}, {}, jnp.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1))[0].ravel().tolist()
    [2.0, 3.5]
    """

    def pool(x: Any) -> Any:
        size, step, pads = _windows(x, window, stride, padding)
        x = as_floating(x)
        wide = x.astype(at_least_float32(x))
        count: Any = math.prod(size)
        if not count_padding:
            count = _sum(jnp.ones((1, *x.shape[1:-1], 1), wide.dtype), size, step, pads)
        return (_sum(wide, size, step, pads) / count).astype(x.dtype)

    return _layer("avg_pool", pool)


def global_max_pool(x: Any) -> Num[Array, "batch channels"]:
    """The largest value of each channel over all of space; ties as in `max_pool`.

    Args:
      x: `(batch, *space, channels)`, not of `Masked` steps.

    >>> import jax.numpy as jnp
    >>> global_max_pool(jnp.arange(6.0).reshape(1, 3, 2)).tolist()
    [[4.0, 5.0]]
    """
    refuse_masked(x, "global_max_pool")
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    first = jnp.argmax(flat, axis=1, keepdims=True)
    places = jnp.arange(flat.shape[1]).reshape(1, -1, 1)
    return jnp.where(places == first, flat, 0).sum(1, dtype=x.dtype)


def global_avg_pool(x: Any) -> Float[Array, "batch channels"]:
    """The mean of each channel over all of space, summed in float32 or wider.

    Args:
      x: `(batch, *space, channels)`, not of `Masked` steps.

    >>> import jax.numpy as jnp
    >>> global_avg_pool(jnp.arange(6.0).reshape(1, 3, 2)).tolist()
    [[2.0, 3.0]]
    """
    refuse_masked(x, "global_avg_pool")
    x = as_floating(x)
    wide = x.astype(at_least_float32(x))
    return wide.mean(axis=tuple(range(1, x.ndim - 1))).astype(x.dtype)


def _layer(name: str, pool: Callable[[Any], Any]) -> Layer:
    pool = along_batch(pool)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        refuse_masked(x, name)
        return {}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        return pool(x), state

    return Layer(init, apply, name)


def _windows(x: Any, window: Sizes, stride: Sizes | None, padding: Padding) -> Any:
    """Size, step and padding of the window for each axis of space of `x`."""
    if x.ndim not in (3, 4):
        raise ValueError(
            "Pooling needs (batch, time, channels) or (batch, height, width, channels), "
            f"got shape {x.shape}."
        )
    space = x.shape[1:-1]
    size = sizes("window", window, len(space))
    step = size if stride is None else sizes("stride", stride, len(space))
    pads = paddings(padding, space, size, step, (1,) * len(space))
    for n, k, p in zip(space, size, pads):
        if n + sum(p) < k or max(p) >= k:
            raise ValueError(
                f"`window` must fit into the input and be larger than the padding, got "
                f"window={size} for size {space} with padding {pads}."
            )
    return size, step, pads


# `lax.reduce_window` has gradients that XLA:CPU computes one scalar at a time (3.4 ms against
# 0.1 ms for 2x2 windows of 32x28x28x16, forward and backward). Slices and selections are fast
# everywhere, and the selection, constant between ties, makes the derivative one of every order.


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max(x: Any, size: Any, step: Any, pads: Any) -> Any:
    return _first_max(_taps(x, size, step, pads, _least(x)))[0]


@_max.defjvp
def _max_jvp(size: Any, step: Any, pads: Any, primals: Any, tangents: Any) -> Any:
    (x,) = primals
    y, first = _first_max(_taps(x, size, step, pads, _least(x)))
    taps = _taps(tangents[0], size, step, pads, 0.0)
    chosen = [jnp.where(first == place, tap, 0) for place, tap in enumerate(taps)]
    return y, sum(chosen[1:], start=chosen[0])


def _least(x: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min


def _first_max(taps: list[Any]) -> tuple[Any, Any]:
    """The largest of `taps`, element by element, and the first place where it stands; NaN wins."""
    y, first = taps[0], jnp.zeros(taps[0].shape, jnp.int32)
    for place, tap in enumerate(taps[1:], start=1):
        larger = (tap > y) | jnp.isnan(tap)
        y, first = jnp.where(larger, tap, y), jnp.where(larger, place, first)
    return y, first


def _sum(x: Any, size: Any, step: Any, pads: Any) -> Any:
    taps = _taps(x, size, step, pads, 0.0)
    return sum(taps[1:], start=taps[0])


def _taps(x: Any, size: Any, step: Any, pads: Any, fill: Any) -> list[Any]:
    """For each place in the window, in row-major order, what stands there in every window."""
    space = list(zip(x.shape[1:-1], size, step, pads))
    counts = [(n + sum(p) - k) // s + 1 for n, k, s, p in space]
    # Up to the last window's step, so that windows side by side are a reshape.
    edges = [(p[0], m * s - n - p[0], 0) for m, (n, _, s, p) in zip(counts, space)]
    if size != step:
        edges = [(*p, 0) for *_, p in space]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    places = itertools.product(*map(range, size))
    if size == step:
        shape = [v for m, k in zip(counts, size) for v in (m, k)]
        x = x.reshape(x.shape[0], *shape, x.shape[-1])
        return [x[(slice(None), *(v for i in place for v in (slice(None), i)))] for place in places]
    ends = [(m - 1) * s + 1 for m, s in zip(counts, step)]
    return [
        x[(slice(None), *(slice(i, i + end, s) for i, end, s in zip(place, ends, step)))]
        for place in places
    ]

"""Initialisers: functions `init(key, shape, dtype)`; a kernel's last two axes are (in, out)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdl import _checks, tree
from jdl._promotion import at_least_float32, promoting

Key = Any
Number = Any
Initializer = Callable[..., Array]
"""`init(key, shape, dtype) -> array`."""


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """`(fan_in, fan_out)`: how many numbers feed an output unit, how many an input unit feeds.

    A dense kernel is `(in, out)`, a convolution's `(height, width, in, out)`:
    the window's size multiplies both.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        raise ValueError(
            f"An initialiser that scales by fan-in or fan-out needs a shape (..., in, out), "
            f"got shape={tuple(shape)}. For a bias take `zeros`, `constant` or `normal`."
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def zeros(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """All zeros: right for biases; for kernels it shows what goes wrong, as units stay equal."""
    return jnp.zeros(tuple(shape), dtype)


def ones(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """All ones: the scale of a norm."""
    return jnp.ones(tuple(shape), dtype)


def constant(value: Number) -> Initializer:
    """Every element is `value`. A small positive bias (0.01 to 0.1) keeps ReLUs alive at first."""
    _checks.check_number("value", value, "(-inf, inf)")

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jnp.full(tuple(shape), value, dtype)

    return init


def normal(stddev: Number = 0.01) -> Initializer:
    """`N(0, stddev**2)`: at 0.01 activations die with depth, at 1 they saturate."""
    _checks.check_number("stddev", stddev, "[0, inf)")

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return _scaled(_flat(jax.random.normal, key, shape, dtype), stddev, dtype)

    return init


def uniform(bound: Number = 0.01) -> Initializer:
    """`U[-bound, bound]`."""
    _checks.check_number("bound", bound, "[0, inf)")

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return _scaled(_symmetric(key, shape, dtype), bound, dtype)

    return init


# The standard deviation of a standard normal truncated to [-2, 2].
_TRUNCATED = 0.87962566103423978


def truncated_normal(stddev: Number = 0.01) -> Initializer:
    """A normal cut off at two of its standard deviations, rescaled so that it has `stddev`.

    torch's `trunc_normal_` and jax's `truncated_normal` are not rescaled: their
    draws have the standard deviation `0.88 * stddev`.
    """
    _checks.check_number("stddev", stddev, "[0, inf)")

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        draw = _flat(_cut_off_at_two, key, shape, dtype)
        return _scaled(draw / _TRUNCATED, stddev, dtype)

    return init


def variance_scaling(scale: Number, fan: str, distribution: str = "normal") -> Initializer:
    """Zero mean and variance `scale / n`, where `n` is chosen by `fan`.

    Args:
      scale: the numerator, in [0, inf).
      fan: "in", "out" or "average" (of fan-in and fan-out).
      distribution: "normal", "truncated" (at two standard deviations, the
        variance kept) or "uniform".

    Raises:
      ValueError: an argument is outside its range, or the shape has no fans.
    """
    _checks.check_number("scale", scale, "[0, inf)")
    _checks.check_choice("fan", fan, ["in", "out", "average"])
    _checks.check_choice("distribution", distribution, ["normal", "truncated", "uniform"])

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        fan_in, fan_out = fans(shape)
        n = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[fan]
        stddev = tree.root(jnp.asarray(scale, _wide(dtype)) / n)
        if distribution == "normal":
            return normal(stddev)(key, shape, dtype)
        if distribution == "truncated":
            return truncated_normal(stddev)(key, shape, dtype)
        return uniform(math.sqrt(3.0) * stddev)(key, shape, dtype)

    return init


def lecun_normal(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`N(0, 1/fan_in)`, i.e. `normal / sqrt(fan_in)`: "Xavier" as it is first taught.

    Keeps the variance through a linear or tanh layer. Not truncated, unlike jax's.
    LeCun, Bottou, Orr, Müller 1998, "Efficient backprop".
    """
    return variance_scaling(1.0, "in")(key, shape, dtype)


def lecun_uniform(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`U[-sqrt(3/fan_in), sqrt(3/fan_in)]`, of variance `1/fan_in`."""
    return variance_scaling(1.0, "in", "uniform")(key, shape, dtype)


def glorot_normal(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`N(0, 2/(fan_in + fan_out))`: a compromise between the forward and the backward pass.

    Glorot, Bengio 2010, "Understanding the difficulty of training deep
    feedforward neural networks". Not truncated, as in torch.
    """
    return variance_scaling(1.0, "average")(key, shape, dtype)


def glorot_uniform(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`U[-b, b]` with `b = sqrt(6/(fan_in + fan_out))` (Glorot, Bengio 2010, equation 16)."""
    return variance_scaling(1.0, "average", "uniform")(key, shape, dtype)


def he_normal(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`N(0, 2/fan_in)`, i.e. `normal / sqrt(fan_in/2)`: keeps the variance through ReLU.

    He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10. Not
    truncated, as in torch (jax truncates).
    """
    return variance_scaling(2.0, "in")(key, shape, dtype)


def he_uniform(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`U[-sqrt(6/fan_in), sqrt(6/fan_in)]`, of variance `2/fan_in`."""
    return variance_scaling(2.0, "in", "uniform")(key, shape, dtype)


@promoting
def fan_uniform(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """The asymmetric `U[-1/sqrt(fan_in), 1/sqrt(fan_out)]`; its mean is 0 for square kernels."""
    fan_in, fan_out = fans(shape)
    low, high = -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_out)
    draw = _flat(jax.random.uniform, key, shape, dtype)
    return (low + (high - low) * draw).astype(dtype)


def orthogonal(gain: Number = 1.0) -> Initializer:
    """A random matrix with orthonormal rows or columns (the fewer), times `gain`.

    A kernel of more than two axes is the matrix `(everything else, out)`. Uniform
    over such matrices: the signs of the QR decomposition's diagonal are undone.
    Saxe, McClelland, Ganguli 2014, "Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks".
    """
    _checks.check_number("gain", gain, "[0, inf)")

    @promoting
    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        fans(shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = jnp.linalg.qr(_flat(jax.random.normal, key, tall, dtype))
        q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1)[None, :]
        return _scaled((q if rows >= columns else q.T).reshape(tuple(shape)), gain, dtype)

    return init


def blocks(init: Initializer, count: int) -> Initializer:
    """Draws `count` blocks of columns apart, each as `init` draws a kernel of its own shape.

    For several kernels kept side by side, as the gates of an LSTM are, whose
    scale must be that of one of them. The last axis must be divisible by `count`.
    """

    @promoting
    def side_by_side(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        one = (*shape[:-1], shape[-1] // count)
        keys = jax.random.split(key, count)
        return jnp.concatenate([init(k, one, dtype) for k in keys], axis=-1)

    return side_by_side


def _wide(dtype: Any) -> Any:
    return at_least_float32(dtype)


def _symmetric(key: Key, shape: Sequence[int], dtype: Any) -> Array:
    return 2.0 * _flat(jax.random.uniform, key, shape, dtype) - 1.0


def _cut_off_at_two(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def _flat(draw: Callable[..., Array], key: Key, shape: Sequence[int], dtype: Any) -> Array:
    """Draws along one axis and reshapes, which gives the same numbers.

    Where the last axis fills no vector register, XLA:CPU takes eight times as
    long to compile the generator's loop (3.3 s against 0.4 s for 64 x 10).
    """
    return draw(key, (math.prod(shape),), _wide(dtype)).reshape(tuple(shape))


def _scaled(draw: Array, factor: Number, dtype: Any) -> Array:
    return (draw * factor).astype(dtype)

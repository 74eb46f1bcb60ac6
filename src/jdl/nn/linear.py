"""Layers that are linear in their input, or a maximum of such: dense, embedding, maxout, PReLU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl import _checks
from jdl._promotion import promoting
from jdl.nn import initializer
from jdl.nn.base import (
    Key,
    Layer,
    Masked,
    Number,
    Params,
    State,
    as_floating,
    over_features,
    parameter_dtype,
)
from jdl.nn.masking import on_steps, real_steps
from jdl.nn.sharding import along_batch


def dense(
    features: _checks.Count,
    *,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
    use_bias: bool = True,
) -> Layer:
    """`y = x @ kernel + bias` along the last axis.

    Args:
      features: the size of the output's last axis.
      kernel_init: of the kernel `(in, features)`.
      bias_init: of the bias `(features,)`.
      use_bias: whether there is one.

    Returns:
      A layer from `(batch, ..., in)` to `(batch, ..., features)` with
      parameters `{"kernel", "bias"}`.

    Raises:
      ValueError, TypeError: `features` is not a positive integer.

    torch draws kernel and bias from `U[-1/sqrt(in), 1/sqrt(in)]`, which is
    `variance_scaling(1/3, "in", "uniform")` for the kernel, and keeps the
    kernel transposed.
    """
    features = _checks.check_count("features", features)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        kernel_key, bias_key = jax.random.split(key)
        dtype = parameter_dtype(x)
        params = {"kernel": kernel_init(kernel_key, (x.shape[-1], features), dtype)}
        if use_bias:
            params["bias"] = bias_init(bias_key, (features,), dtype)
        return params, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y = jnp.dot(x, params["kernel"])
        if use_bias:
            y = y + over_features(params["bias"], y)
        return y, state

    return on_steps(Layer(init, apply, "dense"))


def embedding(
    size: _checks.Count,
    features: _checks.Count,
    *,
    embedding_init: initializer.Initializer = initializer.normal(1.0),  # noqa: B008
) -> Layer:
    """`y = table[x]`: a learned row of features per token.

    Args:
      size: the number of tokens.
      features: the length of a row.
      embedding_init: of the table `(size, features)`; N(0, 1) as in torch.

    Returns:
      A layer from integers `(batch, ...)` to `(batch, ..., features)`, or from
      `Masked` to `Masked`, with parameters `{"embedding"}`. A token outside
      [0, size) gives NaN, but at padding, which gives 0.
    """
    size, features = _checks.check_count("size", size), _checks.check_count("features", features)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        dtype = parameter_dtype(jax.ShapeDtypeStruct((), jnp.int32))
        return {"embedding": embedding_init(key, (size, features), dtype)}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        tokens = x.values if isinstance(x, Masked) else x
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"embedding needs integer tokens, got {tokens.dtype}.")
        # A negative index would count from the end.
        tokens = _checks.wide_integers(tokens)
        tokens = real_steps(tokens, x.mask) if isinstance(x, Masked) else tokens
        tokens = jnp.where(tokens < 0, size, tokens)
        rows = along_batch(lambda tokens, table: jnp.take(table, tokens, axis=0, mode="fill"))
        y = rows(tokens, params["embedding"])
        return (Masked(real_steps(y, x.mask), x.mask) if isinstance(x, Masked) else y), state

    return Layer(init, apply, "embedding")


def maxout(
    features: _checks.Count,
    pieces: _checks.Count = 2,
    *,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    bias_init: initializer.Initializer = initializer.zeros,
) -> Layer:
    """`y = max over k of (x @ kernel_k + bias_k)`: a learned convex activation.

    Args:
      features: the size of the output's last axis.
      pieces: the number of linear maps `k`.
      kernel_init: of each map's kernel `(in, features)`.
      bias_init: of each map's bias.

    Returns:
      A layer with parameters `{"kernel", "bias"}`, the maps side by side:
      `(in, pieces * features)`.

    Goodfellow, Warde-Farley, Mirza, Courville, Bengio 2013, "Maxout networks".
    """
    features = _checks.check_count("features", features)
    pieces = _checks.check_count("pieces", pieces)
    maps = dense(
        features * pieces,
        kernel_init=initializer.blocks(kernel_init, pieces),
        bias_init=initializer.blocks(bias_init, pieces),
    )

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y, state = maps.apply(params, state, x)
        return y.reshape(*y.shape[:-1], pieces, features).max(-2), state

    return on_steps(Layer(maps.init, apply, "maxout"))


def prelu(slope: Number = 0.25, *, shared: bool = True) -> Layer:
    """`x` where positive, else `slope * x` with a learned slope.

    Args:
      slope: where it starts, in (-inf, inf).
      shared: one slope for all features, or one each.

    Returns:
      A layer with parameters `{"slope"}`, of shape `()` or `(features,)`.

    He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers". Do not decay its weight.
    """
    _checks.check_number("slope", slope, "(-inf, inf)")

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        shape = () if shared else x.shape[-1:]
        return {"slope": jnp.full(shape, slope, parameter_dtype(x))}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        x = as_floating(x)
        learned = params["slope"] if shared else over_features(params["slope"], x)
        return jnp.where(x > 0, x, (learned * x).astype(x.dtype)), state

    return on_steps(Layer(init, apply, "prelu"))

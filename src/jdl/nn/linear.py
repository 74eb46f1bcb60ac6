"""Layers that are linear in their input, or a maximum of such: dense, embedding, maxout, PReLU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl.nn import initializer
from jdl.nn.base import (
    Key,
    Layer,
    Params,
    State,
    check_size,
    over_features,
    parameter_dtype,
)


def dense(
    features: int,
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
    features = check_size("features", features)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        kernel_key, bias_key = jax.random.split(key)
        dtype = parameter_dtype(x)
        params = {"kernel": kernel_init(kernel_key, (x.shape[-1], features), dtype)}
        if use_bias:
            params["bias"] = bias_init(bias_key, (features,), dtype)
        return params, {}

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        y = jnp.dot(x, params["kernel"])
        if use_bias:
            y = y + over_features(params["bias"], y)
        return y, state

    return Layer(init, apply, "dense")

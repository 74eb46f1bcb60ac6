"""Recurrent layers scanned over time: RNN, LSTM, GRU; and what is read off their outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
from jdl.nn.masking import real_steps
from jdl.nn.sharding import along_batch, vary_over, varying


def rnn(
    features: _checks.Count,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    reverse: bool = False,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    recurrent_init: initializer.Initializer = initializer.orthogonal(),  # noqa: B008
    bias_init: initializer.Initializer = initializer.zeros,
) -> Layer:
    """`h_t = tanh(x_t @ kernel + h_{t-1} @ recurrent_kernel + bias)`, from `h_0 = 0`.

    Args:
      features: the size of `h`.
      activation: in the place of tanh.
      reverse: whether time runs backwards; outputs stay in their places.
      kernel_init: of the kernel `(in, features)`.
      recurrent_init: of the recurrent kernel `(features, features)`.
      bias_init: of the bias.

    Returns:
      A layer from `(batch, time, in)` to every step's `h`, `(batch, time,
      features)`; see `last_step`. Of `Masked` sequences, padding changes no `h`
      and gives 0, and the output is `Masked`.

    Elman 1990. torch keeps two biases, of which only the sum matters.
    """

    def step(params: Params, h: Array, projected: Array) -> tuple[Array, Array]:
        h = activation(projected + h @ params["recurrent_kernel"])
        return h, h

    def start(zeros: Array) -> Array:
        return zeros

    return _recurrent(
        "rnn", features, 1, step, start, reverse, kernel_init, recurrent_init, bias_init
    )


def lstm(
    features: _checks.Count,
    *,
    forget_bias: Number = 1.0,
    reverse: bool = False,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    recurrent_init: initializer.Initializer = initializer.orthogonal(),  # noqa: B008
    bias_init: initializer.Initializer = initializer.zeros,
) -> Layer:
    """Long short-term memory, from `h_0 = c_0 = 0`.

        i, f, g, o = x_t @ kernel + h_{t-1} @ recurrent_kernel + bias
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Args:
      features: the size of `h` and `c`.
      forget_bias: added to the forget gate's bias at the start, so that the
        cell remembers until it learns to forget; 0 is off (torch).
      reverse: whether time runs backwards; outputs stay in their places.
      kernel_init: of each gate's kernel `(in, features)`.
      recurrent_init: of each gate's recurrent kernel `(features, features)`.
      bias_init: of each gate's bias.

    Returns:
      A layer as `rnn` is, whose parameters hold the gates side by side in the
      order above.

    Hochreiter, Schmidhuber 1997; forget gate of Gers, Schmidhuber, Cummins 2000;
    its bias of Jozefowicz, Zaremba, Sutskever 2015.
    """
    _checks.check_number("forget_bias", forget_bias, "(-inf, inf)")

    def step(
        params: Params, carry: tuple[Array, Array], projected: Array
    ) -> tuple[tuple[Array, Array], Array]:
        h, c = carry
        i, f, g, o = jnp.split(projected + h @ params["recurrent_kernel"], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def start(zeros: Array) -> tuple[Array, Array]:
        return zeros, zeros

    def biases(key: Key, shape: Any, dtype: Any) -> Array:
        drawn = initializer.blocks(bias_init, 4)(key, shape, dtype)
        gate = slice(shape[0] // 4, shape[0] // 2)
        return drawn.at[gate].add(jnp.asarray(forget_bias, dtype))

    return _recurrent(
        "lstm", features, 4, step, start, reverse, kernel_init, recurrent_init, biases
    )


def gru(
    features: _checks.Count,
    *,
    reverse: bool = False,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    recurrent_init: initializer.Initializer = initializer.orthogonal(),  # noqa: B008
    bias_init: initializer.Initializer = initializer.zeros,
) -> Layer:
    """Gated recurrent unit, from `h_0 = 0`.

        r, z = sigmoid(x_t @ kernel_{r,z} + h_{t-1} @ recurrent_kernel_{r,z} + bias_{r,z})
        n = tanh(x_t @ kernel_n + bias_n + r * (h_{t-1} @ recurrent_kernel_n + recurrent_bias))
        h_t = (1 - z) * n + z * h_{t-1}

    Args:
      features: the size of `h`.
      reverse: whether time runs backwards; outputs stay in their places.
      kernel_init: of each gate's kernel `(in, features)`.
      recurrent_init: of each gate's recurrent kernel `(features, features)`.
      bias_init: of each gate's bias; the recurrent bias starts at 0.

    Returns:
      A layer as `rnn` is, whose parameters hold the gates side by side in the
      order r, z, n.

    Cho et al. 2014, with the reset gate after the product, as in torch and cuDNN.
    """

    def step(params: Params, h: Array, projected: Array) -> tuple[Array, Array]:
        recurrent = h @ params["recurrent_kernel"]
        size = h.shape[-1]
        gates = jax.nn.sigmoid(projected[..., : 2 * size] + recurrent[..., : 2 * size])
        r, z = jnp.split(gates, 2, axis=1)
        bias = over_features(params["recurrent_bias"], h)
        n = jnp.tanh(projected[..., 2 * size :] + r * (recurrent[..., 2 * size :] + bias))
        h = (1 - z) * n + z * h
        return h, h

    def start(zeros: Array) -> Array:
        return zeros

    layer = _recurrent(
        "gru", features, 3, step, start, reverse, kernel_init, recurrent_init, bias_init
    )

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        params: Any
        params, state = layer.init(key, x)
        bias = jnp.zeros((features,), params["bias"].dtype)
        return {**params, "recurrent_bias": bias}, state

    return layer._replace(init=init)


@promoting
def last_step(x: Any) -> Float[Array, "batch features"]:
    """Each sequence's last real step: the final `h` of a recurrent layer.

    A sequence of length 0 gives 0. After `reverse=True` the final `h` stands
    first: see `first_step`.
    """
    if not isinstance(x, Masked):
        return x[:, -1]
    last = jnp.sum(x.mask, axis=1, keepdims=True) - 1
    here = jnp.arange(x.mask.shape[1])[None, :] == last
    return jnp.sum(jnp.where(here[..., None], x.values, 0), axis=1)


def first_step(x: Any) -> Float[Array, "batch features"]:
    """The first step of each sequence: the final `h` of a layer that runs backwards.

    A sequence of length 0 gives 0.
    """
    if not isinstance(x, Masked):
        return x[:, 0]
    return jnp.where(x.mask[:, :1], x.values[:, 0], 0)


@promoting
def mean_step(x: Any) -> Float[Array, "batch features"]:
    """The mean over each sequence's real steps; 0 for a sequence of length 0."""
    if not isinstance(x, Masked):
        return jnp.mean(x, axis=1)
    values = as_floating(x.values)
    wide = values.astype(parameter_dtype(values))
    count = jnp.clip(jnp.sum(x.mask, axis=1, keepdims=True), min=1)
    total = jnp.sum(jnp.where(x.mask[..., None], wide, 0), axis=1)
    return (total / count.astype(wide.dtype)).astype(values.dtype)


def _recurrent(
    name: str,
    features: _checks.Count,
    gates: int,
    step: Callable[[Params, Any, Array], tuple[Any, Array]],
    start: Callable[[Array], Any],
    reverse: bool,
    kernel_init: initializer.Initializer,
    recurrent_init: initializer.Initializer,
    bias_init: initializer.Initializer,
) -> Layer:
    features = _checks.check_count("features", features)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        values = x.values if isinstance(x, Masked) else x
        dtype = parameter_dtype(values)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        wide = gates * features
        kernel = initializer.blocks(kernel_init, gates)
        recurrent = initializer.blocks(recurrent_init, gates)
        return {
            "kernel": kernel(kernel_key, (values.shape[-1], wide), dtype),
            "recurrent_kernel": recurrent(recurrent_key, (features, wide), dtype),
            "bias": bias_init(bias_key, (wide,), dtype),
        }, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        if isinstance(x, Masked):
            values = real_steps(x.values, x.mask)
            return Masked(outputs(values, x.mask, params), x.mask), state
        return outputs(x, None, params), state

    @along_batch
    def outputs(values: Any, mask: Any, params: Params) -> Any:
        # What depends on the input alone is one product for all steps, outside the scan.
        projected = jnp.dot(values, params["kernel"])
        projected = projected + over_features(params["bias"], projected)
        zeros = jnp.zeros((values.shape[0], features), projected.dtype)
        zeros = vary_over(varying(projected), zeros)

        def body(carry: Any, inputs: tuple[Array, Array | None]) -> tuple[Any, Array]:
            projected, real = inputs
            after, h = step(params, carry, projected)
            if real is not None:
                after = jax.tree.map(lambda a, b: jnp.where(real[:, None], a, b), after, carry)
                h = jnp.where(real[:, None], h, 0)
            return after, h

        steps = (
            projected.transpose(1, 0, 2),
            None if mask is None else mask.T,
        )
        _, hidden = jax.lax.scan(body, start(zeros), steps, reverse=reverse)
        return hidden.transpose(1, 0, 2)

    return Layer(init, apply, name)

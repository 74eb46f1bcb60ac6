"""Multi-head self-attention, and the embeddings that tell it where a step stands."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jdl import _checks
from jdl._promotion import promoting
from jdl.nn import initializer
from jdl.nn.base import Key, Layer, Masked, Number, Params, State, as_floating, parameter_dtype
from jdl.nn.linear import dense
from jdl.nn.masking import of_values, on_steps, real_steps


def multi_head_attention(
    heads: _checks.Count,
    *,
    features: _checks.Count | None = None,
    causal: bool = False,
    rotary_base: Number | None = None,
    use_bias: bool = True,
    kernel_init: initializer.Initializer = initializer.lecun_normal,
    out_init: initializer.Initializer | None = None,
    bias_init: initializer.Initializer = initializer.zeros,
) -> Layer:
    """Self-attention: `concat over heads of softmax(q @ k.T / sqrt(size)) @ v`, then a dense layer.

    Args:
      heads: how many; each has `size = features / heads`.
      features: the width of queries, keys and values together; None is the input's.
      causal: whether a step sees only itself and those before.
      rotary_base: the base of rotary positions (10000 in the paper), in (1, inf);
        None leaves them out.
      use_bias: whether the dense layers have biases.
      kernel_init: of the kernels of queries, keys and values, `(in, features)` each.
      out_init: of the last kernel, `(features, in)`; None is `kernel_init`.
      bias_init: of the biases.

    Returns:
      A layer from `(batch, time, in)` to the same shape. Of `Masked` sequences
      no step sees padding; the outputs at padding are 0.
      Parameters: `{"qkv", "out"}`, queries, keys and values side by side.

    Raises:
      ValueError: at init, `heads` does not divide `features`.

    Vaswani et al. 2017, section 3.2.
    """
    heads = _checks.check_count("heads", heads)
    if rotary_base is not None:
        _checks.check_number("rotary_base", rotary_base, "(1, inf)")

    def layers(width: int) -> tuple[Layer, Layer]:
        inner = width if features is None else _checks.check_count("features", features)
        if inner % heads:
            raise ValueError(
                f"`heads` must divide the number of features {inner}, got heads={heads}."
            )
        qkv = dense(
            3 * inner,
            kernel_init=initializer.blocks(kernel_init, 3),
            bias_init=initializer.blocks(bias_init, 3),
            use_bias=use_bias,
        )
        out = dense(
            width, kernel_init=out_init or kernel_init, bias_init=bias_init, use_bias=use_bias
        )
        return qkv, out

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        values = x.values if isinstance(x, Masked) else x
        qkv, out = layers(values.shape[-1])
        qkv_key, out_key = jax.random.split(key)
        qkv_params: Any = qkv.init(qkv_key, values)[0]
        inner = qkv_params["kernel"].shape[1] // 3
        between = jax.ShapeDtypeStruct((inner,), values.dtype)
        return {"qkv": qkv_params, "out": out.init(out_key, between)[0]}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        values = real_steps(x.values, x.mask) if isinstance(x, Masked) else x
        qkv, out = layers(values.shape[-1])
        batch, time = values.shape[:2]
        projected, _ = qkv.apply(params["qkv"], {}, values)
        inner = projected.shape[-1] // 3
        q, k, v = jnp.split(projected.reshape(batch, time, 3 * heads, inner // heads), 3, axis=2)
        if rotary_base is not None:
            q, k = _rotated(q, rotary_base), _rotated(k, rotary_base)
        mask = x.mask[:, None, None, :] if isinstance(x, Masked) else None
        y = _attended(q, k, v, mask, causal)
        y, _ = out.apply(params["out"], {}, y.reshape(batch, time, inner))
        return (Masked(real_steps(y, x.mask), x.mask) if isinstance(x, Masked) else y), state

    return Layer(init, apply, "multi_head_attention")


def learned_positions(
    length: _checks.Count,
    *,
    embedding_init: initializer.Initializer = initializer.normal(0.02),  # noqa: B008
) -> Layer:
    """`y_t = x_t + table_t`: a learned vector per position, added.

    Args:
      length: the longest sequence.
      embedding_init: of the table `(length, features)`.

    Returns:
      A layer on `(batch, time, features)` or `Masked`, with parameters `{"embedding"}`.

    Raises:
      ValueError: a sequence is longer than `length`.
    """
    length = _checks.check_count("length", length)

    @promoting
    def init(key: Key, x: Any) -> tuple[Params, State]:
        shape = (length, x.shape[-1])
        return {"embedding": embedding_init(key, shape, parameter_dtype(x))}, {}

    @promoting
    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        time = x.shape[1]
        if time > length:
            raise ValueError(f"learned_positions({length}) was given sequences of {time} steps.")
        x = as_floating(x)
        return x + params["embedding"][None, :time].astype(x.dtype), state

    return on_steps(Layer(init, apply, "learned_positions"))


@of_values
@promoting
def sinusoidal_positions(x: Any) -> Any:
    """`x` plus fixed waves: `sin(t / 10000**(2i/features))` at feature `2i`, cosine at `2i+1`.

    Args:
      x: `(batch, time, features)`, or `Masked`; an even number of features.

    Vaswani et al. 2017, section 3.5; `t` and `i` count from 0.
    """
    _, time, features = x.shape
    if features % 2:
        raise ValueError(f"sinusoidal_positions needs an even number of features, got {features}.")
    x = as_floating(x)
    angles = _angles(time, features // 2, 10000.0, parameter_dtype(x))
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(1, time, features)
    return x + waves.astype(x.dtype)


def _attended(
    q: Float[Array, "batch time heads size"],
    k: Float[Array, "batch time heads size"],
    v: Float[Array, "batch time heads size"],
    mask: Bool[Array, "batch 1 1 time"] | None,
    causal: bool,
) -> Float[Array, "batch time heads size"]:
    if q.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
    # jax's own takes the softmax in float32 whatever the dtype, too coarse for a
    # gradient check in float64.
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) / math.sqrt(q.shape[-1])
    if causal:
        time = q.shape[1]
        past = jnp.tri(time, dtype=bool)[None, None]
        mask = past if mask is None else mask & past
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), v)


def _angles(time: int, pairs: int, base: Number, dtype: Any) -> Float[Array, "time pairs"]:
    exponent = jnp.arange(pairs, dtype=dtype) / pairs
    frequency = jnp.exp(-exponent * jnp.log(jnp.asarray(base, dtype)))
    return jnp.arange(time, dtype=dtype)[:, None] * frequency[None, :]


def _rotated(
    x: Float[Array, "batch time heads size"], base: Number
) -> Float[Array, "batch time heads size"]:
    """Each pair `(x[i], x[i + size/2])` turned by the angle of its position (Su et al. 2021)."""
    if x.shape[-1] % 2:
        raise ValueError(f"Rotary positions need an even size per head, got {x.shape[-1]}.")
    wide = x.astype(parameter_dtype(x))
    angles = _angles(x.shape[1], x.shape[-1] // 2, base, wide.dtype)[None, :, None, :]
    a, b = jnp.split(wide, 2, axis=-1)
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)

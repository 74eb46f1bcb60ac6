"""Mixed precision: one policy that says in which dtypes a model lives, computes and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jdl.nn.base import Key, Layer, Params, State, composed
from jdl.nn.compose import as_layer


class Policy(NamedTuple):
    """The dtypes of a model.

    Attributes:
      parameter: in which parameters are kept and updated.
      compute: in which layers compute; norms still take their statistics in
        float32, and their running statistics stay there.
      output: of the model's output, so that losses start in float32.

    bfloat16 has the range of float32 and needs no loss scaling; float16 does.
    """

    parameter: Any = jnp.float32
    compute: Any = jnp.bfloat16
    output: Any = jnp.float32


def with_policy(layer: Any, policy: Policy) -> Layer:
    """`layer`, a `Layer` or function of `x`, under `policy`: casts at its two ends, nothing else.

    Integer inputs (tokens) and the state keep their dtypes.

    >>> import jax, jax.numpy as jnp
    >>> from jdl import nn
    >>> model = nn.with_policy(nn.chain(nn.dense(3), nn.layer_norm()), nn.Policy())
    >>> x = jnp.ones((2, 5))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> model.apply(params, state, x)[0].dtype
    dtype('float32')
    """
    parts = (as_layer(layer),)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        as_computed = jax.eval_shape(lambda v: _cast(v, policy.compute), x)
        params, state = parts[0].init(key, as_computed)
        return _cast(params, policy.parameter), state

    def flow(
        call: Callable[..., Any],
        params: Params,
        state: State,
        x: Any,
        *,
        key: Key | None,
        train: bool,
    ) -> tuple[Any, State]:
        params, x = _cast(params, policy.compute), _cast(x, policy.compute)
        y, after = call(0, parts[0], params, state, x, key=key, train=train)
        return _cast(y, policy.output), after

    return composed(init, flow, "with_policy", parts)


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )

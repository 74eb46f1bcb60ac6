"""ADOPT: Adam whose gradient is scaled by the second moment of the past, then averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import over, per_leaf, square, values_at
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import AdamState, check_betas, two_moments
from jdl.tree import root


def _fourth_root(step: Array) -> Array:
    return step**0.25


def adopt(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.9999,
    eps: Number = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Array], Any] = _fourth_root,
) -> Optimizer:
    """ADOPT: the gradient is scaled by the second moment before it, then enters the momentum.

        h = clip(g / max(sqrt(v), eps), -c(t-1), c(t-1))
        m = b1*m + (1-b1)*h;    v = b2*v + (1-b2)*g**2;    w -= lr * m

    The first update is 0 and sets `v = g**2`.

    Args:
      learning_rate: in (0, inf).
      b1: decay of the momentum, in [0, 1); 0 is off.
      b2: decay of the second moment, in [0, 1).
      eps: least value of the root, in [0, inf).
      mu_dtype: dtype of the momentum; `None` is float32 or wider.
      nesterov: whether the momentum looks ahead: the step is `b1*m + (1-b1)*h`.
      use_clipping: whether the scaled gradient is clipped, a complex one in its modulus.
      clip_value_fn: `c`, a function of the number of updates made before.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    Raises:
      ValueError: a number out of range.

    Taniguchi et al., ADOPT: modified Adam can converge with any beta2 with the
    optimal rate (2024), algorithm 2 and its clipped form. As optax.contrib's `adopt`.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")

    @promoting
    def init(params: Params) -> AdamState:
        return two_moments(params, mu_dtype)

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        lr, c1, c2, e = values_at(state.step, learning_rate, b1, b2, eps)
        first = state.step == 0
        c1, c2 = jnp.where(first, 1, c1), jnp.where(first, 0, c2)
        bound = jnp.asarray(clip_value_fn(state.step))

        def rule(g: Array, w: Any, m: Array, v: Array) -> tuple[Array, Array, Array]:
            h = over(g, jnp.maximum(root(v), e))
            if use_clipping and jnp.iscomplexobj(h):
                h = h * jnp.minimum(1, over(bound, jnp.abs(h)))
            elif use_clipping:
                h = jnp.clip(h, -bound, bound)
            m = c1 * m + (1 - c1) * h
            v = c2 * v + (1 - c2) * square(g)
            return -lr * (c1 * m + (1 - c1) * h if nesterov else m), m, v

        updates, m, v = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(next_count(state.step), m, v)

    return Optimizer(init, update)

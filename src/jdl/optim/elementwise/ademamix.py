"""AdEMAMix: Adam with a second momentum that remembers far longer than the first."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    Mask,
    given,
    leafwise,
    moments,
    over,
    resolve_mask,
    square,
    square_moments,
    values_at,
    wide,
)
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import check_betas
from jdl.tree import root


class AdemamixState(NamedTuple):
    """The state of `ademamix`.

    Attributes:
      step: the number of updates made.
      fast_moment: average of gradients at `b1`, shaped as the parameters.
      slow_moment: average of gradients at `b3`, likewise.
      second_moment: average of squared gradients, likewise, real.
    """

    step: Int[Array, ""]
    fast_moment: Updates
    slow_moment: Updates
    second_moment: Updates


def ademamix(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    b3: Number = 0.9999,
    alpha: Number = 5.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: Number = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """AdEMAMix: AdamW with a second momentum that remembers far longer.

        m1 = b1*m1 + (1-b1)*g;    m2 = b3*m2 + (1-b3)*g;    v = b2*v + (1-b2)*g**2
        u = (m1/(1-b1**t) + alpha*m2) / (sqrt(v/(1-b2**t) + eps_root) + eps)
        w -= lr * (u + weight_decay*w)

    Long runs start better with schedules for `alpha` (linear from 0) and `b3` (from `b1`).

    Args:
      learning_rate: in (0, inf).
      b1: decay of the fast momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow momentum, in [0, 1).
      alpha: weight of the slow momentum, in [0, inf); 0 is AdamW.
      eps: outside the root, in [0, inf).
      eps_root: inside the root, in [0, inf).
      mu_dtype: dtype of both momenta; `None` is float32 or wider.
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.

    Returns:
      An `Optimizer` whose state is three numbers per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Pagliardini, Ablin and Grangier, The AdEMAMix optimizer: better, faster, older
    (2024). As optax.contrib's `ademamix`.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2, b3=b3)
    for name, value in (
        ("alpha", alpha),
        ("eps", eps),
        ("eps_root", eps_root),
        ("weight_decay", weight_decay),
    ):
        check_number(name, value, "[0, inf)")

    @promoting
    def init(params: Params) -> AdemamixState:
        fast, slow = moments(params, mu_dtype), moments(params, mu_dtype)
        return AdemamixState(jnp.zeros((), jnp.int32), fast, slow, square_moments(params))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdemamixState]:
        params = given(params, "ademamix")
        lr, c1, c2, c3, mix, e, e_root, decay = values_at(
            state.step, learning_rate, b1, b2, b3, alpha, eps, eps_root, weight_decay
        )
        t = next_count(state.step)
        debias1, debias2 = 1 - c1**t, 1 - c2**t

        def rule(g: Any, m1: Any, m2: Any, v: Any, w: Any, decays: bool) -> tuple[Any, ...]:
            g = wide(g)
            m1 = c1 * wide(m1) + (1 - c1) * g
            m2 = c3 * wide(m2) + (1 - c3) * g
            v = c2 * v + (1 - c2) * square(g)
            u = over(m1 / debias1 + mix * m2, root(v / debias2 + e_root) + e)
            return -lr * (u + decay * wide(w) if decays else u), m1, m2, v

        updates, *new = leafwise(
            rule, (params, *state[1:]), grads, *state[1:], params, resolve_mask(mask, params)
        )
        return updates, AdemamixState(t, *new)

    return Optimizer(init, update)

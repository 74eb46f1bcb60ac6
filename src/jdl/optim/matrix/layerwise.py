"""Optimizers that scale each layer's step to its weights: LARS and LAMB."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
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


class LarsState(NamedTuple):
    """The state of `lars`.

    Attributes:
      step: the number of updates made.
      momentum: the velocity, the rate inside it, shaped as the parameters, float32 or wider.
    """

    step: Int[Array, ""]
    momentum: Updates


def lars(
    learning_rate: Number,
    weight_decay: Number = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: Number = 0.001,
    eps: Number = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: Number = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """LARS: each leaf's gradient is scaled to the length of its weights, then momentum.

        u = g + weight_decay*w;    u *= trust_coefficient*|w| / (|u| + eps)
        v = momentum*v + lr*u;    w -= v    (momentum*v + lr*u with nesterov)

    The ratio is 1 where `|w|` or `|u|` is 0. Biases and normalisation scales are
    usually left out of both by the masks.

    Args:
      learning_rate: in (0, inf).
      weight_decay: coupled decay, in [0, inf); 0 is off.
      weight_decay_mask: which parameters decay.
      trust_coefficient: in (0, inf).
      eps: added to the norm of the step, in [0, inf).
      trust_ratio_mask: which parameters are scaled by the ratio.
      momentum: in [0, 1); 0 is off.
      nesterov: whether the step looks ahead.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    You, Gitman and Ginsburg, Large batch training of convolutional networks
    (2017). As optax's `lars`; torch has none. In the paper `weight_decay*|w|` stands in the ratio's
    denominator beside `|g|` where here the norm is that of the sum.
    """
    check_learning_rate(learning_rate)
    check_number("weight_decay", weight_decay, "[0, inf)")
    check_number("trust_coefficient", trust_coefficient, "(0, inf)")
    check_number("eps", eps, "[0, inf)")
    check_number("momentum", momentum, "[0, 1)")

    @promoting
    def init(params: Params) -> LarsState:
        return LarsState(jnp.zeros((), jnp.int32), moments(params))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, LarsState]:
        params = given(params, "lars")
        lr, decay, trust, e, mu = values_at(
            state.step, learning_rate, weight_decay, trust_coefficient, eps, momentum
        )

        def rule(g: Any, v: Any, w: Any, decays: bool, scales: bool) -> tuple[Any, Any]:
            w = wide(w)
            u = wide(g) + decay * w if decays else wide(g)
            u = u * _trust_ratio(w, u, trust, e) if scales else u
            v = mu * v + lr * u
            return -(mu * v + lr * u) if nesterov else -v, v

        updates, velocity = leafwise(
            rule,
            (params, state.momentum),
            grads,
            state.momentum,
            params,
            resolve_mask(weight_decay_mask, params),
            resolve_mask(trust_ratio_mask, params),
        )
        return updates, LarsState(next_count(state.step), velocity)

    return Optimizer(init, update)


class LambState(NamedTuple):
    """The state of `lamb`.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients, shaped as the parameters, float32 or wider.
      second_moment: average of their squares, real.
    """

    step: Int[Array, ""]
    first_moment: Updates
    second_moment: Updates


def lamb(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-6,
    eps_root: Number = 0.0,
    weight_decay: Number = 0.0,
    mask: Mask = None,
) -> Optimizer:
    """LAMB: Adam's step with decay, scaled in each leaf to the length of its weights.

        m = b1*m + (1-b1)*g;    v = b2*v + (1-b2)*g**2
        u = mhat / (sqrt(vhat + eps_root) + eps) + weight_decay*w;    w -= lr * |w|/|u| * u

    The ratio is 1 where `|w|` or `|u|` is 0.

    Args:
      learning_rate: in (0, inf).
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: outside the root, in [0, inf).
      eps_root: inside the root, in [0, inf).
      weight_decay: decay inside the scaled step, in [0, inf); 0 is off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    You et al., Large batch optimization for deep learning: training BERT in 76
    minutes (2019), algorithm 2 with the identity for phi. As optax's `lamb`; torch
    has none.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def init(params: Params) -> LambState:
        return LambState(jnp.zeros((), jnp.int32), moments(params), square_moments(params))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, LambState]:
        params = given(params, "lamb")
        lr, c1, c2, e, e_root, decay = values_at(
            state.step, learning_rate, b1, b2, eps, eps_root, weight_decay
        )
        t = next_count(state.step)
        debias1, debias2 = 1 - c1**t, 1 - c2**t

        def rule(g: Any, m: Any, v: Any, w: Any, decays: bool) -> tuple[Any, Any, Any]:
            g, w = wide(g), wide(w)
            m = c1 * m + (1 - c1) * g
            v = c2 * v + (1 - c2) * square(g)
            u = over(m / debias1, root(v / debias2 + e_root) + e)
            u = u + decay * w if decays else u
            return -lr * _trust_ratio(w, u, 1.0, 0.0) * u, m, v

        updates, first, second = leafwise(
            rule,
            (params, state.first_moment, state.second_moment),
            grads,
            state.first_moment,
            state.second_moment,
            params,
            resolve_mask(mask, params),
        )
        return updates, LambState(t, first, second)

    return Optimizer(init, update)


def norm(x: jax.Array) -> jax.Array:
    """The Euclidean norm of one leaf, whose derivative at 0 is 0."""
    return root(jnp.sum(square(x)))


def _trust_ratio(w: jax.Array, u: jax.Array, coefficient: Any, eps: Any) -> jax.Array:
    """`coefficient*|w| / (|u| + eps)`, and 1 where either norm is 0."""
    length, step = norm(w), norm(u)
    zero = (length == 0) | (step == 0)
    return jnp.where(zero, 1.0, coefficient * length / jnp.where(zero, 1.0, step + eps))

"""Adam with another variance: RAdam, AdaBelief, Yogi."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import moments, per_leaf, square, square_moments
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    Updates,
    at_step,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import AdamState, check_betas, two_moments, unbiased
from jdl.tree import root


def radam(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: Number = 5.0,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """RAdam: Adam that is momentum until its variance can be trusted.

        mhat, vhat as in Adam;    big = 2 / (1 - b2) - 1
        n = big - 2 * t * b2**t / (1 - b2**t)
        r = sqrt((n - 4) * (n - 2) * big / ((big - 4) * (big - 2) * n))
        w -= learning_rate * r * mhat / (sqrt(vhat + eps_root) + eps)     n >= threshold
        w -= learning_rate * mhat                                         otherwise

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1).
      eps: added outside the root, in [0, inf), 0 is off.
      eps_root: added under the root, in [0, inf), 0 is off.
      threshold: in [4, inf]; inf is momentum for ever.
      nesterov: whether the first moment looks ahead, as in `adamw`.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    As optax's `radam`; torch's `RAdam` has `n > 5` and adds eps before the bias
    of the root is corrected. Liu et al. 2020, algorithm 2, has `n > 4`.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")
    check_number("threshold", threshold, "[4, inf]")

    @promoting
    def update(
        grads: Updates, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        t = next_count(state.step)
        numbers = (learning_rate, b1, b2, eps, eps_root, threshold)
        lr, beta1, beta2, outside, under, enough = (at_step(x, state.step) for x in numbers)
        first_hat = unbiased(beta1, t, nesterov, True)
        # n is a small difference of two large numbers, so 1 - b2**t must be exact.
        unbias2 = -1 / jnp.expm1(t * jnp.log1p(beta2 - 1))
        big = 2 / (1 - beta2) - 1
        n = big - 2 * t * beta2**t * unbias2
        trusted = n >= enough
        # Where the variance is not trusted the root's argument may be negative.
        safe = jnp.where(trusted, (n - 4) * (n - 2) * big / ((big - 4) * (big - 2) * n), 1)
        r = root(safe)

        def rule(g: Array, w: Any, m: Array, v: Array) -> tuple[Array, Array, Array]:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * square(g)
            m_hat = first_hat(m, g)
            scaled = r * m_hat / (root(unbias2 * v + under) + outside)
            return -lr * jnp.where(trusted, scaled, m_hat), m, v

        updates, m, v = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(t, m, v)

    return Optimizer(two_moments, update)


def adabelief(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-16,
    eps_root: Number = 1e-16,
    *,
    nesterov: bool = False,
) -> Optimizer:
    """AdaBelief: Adam that divides by how far the gradient is from its average.

        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m)**2 + eps_root
        w -= learning_rate * m / (1 - b1**t) / (sqrt(s / (1 - b2**t)) + eps)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1).
      b2: in [0, 1), 0 keeps the last deviation alone.
      eps: added outside the root, in [0, inf), 0 is off.
      eps_root: added to `s` at every step, so that it accumulates, in [0, inf), 0 is off.
      nesterov: whether the first moment looks ahead, as in `adamw`.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    As optax's `adabelief`. Zhuang et al. 2020, algorithm 2.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")

    @promoting
    def update(
        grads: Updates, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        t = next_count(state.step)
        numbers = (learning_rate, b1, b2, eps, eps_root)
        lr, beta1, beta2, outside, under = (at_step(x, state.step) for x in numbers)
        first_hat, unbias2 = unbiased(beta1, t, nesterov, True), 1 / (1 - beta2**t)

        def rule(g: Array, w: Any, m: Array, s: Array) -> tuple[Array, Array, Array]:
            m = beta1 * m + (1 - beta1) * g
            s = beta2 * s + (1 - beta2) * square(g - m) + under
            return -lr * first_hat(m, g) / (root(unbias2 * s) + outside), m, s

        updates, m, s = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(t, m, s)

    return Optimizer(two_moments, update)


def yogi(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-3,
    *,
    initial_accumulator_value: Number = 1e-6,
) -> Optimizer:
    """Yogi: Adam whose second moment moves by a bounded amount.

        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * sign(v - g**2) * g**2
        w -= learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1).
      eps: added outside the root, in [0, inf), 0 is off.
      initial_accumulator_value: `m` and `v` at the start, in [0, inf).

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    As optax's `yogi`, which starts both moments alike. Zaheer et al. 2018.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("initial_accumulator_value", initial_accumulator_value, "[0, inf)")

    @promoting
    def init(params: Params) -> AdamState:
        start = at_step(initial_accumulator_value, 0)
        m = jax.tree.map(lambda w: jnp.full_like(w, start), moments(params))
        return AdamState(jnp.zeros((), jnp.int32), m, square_moments(params, start))

    @promoting
    def update(
        grads: Updates, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        t = next_count(state.step)
        lr, beta1, beta2, outside = (at_step(x, state.step) for x in (learning_rate, b1, b2, eps))
        unbias1, unbias2 = 1 / (1 - beta1**t), 1 / (1 - beta2**t)

        def rule(g: Array, w: Any, m: Array, v: Array) -> tuple[Array, Array, Array]:
            m = beta1 * m + (1 - beta1) * g
            v = v - (1 - beta2) * jnp.sign(v - square(g)) * square(g)
            return -lr * unbias1 * m / (root(unbias2 * v) + outside), m, v

        updates, m, v = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(t, m, v)

    return Optimizer(init, update)

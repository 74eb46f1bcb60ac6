"""Optimizers that estimate their own rate from how far they have come: Prodigy, D-Adaptation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl import tree
from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    copies,
    given,
    leafwise,
    moments,
    over,
    per_leaf,
    square,
    square_moments,
    values_at,
    wide,
    widest,
)
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    at_step,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import check_betas
from jdl.tree import root


class ProdigyState(NamedTuple):
    """The state of `prodigy`.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients times `d`, shaped as the parameters.
      second_moment: average of their squares, likewise, real.
      gradient_sum: weighted sum of gradients, likewise.
      start: the parameters at the start.
      distance: `d`, the estimate of the distance from the start to the solution.
      numerator: the weighted sum that the estimate is made of.
    """

    step: Int[Array, ""]
    first_moment: Updates
    second_moment: Updates
    gradient_sum: Updates
    start: Params
    distance: Float[Array, ""]
    numerator: Float[Array, ""]


def prodigy(
    learning_rate: Number = 1.0,
    betas: tuple[Number, Number] = (0.9, 0.999),
    beta3: Number | None = None,
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    estim_lr_coef: Number = 1.0,
    weight_decay: Number = 0.0,
    safeguard_warmup: bool = False,
) -> Optimizer:
    """Prodigy: Adam that raises its own rate `d` to the distance from the start.

        r = lr * d * sqrt(1-b2**t) / (1-b1**t)
        m = b1*m + (1-b1)*d*g;    v = b2*v + (1-b2)*d**2*g**2
        n = b3*n + d/d0 * r * <g, w0 - w>;    s = b3*s + d/d0 * r * g
        d = max(d, coef * n / |s|_1);    w -= r * (m / (sqrt(v) + d*eps) + weight_decay*w)

    Args:
      learning_rate: factor of the estimate, in (0, inf): leave it 1, or a schedule.
      betas: decays of the two moments, each in [0, 1).
      beta3: decay of the sums that make the estimate, in [0, 1); `None` is sqrt(b2).
      eps: outside the root, in [0, inf).
      estim_lr0: `d0`, the first estimate, in (0, inf); below the right rate.
      estim_lr_coef: `coef`, factor of the estimate, in (0, inf).
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      safeguard_warmup: leaves the rate out of `s`, for schedules that start low; static.

    Returns:
      An `Optimizer` whose state is four numbers per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Mishchenko and Defazio, Prodigy: an expeditiously adaptive parameter-free
    learner (2023), algorithm 4. As optax.contrib's `prodigy`, which gives NaN where
    every gradient so far was 0; the authors' code leaves bias correction out unless asked.
    """
    b1, b2 = betas
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    for name, value, interval in (
        ("eps", eps, "[0, inf)"),
        ("estim_lr0", estim_lr0, "(0, inf)"),
        ("estim_lr_coef", estim_lr_coef, "(0, inf)"),
        ("weight_decay", weight_decay, "[0, inf)"),
    ):
        check_number(name, value, interval)
    if beta3 is not None:
        check_betas(beta3=beta3)

    @promoting
    def init(params: Params) -> ProdigyState:
        step = jnp.zeros((), jnp.int32)
        first = at_step(estim_lr0, step).astype(widest(params))
        return ProdigyState(
            step,
            moments(params),
            square_moments(params),
            moments(params),
            copies(params),
            first,
            jnp.zeros_like(first),
        )

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ProdigyState]:
        params = given(params, "prodigy")
        lr, c1, c2, e, d0, coefficient, decay = values_at(
            state.step, learning_rate, b1, b2, eps, estim_lr0, estim_lr_coef, weight_decay
        )
        c3 = root(c2) if beta3 is None else at_step(beta3, state.step)
        t, d = next_count(state.step), state.distance
        rate = lr * d * root(1 - c2**t) / (1 - c1**t)
        gone = jax.tree.map(lambda w0, w: w0 - wide(w), state.start, params)
        numerator = c3 * state.numerator + d / d0 * rate * tree.dot(grads, gone)
        share = d / d0 * (d if safeguard_warmup else rate)

        def accumulate(g: Array, w: Any, m: Array, v: Array, s: Array) -> tuple[Array, ...]:
            m = c1 * m + (1 - c1) * d * g
            v = c2 * v + (1 - c2) * d**2 * square(g)
            return g, m, v, c3 * s + share * g

        _, first, second, sums = per_leaf(
            accumulate, grads, params, state.first_moment, state.second_moment, state.gradient_sum
        )
        total = sum(jnp.sum(jnp.abs(s)) for s in jax.tree.leaves(sums))
        new_d = jnp.maximum(d, over(coefficient * numerator, jnp.asarray(total)))

        def rule(w: Any, m: Array, v: Array) -> tuple[Array]:
            return (-rate * (over(m, root(v) + new_d * e) + decay * wide(w)),)

        (updates,) = leafwise(rule, (params,), params, first, second)
        return updates, ProdigyState(
            t, first, second, sums, state.start, new_d.astype(d.dtype), numerator.astype(d.dtype)
        )

    return Optimizer(init, update)


class DAdaptState(NamedTuple):
    """The state of `dadapt_adamw`.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients times the rate, shaped as the parameters.
      second_moment: average of squared gradients, likewise, real.
      gradient_sum: average of gradients times the rate at the decay sqrt(b2).
      distance: `d`, the estimate of the distance from the start to the solution.
      numerator: the weighted sum that the estimate is made of.
    """

    step: Int[Array, ""]
    first_moment: Updates
    second_moment: Updates
    gradient_sum: Updates
    distance: Float[Array, ""]
    numerator: Float[Array, ""]


def dadapt_adamw(
    learning_rate: Number = 1.0,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    estim_lr0: Number = 1e-6,
    weight_decay: Number = 0.0,
) -> Optimizer:
    """D-Adaptation for AdamW: the rate grows with a lower bound of the distance to the solution.

        r = lr * d * sqrt(1-b2**t) / (1-b1**t);    q = sqrt(b2)
        n = q*n + (1-q)*r*<g, s / (sqrt(v) + eps)>
        m = b1*m + (1-b1)*r*g;    v = b2*v + (1-b2)*g**2;    s = q*s + (1-q)*r*g
        d = max(d, n / ((1-q)*|s|_1));    w -= m / (sqrt(v) + eps) + weight_decay*r*w

    Args:
      learning_rate: factor of the estimate, in (0, inf): leave it 1, or a schedule.
      betas: decays of the two moments, each in [0, 1).
      eps: outside the root, in [0, inf).
      estim_lr0: the first estimate, in (0, inf); below the right rate.
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.

    Returns:
      An `Optimizer` whose state is three numbers per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Defazio and Mishchenko, Learning-rate-free learning by D-Adaptation (2023),
    algorithm 5. As optax.contrib's `dadapt_adamw`, which gives NaN where every
    gradient so far was 0.
    """
    b1, b2 = betas
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("estim_lr0", estim_lr0, "(0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def init(params: Params) -> DAdaptState:
        step = jnp.zeros((), jnp.int32)
        first = at_step(estim_lr0, step).astype(widest(params))
        return DAdaptState(
            step,
            moments(params),
            square_moments(params),
            moments(params),
            first,
            jnp.zeros_like(first),
        )

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, DAdaptState]:
        params = given(params, "dadapt_adamw")
        lr, c1, c2, e, decay = values_at(state.step, learning_rate, b1, b2, eps, weight_decay)
        t, d, q = next_count(state.step), state.distance, root(c2)
        rate = lr * d * root(1 - c2**t) / (1 - c1**t)
        # Where the root is 0 so is the sum; a maximum, unlike `over`, joins the reduction.
        scaled = jax.tree.map(
            lambda s, v: s / jnp.maximum(root(v) + e, jnp.finfo(v.dtype).tiny),
            state.gradient_sum,
            state.second_moment,
        )
        numerator = q * state.numerator + (1 - q) * rate * tree.dot(grads, scaled)

        def rule(g: Array, w: Array, m: Array, v: Array, s: Array) -> tuple[Array, ...]:
            m = c1 * m + (1 - c1) * rate * g
            v = c2 * v + (1 - c2) * square(g)
            s = q * s + (1 - q) * rate * g
            return -(over(m, root(v) + e) + decay * rate * w), m, v, s

        updates, first, second, sums = per_leaf(
            rule, grads, params, state.first_moment, state.second_moment, state.gradient_sum
        )
        total = sum(jnp.sum(jnp.abs(s)) for s in jax.tree.leaves(sums))
        new_d = jnp.maximum(d, over(numerator, jnp.asarray((1 - q) * total)))
        return updates, DAdaptState(
            t, first, second, sums, new_d.astype(d.dtype), numerator.astype(d.dtype)
        )

    return Optimizer(init, update)

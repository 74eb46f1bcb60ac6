"""Adan: Nesterov's look ahead from the change of the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import given, moments, per_leaf, square, square_moments
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    Updates,
    at_step,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import check_betas
from jdl.optim.transforms.gradient import select
from jdl.tree import root


class AdanState(NamedTuple):
    """The state of Adan, each tree shaped as the parameters.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients.
      difference_moment: average of differences of consecutive gradients.
      second_moment: average of squares of the gradients extrapolated, real.
      last_gradient: the gradient of the step before.
    """

    step: Int[Array, ""]
    first_moment: PyTree
    difference_moment: PyTree
    second_moment: PyTree
    last_gradient: PyTree


def adan(
    learning_rate: Number,
    b1: Number = 0.98,
    b2: Number = 0.92,
    b3: Number = 0.99,
    eps: Number = 1e-8,
    eps_root: Number = 1e-8,
    weight_decay: Number | None = 0.0,
    mask: Any = None,
    *,
    extrapolation: Number | None = None,
) -> Optimizer:
    """Adan: Nesterov's look ahead estimated from the change of the gradient.

        d = g - g_last                                  (0 at the first step)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + extrapolation * d)**2
        mhat, vhat, nhat = m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)
        w -= learning_rate * ((mhat + extrapolation * vhat) / (sqrt(nhat + eps_root) + eps)
                              + weight_decay * w)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1).
      b3: in [0, 1), 0 keeps the last square alone.
      eps: added outside the root, in [0, inf), 0 is off.
      eps_root: added under the root, in [0, inf), 0 is off.
      weight_decay: in [0, inf), 0 is off; None leaves decay out of the program.
      mask: which parameters decay, see `add_decayed_weights`.
      extrapolation: in [0, inf), 0 is off; None is `1 - b2`.

    Returns:
      An `Optimizer` whose state is four numbers per parameter.

    As optax's `adan`, decay included. Xie et al. 2022, algorithm 1, and its authors'
    program are `extrapolation=b2`: the paper's `1 - beta2` is what is called `b2`
    here, and optax's `1 - b2` is another number. They also decay by a division.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2, b3=b3)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, "[0, inf)")
    if extrapolation is not None:
        check_number("extrapolation", extrapolation, "[0, inf)")

    @promoting
    def init(params: Params) -> AdanState:
        return AdanState(
            step=jnp.zeros((), jnp.int32),
            first_moment=moments(params),
            difference_moment=moments(params),
            second_moment=square_moments(params),
            last_gradient=moments(params),
        )

    @promoting
    def update(
        grads: Updates, state: AdanState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdanState]:
        t = next_count(state.step)
        numbers = (learning_rate, b1, b2, b3, eps, eps_root)
        lr, beta1, beta2, beta3, outside, under = (at_step(x, state.step) for x in numbers)
        if weight_decay is not None:
            wd = at_step(weight_decay, state.step)
            params = select(mask, given(params, "adan"))
        ahead = 1 - beta2 if extrapolation is None else at_step(extrapolation, state.step)
        unbias1, unbias2, unbias3 = (1 / (1 - beta**t) for beta in (beta1, beta2, beta3))

        def rule(g: Array, w: Any, m: Array, v: Array, n: Array, last: Array) -> tuple[Array, ...]:
            d = jnp.where(state.step == 0, jnp.zeros_like(g), g - last)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * d
            n = beta3 * n + (1 - beta3) * square(g + ahead * d)
            m_hat = unbias1 * m + ahead * unbias2 * v
            step = lr * m_hat / (root(unbias3 * n + under) + outside)
            if weight_decay is not None:
                step = step + lr * wd * w
            return -step, m, v, n, g

        trees = (
            state.first_moment, state.difference_moment, state.second_moment, state.last_gradient
        )  # fmt: skip
        updates, *new = per_leaf(rule, grads, params, *trees)
        return updates, AdanState(t, *new)

    return Optimizer(init, update)

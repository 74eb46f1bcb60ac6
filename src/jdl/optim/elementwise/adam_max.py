"""Adam with a maximum in the place of its second average: AMSGrad, Adamax, AdamaxW."""

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
from jdl.optim.elementwise.adam import AdamState, check_betas, two_moments
from jdl.optim.transforms.gradient import select
from jdl.tree import root


class AmsgradState(NamedTuple):
    """The state of AMSGrad.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients, shaped as the parameters.
      second_moment: average of squared gradients, likewise, real.
      largest_second_moment: the largest that it has been, likewise.
    """

    step: Int[Array, ""]
    first_moment: PyTree
    second_moment: PyTree
    largest_second_moment: PyTree


def amsgrad(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    correct_maximum: bool = False,
) -> Optimizer:
    """AMSGrad: Adam whose rate per parameter never grows again.

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        mhat = m / (1 - b1**t)
        largest = max(largest, v / (1 - b2**t));    vhat = largest
        largest = max(largest, v);    vhat = largest / (1 - b2**t)     (correct_maximum)
        w -= learning_rate * mhat / (sqrt(vhat + eps_root) + eps)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1), 0 keeps the last squared gradient alone.
      eps: added outside the root, in [0, inf), 0 is off.
      eps_root: added under the root, in [0, inf), 0 is off.
      mu_dtype: the first moment's dtype; float32 or the parameter's if wider.
      bias_correction_mu: whether `m` is debiased.
      bias_correction_nu: whether `v` is debiased.
      correct_maximum: whether the maximum is taken first and debiased after.

    Returns:
      An `Optimizer` whose state is three numbers per parameter.

    As optax's `amsgrad`; torch's `Adam(amsgrad=True)` is `correct_maximum=True`.
    Reddi, Kale and Kumar 2018, algorithm 2, which corrects no bias.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")

    @promoting
    def init(params: Params) -> AmsgradState:
        return AmsgradState(
            step=jnp.zeros((), jnp.int32),
            first_moment=moments(params, mu_dtype),
            second_moment=square_moments(params),
            largest_second_moment=square_moments(params),
        )

    @promoting
    def update(
        grads: Updates, state: AmsgradState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AmsgradState]:
        t = next_count(state.step)
        numbers = (learning_rate, b1, b2, eps, eps_root)
        lr, beta1, beta2, outside, under = (at_step(x, state.step) for x in numbers)
        unbias1 = 1 / (1 - beta1**t) if bias_correction_mu else 1
        unbias2 = 1 / (1 - beta2**t) if bias_correction_nu else 1
        before, after = (1, unbias2) if correct_maximum else (unbias2, 1)

        def rule(g: Array, w: Any, m: Array, v: Array, largest: Array) -> tuple[Array, ...]:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * square(g)
            largest = jnp.maximum(largest, before * v)
            step = lr * unbias1 * m / (root(after * largest + under) + outside)
            return -step, m, v, largest

        updates, m, v, largest = per_leaf(
            rule,
            grads,
            params,
            state.first_moment,
            state.second_moment,
            state.largest_second_moment,
        )
        return updates, AmsgradState(t, m, v, largest)

    return Optimizer(init, update)


def adamaxw(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number | None = 1e-4,
    mask: Any = None,
) -> Optimizer:
    """Adamax with decoupled weight decay.

        m = b1 * m + (1 - b1) * g
        u = max(b2 * u, |g| + eps)
        w -= learning_rate * (m / (1 - b1**t) / u + weight_decay * w)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1), 0 keeps the last gradient alone.
      eps: in (0, inf); added inside the maximum.
      weight_decay: in [0, inf), 0 is off; None leaves decay out of the program.
      mask: which parameters decay, see `add_decayed_weights`.

    Returns:
      An `Optimizer` whose state is two numbers per parameter; `second_moment` is `u`.

    As optax's `adamaxw`; torch has no decoupled form.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "(0, inf)")
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def update(
        grads: Updates, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        t = next_count(state.step)
        lr, beta1, beta2, epsilon = (at_step(x, state.step) for x in (learning_rate, b1, b2, eps))
        if weight_decay is not None:
            wd = at_step(weight_decay, state.step)
            params = select(mask, given(params, "adamaxw"))
        unbias = 1 / (1 - beta1**t)

        def rule(g: Array, w: Any, m: Array, u: Array) -> tuple[Array, Array, Array]:
            m = beta1 * m + (1 - beta1) * g
            u = jnp.maximum(beta2 * u, jnp.abs(g) + epsilon)
            step = lr * unbias * m / u
            if weight_decay is not None:
                step = step + lr * wd * w
            return -step, m, u

        updates, m, u = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(t, m, u)

    return Optimizer(two_moments, update)


def adamax(
    learning_rate: Number, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> Optimizer:
    """Adamax: Adam in the infinity norm.

        m = b1 * m + (1 - b1) * g
        u = max(b2 * u, |g| + eps)
        w -= learning_rate * m / (1 - b1**t) / u

    The arguments are those of `adamaxw`. As
    optax's `adamax` and torch's `Adamax`. Kingma and Ba 2015, algorithm 2, where
    there is no eps and the first gradient must not be 0.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.
    """
    return adamaxw(learning_rate, b1, b2, eps, weight_decay=None)

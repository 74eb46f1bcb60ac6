"""Adam and its relatives that differ by a flag: AdamW, NAdam, NAdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl._checks import check_choice, check_number
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
from jdl.optim.transforms.gradient import select
from jdl.tree import root


class AdamState(NamedTuple):
    """The state of Adam and of the optimizers that keep the same two moments.

    Attributes:
      step: the number of updates made.
      first_moment: average of gradients, shaped as the parameters.
      second_moment: average of squared gradients, likewise, real.
    """

    step: Int[Array, ""]
    first_moment: PyTree
    second_moment: PyTree


def check_betas(**betas: Number) -> None:
    """Raises unless each concrete rate of averaging lies in [0, 1)."""
    for name, value in betas.items():
        check_number(name, value, "[0, 1)")


def two_moments(params: Params, mu_dtype: Any = None) -> AdamState:
    """The state before the first step."""
    return AdamState(jnp.zeros((), jnp.int32), moments(params, mu_dtype), square_moments(params))


def unbiased(
    beta: Array, t: Array, nesterov: bool, correct: bool
) -> Callable[[Array, Array], Array]:
    """`mhat` of a first moment `m` and a gradient `g`, which looks ahead where `nesterov`.

    In factors, not divisors: a division for each element would cost a tenth of an update.
    """
    now, ahead = (1 / (1 - beta**t), 1 / (1 - beta ** (t + 1))) if correct else (1, 1)
    if nesterov:
        return lambda m, g: beta * ahead * m + (1 - beta) * now * g
    return lambda m, g: now * m


def adamw(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: Number | None = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
    decay: str = "scaled",
) -> Optimizer:
    """Adam with weight decay that does not pass through the moments.

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        mhat = m / (1 - b1**t)      vhat = v / (1 - b2**t)
        mhat = b1 * m / (1 - b1**(t + 1)) + (1 - b1) * g / (1 - b1**t)     (nesterov)
        w -= learning_rate * (mhat / (sqrt(vhat + eps_root) + eps) + weight_decay * w)

    Args:
      learning_rate: in (0, inf).
      b1: in [0, 1), 0 is off.
      b2: in [0, 1), 0 keeps the last squared gradient alone.
      eps: added outside the root, in [0, inf), 0 is off.
      eps_root: added under the root, in [0, inf), 0 is off.
      mu_dtype: the first moment's dtype; float32 or the parameter's if wider.
      weight_decay: in [0, inf), 0 is off; None leaves decay out of the program.
      mask: which parameters decay, see `add_decayed_weights`.
      nesterov: whether the first moment looks ahead (NAdam).
      bias_correction: False uses `m` and `v` as they are.
      decay: "scaled" as above; "independent" of the rate, `w -= weight_decay * w`
        beside Adam's step; "coupled", `g += weight_decay * w` before the moments.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    Raises:
      ValueError: a number out of range, an unknown `decay`, or `update` without
        the parameters.

    As optax's `adamw`, and torch's `AdamW` but for its default `weight_decay=1e-2`.
    Loshchilov and Hutter 2019, whose algorithm 2 is "independent" times a schedule.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("eps_root", eps_root, "[0, inf)")
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, "[0, inf)")
    check_choice("decay", decay, ["scaled", "independent", "coupled"])

    @promoting
    def init(params: Params) -> AdamState:
        return two_moments(params, mu_dtype)

    @promoting
    def update(
        grads: Updates, state: AdamState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdamState]:
        t = next_count(state.step)
        numbers = (learning_rate, b1, b2, eps, eps_root)
        lr, beta1, beta2, outside, under = (at_step(x, state.step) for x in numbers)
        if weight_decay is not None:
            wd = at_step(weight_decay, state.step)
            params = select(mask, given(params, "adamw"))
        first_hat = unbiased(beta1, t, nesterov, bias_correction)
        unbias2 = 1 / (1 - beta2**t) if bias_correction else 1

        def rule(g: Array, w: Any, m: Array, v: Array) -> tuple[Array, Array, Array]:
            if weight_decay is not None and decay == "coupled":
                g = g + wd * w
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * square(g)
            step = lr * first_hat(m, g) / (root(unbias2 * v + under) + outside)
            if weight_decay is not None and decay != "coupled":
                step = step + (lr * wd * w if decay == "scaled" else wd * w)
            return -step, m, v

        updates, m, v = per_leaf(rule, grads, params, state.first_moment, state.second_moment)
        return updates, AdamState(t, m, v)

    return Optimizer(init, update)


def adam(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> Optimizer:
    """Adam: momentum over a gradient scaled by the root of its second moment.

        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w -= learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t) + eps_root) + eps)

    The arguments, and the look ahead of `nesterov`, are those of `adamw`. As
    optax's `adam` and torch's `Adam` (`eps` outside the root). A printed form with
    `m = b1 * v + ...` is a misprint. Kingma and Ba 2015, algorithm 1.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.
    """
    return adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        weight_decay=None,
        nesterov=nesterov,
        bias_correction=bias_correction,
    )


def nadamw(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: Number | None = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = True,
) -> Optimizer:
    """NAdam with decoupled weight decay: `adamw(..., nesterov=True)`.

    As optax's `nadamw`. torch's `NAdam` warms the momentum up by Dozat's schedule
    and corrects by the product of its values, which no argument here does.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.
    """
    return adamw(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov
    )


def nadam(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
) -> Optimizer:
    """Adam whose first moment looks ahead: `adam(..., nesterov=True)`.

    As optax's `nadam`; for torch's see `nadamw`. Dozat 2016, algorithm 2 without
    its factor `b2` on the second moment, which other implementations omit too.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.
    """
    return nadamw(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay=None, nesterov=nesterov
    )

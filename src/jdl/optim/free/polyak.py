"""Polyak's two ideas: a step size from the value of the loss, and averaged descent (ASGD)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl import tree
from jdl._checks import check_choice, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import copies, given, per_leaf, values_at
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.schedules.decay import minus


class PolyakState(NamedTuple):
    """The state of `polyak_sgd`: `step`, the number of updates made."""

    step: Int[Array, ""]


def polyak_sgd(
    max_learning_rate: Number = 1.0,
    scaling: Number = 1.0,
    f_min: Number = 0.0,
    eps: Number = 0.0,
    variant: str = "sps",
) -> Optimizer:
    """Gradient descent whose rate is the gap to the least loss over the squared gradient.

        w -= scaling * min((f(w) - f_min) / (|g|**2 + eps), max_learning_rate) * g

    `update` needs the loss as `value`. A gradient of 0 moves nothing.

    Args:
      max_learning_rate: in (0, inf]; inf is off.
      scaling: factor of the rate, in (0, inf).
      f_min: the least value of the loss, or a lower bound of it.
      eps: in [0, inf); 0 is off.
      variant: "sps" as above; "sps+" counts a negative gap as 0; static.

    Returns:
      An `Optimizer` whose state is the step.

    Raises:
      ValueError: a number out of range, or `update` without `value`.

    Loizou et al., Stochastic Polyak step-size for SGD (2021), equation 3; "sps+"
    from Garrigos et al. (2023). optax 0.2.8 scales the gradient before it takes the
    norm, so that there a larger `scaling` makes a shorter step; and it does not move
    where `|g|**2 + eps` is below 2.2e-16.
    """
    check_number("max_learning_rate", max_learning_rate, "(0, inf]")
    check_number("scaling", scaling, "(0, inf)")
    check_number("f_min", f_min, "(-inf, inf)")
    check_number("eps", eps, "[0, inf)")
    check_choice("variant", variant, ["sps", "sps+"])

    @promoting
    def init(params: Params) -> PolyakState:
        return PolyakState(jnp.zeros((), jnp.int32))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, PolyakState]:
        value = extra.get("value")
        if value is None:
            raise ValueError(
                "polyak_sgd needs the loss: call `update(grads, state, params, value=loss)`, "
                "got value=None."
            )
        most, factor, least, e = values_at(state.step, max_learning_rate, scaling, f_min, eps)
        gap = jnp.asarray(value) - least
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        slope = tree.dot(grads, grads)
        flat = slope == 0
        rate = factor * jnp.minimum(gap / jnp.where(flat, 1, slope + e), most)
        rate = jnp.where(flat, 0, rate)
        (updates,) = per_leaf(lambda g, w: (-rate * g,), grads, params)
        return updates, PolyakState(next_count(state.step))

    return Optimizer(init, update)


class AsgdState(NamedTuple):
    """The state of `asgd`.

    Attributes:
      step: the number of updates made.
      average: of the parameters since `t0`, shaped as they are; before `t0` the parameters.
    """

    step: Int[Array, ""]
    average: Params


def asgd(
    learning_rate: Number,
    lambd: Number = 1e-4,
    alpha: Number = 0.75,
    t0: Number = 1e6,
    weight_decay: Number = 0.0,
) -> Optimizer:
    """Averaged stochastic gradient descent: a falling rate, and the mean of the iterates.

        r = lr / (1 + lambd*lr*(t-1))**alpha;    w -= r * (g + weight_decay*w + lambd*w)
        x = x + (w - x) / max(1, t - 1 - t0)

    `state.average` is `x`, the parameters to evaluate and to keep.

    Args:
      learning_rate: in (0, inf).
      lambd: decay of the weights and of the rate, in [0, inf); 0 is off.
      alpha: power of the falling rate, in [0, inf); 0 keeps the rate.
      t0: updates before the average starts, in [0, inf).
      weight_decay: coupled decay, in [0, inf); 0 is off.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Polyak and Juditsky, Acceleration of stochastic approximation by averaging
    (1992), in the form of Xu (2011). As torch's `ASGD`; optax has none.
    """
    check_learning_rate(learning_rate)
    for name, value in (
        ("lambd", lambd),
        ("alpha", alpha),
        ("t0", t0),
        ("weight_decay", weight_decay),
    ):
        check_number(name, value, "[0, inf)")

    @promoting
    def init(params: Params) -> AsgdState:
        return AsgdState(jnp.zeros((), jnp.int32), copies(params))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AsgdState]:
        params = given(params, "asgd")
        before = state.step
        lr, rho, power, start, decay = values_at(
            before, learning_rate, lambd, alpha, t0, weight_decay
        )
        rate = lr / (1 + rho * lr * before) ** power
        share = 1 / jnp.maximum(1, minus(before, start))

        def rule(g: Array, w: Array, x: Array) -> tuple[Array, Array]:
            u = -rate * (g + decay * w + rho * w)
            return u, x + share * (w + u - x)

        updates, average = per_leaf(rule, grads, params, state.average)
        return updates, AsgdState(next_count(before), average)

    return Optimizer(init, update)

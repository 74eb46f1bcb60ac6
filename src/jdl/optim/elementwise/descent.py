"""Gradient descent, momentum in its three conventions, and Nesterov's method in both forms."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl._checks import check_choice, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import given, moments, per_leaf, wide
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    Updates,
    at_step,
    check_learning_rate,
    next_count,
)


class DescentState(NamedTuple):
    """The state of gradient descent with or without a velocity.

    Attributes:
      step: the number of updates made.
      velocity: shaped as the parameters; None where there is no momentum.
    """

    step: Int[Array, ""]
    velocity: PyTree


def sgd(
    learning_rate: Number,
    momentum: Number | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    *,
    dampening: Number = 0.0,
) -> Optimizer:
    """Gradient descent, optionally with momentum whose rate stands outside the velocity.

        v = momentum * v + (1 - dampening) * g        (v = g at the first step)
        d = g + momentum * v if nesterov else v
        w -= learning_rate * d

    Full batch, mini-batch or single examples, and a summed or mean loss, are
    choices of the data and of the loss, not of the optimizer.

    Args:
      learning_rate: in (0, inf).
      momentum: in [0, 1], 0 is off; None leaves the velocity out of the program.
      nesterov: whether the step looks ahead along the new velocity.
      accumulator_dtype: the velocity's dtype; float32 or the parameter's if wider.
      dampening: in [0, 1], 0 is off; the first step is never dampened.

    Returns:
      An `Optimizer` whose state is one velocity, or nothing, per parameter.

    As optax's `sgd`, whose velocity has the parameter's dtype and which has no
    dampening; as torch's `SGD`. For the rate inside the velocity see `momentum`.
    Polyak 1964; Sutskever et al. 2013 for the momentum that deep networks use.
    """
    check_learning_rate(learning_rate)
    if momentum is not None:
        check_number("momentum", momentum, "[0, 1]")
    check_number("dampening", dampening, "[0, 1]")

    @promoting
    def init(params: Params) -> DescentState:
        velocity = None if momentum is None else moments(params, accumulator_dtype)
        return DescentState(jnp.zeros((), jnp.int32), velocity)

    @promoting
    def update(
        grads: Updates, state: DescentState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, DescentState]:
        lr = at_step(learning_rate, state.step)
        count = next_count(state.step)
        if momentum is None:
            (updates,) = per_leaf(lambda g, w: (-lr * g,), grads, params)
            return updates, DescentState(count, None)
        mu = at_step(momentum, state.step)
        fresh = jnp.where(state.step == 0, 1, 1 - at_step(dampening, state.step))

        def rule(g: Array, w: Any, v: Array) -> tuple[Array, Array]:
            v = mu * v + fresh * g
            return -lr * (g + mu * v if nesterov else v), v

        updates, velocity = per_leaf(rule, grads, params, state.velocity)
        return updates, DescentState(count, velocity)

    return Optimizer(init, update)


def momentum(
    learning_rate: Number, momentum: Number = 0.9, convention: str = "inside"
) -> Optimizer:
    """Heavy-ball momentum in one of its three conventions.

        inside:   v = momentum * v + learning_rate * g;    w -= v
        outside:  v = momentum * v + g;                    w -= learning_rate * v
        average:  v = momentum * v + (1 - momentum) * g;   w -= learning_rate * v

    For a constant rate they agree up to a rescaling of the rate by
    `1 - momentum`; when the rate follows a schedule they do not: inside, an old
    gradient keeps the rate that it was met with.

    Args:
      learning_rate: in (0, inf).
      momentum: in [0, 1], 0 is off.
      convention: "inside", "outside" (torch, and optax's `trace`) or "average".

    Returns:
      An `Optimizer` whose state is one velocity per parameter.

    Raises:
      ValueError: a number out of range, or an unknown convention.

    Polyak 1964.
    """
    check_learning_rate(learning_rate)
    check_number("momentum", momentum, "[0, 1]")
    check_choice("convention", convention, ["inside", "outside", "average"])

    @promoting
    def init(params: Params) -> DescentState:
        return DescentState(jnp.zeros((), jnp.int32), moments(params))

    @promoting
    def update(
        grads: Updates, state: DescentState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, DescentState]:
        lr, mu = at_step(learning_rate, state.step), at_step(momentum, state.step)
        one = jnp.ones(())
        rate_in = {"inside": lr, "outside": one, "average": 1 - mu}[convention]
        rate_out = {"inside": one, "outside": lr, "average": lr}[convention]

        def rule(g: Array, w: Any, v: Array) -> tuple[Array, Array]:
            v = mu * v + rate_in * g
            return -rate_out * v, v

        updates, velocity = per_leaf(rule, grads, params, state.velocity)
        return updates, DescentState(next_count(state.step), velocity)

    return Optimizer(init, update)


def nesterov(learning_rate: Number, momentum: Number = 0.9, form: str = "rewritten") -> Optimizer:
    """Nesterov's accelerated gradient, in the look-ahead form or rewritten for a pure pair.

        lookahead:  v' = momentum * v - learning_rate * grad(theta + momentum * v)
                    theta += v'
        rewritten:  v' = momentum * v - learning_rate * g,    g = grad(phi)
                    phi += -momentum * v + (1 + momentum') * v'

    with `phi = theta + momentum * v` and `momentum'` the value at the next step,
    which differs from `momentum` only under a schedule. Both trace the same
    trajectory: rewritten, the parameters that one holds are the look-ahead points
    `phi`, and the gradient at them is the one that is needed.

    Args:
      learning_rate: in (0, inf).
      momentum: in [0, 1], 0 is off.
      form: "rewritten", or "lookahead", where the parameters are `theta`, the
        gradients passed are not used, and `update` takes `value_fn`, the loss as
        a function of the parameters, to differentiate it at the look-ahead point.

    Returns:
      An `Optimizer` whose state is one velocity per parameter.

    Raises:
      ValueError: a number out of range, an unknown form, or no `value_fn`.

    The velocity of some texts has the other sign: `v = momentum * v +
    learning_rate * grad(w - momentum * v); w -= v`. optax and torch have a third
    form, `sgd(..., nesterov=True)`, with the rate outside; for a constant rate it
    traces the look-ahead points too. Nesterov 1983; Sutskever et al. 2013.
    """
    check_learning_rate(learning_rate)
    check_number("momentum", momentum, "[0, 1]")
    check_choice("form", form, ["rewritten", "lookahead"])

    @promoting
    def init(params: Params) -> DescentState:
        return DescentState(jnp.zeros((), jnp.int32), moments(params))

    @promoting
    def update(
        grads: Updates,
        state: DescentState,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Updates, DescentState]:
        count = next_count(state.step)
        lr, mu = at_step(learning_rate, state.step), at_step(momentum, state.step)
        mu_next = at_step(momentum, count)

        def rewritten(g: Array, w: Any, v: Array) -> tuple[Array, Array]:
            v_next = mu * v - lr * g
            return -mu * v + (1 + mu_next) * v_next, v_next

        def lookahead(g: Array, w: Any, v: Array) -> tuple[Array, Array]:
            v_next = mu * v - lr * g
            return v_next, v_next

        if form == "lookahead":
            if value_fn is None:
                raise ValueError(
                    "`nesterov(form='lookahead')` needs the loss as a function of the parameters: "
                    "call `update(grads, state, params, value_fn=loss)`."
                )
            here = given(params, "nesterov")
            ahead = jax.tree.map(
                lambda w, v: (wide(w) + mu * v).astype(jnp.result_type(w)), here, state.velocity
            )
            grads = jax.grad(value_fn)(ahead)
        rule = lookahead if form == "lookahead" else rewritten
        updates, velocity = per_leaf(rule, grads, params, state.velocity)
        return updates, DescentState(count, velocity)

    return Optimizer(init, update)

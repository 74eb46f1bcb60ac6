"""Rates scaled per parameter by past squared gradients: Adagrad, RMSProp, Adadelta."""

from __future__ import annotations

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


def _over(g: Array, c: Array, eps: Array, eps_in_sqrt: bool) -> Array:
    """`g / sqrt(c + eps)` or `g / (sqrt(c) + eps)`, and `g` where that divides by 0."""
    denominator = root(c + eps) if eps_in_sqrt else root(c) + eps
    return g / jnp.where(denominator > 0, denominator, 1)


class AdagradState(NamedTuple):
    """The state of Adagrad.

    Attributes:
      step: the number of updates made.
      sum_of_squares: shaped as the parameters, real.
    """

    step: Int[Array, ""]
    sum_of_squares: PyTree


def adagrad(
    learning_rate: Number,
    initial_accumulator_value: Number = 0.1,
    eps: Number = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """Adagrad: each parameter's rate falls with the sum of its squared gradients.

        c += g**2
        w -= learning_rate * g / sqrt(c + eps)        (eps_in_sqrt)
        w -= learning_rate * g / (sqrt(c) + eps)      (otherwise)

    Args:
      learning_rate: in (0, inf).
      initial_accumulator_value: `c` at the start, in [0, inf).
      eps: in [0, inf), 0 is off.
      eps_in_sqrt: whether eps is added under the root.

    Returns:
      An `Optimizer` whose state is one accumulator per parameter.

    As optax's `adagrad`; torch's `Adagrad` is `initial_accumulator_value=0,
    eps=1e-10, eps_in_sqrt=False`. Duchi, Hazan and Singer 2011.
    """
    check_learning_rate(learning_rate)
    check_number("initial_accumulator_value", initial_accumulator_value, "[0, inf)")
    check_number("eps", eps, "[0, inf)")

    @promoting
    def init(params: Params) -> AdagradState:
        accumulator = square_moments(params, initial_accumulator_value)
        return AdagradState(jnp.zeros((), jnp.int32), accumulator)

    @promoting
    def update(
        grads: Updates, state: AdagradState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdagradState]:
        lr, epsilon = at_step(learning_rate, state.step), at_step(eps, state.step)

        def rule(g: Array, w: Any, c: Array) -> tuple[Array, Array]:
            c = c + square(g)
            return -lr * _over(g, c, epsilon, eps_in_sqrt), c

        updates, sums = per_leaf(rule, grads, params, state.sum_of_squares)
        return updates, AdagradState(next_count(state.step), sums)

    return Optimizer(init, update)


class RmspropState(NamedTuple):
    """The state of RMSProp.

    Attributes:
      step: the number of updates made.
      second_moment: average of squared gradients, shaped as the parameters, real.
      first_moment: average of gradients; None unless centered.
      velocity: shaped as the parameters; None where there is no momentum.
    """

    step: Int[Array, ""]
    second_moment: PyTree
    first_moment: PyTree
    velocity: PyTree


def rmsprop(
    learning_rate: Number,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    initial_scale: Number = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Number | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    convention: str = "inside",
) -> Optimizer:
    """RMSProp: Adagrad whose sum of squares forgets.

        c = decay * c + (1 - decay) * g**2
        a = decay * a + (1 - decay) * g;   s = c - a**2        (centered; else s = c)
        d = g / sqrt(s + eps), or g / (sqrt(s) + eps)
        w -= learning_rate * d                                 (without momentum)
        v = momentum * v + learning_rate * d;   w -= v         (inside)
        v = momentum * v + d;   w -= learning_rate * v         (outside)

    With bias correction `c` and `a` are divided by `1 - decay**t` where used.
    With nesterov the step is `momentum * v` plus the term just added to `v`.

    Args:
      learning_rate: in (0, inf).
      decay: in [0, 1), 0 keeps the last gradient alone.
      eps: in [0, inf), 0 is off.
      initial_scale: `c` at the start, in [0, inf).
      eps_in_sqrt: whether eps is added under the root.
      centered: whether the average gradient's square is subtracted.
      momentum: in [0, 1], 0 is off; None leaves the velocity out of the program.
      nesterov: whether the velocity looks ahead.
      bias_correction: whether the averages are debiased.
      convention: where the rate stands in the velocity, "inside" or "outside".

    Returns:
      An `Optimizer` whose state is one to three numbers per parameter.

    As optax's `rmsprop`; torch's `RMSprop` is `decay=0.99, eps_in_sqrt=False,
    convention="outside"`. Tieleman and Hinton 2012; centered, Graves 2013.
    """
    check_learning_rate(learning_rate)
    check_number("decay", decay, "[0, 1)")
    check_number("eps", eps, "[0, inf)")
    check_number("initial_scale", initial_scale, "[0, inf)")
    if momentum is not None:
        check_number("momentum", momentum, "[0, 1]")
    check_choice("convention", convention, ["inside", "outside"])

    @promoting
    def init(params: Params) -> RmspropState:
        return RmspropState(
            step=jnp.zeros((), jnp.int32),
            second_moment=square_moments(params, initial_scale),
            first_moment=moments(params) if centered else None,
            velocity=None if momentum is None else moments(params),
        )

    @promoting
    def update(
        grads: Updates, state: RmspropState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, RmspropState]:
        count = next_count(state.step)
        lr, rho = at_step(learning_rate, state.step), at_step(decay, state.step)
        epsilon = at_step(eps, state.step)
        mu = at_step(0.0 if momentum is None else momentum, state.step)
        correction = 1 - rho**count if bias_correction else 1

        def rule(g: Array, w: Any, c: Array, *others: Array) -> tuple[Array, ...]:
            c = rho * c + (1 - rho) * square(g)
            spread, kept = c / correction, [c]
            if centered:
                a = rho * others[0] + (1 - rho) * g
                # Rounding may leave the variance of a constant gradient below 0.
                spread = jnp.maximum(spread - square(a / correction), 0)
                kept.append(a)
            step = lr * _over(g, spread, epsilon, eps_in_sqrt)
            if momentum is None:
                return -step, *kept
            if convention == "inside":
                v = mu * others[-1] + step
                return -(mu * v + step if nesterov else v), *kept, v
            step = _over(g, spread, epsilon, eps_in_sqrt)
            v = mu * others[-1] + step
            return -lr * (mu * v + step if nesterov else v), *kept, v

        trees = (state.second_moment, state.first_moment, state.velocity)
        updates, *new = per_leaf(rule, grads, params, *(x for x in trees if x is not None))
        second_moment = new.pop(0)
        first_moment = new.pop(0) if centered else None
        velocity = None if momentum is None else new.pop(0)
        return updates, RmspropState(count, second_moment, first_moment, velocity)

    return Optimizer(init, update)


class AdadeltaState(NamedTuple):
    """The state of Adadelta.

    Attributes:
      step: the number of updates made.
      squared_gradient: average of squared gradients, shaped as the parameters, real.
      squared_update: average of squared updates before the rate, likewise.
    """

    step: Int[Array, ""]
    squared_gradient: PyTree
    squared_update: PyTree


def adadelta(
    learning_rate: Number = 1.0,
    rho: Number = 0.9,
    eps: Number = 1e-6,
    weight_decay: Number = 0.0,
    weight_decay_mask: Any = None,
) -> Optimizer:
    """Adadelta: RMSProp whose step has the units of the parameter.

        g += weight_decay * w
        c = rho * c + (1 - rho) * g**2
        d = sqrt((x + eps) / (c + eps)) * g
        x = rho * x + (1 - rho) * d**2
        w -= learning_rate * d

    Args:
      learning_rate: in (0, inf).
      rho: in [0, 1).
      eps: in (0, inf); it sets the size of the first step.
      weight_decay: coupled decay, in [0, inf), 0 is off.
      weight_decay_mask: which parameters decay, see `add_decayed_weights`.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    As optax's `adadelta` and torch's `Adadelta`. Zeiler 2012, algorithm 1.
    """
    check_learning_rate(learning_rate)
    check_number("rho", rho, "[0, 1)")
    check_number("eps", eps, "(0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def init(params: Params) -> AdadeltaState:
        c, x = square_moments(params), square_moments(params)
        return AdadeltaState(jnp.zeros((), jnp.int32), c, x)

    @promoting
    def update(
        grads: Updates, state: AdadeltaState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AdadeltaState]:
        lr, decay = at_step(learning_rate, state.step), at_step(rho, state.step)
        epsilon, wd = at_step(eps, state.step), at_step(weight_decay, state.step)
        decaying = select(weight_decay_mask, given(params, "adadelta"))

        def rule(g: Array, w: Array, c: Array, x: Array) -> tuple[Array, Array, Array]:
            g = g + wd * w
            c = decay * c + (1 - decay) * square(g)
            d = root((x + epsilon) / (c + epsilon)) * g
            x = decay * x + (1 - decay) * square(d)
            return -lr * d, c, x

        updates, c, x = per_leaf(
            rule, grads, decaying, state.squared_gradient, state.squared_update
        )
        return updates, AdadeltaState(next_count(state.step), c, x)

    return Optimizer(init, update)

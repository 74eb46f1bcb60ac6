"""Optimizers that use the sign of the gradient alone: sign SGD, Signum, Lion and Rprop."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import Mask, given, leafwise, moments, resolve_mask, values_at, wide
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


class SignSgdState(NamedTuple):
    """The state of `sign_sgd`.

    Attributes:
      step: the number of updates made.
    """

    step: Int[Array, ""]


def sign_sgd(learning_rate: Number) -> Optimizer:
    """Descent along the sign of the gradient.

        w -= lr * sign(g)

    A zero gradient moves nothing; the sign of a complex number is `g / |g|`.

    Args:
      learning_rate: the length of every step, in (0, inf).

    Returns:
      An `Optimizer` whose state is the step.

    Raises:
      ValueError: the rate out of range.

    Bernstein et al., signSGD: compressed optimisation for non-convex problems
    (2018). As optax's `sign_sgd`; torch has none.
    """
    check_learning_rate(learning_rate)

    @promoting
    def init(params: Params) -> SignSgdState:
        return SignSgdState(jnp.zeros((), jnp.int32))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SignSgdState]:
        (lr,) = values_at(state.step, learning_rate)
        (updates,) = leafwise(lambda g: (-lr * jnp.sign(wide(g)),), (grads,), grads)
        return updates, SignSgdState(next_count(state.step))

    return Optimizer(init, update)


class SignMomentumState(NamedTuple):
    """The state of `signum` and `lion`.

    Attributes:
      step: the number of updates made.
      momentum: the exponential average of gradients, shaped as the parameters, float32 or wider.
    """

    step: Int[Array, ""]
    momentum: Updates


def signum(learning_rate: Number, beta: Number = 0.9, accumulator_dtype: Any = None) -> Optimizer:
    """Descent along the sign of an exponential average of gradients.

        m = beta*m + (1-beta)*g;    w -= lr * sign(m)

    Args:
      learning_rate: the length of every step, in (0, inf).
      beta: decay of the average, in [0, 1); 0 is `sign_sgd`.
      accumulator_dtype: dtype of the average; `None` is float32 or wider.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range.

    Bernstein et al., signSGD: compressed optimisation for non-convex problems
    (2018), algorithm 2. As optax's `signum`; torch has none.
    """
    check_learning_rate(learning_rate)
    check_number("beta", beta, "[0, 1)")

    @promoting
    def init(params: Params) -> SignMomentumState:
        return SignMomentumState(jnp.zeros((), jnp.int32), moments(params, accumulator_dtype))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SignMomentumState]:
        lr, b = values_at(state.step, learning_rate, beta)

        def rule(g: Any, m: Any) -> tuple[Any, Any]:
            m = b * wide(m) + (1 - b) * wide(g)
            return -lr * jnp.sign(m), m

        updates, momentum = leafwise(rule, (grads, state.momentum), grads, state.momentum)
        return updates, SignMomentumState(next_count(state.step), momentum)

    return Optimizer(init, update)


def lion(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: Any = None,
    weight_decay: Number = 1e-3,
    mask: Mask = None,
) -> Optimizer:
    """Lion: the sign of one average of gradients, the memory of another.

        w -= lr * (sign(b1*m + (1-b1)*g) + weight_decay*w);    m = b2*m + (1-b2)*g

    Steps are longer than Adam's for the same rate: take a rate 3 to 10 times
    smaller and a decay as many times larger.

    Args:
      learning_rate: in (0, inf).
      b1: weight of the memory in the step, in [0, 1); 0 takes the sign of the gradient.
      b2: decay of the memory, in [0, 1).
      mu_dtype: dtype of the memory; `None` is float32 or wider.
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Chen et al., Symbolic discovery of optimization algorithms (2023), algorithm 2.
    As optax's `lion`; torch has none.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def init(params: Params) -> SignMomentumState:
        return SignMomentumState(jnp.zeros((), jnp.int32), moments(params, mu_dtype))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SignMomentumState]:
        params = given(params, "lion")
        lr, c1, c2, decay = values_at(state.step, learning_rate, b1, b2, weight_decay)

        def rule(g: Any, m: Any, w: Any, decays: bool) -> tuple[Any, Any]:
            g, m = wide(g), wide(m)
            u = jnp.sign(c1 * m + (1 - c1) * g)
            u = u + decay * wide(w) if decays else u
            return -lr * u, c2 * m + (1 - c2) * g

        updates, momentum = leafwise(
            rule,
            (params, state.momentum),
            grads,
            state.momentum,
            params,
            resolve_mask(mask, params),
        )
        return updates, SignMomentumState(next_count(state.step), momentum)

    return Optimizer(init, update)


class RpropState(NamedTuple):
    """The state of `rprop`.

    Attributes:
      step: the number of updates made.
      step_sizes: the step of each element, shaped as the parameters, float32 or
        wider; a complex parameter has a leading axis of two, real and imaginary.
      previous: the sign of the last gradient, zero where it had changed; int8, shaped as
        the steps.
    """

    step: Int[Array, ""]
    step_sizes: Updates
    previous: Updates


def rprop(
    learning_rate: Number,
    eta_minus: Number = 0.5,
    eta_plus: Number = 1.2,
    min_step_size: Number = 1e-6,
    max_step_size: Number = 50.0,
) -> Optimizer:
    """Resilient propagation: each element has a step of its own, which signs alone adapt.

        s = sign(g) * previous;    step *= eta_plus where s > 0, eta_minus where s < 0
        step = clip(step, min_step_size, max_step_size);    g = 0 where s < 0
        w -= step * sign(g);    previous = sign(g)

    For full batches: noise in the gradient changes signs and shrinks the steps.
    The parts of a complex number have a step each.

    Args:
      learning_rate: the first step of every element, in (0, inf); of a schedule, its value at 0.
      eta_minus: factor where the sign changed, in (0, 1]; 1 is off.
      eta_plus: factor where it did not, in [1, inf); 1 is off.
      min_step_size: least step, in [0, inf).
      max_step_size: largest step, in (0, inf].

    Returns:
      An `Optimizer` whose state is a number and a byte per parameter.

    Raises:
      ValueError: a number out of range.

    The variant without weight backtracking (iRprop-) of Igel and Huesken,
    Improving the Rprop learning algorithm (2000), after Riedmiller and Braun
    (1993); it is what torch does. optax 0.2.8 differs: its updates come one step
    late, the first of them zero.
    """
    check_learning_rate(learning_rate)
    check_number("eta_minus", eta_minus, "(0, 1]")
    check_number("eta_plus", eta_plus, "[1, inf)")
    check_number("min_step_size", min_step_size, "[0, inf)")
    check_number("max_step_size", max_step_size, "(0, inf]")

    @promoting
    def init(params: Params) -> RpropState:
        count = jnp.zeros((), jnp.int32)
        (first,) = values_at(count, learning_rate)
        parts = jax.tree.map(lambda w: _parts(wide(w)), params)
        return RpropState(
            count,
            jax.tree.map(lambda x: jnp.full_like(x, first), parts),
            jax.tree.map(lambda x: jnp.zeros_like(x, jnp.int8), parts),
        )

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, RpropState]:
        minus, plus, low, high = values_at(
            state.step, eta_minus, eta_plus, min_step_size, max_step_size
        )

        def rule(g: Any, step: Any, previous: Any) -> tuple[Any, Any, Any]:
            sign = jnp.sign(_parts(wide(g)))
            agreement = sign * previous
            factor = jnp.where(agreement > 0, plus, jnp.where(agreement < 0, minus, 1.0))
            step = jnp.clip(step * factor, low, high)
            sign = jnp.where(agreement < 0, 0.0, sign)
            move = -step * sign
            return jax.lax.complex(*move) if jnp.iscomplexobj(g) else move, step, sign

        updates, step_sizes, previous = leafwise(
            rule, (grads, state.step_sizes, state.previous), grads, state.step_sizes, state.previous
        )
        return updates, RpropState(next_count(state.step), step_sizes, previous)

    return Optimizer(init, update)


def _parts(x: jax.Array) -> jax.Array:
    """A complex array as a real one with a leading axis of two; a real one as it is."""
    return jnp.stack([jnp.real(x), jnp.imag(x)]) if jnp.iscomplexobj(x) else x

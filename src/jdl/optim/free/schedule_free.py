"""Schedule-free optimizers: an average of the iterates in the place of a decaying rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    given,
    leafwise,
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
    chain,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import check_betas
from jdl.optim.elementwise.descent import sgd
from jdl.optim.transforms.gradient import add_decayed_weights
from jdl.tree import root


class ScheduleFreeState(NamedTuple):
    """The state of a schedule-free optimizer.

    Attributes:
      step: the number of updates made.
      b1: the interpolation at which the parameters now stand between `z` and the average.
      weight_sum: sum of the weights of the average.
      max_lr: the highest rate so far.
      base: state of the base optimizer.
      z: the iterate of the base optimizer, shaped as the parameters.
    """

    step: Int[Array, ""]
    b1: Float[Array, ""]
    weight_sum: Float[Array, ""]
    max_lr: Float[Array, ""]
    base: State
    z: Params


@promoting
def schedule_free_eval_params(state: ScheduleFreeState, params: Params) -> Params:
    """The average `x = (y - (1-b1)*z) / b1`: the parameters to evaluate and to keep.

    Args:
      state: of a schedule-free optimizer.
      params: the parameters `y` that it trains.

    Returns:
      The average, in the parameters' dtypes; not finite where `b1` is 0.
    """
    b = state.b1
    return leafwise(lambda y, z: ((wide(y) - (1 - b) * wide(z)) / b,), (params,), params, state.z)[
        0
    ]


def schedule_free(
    base_optimizer: Optimizer,
    learning_rate: Number,
    b1: Number = 0.9,
    weight_lr_power: Number = 2.0,
    state_dtype: Any = None,
) -> Optimizer:
    """Schedule-free training with any base optimizer that has no momentum of its own.

        z = z + base(gradient at y);    c = max_lr**weight_lr_power / (sum of these)
        x = (1-c)*x + c*z;    y = b1*x + (1-b1)*z, moved without `x` by
        y = y + c*(z_before - y) + (1 - b1*(1-c))*base(gradient at y)

    The parameters that the optimizer moves are `y`, where gradients are taken; the
    result is `x`, which `schedule_free_eval_params` recovers from `y` and `z`.

    Args:
      base_optimizer: with the same `learning_rate` inside it.
      learning_rate: weighs the iterates in the average, in (0, inf).
      b1: how near `y` is to the average, in [0, 1); 0 trains with the base optimizer
        alone, and then `y` no longer tells `x`. A schedule must stay above 0.
      weight_lr_power: in [0, inf); 0 weighs all iterates alike.
      state_dtype: dtype of `z`; `None` is float32 or wider.

    Returns:
      An `Optimizer` whose state is one number per parameter beside the base's.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Defazio et al., The road less scheduled (2024). As optax.contrib's
    `schedule_free`, where the schedule that weighs the average runs one step ahead
    of the one in the base optimizer; here both start at `schedule(0)`.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1)
    check_number("weight_lr_power", weight_lr_power, "[0, inf)")

    @promoting
    def init(params: Params) -> ScheduleFreeState:
        step, dtype = jnp.zeros((), jnp.int32), widest(params)
        z = jax.tree.map(lambda w: jnp.array(wide(w), state_dtype, copy=True), params)
        base = base_optimizer.init(params)
        weight_sum, max_lr = jnp.zeros((), dtype), jnp.zeros((), dtype)
        return ScheduleFreeState(step, at_step(b1, step).astype(dtype), weight_sum, max_lr, base, z)

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ScheduleFreeState]:
        params = given(params, "schedule_free")
        lr, b, power = values_at(state.step, learning_rate, b1, weight_lr_power)
        max_lr = jnp.maximum(state.max_lr, lr)
        weight = max_lr**power
        weight_sum = state.weight_sum + weight
        c = over(weight, weight_sum)
        # y = b1*x + (1-b1)*z before and after, x left out: the average would have to
        # be divided out of y, which rounds. `change` is 0 but under a schedule of b1.
        change = over(b - state.b1, state.b1)
        pull, push = c - (1 - c) * change, 1 - b * (1 - c)
        y = jax.tree.map(wide, params)
        moves, base = base_optimizer.update(grads, state.base, y, **extra)

        def rule(u: Any, w: Any, z: Array) -> tuple[Array, Array]:
            old, new = wide(z), wide(z) + wide(u)
            # In terms of `new`, so that the base's rule need not be computed for both.
            return pull * (old - wide(w)) + push * (new - old), new

        updates, z = leafwise(rule, (params, state.z), moves, params, state.z)
        b, weight_sum, max_lr = (x.astype(state.b1.dtype) for x in (b, weight_sum, max_lr))
        return updates, ScheduleFreeState(next_count(state.step), b, weight_sum, max_lr, base, z)

    return Optimizer(init, update)


def schedule_free_sgd(
    learning_rate: Number = 1.0,
    warmup_steps: Number | None = None,
    b1: Number = 0.9,
    weight_decay: Number | None = None,
    weight_lr_power: Number = 2.0,
    state_dtype: Any = None,
) -> Optimizer:
    """Schedule-free gradient descent: `z -= lr * (g + weight_decay*y)` in `schedule_free`.

    Args:
      learning_rate: in (0, inf); 10 to 50 times that of momentum.
      warmup_steps: the rate at update t, from 1, is `lr * min(1, t/warmup_steps)`; in
        [1, inf); 1 and `None` are off. (optax takes t - 1, so its first rate is 0.)
      b1: in [0, 1), see `schedule_free`.
      weight_decay: in [0, inf); 0 and `None` are off.
      weight_lr_power: see `schedule_free`.
      state_dtype: see `schedule_free`.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    base = sgd(rate)
    if weight_decay is not None:
        base = chain(add_decayed_weights(weight_decay), base)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def schedule_free_adamw(
    learning_rate: Number = 0.0025,
    warmup_steps: Number | None = None,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    weight_lr_power: Number = 2.0,
    state_dtype: Any = None,
) -> Optimizer:
    """Schedule-free AdamW: `z -= lr * (g / (sqrt(vhat) + eps) + weight_decay*y)`.

    Args:
      learning_rate: in (0, inf); 1 to 10 times that of AdamW.
      warmup_steps: see `schedule_free_sgd`.
      b1: in [0, 1), see `schedule_free`; it stands for Adam's momentum.
      b2: decay of the second moment, in [0, 1).
      eps: outside the root, in [0, inf).
      weight_decay: at `y`, scaled by the rate, in [0, inf); 0 is off.
      weight_lr_power: see `schedule_free`.
      state_dtype: see `schedule_free`.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    base = _adamw_without_momentum(rate, b2, eps, weight_decay)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed_up(learning_rate: Number, warmup_steps: Number | None) -> Number:
    check_learning_rate(learning_rate)
    if warmup_steps is None:
        return learning_rate
    check_number("warmup_steps", warmup_steps, "[1, inf)")

    @promoting
    def rate(step: Any) -> Array:
        lr, steps = values_at(step, learning_rate, warmup_steps)
        return lr * jnp.minimum(1, (step + 1) / steps)

    return rate


class _SecondMomentState(NamedTuple):
    step: Int[Array, ""]
    second_moment: Updates


def _adamw_without_momentum(
    learning_rate: Number, b2: Number, eps: Number, weight_decay: Number
) -> Optimizer:
    check_betas(b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")

    @promoting
    def init(params: Params) -> _SecondMomentState:
        return _SecondMomentState(jnp.zeros((), jnp.int32), square_moments(params))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, _SecondMomentState]:
        lr, c2, e, decay = values_at(state.step, learning_rate, b2, eps, weight_decay)
        t = next_count(state.step)

        def rule(g: Array, w: Array, v: Array) -> tuple[Array, Array]:
            v = c2 * v + (1 - c2) * square(g)
            return -lr * (over(g, root(v / (1 - c2**t)) + e) + decay * w), v

        updates, second = per_leaf(rule, grads, params, state.second_moment)
        return updates, _SecondMomentState(t, second)

    return Optimizer(init, update)

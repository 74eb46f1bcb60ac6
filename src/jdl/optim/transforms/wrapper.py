"""Optimizers around an optimizer: accumulation, lookahead, sharpness-aware minimisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl import tree
from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import copies, given, moments, per_leaf, wide
from jdl.optim.base import Number, Optimizer, Params, State, Updates, at_step, next_count


class AccumulateState(NamedTuple):
    """The state of `accumulate`.

    Attributes:
      step: the number of updates that the inner optimizer made.
      micro_step: gradients collected since the last of them.
      collected: their mean or sum, shaped as the parameters.
      inner: the inner optimizer's state.
    """

    step: Int[Array, ""]
    micro_step: Int[Array, ""]
    collected: PyTree
    inner: State


def accumulate(
    inner: Optimizer, every: Any, use_grad_mean: bool = True, accumulator_dtype: Any = None
) -> Optimizer:
    """One update of `inner` for every `every` gradients, with their mean; zeros in between.

    Equal micro-batches and a mean loss give the update of the one large batch.

    Args:
      inner: the optimizer; its schedules count its own updates.
      every: an integer in [1, inf), 1 is off; may be traced, or a schedule of the
        number of updates made.
      use_grad_mean: whether the gradients are averaged, or summed.
      accumulator_dtype: their sum's dtype; float32 or the parameter's if wider.

    Returns:
      An `Optimizer` whose state is the inner one and one number per parameter. As
      optax's `MultiSteps(inner, every)`.
    """
    check_number("every", every, "[1, inf)")

    @promoting
    def init(params: Params) -> AccumulateState:
        zero = jnp.zeros((), jnp.int32)
        collected = moments(params, accumulator_dtype)
        return AccumulateState(zero, jnp.zeros_like(zero), collected, inner.init(params))

    @promoting
    def update(
        grads: Updates, state: AccumulateState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, AccumulateState]:
        n = state.micro_step + 1

        def add(g: Array, w: Any, total: Array) -> tuple[Array, Array]:
            total = total + (g - total) / n if use_grad_mean else total + g
            return total, total

        gathered, collected = per_leaf(add, grads, params, state.collected)
        due = n >= at_step(every, state.step)
        updates, after = inner.update(gathered, state.inner, params, **extra)
        return tree.where(due, updates, tree.zeros_like(updates)), AccumulateState(
            step=jnp.where(due, next_count(state.step), state.step),
            micro_step=jnp.where(due, 0, n),
            collected=tree.where(due, tree.zeros_like(collected), collected),
            inner=tree.where(due, after, state.inner),
        )

    return Optimizer(init, update)


class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
      step: the number of updates made.
      since_sync: updates since the slow weights moved.
      slow: the slow weights, shaped as the parameters, float32 or wider.
      inner: the inner optimizer's state.
    """

    step: Int[Array, ""]
    since_sync: Int[Array, ""]
    slow: PyTree
    inner: State


def lookahead(
    fast_optimizer: Optimizer, sync_period: Any, slow_step_size: Number, reset_state: bool = False
) -> Optimizer:
    """Slow weights that take a step towards where `sync_period` fast steps have led.

        w moves by fast_optimizer;   every sync_period steps
        slow += slow_step_size * (w - slow);   w = slow

    Args:
      fast_optimizer: moves the parameters.
      sync_period: an integer in [1, inf), may be traced.
      slow_step_size: in [0, 1], 1 is off.
      reset_state: whether the inner state starts anew when the weights meet.

    Returns:
      An `Optimizer` whose state is the inner one and one number per parameter.

    optax's takes a pair (fast, slow) as the parameters; here the slow weights live
    in the state, and the average of the last period is theirs. Zhang et al. 2019.
    """
    check_number("sync_period", sync_period, "[1, inf)")
    check_number("slow_step_size", slow_step_size, "[0, 1]")

    @promoting
    def init(params: Params) -> LookaheadState:
        zero = jnp.zeros((), jnp.int32)
        slow = copies(params)
        return LookaheadState(zero, jnp.zeros_like(zero), slow, fast_optimizer.init(params))

    @promoting
    def update(
        grads: Updates, state: LookaheadState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, LookaheadState]:
        here = given(params, "lookahead")
        updates, inner = fast_optimizer.update(grads, state.inner, here, **extra)
        n = state.since_sync + 1
        meet = n >= at_step(sync_period, state.step)
        share = at_step(slow_step_size, state.step)

        def rule(u: Array, w: Array, slow: Array) -> tuple[Array, Array]:
            slow = jnp.where(meet, slow + share * (w + u - slow), slow)
            return jnp.where(meet, slow - w, u), slow

        updates, slow = per_leaf(rule, updates, here, state.slow)
        if reset_state:
            inner = tree.where(meet, fast_optimizer.init(here), inner)
        since_sync = jnp.where(meet, 0, n)
        return updates, LookaheadState(next_count(state.step), since_sync, slow, inner)

    return Optimizer(init, update)


class SamState(NamedTuple):
    """The state of `sam`: the number of updates made and the inner optimizer's state."""

    step: Int[Array, ""]
    inner: State


def sam(inner: Optimizer, rho: Number = 0.05, adaptive: bool = False) -> Optimizer:
    """Sharpness-aware minimisation: the gradient at the worst point near by.

        e = rho * g / norm(g)                          norm over all leaves
        e = rho * w**2 * g / norm(|w| * g)             (adaptive)
        inner is given grad(value_fn)(w + e)

    A step costs two gradients. `update` takes `value_fn`, the loss as a function
    of the parameters; `g` is the gradient that it was given.

    Args:
      inner: the optimizer that uses the gradient.
      rho: the distance, in [0, inf), 0 is off.
      adaptive: whether distance is measured relative to each weight.

    Returns:
      An `Optimizer`.

    Raises:
      ValueError: `update` without `value_fn` or without the parameters.

    Foret et al. 2021; adaptive, Kwon et al. 2021. In optax `contrib.sam` takes the
    two gradients in alternating steps.
    """
    check_number("rho", rho, "[0, inf)")

    @promoting
    def init(params: Params) -> SamState:
        return SamState(jnp.zeros((), jnp.int32), inner.init(params))

    @promoting
    def update(
        grads: Updates,
        state: SamState,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Updates, SamState]:
        if value_fn is None:
            raise ValueError(
                "`sam` needs the loss as a function of the parameters: "
                "call `update(grads, state, params, value_fn=loss)`."
            )
        here = given(params, "sam")
        size = jax.tree.map(lambda w: jnp.abs(wide(w)) if adaptive else 1.0, here)
        scaled = jax.tree.map(lambda s, g: s * wide(g), size, grads)
        length = tree.norm(scaled)
        some = length > 0
        factor = jnp.where(some, at_step(rho, state.step) / jnp.where(some, length, 1), 0)
        ahead = jax.tree.map(
            lambda w, s, d: jnp.asarray(wide(w) + factor * s * d, jnp.result_type(w)),
            here,
            size,
            scaled,
        )
        worst = tree.cast_like(jax.grad(value_fn)(ahead), grads)
        updates, after = inner.update(worst, state.inner, here, value_fn=value_fn, **extra)
        return updates, SamState(next_count(state.step), after)

    return Optimizer(init, update)

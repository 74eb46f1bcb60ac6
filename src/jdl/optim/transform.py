"""Transforms of gradients to chain with an optimizer: decay, clipping, cleaning, noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl import tree
from jdl._checks import check_number
from jdl.optim._leaves import given, per_leaf, resolve_mask
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    Updates,
    at_step,
    next_count,
)


class StepState(NamedTuple):
    """The state of a transform that only knows the step: `step`, the updates made."""

    step: Int[Array, ""]


def _counted(rule: Any) -> Optimizer:
    """The transform `rule(grads, params, step) -> updates`."""

    def init(params: Params) -> StepState:
        return StepState(jnp.zeros((), jnp.int32))

    def update(
        grads: Updates, state: StepState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, StepState]:
        return rule(grads, params, state.step), StepState(next_count(state.step))

    return Optimizer(init, update)


def select(mask: PyTree, params: Params) -> Params:
    """`params` where `mask` holds, else 0.

    `mask` is None (everything), a tree of booleans of the same structure or a
    prefix of it, or a function from the parameters to such a tree.
    """
    if mask is None:
        return params
    keeps = resolve_mask(mask, params)
    return jax.tree.map(lambda keep, w: jnp.where(keep, w, jnp.zeros_like(w)), keeps, params)


def add_decayed_weights(weight_decay: Number = 0.0, mask: Any = None) -> Optimizer:
    """Adds `weight_decay * w` to each gradient.

    Before an optimizer in a `chain` this is the gradient of an L2 term (coupled);
    between its scaling and its rate it is decoupled, as `adamw` has it.

    Args:
      weight_decay: in [0, inf), 0 is off.
      mask: which parameters decay: None for all, a tree of booleans (or a prefix
        of the parameters' tree), or a function from the parameters to one, as in
        `lambda params: jax.tree.map(lambda w: w.ndim > 1, params)`.

    Returns:
      An `Optimizer` whose state is the step.
    """
    check_number("weight_decay", weight_decay, "[0, inf)")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        wd = at_step(weight_decay, step)
        decaying = select(mask, given(params, "add_decayed_weights"))
        return per_leaf(lambda g, w: (g + wd * w,), grads, decaying)[0]

    return _counted(rule)


def clip_by_global_norm(max_norm: Number) -> Optimizer:
    """Scales all gradients together so that their joint norm is at most `max_norm`.

        g *= min(1, max_norm / norm(all g))

    The norm runs over every leaf, in float32 or wider; under `vmap` each lane has
    its own.

    Args:
      max_norm: in (0, inf], inf is off.

    Returns:
      An `Optimizer` whose state is the step.

    As optax's; torch adds 1e-6 to the norm. Pascanu, Mikolov and Bengio 2013.
    """
    check_number("max_norm", max_norm, "(0, inf]")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        limit, norm = at_step(max_norm, step), tree.norm(grads)
        factor = jnp.where(norm > limit, limit / jnp.where(norm > limit, norm, 1), 1)
        return tree.scale(factor, grads)

    return _counted(rule)

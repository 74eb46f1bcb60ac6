"""Clipping of gradients: by value, by global norm, by block, and adaptively."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jdl import tree
from jdl._checks import check_number
from jdl.optim._leaves import given, per_leaf, square
from jdl.optim.base import Number, Optimizer, Params, Updates, at_step
from jdl.optim.transforms.gradient import from_rule
from jdl.tree import root


def _at_most(limit: Array, size: Array) -> Array:
    """The factor that brings `size` down to `limit`; 1 where it is not above it."""
    above = size > limit
    return jnp.where(above, limit / jnp.where(above, size, 1), 1)


def clip(max_delta: Number) -> Optimizer:
    """Holds every element in [-max_delta, max_delta].

    Args:
      max_delta: in (0, inf], inf is off; the modulus of a complex element.

    Returns:
      An `Optimizer` whose state is the step. As optax's, and torch's
      `clip_grad_value_`.
    """
    check_number("max_delta", max_delta, "(0, inf]")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        limit = at_step(max_delta, step)

        def leaf(g: Array, w: Any) -> tuple[Array]:
            if jnp.iscomplexobj(g):
                return (g * _at_most(limit, jnp.abs(g)),)
            return (jnp.clip(g, -limit, limit),)

        return per_leaf(leaf, grads, None)[0]

    return from_rule(rule)


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
        return tree.scale(_at_most(at_step(max_norm, step), tree.norm(grads)), grads)

    return from_rule(rule)


def clip_by_block_rms(threshold: Number) -> Optimizer:
    """Scales each leaf so that the root of its mean square is at most `threshold`.

    Args:
      threshold: in (0, inf], inf is off.

    Returns:
      An `Optimizer` whose state is the step. As optax's; Shazeer and Stern 2018, 6.
    """
    check_number("threshold", threshold, "(0, inf]")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        limit = at_step(threshold, step)

        def leaf(g: Array, w: Any) -> tuple[Array]:
            return (g * _at_most(limit, root(jnp.mean(square(g)))),)

        return per_leaf(leaf, grads, None)[0]

    return from_rule(rule)


def adaptive_grad_clip(
    clipping: Number, eps: Number = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Optimizer:
    """Holds the gradient of each unit below a share of the norm of its weights.

        g_unit *= min(1, clipping * max(norm(w_unit), eps) / norm(g_unit))

    A unit is an output of a matrix or kernel, whose last axis is the outputs, and
    a whole vector or scalar.

    Args:
      clipping: in (0, inf], inf is off.
      eps: what a norm of weights counts for at least, in (0, inf).
      axis: the axes that a norm runs over; None is the first axis of 2 or 3, and
        all but the last of 4 or more.

    Returns:
      An `Optimizer` whose state is the step. As optax's. Brock et al. 2021.
    """
    check_number("clipping", clipping, "(0, inf]")
    check_number("eps", eps, "(0, inf)")

    def unit_norm(x: Array) -> Array:
        axes = axis
        if axes is None and x.squeeze().ndim > 1:
            axes = 0 if x.ndim < 4 else tuple(range(x.ndim - 1))
        return root(jnp.sum(square(x), axes, keepdims=True))

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        share, least = at_step(clipping, step), at_step(eps, step)

        def leaf(g: Array, w: Array) -> tuple[Array]:
            return (g * _at_most(share * jnp.maximum(unit_norm(w), least), unit_norm(g)),)

        return per_leaf(leaf, grads, given(params, "adaptive_grad_clip"))[0]

    return from_rule(rule)

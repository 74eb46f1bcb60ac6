"""What to do with gradients that are not finite: zero the elements, or skip the step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jdl import tree
from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim.base import Optimizer, Params, State, Updates, next_count


class ZeroNansState(NamedTuple):
    """The state of `zero_nans`: a boolean for each leaf, whether the last gradient had any."""

    found_nan: Any


def zero_nans(infinite: bool = False) -> Optimizer:
    """Replaces elements that are NaN by 0.

    Args:
      infinite: whether infinite elements are replaced too.

    Returns:
      An `Optimizer`. As optax's, which leaves infinite elements.
    """

    def bad(g: Array) -> Array:
        return ~jnp.isfinite(g) if infinite else jnp.isnan(g)

    @promoting
    def init(params: Params) -> ZeroNansState:
        return ZeroNansState(jax.tree.map(lambda w: jnp.zeros((), jnp.bool_), params))

    @promoting
    def update(
        grads: Updates, state: ZeroNansState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ZeroNansState]:
        clean = jax.tree.map(lambda g: jnp.where(bad(g), jnp.zeros_like(g), g), grads)
        return clean, ZeroNansState(jax.tree.map(lambda g: jnp.any(bad(g)), grads))

    return Optimizer(init, update)


class FiniteState(NamedTuple):
    """The state of `apply_if_finite`.

    Attributes:
      consecutive: how many of the last gradients in a row were not finite.
      total: how many there were in all.
      last_finite: whether the last one was finite.
      inner: the inner optimizer's state.
    """

    consecutive: Int[Array, ""]
    total: Int[Array, ""]
    last_finite: Bool[Array, ""]
    inner: State


def apply_if_finite(inner: Optimizer, max_consecutive_errors: Any) -> Optimizer:
    """Skips the steps whose gradient is not finite: no update, and no change of the inner state.

    After more than `max_consecutive_errors` of them in a row they pass, so that a
    run that has diverged is seen to.

    Args:
      inner: the optimizer to protect.
      max_consecutive_errors: an integer in [0, inf), 0 is off, may be traced.

    Returns:
      An `Optimizer`. As optax's; here both sides are computed and one selected, so
      that lanes of a `vmap` cost what one does.
    """
    check_number("max_consecutive_errors", max_consecutive_errors, "[0, inf]")

    @promoting
    def init(params: Params) -> FiniteState:
        zero = jnp.zeros((), jnp.int32)
        return FiniteState(zero, jnp.zeros_like(zero), jnp.ones((), jnp.bool_), inner.init(params))

    @promoting
    def update(
        grads: Updates, state: FiniteState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, FiniteState]:
        finite = tree.all_finite(grads)
        consecutive = jnp.where(finite, 0, next_count(state.consecutive))
        total = jnp.where(finite, state.total, next_count(state.total))
        go_on = finite | (consecutive > jnp.asarray(max_consecutive_errors))
        updates, after = inner.update(grads, state.inner, params, **extra)
        updates = tree.where(go_on, updates, tree.zeros_like(updates))
        after = tree.where(go_on, after, state.inner)
        return updates, FiniteState(consecutive, total, finite, after)

    return Optimizer(init, update)

"""Optimizers whose step is found by a line search: a list of rates, or any `LineSearch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting, widest
from jdl.optim.base import Number, Optimizer, Params, Updates, at_step, next_count
from jdl.optim.solvers.direction import dot, flatten
from jdl.optim.solvers.line_search import (
    ACCEPTED,
    FAILED,
    LineSearch,
    search_along,
)


class SearchState(NamedTuple):
    """The state of an optimizer that searches for its step.

    Attributes:
      step: the number of updates made.
      learning_rate: the step taken last; 0 where none was acceptable.
      evaluations: evaluations of `value_fn` in the last update.
      stage: `ACCEPTED` or `FAILED`.
    """

    step: Int[Array, ""]
    learning_rate: Float[Array, ""]
    evaluations: Int[Array, ""]
    stage: Int[Array, ""]


@promoting
def _init(params: Params) -> SearchState:
    zero = jnp.zeros((), jnp.int32)
    dtype = flatten(params)[0].dtype
    return SearchState(zero, jnp.zeros((), dtype), zero, zero + ACCEPTED)


def _needs(name: str, params: Any, value_fn: Any) -> None:
    if params is None or value_fn is None:
        raise ValueError(
            f"{name} evaluates the objective: call update(grads, state, params, value_fn=fun), "
            "where fun(params) is the objective of the same batch."
        )


def line_search_descent(
    rates: Sequence[Number] | Array = (0.1, 0.5, 1.0, 5.0, 10.0), allow_increase: bool = False
) -> Optimizer:
    """Gradient descent that tries every rate of a list and keeps the one with the lowest loss.

        w -= best * g,    best = argmin over the rates of f(w - rate * g)

    The candidates are evaluated together, by `vmap`. The chosen rate is applied
    at every step: a well-known printed listing assigns the best candidate after
    its loop over the steps, and so moves once. Unless asked to, it takes no
    step that raises the loss.

    Args:
      rates: the candidates, each in (0, inf); an array, traced numbers or schedules.
      allow_increase: whether the best rate is taken even where it raises the loss.

    Returns:
      An `Optimizer` whose `update` needs `params` and `value_fn`; it evaluates
      `value_fn(params)` unless given `value`. A candidate that is not finite is
      never chosen.
    """
    listed = rates if isinstance(rates, jax.Array) else list(rates)
    for rate in [listed] if isinstance(listed, jax.Array) else listed:
        check_number("rates", rate, "(0, inf)")
    if len(listed) == 0:
        raise ValueError("`rates` must name at least one rate, got rates=().")

    @promoting
    def update(
        grads: Updates,
        state: SearchState,
        params: Params | None = None,
        *,
        value: Any = None,
        value_fn: Callable[[Params], Any] | None = None,
        **extra: Any,
    ) -> tuple[Updates, SearchState]:
        _needs("line_search_descent", params, value_fn)
        assert value_fn is not None
        dtype = state.learning_rate.dtype
        candidates = jnp.stack([jnp.asarray(at_step(r, state.step), dtype) for r in listed])

        def moved(rate: Any) -> Params:
            return jax.tree.map(lambda w, g: (w - rate * g).astype(w.dtype), params, grads)

        values = jax.vmap(lambda rate: value_fn(moved(rate)))(candidates).astype(dtype)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best = jnp.argmin(values)
        before = jnp.asarray(value_fn(params) if value is None else value, dtype)
        accept = jnp.isfinite(values[best]) & (allow_increase | (values[best] <= before))
        rate = jnp.where(accept, candidates[best], 0)
        updates = jax.tree.map(
            lambda w, g: jnp.where(accept, (-rate * g).astype(w.dtype), 0), params, grads
        )
        return updates, SearchState(
            next_count(state.step),
            rate,
            jnp.asarray(len(listed), jnp.int32),
            jnp.where(accept, ACCEPTED, FAILED).astype(jnp.int32),
        )

    return Optimizer(_init, update)


def scale_by_linesearch(
    linesearch: LineSearch,
    increase_factor: Number = 1.5,
    max_learning_rate: Number = jnp.inf,
) -> Optimizer:
    """Multiplies updates by the step that a line search finds along them.

        first = min(max_learning_rate, increase_factor * last)
        updates = t * updates,    t by `linesearch` from `first`

    For the end of a chain whose updates point downhill:
    `chain(sgd(1.0), scale_by_linesearch(backtracking_linesearch()))`. Where they
    point uphill, or no step is acceptable, the update is zero.

    Args:
      linesearch: `backtracking_linesearch(...)` or `zoom_linesearch(...)`.
      increase_factor: in (0, inf]; what the last step is multiplied by for the
        first trial of the next. The first search of all starts at 1.
      max_learning_rate: bound on the first trial; in (0, inf], inf is off.
        With `increase_factor=inf` every search starts there.

    Returns:
      An `Optimizer` whose `update` needs `params` and `value_fn`, and computes
      the value and gradient of the start unless given `value` and `grad`.

    Stands for optax's `scale_by_backtracking_linesearch` and
    `scale_by_zoom_linesearch`.
    """
    check_number("increase_factor", increase_factor, "(0, inf]")
    check_number("max_learning_rate", max_learning_rate, "(0, inf]")

    @promoting
    def update(
        grads: Updates,
        state: SearchState,
        params: Params | None = None,
        *,
        value: Any = None,
        grad: Updates | None = None,
        value_fn: Callable[[Params], Any] | None = None,
        **extra: Any,
    ) -> tuple[Updates, SearchState]:
        _needs("scale_by_linesearch", params, value_fn)
        assert value_fn is not None
        x, unflatten = flatten(params)
        d = flatten(grads)[0].astype(x.dtype)

        def fun(point: Any) -> Any:
            raw = value_fn(unflatten(point))
            return raw.astype(widest(raw.dtype, x.dtype))

        def value_and_slope(step: Any) -> tuple[Any, Any]:
            if not linesearch.needs_slope:
                at = fun(x + step * d)
                return at, jnp.zeros_like(at)
            at, gradient = jax.value_and_grad(fun)(x + step * d)
            return at, dot(gradient, d)

        gradient = jax.grad(fun)(x) if grad is None else flatten(grad)[0].astype(x.dtype)
        before = fun(x) if value is None else jnp.asarray(value, x.dtype)
        slope = dot(gradient, d)
        last = jnp.where(state.learning_rate > 0, state.learning_rate, 1)
        grown = jnp.where(state.step == 0, 1, last * at_step(increase_factor, state.step))
        first = jnp.minimum(grown, at_step(max_learning_rate, state.step))
        found = search_along(linesearch, value_and_slope, before, slope, first)
        rate = jnp.where((found.stage == ACCEPTED) & (slope < 0), found.step, 0).astype(x.dtype)
        updates = unflatten(jnp.where(rate > 0, rate * d, 0).astype(x.dtype))
        return updates, SearchState(
            next_count(state.step),
            rate,
            found.evaluations,
            jnp.where(rate > 0, ACCEPTED, FAILED).astype(jnp.int32),
        )

    return Optimizer(_init, update)

"""A rule for the search direction, on flat vectors, and the optimizer that follows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from jdl._promotion import at_least_float32, promoting, widest
from jdl.optim.base import Number, Optimizer, Params, Updates, at_step, next_count
from jdl.optim.solvers.line_search import ACCEPTED, FAILED, LineSearch, search_along
from jdl.tree import root

Vector = Float[Array, "n"]


class Direction(NamedTuple):
    """How a method turns gradients into a direction, as two pure functions of flat vectors.

    Attributes:
      init: `init(x) -> memory`.
      propose: `propose(memory, fun, x, gradient, s, y, learn, reset, active) ->
        (memory, direction)`. `fun` is the objective of a flat vector. `s` and
        `y` are the last change of `x` and of the gradient, to learn from if
        `learn` holds (then they are finite). `reset` clears the memory. Unless
        `active` holds, the direction is not used and need not be computed.
    """

    init: Callable[[Any], Any]
    propose: Callable[..., tuple[Any, Any]]


def flatten(params: Params) -> tuple[Vector, Callable[[Vector], Params]]:
    """The parameters as one vector, float32 or wider, and the way back to the tree.

    Raises:
      TypeError: a leaf is complex or an integer; those have no direction here.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            name = jax.tree_util.keystr(path) or "the parameter"
            raise TypeError(f"Parameters must be real floating point, got {name} of dtype {dtype}.")
    params = jax.tree.map(jnp.asarray, params)
    flat, unravel = ravel_pytree(params)
    wide = flat.astype(at_least_float32(flat))
    return wide, lambda x: unravel(x.astype(flat.dtype))


def dot(a: Vector, b: Vector) -> Float[Array, ""]:
    """The inner product, in full precision also where matrix units would round it."""
    return jnp.dot(a, b, precision="highest")


def largest(x: Vector) -> Float[Array, ""]:
    """The largest absolute entry."""
    return jnp.max(jnp.abs(x), initial=0)


def unit(x: Vector) -> tuple[Vector, Float[Array, ""]]:
    """`x` divided by its Euclidean norm, or zeros for zeros, and the norm."""
    size = largest(x)
    size = jnp.where(size > 0, size, 1)
    # Divided by the largest entry first, so that squares do not overflow.
    length = size * root(dot(x / size, x / size))
    return x / jnp.where(length > 0, length, 1), length


class DirectionState(NamedTuple):
    """The state of an optimizer that follows a `Direction`.

    Attributes:
      step: the number of updates made.
      memory: what the direction has learnt.
      params: the parameters of the last update, flat.
      gradient: the gradient there, flat.
      learning_rate: the last step along the direction.
      evaluations: evaluations of `value_fn` in the last update's line search.
      stage: `ACCEPTED` or `FAILED`; after a failure the update was zero and the
        next one forgets what was learnt.
    """

    step: Int[Array, ""]
    memory: PyTree
    params: Vector
    gradient: Vector
    learning_rate: Float[Array, ""]
    evaluations: Int[Array, ""]
    stage: Int[Array, ""]


def follow(
    direction: Direction,
    learning_rate: Number | None,
    linesearch: LineSearch | None,
    name: str,
    needs_value_fn: bool = False,
) -> Optimizer:
    """The optimizer that moves along `direction`, by a line search or by a given rate.

    Args:
      direction: the rule.
      learning_rate: a number or schedule that the direction is multiplied by
        before the search; None is 1.
      linesearch: the search, or None to take `learning_rate` as the step.
      name: what error messages call it.
      needs_value_fn: whether the direction itself evaluates the objective.

    Returns:
      An `Optimizer` whose `update` needs `params`, and `value_fn` where there
      is a line search or `needs_value_fn`; it evaluates `value_fn(params)` for
      the starting value unless it is given `value`.
    """

    @promoting
    def init(params: Params) -> DirectionState:
        x, _ = flatten(params)
        zero = jnp.zeros((), jnp.int32)
        rate = jnp.zeros((), x.dtype)
        return DirectionState(
            zero, direction.init(x), jnp.copy(x), jnp.zeros_like(x), rate, zero, zero + ACCEPTED
        )

    @promoting
    def update(
        grads: Updates,
        state: DirectionState,
        params: Params | None = None,
        *,
        value: Any = None,
        value_fn: Callable[[Params], Any] | None = None,
        **extra: Any,
    ) -> tuple[Updates, DirectionState]:
        if params is None:
            raise ValueError(f"{name} needs the parameters: call update(grads, state, params).")
        if value_fn is None and (needs_value_fn or linesearch is not None):
            raise ValueError(
                f"{name} evaluates the objective: call update(grads, state, params, "
                "value_fn=fun), where fun(params) is the objective of the same batch."
            )
        x, unflatten = flatten(params)
        gradient = flatten(grads)[0].astype(x.dtype)

        def fun(point: Vector) -> Any:
            assert value_fn is not None
            value = value_fn(unflatten(point))
            return value.astype(widest(value.dtype, x.dtype))

        failed = state.stage == FAILED
        s, y = x - state.params, gradient - state.gradient
        learn = (state.step > 0) & ~failed & jnp.isfinite(largest(s) + largest(y))
        memory, d = direction.propose(
            state.memory, fun, x, gradient, s, y, learn, failed, jnp.array(True)
        )
        rate = 1.0 if learning_rate is None else at_step(learning_rate, state.step)
        d = rate * d
        step: Any = jnp.ones((), x.dtype)
        evaluations: Any = 0
        stage: Any = ACCEPTED
        if linesearch is not None:
            slope = dot(gradient, d)
            uphill = ~(slope < 0)
            d = jnp.where(uphill, -unit(gradient)[0], d)
            slope = jnp.where(uphill, dot(gradient, d), slope)
            found = search_along(
                linesearch,
                _along(fun, x, d, linesearch.needs_slope),
                fun(x) if value is None else value,
                slope,
            )
            step = jnp.where(found.stage == ACCEPTED, found.step, 0).astype(x.dtype)
            evaluations, stage = found.evaluations, found.stage
        updates = unflatten(jnp.where(step > 0, step * d, 0).astype(x.dtype))
        return updates, DirectionState(
            next_count(state.step),
            memory,
            x,
            gradient,
            (step * rate).astype(x.dtype),
            jnp.asarray(evaluations, jnp.int32),
            jnp.asarray(stage, jnp.int32),
        )

    return Optimizer(init, update)


def _along(
    fun: Callable[[Vector], Any], x: Vector, d: Vector, needs_slope: bool
) -> Callable[[Any], tuple[Any, Any]]:
    """Value and slope of `fun` at `x + step * d`, as a function of the step."""

    def value_and_slope(step: Any) -> tuple[Any, Any]:
        if not needs_slope:
            value = fun(x + step * d)
            return value, jnp.zeros_like(value)
        value, gradient = jax.value_and_grad(fun)(x + step * d)
        return value, dot(gradient, d)

    return value_and_slope

"""Residuals with their Jacobian, and Gauss-Newton, which takes them for linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdl._promotion import promoting, widest
from jdl.optim.base import Number, Optimizer, Params, Updates
from jdl.optim.solvers.direction import Direction, DirectionState, Vector, flatten, follow
from jdl.optim.solvers.line_search import STRONG_WOLFE, LineSearch

Residuals = Callable[[Params], Any]


def flat_residuals(residual_fn: Residuals, unflatten: Any, dtype: Any) -> Callable[[Vector], Any]:
    """The residuals of a flat vector, as one flat vector in `dtype` or wider."""

    def residuals(x: Vector) -> Any:
        leaves = [jnp.ravel(r) for r in jax.tree.leaves(residual_fn(unflatten(x)))]
        r = jnp.concatenate(leaves)
        return r.astype(widest(r.dtype, dtype))

    return residuals


def with_jacobian(residuals: Callable[[Vector], Any], x: Vector) -> tuple[Any, Any]:
    """Residuals and Jacobian, in the mode that takes fewer passes."""
    count = jax.eval_shape(residuals, x).size
    jacobian = (jax.jacfwd if x.size <= count else jax.jacrev)(residuals)
    return residuals(x), jacobian(x)


def half_square(r: Array) -> Float[Array, ""]:
    """Half the sum of squares."""
    return 0.5 * jnp.dot(r, r, precision="highest")


def both_given(
    name: str, residual_fn: Residuals | None, params: Params | None
) -> tuple[Residuals, Params]:
    """What an update of least squares needs; raises ValueError where one is missing."""
    if residual_fn is None or params is None:
        raise ValueError(
            f"{name} needs the parameters and the residuals: call update(grads, state, params, "
            "residual_fn=fun), where fun(params) is the vector of residuals."
        )
    return residual_fn, params


def gauss_newton_direction(residual_fn: Residuals, unflatten: Any) -> Direction:
    """The direction of Gauss-Newton; see `gauss_newton` for the formula."""

    @promoting
    def init(x: Vector) -> tuple[()]:
        return ()

    @promoting
    def propose(
        memory: tuple[()],
        fun: Any,
        x: Vector,
        gradient: Vector,
        s: Vector,
        y: Vector,
        learn: Any,
        reset: Any,
        active: Any,
    ) -> tuple[tuple[()], Vector]:
        residuals = flat_residuals(residual_fn, unflatten, x.dtype)

        def solve(_: None) -> Vector:
            r, J = with_jacobian(residuals, x)
            return -jnp.linalg.lstsq(J, r)[0].astype(x.dtype)

        return memory, jax.lax.cond(active, solve, lambda _: jnp.zeros_like(x), None)

    return Direction(init, propose)


def gauss_newton(
    learning_rate: Number | None = None, linesearch: LineSearch | None = STRONG_WOLFE
) -> Optimizer:
    """Gauss-Newton: the step that would end a linear least-squares problem.

        d = argmin_d |J d + r|    (the shortest, where J has not full rank)
        w += t d, t by a line search

    Args:
      learning_rate: a number or schedule that multiplies `d`; None is 1.
      linesearch: a `LineSearch`, or None to step by `learning_rate`.

    Returns:
      An `Optimizer` whose `update` needs `params` and `residual_fn`, the
      residuals of the parameters; `grads` is to be the gradient of half their
      sum of squares, and `value` that sum if given.

    Nocedal and Wright, Numerical Optimization, section 10.3.
    """

    def inner(residual_fn: Residuals, unflatten: Any) -> Optimizer:
        direction = gauss_newton_direction(residual_fn, unflatten)
        return follow(direction, learning_rate, linesearch, "gauss_newton")

    @promoting
    def init(params: Params) -> DirectionState:
        return inner(lambda p: p, lambda x: x).init(params)

    @promoting
    def update(
        grads: Updates,
        state: DirectionState,
        params: Params | None = None,
        *,
        value: Any = None,
        residual_fn: Residuals | None = None,
        **extra: Any,
    ) -> tuple[Updates, DirectionState]:
        residual_fn, params = both_given("gauss_newton", residual_fn, params)
        flat = flat_residuals(residual_fn, lambda p: p, jnp.float32)
        return inner(residual_fn, flatten(params)[1]).update(
            grads, state, params, value=value, value_fn=lambda p: half_square(flat(p))
        )

    return Optimizer(init, update)

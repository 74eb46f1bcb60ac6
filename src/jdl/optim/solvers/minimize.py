"""`minimize`: a whole solve as one compiled loop that vmaps over starts and over numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl._checks import check_choice
from jdl._promotion import at_least_float32, promoting
from jdl.optim.base import Number, Optimizer, Params, State, apply_updates
from jdl.optim.solvers.descend import Stop, descend
from jdl.optim.solvers.direction import Direction, flatten, largest
from jdl.optim.solvers.lanes import loop_lanes
from jdl.optim.solvers.least_squares import LEAST_SQUARES, least_squares
from jdl.optim.solvers.line_search import STRONG_WOLFE, LineSearch
from jdl.optim.solvers.newton import newton_cg_direction, newton_direction
from jdl.optim.solvers.quasi_newton import bfgs_direction, lbfgs_direction
from jdl.optim.solvers.solution import (
    CONVERGED,
    MAX_ITERATIONS,
    NOT_FINITE,
    RUNNING,
    Result,
)

DIRECTIONS: dict[str, Callable[[], Direction]] = {
    "lbfgs": lbfgs_direction,
    "bfgs": bfgs_direction,
    "newton": newton_direction,
    "newton_cg": newton_cg_direction,
}


def minimize(
    fun: Callable[[Params], Any],
    x0: Params,
    method: str | Direction | Optimizer = "lbfgs",
    *,
    gradient_tolerance: Number | None = None,
    value_tolerance: Number = 0.0,
    max_iterations: Number = 1000,
    linesearch: LineSearch | None = None,
) -> Result:
    """Minimizes a smooth function of a tree, from the first evaluation to the last in one loop.

    Each turn of the loop evaluates `fun` and its gradient once, whether the
    point belongs to a line search or ends one; under `vmap` all lanes evaluate
    together and none waits for another's line search. A lane that ends keeps
    its result. For deterministic objectives (full batch): line searches and
    second-order methods do badly on mini-batches.

    It is traced anew at each call; put it under `jax.jit` to call it often.

    Args:
      fun: the objective, `params -> scalar`; for the methods of least squares
        the residuals, `params -> vector`, of which half the sum of squares is
        minimized.
      x0: where to start: a tree of real floating-point arrays.
      method: "lbfgs", "bfgs", "newton", "newton_cg", "gauss_newton" or
        "levenberg_marquardt"; a `Direction` for other settings, as in
        `lbfgs_direction(memory_size=20)`; or any `Optimizer`, which then makes
        one update a turn (with `value` and `value_fn`) and of which the best
        point is returned.
      gradient_tolerance: converged when no entry of the gradient is larger; in
        [0, inf). None is a test without units: the next step is foreseen to lower
        the value by at most 1e-16 (in float32 1e-12) of itself, or by nothing beside
        what the solve has lowered it by, and the gradient has fallen to a
        thousandth; for an `Optimizer`, that no entry is larger
        than 1e-8 (1e-6) of the largest that was met.
      value_tolerance: converged also when a step lowers the value by at most
        this times the larger of `|f|` before and after; 0 is off.
      max_iterations: bound on the steps; in [0, inf).
      linesearch: for the methods that search; None is `zoom_linesearch()`.

    Returns:
      A `Result`: the best parameters, value, gradient norm, iterations,
      evaluations and status. Its value is never above that of `x0`.

    Raises:
      ValueError: an unknown method, or a number out of range.
      TypeError: `x0` has complex or integer leaves.

    SciPy's `minimize` has `gradient_tolerance=1e-5`; its L-BFGS-B also has a
    value tolerance of 2e-9, off here.

    >>> import jax.numpy as jnp
    >>> result = minimize(lambda w: jnp.sum((w - 3.0) ** 2), jnp.zeros(2))
    >>> result.params.tolist(), int(result.status)
    ([3.0, 3.0], 0)
    """
    stop = Stop(gradient_tolerance, value_tolerance, max_iterations).check()
    if isinstance(method, Optimizer):
        optimizer = method
        return jax.jit(lambda x: _updates(fun, optimizer, x, stop))(x0)
    if isinstance(method, str):
        check_choice("method", method, [*DIRECTIONS, *LEAST_SQUARES])
        if method in LEAST_SQUARES:
            return least_squares(
                fun,
                x0,
                method,
                gradient_tolerance=gradient_tolerance,
                value_tolerance=value_tolerance,
                max_iterations=max_iterations,
                linesearch=linesearch,
            )
        direction = DIRECTIONS[method]()
    else:
        direction = method
    search = STRONG_WOLFE if linesearch is None else linesearch
    return jax.jit(lambda x: descend(fun, direction, search, x, stop))(x0)


class _Updates(NamedTuple):
    """What the loop of an `Optimizer` carries: where it is, and the best it has seen."""

    params: Params
    state: State
    value: Float[Array, ""]
    best: Params
    best_value: Float[Array, ""]
    best_norm: Float[Array, ""]
    largest_norm: Float[Array, ""]
    evaluations: Int[Array, ""]
    status: Int[Array, ""]


@promoting
def _updates(fun: Callable[[Params], Any], optimizer: Optimizer, x0: Params, stop: Stop) -> Result:
    """One update of `optimizer` a turn, which may go uphill; the best point is kept apart."""
    flatten(x0)
    x0 = jax.tree.map(jnp.asarray, x0)
    value_and_grad = jax.value_and_grad(fun)
    dtype = at_least_float32(jax.eval_shape(fun, x0))
    infinity = jnp.full((), jnp.inf, dtype)

    def body(loop: _Updates) -> _Updates:
        raw, grads = value_and_grad(loop.params)
        value = raw.astype(dtype)
        norm = largest(flatten(grads)[0]).astype(dtype)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        running = loop.status == RUNNING
        starting = loop.evaluations == 0
        better = running & finite & (value < loop.best_value)

        def keep(now: Any, before: Any, condition: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(condition, a, b), now, before)

        largest_norm = jnp.maximum(loop.largest_norm, jnp.where(finite, norm, 0))
        if stop.gradient_tolerance is None:
            near = norm <= max(1e-8, 8 * float(jnp.finfo(dtype).eps)) * jnp.where(
                starting, 0, largest_norm
            )
        else:
            near = norm <= stop.gradient_tolerance
        near |= ~starting & stop.small_decrease(loop.value, value)
        status = jnp.where(loop.evaluations >= stop.max_iterations, MAX_ITERATIONS, RUNNING)
        status = jnp.where(near, CONVERGED, status)
        status = jnp.where(finite, status, NOT_FINITE)
        updates, state = optimizer.update(
            grads, loop.state, loop.params, value=raw, grad=grads, value_fn=fun
        )
        return _Updates(
            params=apply_updates(loop.params, updates),
            state=state,
            value=value,
            best=keep(loop.params, loop.best, better),
            best_value=jnp.where(better | (starting & running), value, loop.best_value),
            best_norm=jnp.where(better | (starting & running), norm, loop.best_norm),
            largest_norm=largest_norm,
            evaluations=loop.evaluations + running,
            status=jnp.where(running, status, loop.status),
        )

    zero = jnp.zeros((), jnp.int32)
    state = optimizer.init(x0)
    nothing = jnp.zeros_like(infinity)
    start = _Updates(x0, state, infinity, x0, infinity, infinity, nothing, zero, zero + RUNNING)
    end = loop_lanes(lambda loop: loop.status == RUNNING, body, start)
    return Result(
        end.best, end.best_value, end.best_norm, end.evaluations - 1, end.evaluations, end.status
    )

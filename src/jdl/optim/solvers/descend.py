"""The loop of every solver that follows a `Direction` by a line search: one evaluation a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting, widest
from jdl.optim.base import Params
from jdl.optim.solvers.direction import Direction, Vector, dot, flatten, largest, unit
from jdl.optim.solvers.lanes import loop_lanes
from jdl.optim.solvers.line_search import ACCEPTED, LineSearch, Search
from jdl.optim.solvers.solution import (
    CONVERGED,
    LINE_SEARCH_FAILED,
    MAX_ITERATIONS,
    NOT_FINITE,
    RUNNING,
    STALLED,
    Result,
)

PATIENCE = 20
"""Steps in a row without a lower value or a smaller gradient after which a solve has stalled."""


class Stop(NamedTuple):
    """When a solver stops, in the terms of `minimize`."""

    gradient_tolerance: Any
    value_tolerance: Any
    max_iterations: Any

    def check(self) -> Stop:
        """Itself; raises ValueError for a number out of range."""
        for name, number in self._asdict().items():
            if number is not None:
                check_number(name, number, "[0, inf)")
        return self

    def small_decrease(self, before: Any, after: Any) -> Any:
        """Whether a step from one value to the other is within the value tolerance."""
        size = jnp.maximum(jnp.abs(before), jnp.abs(after))
        within = before - after <= self.value_tolerance * size
        return (self.value_tolerance > 0) & within & (after <= before)


def negligible(foreseen: Any, value: Any, start_value: Any) -> Any:
    """Whether a decrease is nothing beside the value, or beside what it has fallen by already.

    The units of the value cancel, and those of the parameters have no part in it.
    """
    eps = jnp.finfo(value.dtype).eps
    share = max(1e-8, 8 * float(eps)) ** 2
    return (foreseen <= share * jnp.abs(value)) | (foreseen <= eps**2 * (start_value - value))


class _Descent(NamedTuple):
    """What the loop carries from one evaluation to the next."""

    x: Vector
    value: Float[Array, ""]
    gradient: Vector
    direction: Vector
    memory: Any
    search: Search
    fresh: Bool[Array, ""]
    start_value: Float[Array, ""]
    best_value: Float[Array, ""]
    best_norm: Float[Array, ""]
    largest_norm: Float[Array, ""]
    stalled: Int[Array, ""]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    status: Int[Array, ""]


@promoting
def descend(
    fun: Callable[[Params], Any],
    direction: Direction,
    linesearch: LineSearch,
    x0: Params,
    stop: Stop,
) -> Result:
    """The solve along `direction`: one evaluation a turn, all else is its bookkeeping.

    The first turn evaluates the start, as a step of length 0 along a zero
    direction, so that the objective is compiled once. When a search fails the
    memory is dropped and the search repeated along the negative gradient; when
    that fails too, so has the solve.
    """
    x, unflatten = flatten(x0)

    def flat_fun(point: Vector) -> Any:
        value = fun(unflatten(point))
        return value.astype(widest(value.dtype, x.dtype))

    value_and_grad = jax.value_and_grad(flat_fun)
    dtype = jax.eval_shape(flat_fun, x).dtype
    infinity = jnp.full((), jnp.inf, dtype)

    def body(loop: _Descent) -> _Descent:
        trial = loop.x + loop.search.step.astype(x.dtype) * loop.direction
        value, gradient = value_and_grad(trial)
        norm = largest(gradient).astype(dtype)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        search = linesearch.advance(loop.search, value, dot(gradient, loop.direction))

        running = loop.status == RUNNING
        starting = running & (loop.iterations < 0)
        # Within rounding a search may accept a higher point; never above the start.
        accepted = (search.stage == ACCEPTED) & (value <= loop.start_value)
        taken = running & finite & (starting | accepted)
        failed = running & ~starting & ~taken & (search.stage >= ACCEPTED)
        stepped = taken & ~starting
        restart = failed & ~loop.fresh
        moved = taken | restart

        point = jnp.where(taken, trial, loop.x)
        value_here = jnp.where(taken | starting, value, loop.value)
        gradient_here = jnp.where(taken | starting, gradient, loop.gradient)
        s, y = trial - loop.x, gradient - loop.gradient
        memory, d = direction.propose(
            loop.memory, flat_fun, point, gradient_here, s, y, stepped, restart, moved
        )
        slope = dot(gradient_here, d)
        steepest, length = unit(gradient_here)
        uphill = restart | ~(slope < 0)
        d = jnp.where(uphill, -steepest, d)
        slope = jnp.where(uphill, -length, slope)
        # A step of length 1 may be lost in the rounding of a large value.
        visible = 100 * jnp.finfo(dtype).eps * jnp.abs(value_here / slope)
        first = jnp.where(starting | restart, jnp.where(visible > 1, visible, 1), 1)
        fresh_search = linesearch.start(value_here, slope.astype(dtype), first)
        search = jax.tree.map(lambda new, old: jnp.where(moved, new, old), fresh_search, search)

        iterations = loop.iterations + taken
        better = (value < loop.best_value) | (norm < 0.9 * loop.best_norm)
        stalled = jnp.where(better, 0, loop.stalled + 1)
        stalled = jnp.where(stepped, stalled, loop.stalled)
        if stop.gradient_tolerance is None:
            foreseen = jnp.abs(slope).astype(dtype) / 2
            near = stepped & ~uphill & negligible(foreseen, value, loop.start_value)
            # A direction may be short for reasons of its own; then the gradient has not fallen.
            near &= norm <= 1e-3 * loop.largest_norm
            near |= norm == 0
        else:
            near = norm <= stop.gradient_tolerance
        near |= stepped & stop.small_decrease(loop.value, value)
        status = jnp.where(stalled >= PATIENCE, STALLED, RUNNING)
        status = jnp.where(taken & (iterations >= stop.max_iterations), MAX_ITERATIONS, status)
        status = jnp.where(taken & near, CONVERGED, status)
        status = jnp.where(failed & loop.fresh, LINE_SEARCH_FAILED, status)
        status = jnp.where(starting & ~finite, NOT_FINITE, status)
        return _Descent(
            x=point,
            value=value_here,
            gradient=gradient_here,
            direction=jnp.where(moved, d, loop.direction),
            memory=memory,
            search=search,
            fresh=jnp.where(moved, restart | starting, loop.fresh),
            start_value=jnp.where(starting, value, loop.start_value),
            best_value=jnp.where(taken, jnp.minimum(value, loop.best_value), loop.best_value),
            best_norm=jnp.where(taken, jnp.minimum(norm, loop.best_norm), loop.best_norm),
            largest_norm=jnp.where(taken, jnp.maximum(norm, loop.largest_norm), loop.largest_norm),
            stalled=stalled,
            iterations=iterations,
            evaluations=loop.evaluations + running,
            status=jnp.where(running, status, loop.status),
        )

    zero = jnp.zeros((), jnp.int32)
    start = _Descent(
        x=x,
        value=infinity,
        gradient=jnp.zeros_like(x),
        direction=jnp.zeros_like(x),
        memory=direction.init(x),
        search=linesearch.start(infinity, jnp.zeros((), dtype), 0.0),
        fresh=jnp.array(True),
        start_value=infinity,
        best_value=infinity,
        best_norm=infinity,
        largest_norm=jnp.zeros((), dtype),
        stalled=zero,
        iterations=zero - 1,
        evaluations=zero,
        status=zero + RUNNING,
    )
    end = loop_lanes(lambda loop: loop.status == RUNNING, body, start)
    return Result(
        unflatten(end.x),
        end.value,
        largest(end.gradient),
        jnp.maximum(end.iterations, 0),
        end.evaluations,
        end.status,
    )

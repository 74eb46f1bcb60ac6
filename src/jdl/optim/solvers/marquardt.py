"""Levenberg-Marquardt: one trial point a turn, with a damping that follows what it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting, widest
from jdl.optim.base import Number, Optimizer, Params, Updates, next_count
from jdl.optim.solvers.descend import Stop
from jdl.optim.solvers.direction import Vector, dot, flatten, largest
from jdl.optim.solvers.gauss_newton import (
    Residuals,
    both_given,
    flat_residuals,
    half_square,
    with_jacobian,
)
from jdl.optim.solvers.lanes import loop_lanes
from jdl.optim.solvers.solution import (
    CONVERGED,
    LINE_SEARCH_FAILED,
    MAX_ITERATIONS,
    NOT_FINITE,
    RUNNING,
    STALLED,
    Result,
)
from jdl.tree import root

REJECTIONS = 40
"""Rejected steps in a row after which Levenberg-Marquardt gives up."""


COSINE = 1e-8
"""A cosine between the residuals and a column of `J` that counts as a right angle."""


class MarquardtState(NamedTuple):
    """The state of Levenberg-Marquardt.

    Attributes:
      step: the number of updates made.
      damping: what multiplies the squared column norms.
      growth: what `damping` is multiplied by at the next rejection.
      squared_norms: the largest squared norm that each column of `J` has had, flat.
      accepted: whether the last update was not zero.
    """

    step: Int[Array, ""]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    squared_norms: Vector
    accepted: Any


def _scaled(squared_norms: Vector, J: Array) -> tuple[Vector, Vector]:
    """The running maximum of the columns' squared norms, and it with 1 for zeros."""
    largest_yet = jnp.maximum(squared_norms, jnp.sum(J * J, 0).astype(squared_norms.dtype))
    return largest_yet, jnp.where(largest_yet > 0, largest_yet, 1)


def _damped_step(r: Array, J: Array, damping: Any, scale: Vector) -> tuple[Vector, Any]:
    """The minimizer of `|J d + r|^2 + damping |D d|^2`, `D^2 = scale`, and its promise.

    By QR of `J` above `sqrt(damping) D`, never forming `J^T J`, whose condition
    number is squared. The promise is the decrease of the linear model.
    """
    D = jnp.sqrt(damping * scale).astype(J.dtype)
    Q, R = jnp.linalg.qr(jnp.concatenate([J, jnp.diag(D)]))
    right = jnp.dot(r, Q[: r.size], precision="highest")
    d = -jax.scipy.linalg.solve_triangular(R, right)
    promise = 0.5 * (dot(right, right) + dot(D * d, D * d))
    return d, promise


def _regulate(damping: Any, growth: Any, ratio: Any, accepted: Any) -> tuple[Any, Any]:
    """Nielsen's rule: less damping the better the model foretold the decrease."""
    shrink = jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
    return (
        jnp.where(accepted, damping * shrink, damping * growth),
        jnp.where(accepted, 2, growth * 2),
    )


def levenberg_marquardt(damping: Number = 1e-3) -> Optimizer:
    """Levenberg-Marquardt: Gauss-Newton with a damping that follows how well the model foretells.

        d = argmin_d |J d + r|^2 + damping |D d|^2,   D_i^2 = max over the steps of |J_i|^2
        ratio = (f(w) - f(w + d)) / (f(w) - model(d)),   f = |r|^2 / 2
        ratio > 1e-4:  w += d; damping *= max(1/3, 1 - (2 ratio - 1)^3); growth = 2
        else:          damping *= growth; growth *= 2

    One update evaluates one trial point; a rejected one gives a zero update.

    Args:
      damping: where the damping starts, relative to the columns of `J`; in (0, inf).

    Returns:
      An `Optimizer` whose `update` needs `params` and `residual_fn`, the
      residuals of the parameters; `grads` gives the updates their dtypes only.

    Levenberg, 1944; Marquardt, 1963; the scaling of More, 1978; the rule of
    Nielsen, 1999. SciPy's `least_squares(method="lm")` keeps a trust region
    instead, which the damping here stands for.
    """
    check_number("damping", damping, "(0, inf)")

    @promoting
    def init(params: Params) -> MarquardtState:
        x, _ = flatten(params)
        return MarquardtState(
            jnp.zeros((), jnp.int32),
            jnp.asarray(damping, x.dtype),
            jnp.asarray(2, x.dtype),
            jnp.zeros_like(x),
            jnp.array(True),
        )

    @promoting
    def update(
        grads: Updates,
        state: MarquardtState,
        params: Params | None = None,
        *,
        residual_fn: Residuals | None = None,
        **extra: Any,
    ) -> tuple[Updates, MarquardtState]:
        residual_fn, params = both_given("levenberg_marquardt", residual_fn, params)
        x, unflatten = flatten(params)
        residuals = flat_residuals(residual_fn, unflatten, x.dtype)
        r, J = with_jacobian(residuals, x)
        norms, scale = _scaled(state.squared_norms, J)
        d, promise = _damped_step(r, J, state.damping, scale)
        ratio = (half_square(r) - half_square(residuals(x + d))) / promise
        accepted = ratio > 1e-4
        damping, growth = _regulate(state.damping, state.growth, ratio, accepted)
        updates = unflatten(jnp.where(accepted, d, 0).astype(x.dtype))
        return updates, MarquardtState(
            next_count(state.step),
            damping.astype(x.dtype),
            growth.astype(x.dtype),
            norms,
            accepted,
        )

    return Optimizer(init, update)


class _Marquardt(NamedTuple):
    """What the loop carries from one trial point to the next."""

    x: Vector
    r: Array
    J: Array
    step: Vector
    promise: Any
    damping: Any
    growth: Any
    squared_norms: Vector
    rejections: Int[Array, ""]
    iterations: Int[Array, ""]
    evaluations: Int[Array, ""]
    status: Int[Array, ""]


@promoting
def marquardt_solve(
    residuals: Callable[[Vector], Any],
    x: Vector,
    unflatten: Any,
    damping: Any,
    stop: Stop,
) -> Result:
    """One trial point a turn; the first is the start, as a step of zero that promises infinity."""
    shape = jax.eval_shape(residuals, x)
    zero = jnp.zeros((), jnp.int32)

    def body(loop: _Marquardt) -> _Marquardt:
        trial = loop.x + loop.step
        r, J = with_jacobian(residuals, trial)
        before, value = half_square(loop.r), half_square(r)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(J))
        running = loop.status == RUNNING
        starting = running & (loop.iterations < 0)
        ratio = (before - value) / loop.promise
        taken = running & finite & (starting | (ratio > 1e-4))
        stepped = taken & ~starting
        rejected = running & ~taken & ~starting

        damping, growth = _regulate(loop.damping, loop.growth, ratio, stepped)
        damping = jnp.where(starting, loop.damping, damping).astype(x.dtype)
        growth = jnp.where(starting, loop.growth, growth).astype(x.dtype)
        here = taken | starting
        kept = ((trial, loop.x), (r, loop.r), (J, loop.J))
        point, r, J = (jnp.where(here, new, old) for new, old in kept)
        norms, scale = _scaled(loop.squared_norms, J)
        step, promise = _damped_step(r, J, damping, scale)
        step = step.astype(x.dtype)

        iterations = loop.iterations + taken
        rejections = jnp.where(rejected, loop.rejections + 1, 0)
        gradient = jnp.dot(r, J, precision="highest")
        eps = jnp.finfo(x.dtype).eps
        if stop.gradient_tolerance is None:
            lengths = root(jnp.sum(J * J, 0)) * root(dot(r, r))
            right_angle = max(COSINE, 4 * float(eps))
            near = jnp.all(jnp.abs(gradient) <= right_angle * lengths)
            # Columns that are nearly parallel may reach far together what each alone cannot.
            near &= promise <= 4 * x.size * right_angle**2 * half_square(r)
            near |= stepped & jnp.all(jnp.abs(step) <= 4 * eps * jnp.abs(point))
        else:
            near = largest(gradient) <= stop.gradient_tolerance
        near |= stepped & stop.small_decrease(before, value)
        # The next step vanishes in the rounding of the point, or its promise in that of the value.
        lost = jnp.all(jnp.abs(step) <= eps * jnp.abs(point))
        lost |= rejected & (loop.promise <= eps * before)
        status = jnp.where(rejections >= REJECTIONS, LINE_SEARCH_FAILED, RUNNING)
        status = jnp.where(lost, STALLED, status)
        status = jnp.where(taken & (iterations >= stop.max_iterations), MAX_ITERATIONS, status)
        status = jnp.where(taken & near, CONVERGED, status)
        status = jnp.where(starting & ~finite, NOT_FINITE, status)
        return _Marquardt(
            x=jnp.where(running, point, loop.x),
            r=jnp.where(running, r, loop.r),
            J=jnp.where(running, J, loop.J),
            step=step,
            promise=promise,
            damping=damping,
            growth=growth,
            squared_norms=norms,
            rejections=rejections,
            iterations=iterations,
            evaluations=loop.evaluations + running,
            status=jnp.where(running, status, loop.status),
        )

    start = _Marquardt(
        x=x,
        r=jnp.zeros(shape.shape, shape.dtype),
        J=jnp.zeros((shape.size, x.size), widest(shape.dtype, x.dtype)),
        step=jnp.zeros_like(x),
        promise=jnp.ones((), shape.dtype),
        damping=jnp.asarray(damping, x.dtype),
        growth=jnp.asarray(2, x.dtype),
        squared_norms=jnp.zeros_like(x),
        rejections=zero,
        iterations=zero - 1,
        evaluations=zero,
        status=zero + RUNNING,
    )
    end = loop_lanes(lambda loop: loop.status == RUNNING, body, start)
    gradient = jnp.dot(end.r, end.J, precision="highest")
    return Result(
        unflatten(end.x),
        half_square(end.r),
        largest(gradient),
        jnp.maximum(end.iterations, 0),
        end.evaluations,
        end.status,
    )

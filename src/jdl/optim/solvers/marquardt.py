"""Levenberg-Marquardt: one trial point a turn, within a trust region."""

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


DAMPING_TURNS = 10
"""Turns of Newton's method for the damping that puts a step on the region's edge."""


class MarquardtState(NamedTuple):
    """The state of Levenberg-Marquardt.

    Attributes:
      step: the number of updates made.
      radius: of the trust region; meaningless before the first update.
      squared_norms: the largest squared norm that each column of `J` has had, flat.
      accepted: whether the last update was not zero.
    """

    step: Int[Array, ""]
    radius: Float[Array, ""]
    squared_norms: Vector
    accepted: Any


class _Step(NamedTuple):
    """A step within the trust region.

    Attributes:
      d: the step.
      length: its length `|D d|`.
      damping: what multiplies `|D d|^2`; 0 if the step without it lies within.
      promise: the decrease of the linear model.
    """

    d: Vector
    length: Any
    damping: Any
    promise: Any


def _scaled(squared_norms: Vector, J: Array) -> tuple[Vector, Vector]:
    """The running maximum of the columns' squared norms, and its root with 1 for zeros."""
    largest_yet = jnp.maximum(squared_norms, jnp.sum(J * J, 0).astype(squared_norms.dtype))
    return largest_yet, jnp.sqrt(jnp.where(largest_yet > 0, largest_yet, 1))


def _first_radius(radius: Any, D: Vector, x: Vector, r: Array) -> Any:
    """The first radius, a multiple of `|D x|`, or of `|r| / 100` if that is larger."""
    return radius * jnp.maximum(root(dot(D * x, D * x)), 0.01 * root(dot(r, r)))


def _step_within(r: Array, J: Array, D: Vector, radius: Any) -> _Step:
    """The minimizer of `|J d + r|` over `|D d| <= radius`, to a hundredth of its length.

    By QR of `J` and the singular values of `R D^-1`, never forming `J^T J`, whose
    condition number is squared. The damping is the root of a scalar function:
    Newton's method on `1 / |D d|`, which is concave, comes to it from below.
    """
    Q, R = jnp.linalg.qr(J)
    U, s, Vt = jnp.linalg.svd(R / D[None], full_matrices=False)
    b = jnp.dot(jnp.dot(r, Q, precision="highest"), U, precision="highest")
    floor = jnp.finfo(s.dtype).eps * max(J.shape) * s[0]
    full = s > floor

    def along(damping: Any) -> tuple[Vector, Any, Any]:
        squares = jnp.where(full, s * s + damping, 1)
        z = jnp.where(full, -s * b, 0) / squares
        return z, root(dot(z, z)), dot(z, z / squares)

    def far(search: tuple[Any, Any]) -> Any:
        damping, turn = search
        return (turn < DAMPING_TURNS) & (along(damping)[1] > 1.01 * radius)

    def closer(search: tuple[Any, Any]) -> tuple[Any, Any]:
        damping, turn = search
        _, length, bend = along(damping)
        return damping + (length / radius - 1) * length * length / bend, turn + 1

    damping, _ = jax.lax.while_loop(far, closer, (jnp.zeros((), s.dtype), 0))
    z, length, _ = along(damping)
    promise = 0.5 * dot(s * z, s * z) + damping * length * length
    return _Step(jnp.dot(z, Vt, precision="highest") / D, length, damping, promise)


def _next_radius(radius: Any, step: _Step, before: Any, value: Any) -> Any:
    """The radius after `step` took the value from `before` to `value`.

    After a poor step it is cut to the minimum of the parabola through both values
    with the slope at the first, by a factor between 2 and 10.
    """
    decrease = before - value
    slope = 2 * step.promise - step.damping * step.length * step.length
    cut = jnp.where(decrease >= 0, 0.5, 0.5 * slope / (slope - decrease))
    cut = jnp.where(value < 100 * before, jnp.clip(cut, 0.1, 0.5), 0.1)
    ratio = decrease / step.promise
    grown = jnp.where((ratio >= 0.75) | (step.damping == 0), 2 * step.length, radius)
    return jnp.where(ratio > 0.25, grown, cut * jnp.minimum(radius, 10 * step.length))


def levenberg_marquardt(radius: Number = 100.0) -> Optimizer:
    """Levenberg-Marquardt: Gauss-Newton within a trust region.

        d = argmin |J d + r| over |D d| <= radius,   D_i = max over the steps of |J_i|
        ratio = (f(w) - f(w + d)) / (f(w) - model(d)),   f = |r|^2 / 2
        ratio > 1e-4:   w += d
        ratio <= 0.25:  radius falls, by 2 to 10
        ratio >= 0.75, or d is a step of Gauss-Newton:  radius = 2 |D d|

    The region's edge is met to a hundredth of the radius. One update evaluates one
    trial point; a rejected one gives a zero update.

    Args:
      radius: the first radius, as a multiple of `|D w|`, or of `|r| / 100` if that
        is larger; in (0, inf).

    Returns:
      An `Optimizer` whose `update` needs `params` and `residual_fn`, the
      residuals of the parameters; `grads` gives the updates their dtypes only.

    Levenberg, 1944; Marquardt, 1963; as in More, "The Levenberg-Marquardt
    Algorithm: Implementation and Theory", 1978, which MINPACK follows.
    """
    check_number("radius", radius, "(0, inf)")

    @promoting
    def init(params: Params) -> MarquardtState:
        x, _ = flatten(params)
        step = jnp.zeros((), jnp.int32)
        return MarquardtState(
            step, jnp.asarray(radius, x.dtype), jnp.zeros_like(x), jnp.array(True)
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
        norms, D = _scaled(state.squared_norms, J)
        first = state.step == 0
        within = jnp.where(first, _first_radius(state.radius, D, x, r), state.radius)
        step = _step_within(r, J, D, within)
        before, value = half_square(r), half_square(residuals(x + step.d))
        within = jnp.where(first, jnp.minimum(within, step.length), within)
        accepted = before - value > 1e-4 * step.promise
        return unflatten(jnp.where(accepted, step.d, 0).astype(x.dtype)), MarquardtState(
            next_count(state.step),
            _next_radius(within, step, before, value).astype(x.dtype),
            norms,
            accepted,
        )

    return Optimizer(init, update)


class _Marquardt(NamedTuple):
    """What the loop carries from one trial point to the next."""

    x: Vector
    r: Array
    J: Array
    step: _Step
    radius: Any
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
    radius: Any,
    stop: Stop,
) -> Result:
    """One trial point a turn; the first is the start, as a step of zero."""
    shape = jax.eval_shape(residuals, x)
    zero = jnp.zeros((), jnp.int32)

    def body(loop: _Marquardt) -> _Marquardt:
        trial = loop.x + loop.step.d
        r, J = with_jacobian(residuals, trial)
        before, value = half_square(loop.r), half_square(r)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(J))
        running = loop.status == RUNNING
        starting = running & (loop.iterations < 0)
        good = before - value > 1e-4 * loop.step.promise
        taken = running & finite & (starting | good)
        stepped = taken & ~starting
        rejected = running & ~taken & ~starting

        value = jnp.where(finite, value, jnp.inf)
        here = taken | starting
        kept = ((trial, loop.x), (r, loop.r), (J, loop.J))
        point, r, J = (jnp.where(here, new, old) for new, old in kept)
        norms, D = _scaled(loop.squared_norms, J)
        radius = _next_radius(loop.radius, loop.step, before, value)
        radius = jnp.where(starting, _first_radius(loop.radius, D, x, r), radius)
        step = _step_within(r, J, D, radius)
        radius = jnp.where(starting, jnp.minimum(radius, step.length), radius)
        step = step._replace(d=step.d.astype(x.dtype))

        iterations = loop.iterations + taken
        rejections = jnp.where(rejected, loop.rejections + 1, 0)
        gradient = jnp.dot(r, J, precision="highest")
        eps = jnp.finfo(x.dtype).eps
        if stop.gradient_tolerance is None:
            lengths = root(jnp.sum(J * J, 0)) * root(dot(r, r))
            right_angle = max(COSINE, 4 * float(eps))
            near = jnp.all(jnp.abs(gradient) <= right_angle * lengths)
            # Columns that are nearly parallel may reach far together what each alone cannot.
            near &= step.promise <= 4 * x.size * right_angle**2 * half_square(r)
            near |= stepped & jnp.all(jnp.abs(step.d) <= 4 * eps * jnp.abs(point))
        else:
            near = largest(gradient) <= stop.gradient_tolerance
        near |= stepped & stop.small_decrease(before, value)
        # The next step vanishes in the rounding of the point, or its promise in that of the value.
        lost = jnp.all(jnp.abs(step.d) <= eps * jnp.abs(point))
        lost |= rejected & (loop.step.promise <= eps * before)
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
            radius=radius.astype(x.dtype),
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
        step=_Step(jnp.zeros_like(x), *[jnp.zeros((), widest(shape.dtype, x.dtype))] * 3),
        radius=jnp.asarray(radius, x.dtype),
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

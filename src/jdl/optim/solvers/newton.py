"""Newton's method: with the whole Hessian for few parameters, by conjugate gradients for many."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim.base import Number, Optimizer, at_step, next_count
from jdl.optim.solvers.direction import Direction, Vector, dot, follow
from jdl.optim.solvers.lanes import loop_lanes
from jdl.optim.solvers.line_search import STRONG_WOLFE, LineSearch
from jdl.tree import reciprocal_root, root


def newton_direction(damping: Number = 0.0) -> Direction:
    """The direction of Newton's method, for `minimize`; see `newton` for the formula."""
    check_number("damping", damping, "[0, inf)")

    @promoting
    def init(x: Vector) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    @promoting
    def propose(
        count: Int[Array, ""],
        fun: Any,
        x: Vector,
        gradient: Vector,
        s: Vector,
        y: Vector,
        learn: Any,
        reset: Any,
        active: Any,
    ) -> tuple[Int[Array, ""], Vector]:
        def solve(_: None) -> Vector:
            H = jax.hessian(fun)(x).astype(x.dtype)
            precision = jnp.finfo(x.dtype)
            rows = jnp.max(jnp.abs(H), 1, initial=0)
            unit = reciprocal_root(jnp.maximum(jnp.abs(jnp.diag(H)), precision.eps * rows))
            unit = jnp.where(unit > 0, unit, 1)
            curvature, axes = jnp.linalg.eigh(unit[:, None] * H * unit[None, :])
            size = jnp.abs(curvature)
            # A direction that the Hessian does not see at this precision is left out
            # by the gradient, which has no component along it but for rounding.
            floor = jnp.maximum(precision.eps * jnp.max(size, initial=0), precision.tiny)
            size = jnp.maximum(size, floor) + at_step(damping, count)
            along = jnp.dot(unit * gradient, axes, precision="highest")
            return -unit * jnp.dot(axes, along / size, precision="highest").astype(x.dtype)

        d = jax.lax.cond(active, solve, lambda _: jnp.zeros_like(x), None)
        return jnp.where(active, next_count(count), count), d

    return Direction(init, propose)


def newton(
    learning_rate: Number | None = None,
    damping: Number = 0.0,
    linesearch: LineSearch | None = STRONG_WOLFE,
) -> Optimizer:
    """Newton's method with the whole Hessian `H`, scaled to unit diagonal.

        D H D = Q diag(h) Q^T,   D = |diag(H)|^{-1/2}
        d = -D Q diag(1 / (|h| + damping)) Q^T D g,    w += t d, t by a line search

    Where the Hessian is positive definite and `damping` 0, `d = -H^{-1} g`,
    exact in one step on a quadratic. Elsewhere the absolute values turn the
    step away from saddles, where `H^{-1}` would be drawn to them; an eigenvalue
    is never taken below `eps` times the largest. O(n^2) memory and O(n^3) work
    a step: for up to about a thousand parameters. For deterministic full-batch
    use; it does badly on mini-batches.

    Args:
      learning_rate: a number or schedule that multiplies `d`; None is 1.
      damping: added to the absolute eigenvalues of the Hessian scaled to unit
        diagonal, so that units do not matter; in [0, inf), 0 is off; may be a
        schedule of the step.
      linesearch: a `LineSearch`, or None to step by `learning_rate`.

    Returns:
      An `Optimizer` whose `update` needs `params` and `value_fn`.

    Nocedal and Wright, Numerical Optimization, section 3.4; absolute
    eigenvalues: Gill, Murray and Wright, 1981, and "saddle-free Newton",
    Dauphin et al., 2014.
    """
    direction = newton_direction(damping)
    return follow(direction, learning_rate, linesearch, "newton", needs_value_fn=True)


class _Conjugate(NamedTuple):
    """One solve by conjugate gradients under way."""

    solution: Vector
    residual: Vector
    conjugate: Vector
    squared: Float[Array, ""]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def newton_cg_direction(damping: Number = 0.0, max_cg_steps: Number | None = None) -> Direction:
    """The direction of Newton-CG, for `minimize`; see `newton_cg` for the formula."""
    check_number("damping", damping, "[0, inf)")
    if max_cg_steps is not None:
        check_number("max_cg_steps", max_cg_steps, "[1, inf)")

    @promoting
    def init(x: Vector) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)

    @promoting
    def propose(
        count: Int[Array, ""],
        fun: Any,
        x: Vector,
        gradient: Vector,
        s: Vector,
        y: Vector,
        learn: Any,
        reset: Any,
        active: Any,
    ) -> tuple[Int[Array, ""], Vector]:
        bound = 2 * x.size if max_cg_steps is None else max_cg_steps
        shift = at_step(damping, count)
        squared = dot(gradient, gradient)
        norm = root(squared)
        goal = squared * jnp.minimum(0.25, norm)

        def times_hessian(v: Vector) -> Vector:
            return jax.jvp(jax.grad(fun), (x,), (v,))[1] + shift * v

        def step(cg: _Conjugate) -> _Conjugate:
            product = times_hessian(cg.conjugate)
            curvature = dot(cg.conjugate, product)
            lengths = root(dot(cg.conjugate, cg.conjugate)) * root(dot(product, product))
            noise = 3 * jnp.finfo(x.dtype).eps * lengths
            convex = curvature > noise
            # Where the first direction already curves down, go along it.
            first_only = ~cg.done & ~convex & (cg.steps == 0)
            going = ~cg.done & convex
            rate = cg.squared / jnp.where(convex, curvature, 1)
            residual = jnp.where(going, cg.residual + rate * product, cg.residual)
            now = jnp.where(going, dot(residual, residual), cg.squared)
            solution = jnp.where(going, cg.solution + rate * cg.conjugate, cg.solution)
            ahead = (now / jnp.where(cg.squared > 0, cg.squared, 1)) * cg.conjugate - residual
            steps = cg.steps + going
            return _Conjugate(
                solution=jnp.where(first_only, cg.conjugate, solution),
                residual=residual,
                conjugate=jnp.where(going, ahead, cg.conjugate),
                squared=now,
                steps=steps,
                done=cg.done | ~convex | (now <= goal) | (steps >= bound),
            )

        start = _Conjugate(
            jnp.zeros_like(x),
            gradient,
            -gradient,
            squared,
            jnp.zeros((), jnp.int32),
            ~active | ~(squared > 0) | ~jnp.isfinite(squared),
        )
        end = loop_lanes(lambda cg: ~cg.done, step, start)
        return jnp.where(active, next_count(count), count), end.solution

    return Direction(init, propose)


def newton_cg(
    learning_rate: Number | None = None,
    damping: Number = 0.0,
    max_cg_steps: Number | None = None,
    linesearch: LineSearch | None = STRONG_WOLFE,
) -> Optimizer:
    """Newton's method with `(H + damping) d = -g` solved by truncated conjugate gradients.

    The Hessian appears only in products with vectors, each the cost of about
    two gradients. The solve ends when its residual is below
    `min(1/2, sqrt|g|) |g|`, which makes the convergence superlinear, after
    `max_cg_steps`, or where a direction has no positive curvature: then what it
    has so far is the direction, or `-g` if that is nothing. For deterministic
    full-batch use; it does badly on mini-batches.

    Args:
      learning_rate: a number or schedule that multiplies `d`; None is 1.
      damping: added to the Hessian; in [0, inf), 0 is off; may be a schedule.
      max_cg_steps: bound on the Hessian-vector products of one direction; None
        is twice the number of parameters.
      linesearch: a `LineSearch`, or None to step by `learning_rate`.

    Returns:
      An `Optimizer` whose `update` needs `params` and `value_fn`.

    Dembo and Steihaug, 1983; Nocedal and Wright, Numerical Optimization,
    algorithm 7.1. SciPy's `Newton-CG` has the same truncation.
    """
    direction = newton_cg_direction(damping, max_cg_steps)
    return follow(direction, learning_rate, linesearch, "newton_cg", needs_value_fn=True)

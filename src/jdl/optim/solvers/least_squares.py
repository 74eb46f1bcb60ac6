"""`least_squares`: a whole solve from residuals, as one compiled loop that vmaps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl._checks import check_choice, check_number
from jdl.optim.base import Number, Params
from jdl.optim.solvers.descend import Stop, descend
from jdl.optim.solvers.direction import flatten
from jdl.optim.solvers.gauss_newton import (
    Residuals,
    flat_residuals,
    gauss_newton_direction,
    half_square,
)
from jdl.optim.solvers.line_search import STRONG_WOLFE, LineSearch
from jdl.optim.solvers.marquardt import marquardt_solve
from jdl.optim.solvers.solution import Result

LEAST_SQUARES = ("gauss_newton", "levenberg_marquardt")


def least_squares(
    residual_fn: Residuals,
    x0: Params,
    method: str = "levenberg_marquardt",
    *,
    gradient_tolerance: Number | None = None,
    value_tolerance: Number = 0.0,
    max_iterations: Number = 1000,
    radius: Number = 100.0,
    linesearch: LineSearch | None = None,
) -> Result:
    """Minimizes half the sum of squared residuals, in one compiled loop that vmaps.

    Args:
      residual_fn: `params -> residuals`, an array of any shape or a tree of them.
      x0: where to start: a tree of real floating-point arrays.
      method: "levenberg_marquardt" or "gauss_newton".
      gradient_tolerance: converged when no entry of `J^T r` is larger; in [0, inf).
        None is a test that does not depend on units: of Levenberg-Marquardt, that
        no column of `J` has a cosine with `r` above 1e-8 (or what can be told from 0
        in the dtype), nor their span, or that the step is below rounding; of Gauss-Newton as in
        `minimize`.
      value_tolerance: converged also when a step lowers the value by at most
        this times the value before; 0 is off.
      max_iterations: bound on the accepted steps; in [0, inf).
      radius: of Levenberg-Marquardt's first trust region, as in `levenberg_marquardt`;
        in (0, inf).
      linesearch: Gauss-Newton's; None is `zoom_linesearch()`.

    Returns:
      A `Result` whose value is half the sum of squares; never above that of
      `x0`. `evaluations` counts trial points, rejected ones too.

    Raises:
      ValueError: an unknown method, or a number out of range.

    >>> import jax.numpy as jnp
    >>> line = jnp.arange(3.0)
    >>> result = least_squares(lambda w: w[0] + w[1] * line - jnp.array([1., 3., 5.]), jnp.ones(2))
    >>> [round(float(x), 4) for x in result.params]
    [1.0, 2.0]
    """
    check_choice("method", method, LEAST_SQUARES)
    check_number("radius", radius, "(0, inf)")
    stop = Stop(gradient_tolerance, value_tolerance, max_iterations).check()
    if method == "gauss_newton":
        search = STRONG_WOLFE if linesearch is None else linesearch
        flat = flat_residuals(residual_fn, lambda p: p, jnp.float32)
        direction = gauss_newton_direction(residual_fn, flatten(x0)[1])
        return jax.jit(
            lambda x: descend(lambda p: half_square(flat(p)), direction, search, x, stop)
        )(x0)

    def solve(x0: Params) -> Result:
        x, unflatten = flatten(x0)
        residuals = flat_residuals(residual_fn, unflatten, x.dtype)
        return marquardt_solve(residuals, x, unflatten, radius, stop)

    return jax.jit(solve)(x0)

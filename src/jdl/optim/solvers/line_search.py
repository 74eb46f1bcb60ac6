"""Line searches as two functions of scalars: where to look first, and where next.

A search never calls the objective. Its caller evaluates at `search.step` and
hands value and slope to `advance`, so a solver makes one evaluation a turn
whatever the stage its search is in, and lanes under `vmap` do not wait for one
another's searches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdl import tree
from jdl._checks import check_number
from jdl._promotion import promoting, widest
from jdl.optim.base import Number

SEARCHING = 0
RETURNING = 1
ACCEPTED = 2
FAILED = 3


class Point(NamedTuple):
    """A step along the direction, with the objective's value and slope there."""

    step: Float[Array, ""]
    value: Float[Array, ""]
    slope: Float[Array, ""]


class Search(NamedTuple):
    """A line search under way.

    Attributes:
      step: the step to evaluate next; once `stage` is `ACCEPTED`, the step to take.
      origin: value and slope at step 0.
      low: the lowest point so far that satisfies sufficient decrease.
      high: the other end of the bracket; its step is `inf` until there is one.
      widths: the bracket's last two widths, newest first.
      evaluations: how many evaluations this search was given.
      stage: `SEARCHING`, `RETURNING` (to `low`), `ACCEPTED` or `FAILED`.
    """

    step: Float[Array, ""]
    origin: Point
    low: Point
    high: Point
    widths: Float[Array, "2"]
    evaluations: Int[Array, ""]
    stage: Int[Array, ""]


class LineSearch(NamedTuple):
    """A line search as two pure functions.

    Attributes:
      start: `start(value, slope, first_step) -> Search`, from the objective at
        step 0 and its slope along the direction (negative).
      advance: `advance(search, value, slope) -> Search`, from the objective at
        `search.step`.
      needs_slope: whether `advance` looks at the slope; without it a caller may
        save the gradients of the trial points.
    """

    start: Callable[..., Search]
    advance: Callable[..., Search]
    needs_slope: bool


@promoting
def _start(value: Any, slope: Any, first_step: Any = 1.0) -> Search:
    value, slope = jnp.asarray(value), jnp.asarray(slope)
    dtype = widest(value, slope, jnp.float32)
    zero, infinity = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    origin = Point(zero, value.astype(dtype), slope.astype(dtype))
    return Search(
        step=jnp.asarray(first_step, dtype),
        origin=origin,
        low=origin,
        high=Point(infinity, zero, zero),
        widths=jnp.full((2,), jnp.inf, dtype),
        evaluations=jnp.zeros((), jnp.int32),
        stage=jnp.zeros((), jnp.int32),
    )


def backtracking_linesearch(
    max_backtracking_steps: Number = 30,
    slope_rtol: Number = 1e-4,
    decrease_factor: Number = 0.5,
) -> LineSearch:
    """Armijo's rule: shrink the step until the decrease is sufficient.

    Accepts the first of `t, t r, t r**2, ...` (`r = decrease_factor`) with
    `f(w + t d) <= f(w) + slope_rtol * t * <g, d>`. A value that is not finite
    counts as too high.

    Args:
      max_backtracking_steps: bound on the evaluations, at least 1.
      slope_rtol: in [0, 1); 0 accepts any step that does not raise the value.
      decrease_factor: in (0, 1).

    Source: Armijo, 1966; Nocedal and Wright, Numerical Optimization, algorithm 3.1.
    """
    check_number("max_backtracking_steps", max_backtracking_steps, "[1, inf)")
    check_number("slope_rtol", slope_rtol, "[0, 1)")
    check_number("decrease_factor", decrease_factor, "(0, 1)")

    @promoting
    def advance(search: Search, value: Any, slope: Any) -> Search:
        value = jnp.asarray(value, search.step.dtype)
        limit = search.origin.value + slope_rtol * search.step * search.origin.slope
        accept = jnp.isfinite(value) & (value <= limit)
        evaluations = search.evaluations + 1
        failed = ~accept & (evaluations >= max_backtracking_steps)
        return search._replace(
            step=jnp.where(accept, search.step, search.step * decrease_factor),
            evaluations=evaluations,
            stage=_code(jnp.where(accept, ACCEPTED, jnp.where(failed, FAILED, SEARCHING))),
        )

    return LineSearch(_start, advance, needs_slope=False)


def zoom_linesearch(
    max_linesearch_steps: Number = 20,
    slope_rtol: Number = 1e-4,
    curv_rtol: Number = 0.9,
) -> LineSearch:
    """The strong Wolfe conditions, by bracketing and interpolation.

    Accepts a step `t` with sufficient decrease and a flat enough slope,
    `f(w + t d) <= f(w) + slope_rtol * t * <g, d>` and
    `|<g(w + t d), d>| <= curv_rtol * |<g, d>|`. Where the decrease is lost in
    rounding, `|f(w + t d) - f(w)|` within 8 eps `|f(w)|` with
    `<g(w + t d), d> <= (2 slope_rtol - 1) <g, d>` does instead (Hager and Zhang).

    Steps grow by a factor 1.1 to 4 beyond the last until a bracket is found;
    then the bracket shrinks by cubic, quadratic and secant interpolation, with
    bisection when two turns have not taken a third off. When the evaluations
    run out the lowest point with sufficient decrease is taken; if there is
    none, the search has failed.

    Args:
      max_linesearch_steps: bound on the evaluations, at least 1; returning to
        the lowest point may cost one more.
      slope_rtol: in [0, 1), the usual `c1`.
      curv_rtol: in (0, 1], the usual `c2`, above `slope_rtol`.

    Source: Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6;
    More and Thuente, 1994, section 4; Hager and Zhang, 2005, equation 4.1.
    """
    check_number("max_linesearch_steps", max_linesearch_steps, "[1, inf)")
    check_number("slope_rtol", slope_rtol, "[0, 1)")
    check_number("curv_rtol", curv_rtol, "(0, 1]")

    @promoting
    def advance(search: Search, value: Any, slope: Any) -> Search:
        dtype = search.step.dtype
        origin, low, high = search.origin, search.low, search.high
        trial = Point(search.step, jnp.asarray(value, dtype), jnp.asarray(slope, dtype))
        finite = jnp.isfinite(trial.value) & jnp.isfinite(trial.slope)
        decrease = trial.value <= origin.value + slope_rtol * trial.step * origin.slope
        rounding = 8 * jnp.finfo(dtype).eps * jnp.abs(origin.value)
        in_rounding = (jnp.abs(trial.value - origin.value) <= rounding) & (
            trial.slope <= (2 * slope_rtol - 1) * origin.slope
        )
        flat = jnp.abs(trial.slope) <= curv_rtol * jnp.abs(origin.slope)
        accept = finite & flat & (decrease | in_rounding)

        bracketed = jnp.isfinite(high.step)
        worse = ~finite | ~decrease | (trial.value >= low.value)
        turned = ~worse & ((trial.slope >= 0) == (high.step > low.step))
        new_low = _select(worse, low, trial)
        new_high = _select(worse, trial, _select(turned, low, high))
        # Above the line of sufficient decrease though below `low`: there the
        # objective minus that line has the minimum that the bracket promises.
        tilt = jnp.where(worse & (trial.value < low.value), slope_rtol * origin.slope, 0)
        step = _next_step(low, trial, high, worse, turned, finite, bracketed, tilt)

        width = jnp.abs(new_high.step - new_low.step)
        bracketed = jnp.isfinite(new_high.step)
        middle = 0.5 * (new_low.step + new_high.step)
        outside = jnp.abs(step - middle) >= 0.5 * width
        slow = width >= 0.66 * search.widths[1]
        step = jnp.where(bracketed & (slow | outside | ~jnp.isfinite(step)), middle, step)

        evaluations = search.evaluations + 1
        tiny = 4 * jnp.finfo(dtype).eps * jnp.maximum(new_low.step, new_high.step)
        spent = (evaluations >= max_linesearch_steps) | (bracketed & (width <= tiny))
        returning = search.stage == RETURNING
        accept |= returning | (spent & (new_low.step == trial.step) & (new_low.step > 0))
        stuck = spent & ~accept
        stage = jnp.where(stuck, jnp.where(new_low.step > 0, RETURNING, FAILED), SEARCHING)
        return Search(
            step=jnp.where(accept, trial.step, jnp.where(stuck, new_low.step, step)),
            origin=origin,
            low=new_low,
            high=new_high,
            widths=jnp.stack([width, search.widths[0]]),
            evaluations=evaluations,
            stage=_code(jnp.where(accept, ACCEPTED, stage)),
        )

    return LineSearch(_start, advance, needs_slope=True)


STRONG_WOLFE = zoom_linesearch()
"""The line search that solvers use unless given another."""


def _code(stage: Any) -> Int[Array, ""]:
    return jnp.asarray(stage, jnp.int32)


def _select(condition: Bool[Array, ""], a: Point, b: Point) -> Point:
    return Point(*(jnp.where(condition, x, y) for x, y in zip(a, b)))


def _next_step(
    low: Point,
    trial: Point,
    high: Point,
    worse: Bool[Array, ""],
    turned: Bool[Array, ""],
    finite: Bool[Array, ""],
    bracketed: Bool[Array, ""],
    tilt: Float[Array, ""],
) -> Float[Array, ""]:
    """The minimizer of an interpolant, chosen by what the trial point has shown.

    `worse`: the minimum lies between `low` and the trial, nearer to `low` the
    higher the trial. `turned`: it lies between them, nearer to the trial. Else
    it lies beyond the trial, before `high` if there is one.
    """
    cubic = _cubic(low, trial, tilt)
    quadratic = _quadratic(low, trial, tilt)
    secant = _secant(low, trial)
    near_low = jnp.where(
        jnp.abs(cubic - low.step) < jnp.abs(quadratic - low.step), cubic, 0.5 * (cubic + quadratic)
    )
    near_low = jnp.where(finite, near_low, low.step + 0.2 * (trial.step - low.step))
    from_cubic, from_secant = jnp.abs(cubic - trial.step), jnp.abs(secant - trial.step)
    near_trial = jnp.where(from_cubic > from_secant, cubic, secant)
    stride = trial.step - low.step
    flatter = jnp.abs(trial.slope) < jnp.abs(low.slope)
    ahead = jnp.where((cubic - trial.step) * stride > 0, jnp.maximum(cubic, secant), secant)
    grown = jnp.where(flatter, ahead, trial.step + 4 * stride)
    grown = jnp.clip(grown, trial.step + 1.1 * stride, trial.step + 4 * stride)
    beyond = jnp.where(bracketed, _cubic(trial, high, 0.0), grown)
    return jnp.where(worse, near_low, jnp.where(turned, near_trial, beyond))


def _cubic(a: Point, b: Point, tilt: Any) -> Float[Array, ""]:
    """The minimizer of the cubic through two values and two slopes, less the line `tilt * t`."""
    length = b.step - a.step
    slope_a, slope_b = a.slope - tilt, b.slope - tilt
    middle = slope_a + slope_b - 3 * ((b.value - a.value) / length - tilt)
    # Divided by the largest, so that the squares neither overflow nor underflow.
    size = jnp.maximum(jnp.abs(middle), jnp.maximum(jnp.abs(slope_a), jnp.abs(slope_b)))
    radicand = (middle / size) ** 2 - (slope_a / size) * (slope_b / size)
    root = jnp.sign(length) * size * tree.root(jnp.maximum(radicand, 0))
    return b.step - length * (slope_b + root - middle) / (slope_b - slope_a + 2 * root)


def _quadratic(a: Point, b: Point, tilt: Any) -> Float[Array, ""]:
    """The minimizer of the parabola through two values and the slope at `a`."""
    length = b.step - a.step
    slope_a = a.slope - tilt
    rise = (b.value - a.value) / length - tilt
    return a.step - 0.5 * length * slope_a / (rise - slope_a)


def _secant(a: Point, b: Point) -> Float[Array, ""]:
    """Where the line through two slopes is zero."""
    return b.step - b.slope * (b.step - a.step) / (b.slope - a.slope)


def search_along(
    linesearch: LineSearch,
    value_and_slope: Callable[[Any], tuple[Any, Any]],
    value: Any,
    slope: Any,
    first_step: Any = 1.0,
) -> Search:
    """Runs a line search to its end on a function of the step.

    Args:
      linesearch: `zoom_linesearch(...)` or `backtracking_linesearch(...)`.
      value_and_slope: `step -> (value, slope)`; the slope is ignored by a
        search whose `needs_slope` is false.
      value: the value at step 0.
      slope: the slope at step 0, negative.
      first_step: where to look first.

    Returns:
      The last `Search`: `step` to take if `stage` is `ACCEPTED`, with the
      number of `evaluations`.

    >>> exact = zoom_linesearch(curv_rtol=0.1)
    >>> found = search_along(exact, lambda t: ((t - 3) ** 2, 2 * (t - 3)), 9.0, -6.0)
    >>> round(float(found.step), 4), int(found.evaluations)
    (3.0, 2)
    """

    def body(search: Search) -> Search:
        return linesearch.advance(search, *value_and_slope(search.step))

    return jax.lax.while_loop(
        lambda search: search.stage < ACCEPTED, body, linesearch.start(value, slope, first_step)
    )

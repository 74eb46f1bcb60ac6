"""Line searches, turn by turn against hand-worked interpolation and run to their end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.optim.solvers import line_search as ls

jax_f64 = np.float64


def search_at(low, high, step, origin=(1.0, -1.0), widths=(np.inf, np.inf), count=0, stage=0):
    """A zoom search in the middle: low and high as (step, value, slope)."""
    return ls.Search(
        step=jax_f64(step),
        origin=ls.Point(jax_f64(0.0), *map(jax_f64, origin)),
        low=ls.Point(*map(jax_f64, low)),
        high=ls.Point(*map(jax_f64, high)),
        widths=np.asarray(widths),
        evaluations=np.int32(count),
        stage=np.int32(stage),
    )


NONE = (np.inf, 0.0, 0.0)
ORIGIN = (0.0, 1.0, -1.0)


def cubic_minimum(a, b):
    """Where the cubic through two (step, value, slope) is lowest, from its coefficients."""
    rows, right = [], []
    for t, value, slope in (a, b):
        rows += [[t**3, t**2, t, 1], [3 * t**2, 2 * t, 1, 0]]
        right += [value, slope]
    p = np.polynomial.Polynomial(np.linalg.solve(rows, right)[::-1])
    roots = p.deriv().roots()
    return float(next(r.real for r in roots if abs(r.imag) < 1e-9 and p.deriv(2)(r.real) > 0))


def parabola_minimum(a, b):
    (t, value, slope), (u, other, _) = a, b
    curve = (other - value - slope * (u - t)) / (u - t) ** 2
    return t - slope / (2 * curve)


def secant_root(a, b):
    return b[0] - b[2] * (b[0] - a[0]) / (b[2] - a[2])


def tilted(point, line):
    """A point of the objective less `line * t`."""
    return point[0], point[1] - line * point[0], point[2] - line


FAR = (2.0, 3.0, 5.0)
NEAR = (1.0, 1.2, 0.3)
DOWN = (1.0, 0.5, 1.4)
STEEP = (1.0, 0.4, -0.95)
STEEPER = (1.0, 0.2, -1.5)
LOW = (1.0, 0.4, -0.95)
# With slope_rtol 0.3 the line of sufficient decrease is 1 - 0.3 t: below `low`, above the line.
SHALLOW = (1.5, 0.85, 0.95)
cubic_far, parabola_far = cubic_minimum(ORIGIN, FAR), parabola_minimum(ORIGIN, FAR)
cubic_near, parabola_near = cubic_minimum(ORIGIN, NEAR), parabola_minimum(ORIGIN, NEAR)
T = [tilted(ORIGIN, -0.3), tilted(SHALLOW, -0.3)]


def nearer(c, q, to):
    return c if abs(c - to) < abs(q - to) else (c + q) / 2


# name: (search, value and slope at its step, the next step, low, high, stage)
TURNS = {
    "higher, cubic nearer or the mean": (
        search_at(ORIGIN, NONE, 2.0),
        FAR,
        nearer(cubic_far, parabola_far, 0.0),
        ORIGIN,
        FAR,
        0,
    ),
    "a little higher": (
        search_at(ORIGIN, NONE, 1.0),
        NEAR,
        nearer(cubic_near, parabola_near, 0.0),
        ORIGIN,
        NEAR,
        0,
    ),
    "not finite: a fifth of the way": (
        search_at(ORIGIN, NONE, 1.0),
        (1.0, np.nan, 0.0),
        0.2,
        ORIGIN,
        (1.0, np.nan, 0.0),
        0,
    ),
    "infinite slope counts as not finite": (
        search_at(LOW, NONE, 3.0),
        (3.0, 0.1, np.inf),
        1.4,
        LOW,
        (3.0, 0.1, np.inf),
        0,
    ),
    "above the line though lower: the tilted objective": (
        search_at(ORIGIN, NONE, 1.5),
        SHALLOW,
        nearer(cubic_minimum(*T), parabola_minimum(*T), 0.0),
        ORIGIN,
        SHALLOW,
        0,
    ),
    "turned: the farther of cubic and secant": (
        search_at(ORIGIN, NONE, 1.0),
        DOWN,
        min(cubic_minimum(ORIGIN, DOWN), secant_root(ORIGIN, DOWN)),
        DOWN,
        ORIGIN,
        0,
    ),
    "still falling: at most four strides": (
        search_at(ORIGIN, NONE, 1.0),
        STEEP,
        5.0,
        STEEP,
        NONE,
        0,
    ),
    "falling faster: four strides": (
        search_at(ORIGIN, NONE, 1.0),
        STEEPER,
        5.0,
        STEEPER,
        NONE,
        0,
    ),
    "falling less, minimum just ahead: at least 1.1 strides": (
        search_at((0.0, 1.0, -20.0), NONE, 1.0, origin=(1.0, -1.0)),
        (1.0, 0.3, -0.95),
        2.1,
        (1.0, 0.3, -0.95),
        NONE,
        0,
    ),
    "falling less: the secant, farther than the cubic": (
        search_at((0.0, 1.0, -1.6), NONE, 1.0),
        (1.0, -0.3, -0.95),
        secant_root((0.0, 1.0, -1.6), (1.0, -0.3, -0.95)),
        (1.0, -0.3, -0.95),
        NONE,
        0,
    ),
    "falling less: the cubic, farther than the secant": (
        search_at((0.0, 1.0, -1.6), NONE, 1.0),
        (1.0, -0.262, -0.95),
        cubic_minimum((0.0, 1.0, -1.6), (1.0, -0.262, -0.95)),
        (1.0, -0.262, -0.95),
        NONE,
        0,
    ),
    "bracketed, still falling: the cubic to the far end": (
        search_at(LOW, FAR, 1.5),
        (1.5, 0.2, -0.91),
        cubic_minimum((1.5, 0.2, -0.91), FAR),
        (1.5, 0.2, -0.91),
        FAR,
        0,
    ),
    "bracketed from above, turned over": (
        search_at((2.0, 0.5, 1.2), (0.5, 0.9, -1.0), 1.2),
        (1.2, 0.3, -0.93),
        secant_root((2.0, 0.5, 1.2), (1.2, 0.3, -0.93)),
        (1.2, 0.3, -0.93),
        (2.0, 0.5, 1.2),
        0,
    ),
    "slow bracket: its middle": (
        search_at(LOW, FAR, 1.1, widths=(1.0, 1.3)),
        (1.1, 0.35, -0.91),
        1.55,
        (1.1, 0.35, -0.91),
        FAR,
        0,
    ),
    "both conditions: accepted": (
        search_at(ORIGIN, NONE, 1.0),
        (1.0, 0.65, -0.85),
        1.0,
        None,
        None,
        2,
    ),
    "evaluations spent at the lowest: taken": (
        search_at(LOW, FAR, 1.5, count=6),
        (1.5, 0.2, -0.95),
        1.5,
        None,
        None,
        2,
    ),
    "evaluations spent elsewhere: back to the lowest": (
        search_at(LOW, FAR, 1.5, count=6),
        (1.5, 0.6, 2.0),
        1.0,
        LOW,
        (1.5, 0.6, 2.0),
        1,
    ),
    "one evaluation left": (
        search_at(LOW, FAR, 1.5, count=5),
        (1.5, 0.6, 2.0),
        nearer(cubic_minimum(LOW, (1.5, 0.6, 2.0)), parabola_minimum(LOW, (1.5, 0.6, 2.0)), 1.0),
        LOW,
        (1.5, 0.6, 2.0),
        0,
    ),
    "returned": (search_at(LOW, FAR, 1.0, count=7, stage=1), LOW, 1.0, None, None, 2),
    "evaluations spent and nothing lower": (
        search_at(ORIGIN, FAR, 0.1, count=6),
        (0.1, 2.0, 2.0),
        0.0,
        ORIGIN,
        (0.1, 2.0, 2.0),
        3,
    ),
    "bracket closed to rounding": (
        search_at(LOW, (1.0 + 9e-16, 0.6, 1.0), 1.0 + 4.5e-16),
        (1.0 + 4.5e-16, 0.6, 1.0),
        1.0,
        LOW,
        (1.0 + 4.5e-16, 0.6, 1.0),
        1,
    ),
}


def test_each_turn_of_the_zoom(x64):
    """One turn for each case, all in one compiled program, against polynomials solved for."""
    zoom = ls.zoom_linesearch(max_linesearch_steps=7, slope_rtol=0.3, curv_rtol=0.9)
    cases = list(TURNS.values())
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(case[0] for case in cases))
    at = jnp.array([case[1] for case in cases])
    after = jax.jit(jax.vmap(zoom.advance))(stacked, at[:, 1], at[:, 2])
    for i, (name, (before, _, step, low, high, stage)) in enumerate(TURNS.items()):
        assert int(after.stage[i]) == stage, name
        np.testing.assert_allclose(after.step[i], step, rtol=1e-12, err_msg=name)
        assert int(after.evaluations[i]) == int(before.evaluations) + 1, name
        for ours, expected in ((after.low, low), (after.high, high)):
            if expected is not None:
                ours = [float(x[i]) for x in ours]
                np.testing.assert_array_equal(ours, expected, err_msg=name)
        if low is not None and np.isfinite(high[0]):
            np.testing.assert_allclose(after.widths[i][0], abs(high[0] - low[0]), rtol=1e-9)
        assert after.widths[i][1] == before.widths[0], name


def test_acceptance_is_the_strong_wolfe_conditions_or_the_approximate_ones_within_rounding(x64):
    zoom = ls.zoom_linesearch(slope_rtol=0.3, curv_rtol=0.9)
    start = zoom.start(1.0, -1.0, 0.5)
    eps = np.finfo(np.float64).eps
    points = {
        (0.85, -0.5): True,  # on the line 1 - 0.3 * 0.5
        (0.85 + 1e-9, -0.5): False,
        (0.5, -0.9): True,
        (0.5, -0.9 - 1e-9): False,
        (0.5, 0.9): True,
        (0.5, 0.9 + 1e-9): False,
        # No decrease to see: the slope must be at most (2 * 0.3 - 1) * -1 = 0.4.
        (1.0 + 8 * eps, 0.4): True,
        (1.0 + 8 * eps, 0.4 + 1e-9): False,
        (1.0 + 16 * eps, 0.1): False,
        (1.0 - 9 * eps, 0.1): False,
        (np.nan, 0.1): False,
        (-np.inf, 0.1): False,
    }
    at = jnp.array(list(points))
    stages = jax.jit(jax.vmap(lambda p: zoom.advance(start, p[0], p[1]).stage))(at)
    assert (stages == ls.ACCEPTED).tolist() == list(points.values())


def functions(t):
    """One-dimensional problems with their slopes, in the manner of Moré and Thuente."""
    return [
        (-t / (t**2 + 2), (t**2 - 2) / (t**2 + 2) ** 2),
        ((t + 0.004) ** 5 - 2 * (t + 0.004) ** 4, 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3),
        (jnp.exp(3 * t) - 40 * t, 3 * jnp.exp(3 * t) - 40),
        ((t - 7.0) ** 4, 4 * (t - 7.0) ** 3),
        (jnp.where(t < 2, (t - 1.7) ** 2, jnp.nan), 2 * (t - 1.7)),
        (-jnp.log(1 - t) - 3 * t, 1 / (1 - t) - 3),  # NaN beyond 1
    ]


def test_the_accepted_step_satisfies_strong_wolfe_from_any_first_step(x64):
    """Six functions x five first steps x three pairs of numbers, the numbers traced."""
    first = jnp.array([1e-3, 0.1, 1.0, 10.0, 1e3])
    c1, c2 = jnp.array([1e-4, 0.1, 1e-3]), jnp.array([0.9, 0.1001, 1e-3])
    count = len(functions(jnp.array(0.0)))

    def run(index, step, c1, c2):
        at = lambda t: tuple(jax.lax.select_n(index, *v) for v in zip(*functions(t)))  # noqa: E731
        zoom = ls.zoom_linesearch(30, c1, c2)
        value, slope = at(jnp.zeros(()))
        found = ls.search_along(zoom, at, value, slope, step)
        return found, (value, slope), at(found.step)

    lanes = jax.vmap(jax.vmap(run, (None, 0, None, None)), (0, None, None, None))
    lanes = jax.jit(jax.vmap(lanes, (None, None, 0, 0)))
    found, (value, slope), (at, at_slope) = lanes(jnp.arange(count), first, c1, c2)
    c1, c2 = c1[:, None, None], c2[:, None, None]
    assert (found.stage == ls.ACCEPTED).all()
    assert (at <= value + c1 * found.step * slope + 1e-12).all()
    assert (jnp.abs(at_slope) <= c2 * jnp.abs(slope) + 1e-12).all()
    assert (found.evaluations <= 30).all()
    assert np.median(found.evaluations) <= 8


def test_zoom_is_bounded_and_says_so_when_nothing_is_lower():
    zoom = ls.zoom_linesearch(max_linesearch_steps=9)
    # Rising against its slope, and falling for ever.
    lines = lambda sign: ls.search_along(zoom, lambda t: (1 + sign * t, sign), 1.0, -1.0)  # noqa: E731
    both = jax.jit(jax.vmap(lines))(jnp.array([1.0, -1.0]))
    found, endless = (jax.tree.map(lambda x, i=i: x[i], both) for i in range(2))
    assert (int(found.stage), int(found.evaluations)) == (ls.FAILED, 9)
    assert (int(endless.stage), int(endless.evaluations)) == (ls.ACCEPTED, 9)
    assert float(endless.step) > 1e4


def test_backtracking_is_armijos_loop(x64):
    def objective(t):
        return jnp.where(t > 40, jnp.inf, (t - 1.3) ** 4)

    search = ls.backtracking_linesearch(20, slope_rtol=0.35, decrease_factor=0.7)
    at = lambda t: (objective(t), jnp.nan)  # noqa: E731
    run = jax.jit(lambda first: ls.search_along(search, at, 1.3**4, -4 * 1.3**3, first))
    for first in (0.2, 1.0, 3.0, 100.0):
        t, count = first, 1
        while not float(objective(t)) <= 1.3**4 - 0.35 * t * 4 * 1.3**3:
            t, count = t * 0.7, count + 1
        found = run(first)
        np.testing.assert_allclose(found.step, t, rtol=1e-12)
        assert (int(found.evaluations), int(found.stage)) == (count, ls.ACCEPTED)
    found = run(1e4)
    assert (int(found.evaluations), int(found.stage)) == (20, ls.FAILED)
    assert not search.needs_slope
    assert ls.zoom_linesearch().needs_slope


def test_every_number_may_be_traced_and_matters(x64):
    def steps(steps, c1, c2, factor):
        wide = lambda t: (jnp.cosh(t - 2.5), jnp.sinh(t - 2.5))  # noqa: E731
        value, slope = wide(jnp.zeros(()))
        zoom = ls.search_along(ls.zoom_linesearch(steps, c1, c2), wide, value, slope, 7.0)
        back = ls.backtracking_linesearch(steps, c1, factor)
        return zoom.step, ls.search_along(back, wide, value, slope, 7.0).step

    table = np.array(
        [
            [20, 0.1, 0.5, 0.8],
            [1, 0.1, 0.5, 0.8],
            [20, 0.45, 0.5, 0.8],
            [20, 0.1, 0.01, 0.8],
            [20, 0.1, 0.5, 0.3],
        ]
    )
    zoom, back = jax.jit(jax.vmap(steps))(*table.T)
    plain = jax.jit(lambda: steps(20, 0.45, 0.5, 0.8))()
    np.testing.assert_allclose([zoom[2], back[2]], plain, rtol=1e-12)
    assert zoom[1] != zoom[0] != zoom[3]
    assert back[2] != back[0] != back[4]


@pytest.mark.parametrize(
    ("make", "name", "value", "interval"),
    [
        (ls.zoom_linesearch, "max_linesearch_steps", 0, r"\[1, inf\)"),
        (ls.zoom_linesearch, "slope_rtol", 1.0, r"\[0, 1\)"),
        (ls.zoom_linesearch, "curv_rtol", 0.0, r"\(0, 1\]"),
        (ls.backtracking_linesearch, "max_backtracking_steps", 0, r"\[1, inf\)"),
        (ls.backtracking_linesearch, "slope_rtol", -0.1, r"\[0, 1\)"),
        (ls.backtracking_linesearch, "decrease_factor", 1.0, r"\(0, 1\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, name, value, interval):
    with pytest.raises(ValueError, match=f"`{name}` must be in {interval}, got {name}={value}"):
        make(**{name: value})

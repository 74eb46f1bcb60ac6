"""Gauss-Newton and Levenberg-Marquardt against SciPy and against normal equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tests.optim import problems

from jdl import optim
from jdl.optim.solvers import marquardt
from jdl.optim.solvers.marquardt import _next_radius, _Step

CHOSEN = ["rosenbrock", "jennrich_sampson", "bard", "kowalik_osborne", "osborne", "penalty"]
PROBLEMS = {p.name: p for p in problems.PROBLEMS}
RNG = np.random.default_rng(3)
X = RNG.normal(size=(7, 3))
Y = RNG.normal(size=7)
START = np.array([0.3, -1.0, 2.0])


def linear(w):
    return X @ w - Y


def curved(w):
    return {"a": jnp.sin(2 * jnp.asarray(X) @ w) * 3, "b": (w - 0.5) ** 2}


def flat(w):
    return jnp.concatenate([curved(w)["a"], curved(w)["b"]])


def test_agrees_with_scipy(x64):
    """Value and parameters at the end, and no more evaluations than MINPACK times 1.5."""

    def solve():
        return [
            optim.minimize(
                PROBLEMS[name].residuals,
                jnp.array(PROBLEMS[name].start, float),
                "levenberg_marquardt",
                gradient_tolerance=1e-9,
            )
            for name in CHOSEN
        ]

    ratios = []
    for name, ours in zip(CHOSEN, jax.jit(solve)(), strict=True):
        residuals = jax.jit(PROBLEMS[name].residuals)
        jacobian = jax.jit(jax.jacfwd(PROBLEMS[name].residuals))
        theirs = scipy.optimize.least_squares(
            lambda x, f=residuals: np.asarray(f(x)),
            np.array(PROBLEMS[name].start, float),
            jac=lambda x, f=jacobian: np.asarray(f(x)),
            method="lm",
            x_scale="jac",
            gtol=1e-9,
        )
        np.testing.assert_allclose(ours.value, theirs.cost, rtol=1e-6, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(ours.params, theirs.x, rtol=2e-2, atol=1e-6, err_msg=name)
        assert int(ours.status) in (optim.CONVERGED, optim.STALLED), name
        ratios.append(int(ours.evaluations) / theirs.nfev)
    assert np.median(ratios) <= 1.5


def valley(w):
    """Rosenbrock's residuals over three numbers: long steps along the valley overshoot."""
    return jnp.stack([10 * (w[1] - w[0] ** 2), 1 - w[0], 3 * (w[2] - w[0] * w[1]) + 0.2])


def check_marquardt(fun, w, steps, radius):
    """Holds the pair's steps to the rule in NumPy, with normal equations; the ends of its lane.

    Args:
      fun: the residuals.
      w: where to start.
      steps: updates and states after each, of one lane.
      radius: the first, as a multiple of `|D w|` or, if larger, of `|r| / 100`.

    Returns:
      One letter a step: "g" for a step of Gauss-Newton, "e" for one to the region's
      edge, capital where it was rejected.
    """
    f = lambda w: np.asarray(fun(jnp.asarray(w)))  # noqa: E731
    jacobian = jax.jit(jax.jacfwd(fun))
    norms, kinds = np.zeros(w.size), ""
    for t, (d, state) in enumerate(steps):
        r, J = f(w), np.asarray(jacobian(jnp.asarray(w)))
        norms = np.maximum(norms, (J**2).sum(0))
        D = np.diag(np.sqrt(norms))
        if t == 0:
            radius = radius * max(np.linalg.norm(D @ w), 0.01 * np.linalg.norm(r))

        def at(h, J=J, D=D, r=r):
            return -np.linalg.solve(J.T @ J + h * D @ D, J.T @ r)

        def beyond(h, D=D, at=at, radius=radius):
            return np.linalg.norm(D @ at(h)) - radius

        damping, edge = 0.0, beyond(0.0) > 0.01 * radius
        if edge and state.accepted:  # the damping for which the step's derivative is zero
            damping = -d @ J.T @ (r + J @ d) / (d @ D @ D @ d)
            assert -1e-3 < beyond(damping) / radius < 0.0101
        elif edge:
            damping = scipy.optimize.brentq(beyond, 0, 1e12)
        exact = at(damping)
        promise = 0.5 * r @ r - 0.5 * (r + J @ exact) @ (r + J @ exact)
        before, value = 0.5 * r @ r, 0.5 * f(w + exact) @ f(w + exact)
        ratio = (before - value) / promise
        assert min(abs(ratio - limit) for limit in (1e-4, 0.25, 0.75)) > 2e-3
        if t == 0:
            radius = min(radius, np.linalg.norm(D @ exact))
        assert bool(state.accepted) == (ratio > 1e-4)
        np.testing.assert_allclose(d, exact if ratio > 1e-4 else 0 * exact, rtol=1e-5, atol=1e-9)
        moved = np.linalg.norm(D @ exact)
        if ratio > 0.25:
            radius = 2 * moved if ratio >= 0.75 or not edge else radius
        else:
            slope = -r @ J @ exact
            cut = 0.5 if value <= before else 0.5 * slope / (slope + value - before)
            cut = 0.1 if value >= 100 * before else min(max(cut, 0.1), 0.5)
            radius = cut * min(radius, 10 * moved)
        # A rejected step to the edge is known to a hundredth only.
        np.testing.assert_allclose(state.radius, radius, rtol=1e-5 if state.accepted else 2e-2)
        radius = float(state.radius)
        w = w + np.asarray(d)
        kinds += ("e" if edge else "g").upper() if ratio <= 1e-4 else ("e" if edge else "g")
    return kinds


def steps_of_the_pair(fun, start, radius, count):
    """The end, and the updates and states of `count` updates."""
    optimizer = optim.levenberg_marquardt(radius)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(w, state, w, residual_fn=fun)
        return (w + updates, state), (updates, state)

    w = jnp.asarray(start)
    (w, _), path = jax.lax.scan(step, (w, optimizer.init(w)), None, length=count)
    return w, path


def test_levenberg_marquardt_is_its_formula(x64):
    """Eight updates of the pair, from three radii in lanes."""
    radii = [100.0, 0.3, 0.02]
    start = np.array([-1.2, 1.0, 0.5])
    run = jax.jit(jax.vmap(lambda radius: steps_of_the_pair(valley, start, radius, 8)))
    _, (updates, states) = run(jnp.array(radii))
    seen = ""
    for lane, radius in enumerate(radii):
        steps = [
            (np.asarray(updates[lane, t]), jax.tree.map(lambda x, at=(lane, t): x[at], states))
            for t in range(8)
        ]
        seen += check_marquardt(valley, start, steps, radius)
    assert {*seen} >= {"G", "E", "e"}, seen
    assert states.step[:, -1].tolist() == [8] * 3


def test_the_solver_takes_the_steps_of_the_pair(x64):
    """To the same point with the same number of trials, from the same first radius."""
    start = np.array([-1.2, 1.0, 0.5])
    w, (_, states) = jax.jit(lambda: steps_of_the_pair(valley, start, 3.0, 9))()
    accepted = np.asarray(states.accepted)
    assert 0 < accepted.sum() < 9
    result = optim.least_squares(
        valley, jnp.array(start), max_iterations=accepted.sum(), radius=3.0, gradient_tolerance=0.0
    )
    np.testing.assert_allclose(result.params, w, rtol=1e-8)
    np.testing.assert_allclose(result.value, 0.5 * np.sum(np.asarray(valley(w)) ** 2))
    used = 2 + np.flatnonzero(accepted)[-1]
    assert (int(result.iterations), int(result.evaluations)) == (accepted.sum(), used)
    assert int(result.status) == optim.MAX_ITERATIONS


def test_parameters_at_zero_have_the_residuals_for_their_first_radius(x64):
    """`J = 3`, `w = 0`, `r = -6`: 50 hundredths of 6 are a step of 1, half the way."""
    optimizer = optim.levenberg_marquardt(50.0)
    w = jnp.zeros(1)
    updates, state = optimizer.update(w, optimizer.init(w), w, residual_fn=lambda w: 3 * w - 6)
    assert 1.0 <= float(updates[0]) <= 1.01
    np.testing.assert_allclose(state.radius, 6 * updates[0], rtol=1e-9)  # foretold: twice 3 |d|


def test_gauss_newton_is_exact_in_one_step_on_linear_residuals(x64):
    exact = np.linalg.lstsq(X, Y, rcond=None)[0]
    optimizer = optim.gauss_newton()

    def both(w):
        g = jax.grad(lambda w: 0.5 * jnp.sum(linear(w) ** 2))(w)
        updates, state = optimizer.update(g, optimizer.init(w), w, residual_fn=linear)
        return w + updates, state, optim.least_squares(linear, w, "gauss_newton")

    end, state, result = jax.jit(both)(jnp.array(START))
    np.testing.assert_allclose(end, exact, rtol=1e-10)
    np.testing.assert_allclose(result.params, exact, rtol=1e-10)
    np.testing.assert_allclose(result.value, 0.5 * np.sum((X @ exact - Y) ** 2), rtol=1e-12)
    assert int(state.evaluations) == 1
    assert (int(result.iterations), int(result.evaluations), int(result.status)) == (1, 2, 0)


def test_gauss_newton_takes_the_shortest_step_where_the_rank_is_not_full(x64):
    """More parameters than residuals: the Jacobian by rows, the step by the pseudo-inverse."""
    wide = RNG.normal(size=(2, 4))
    target = np.array([1.0, -2.0])
    w = RNG.normal(size=4)
    result = optim.least_squares(lambda w: wide @ w - target, jnp.array(w), "gauss_newton")
    np.testing.assert_allclose(
        result.params, w - np.linalg.pinv(wide) @ (wide @ w - target), rtol=1e-10
    )


def test_lanes_end_each_with_their_own_status(x64):
    """A good start, one that is not finite, one at the minimum, and one that cannot be improved."""

    def residuals(w):
        return jnp.stack([w[0] - 1, jnp.where(w[1] > 5, jnp.nan, w[1] ** 2 + 1)])

    starts = jnp.array([[3.0, 0.5], [jnp.nan, 1.0], [1.0, 0.0], [2.0, 9.0]])
    solve = jax.jit(jax.vmap(lambda w: optim.least_squares(residuals, w)))
    result = solve(starts)
    # The second column of the first lane vanishes as fast as its product with r.
    codes = [optim.STALLED, optim.NOT_FINITE, optim.CONVERGED, optim.NOT_FINITE]
    assert result.status.tolist() == codes
    np.testing.assert_allclose(result.value[jnp.array([0, 2])], 0.5, rtol=1e-9)
    assert result.evaluations.tolist()[1:] == [1, 1, 1]
    assert result.iterations.tolist()[1:] == [0, 0, 0]
    alone = jax.jit(lambda w: optim.least_squares(residuals, w))(starts[0])
    assert int(alone.evaluations) == int(result.evaluations[0])
    np.testing.assert_allclose(alone.params, result.params[0], rtol=1e-9)


def test_value_tolerance_and_rejections_end_a_solve(x64):
    loose = optim.least_squares(
        curved, jnp.array(START), value_tolerance=0.2, gradient_tolerance=0.0
    )
    tight = optim.least_squares(curved, jnp.array(START), gradient_tolerance=0.0)
    assert int(loose.status) == optim.CONVERGED
    assert int(tight.status) == optim.STALLED
    assert int(loose.iterations) < int(tight.iterations)
    assert (
        float(tight.value) < float(loose.value) < 0.5 * float(jnp.sum(flat(jnp.array(START)) ** 2))
    )
    # Finite at the start alone: every trial is rejected.
    only = lambda w: jnp.where(w == 2.0, 3 * w, jnp.nan)  # noqa: E731
    stuck = optim.least_squares(only, jnp.array([2.0]))
    assert int(stuck.status) == optim.STALLED
    assert float(stuck.value) == 18.0
    assert int(stuck.evaluations) <= marquardt.REJECTIONS + 1


def test_misuse_is_named():
    with pytest.raises(ValueError, match="`method` must be one of 'gauss_newton'"):
        optim.least_squares(linear, jnp.ones(3), "lm")
    with pytest.raises(ValueError, match=r"`radius` must be in \(0, inf\), got radius=0.0"):
        optim.least_squares(linear, jnp.ones(3), radius=0.0)
    with pytest.raises(ValueError, match=r"`radius` must be in \(0, inf\), got radius=0.0"):
        optim.levenberg_marquardt(0.0)
    for make in (optim.gauss_newton, optim.levenberg_marquardt):
        optimizer = make()
        with pytest.raises(ValueError, match=f"{make.__name__} needs .*residual_fn=fun"):
            optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)), jnp.ones(3))


def test_a_trial_is_taken_from_a_ten_thousandth_of_its_promise(x64):
    """`w` down to 0.5, a constant `c` below it: the first trial, to 0, falls on it.

    With `J = 1` the step is -1 and its promise 0.5; the decrease is `(1 - c^2) / 2`.
    """

    def run(share):
        fun = lambda w: jnp.where(w > 0.5, w, jnp.sqrt(1 - share))  # noqa: E731
        w = jnp.ones(1)
        optimizer = optim.levenberg_marquardt()
        updates, state = optimizer.update(w, optimizer.init(w), w, residual_fn=fun)
        solved = optim.least_squares(fun, w, max_iterations=1)
        return updates[0], state.accepted, solved.evaluations

    updates, accepted, evaluations = jax.jit(jax.vmap(run))(jnp.array([0.9e-4, 1.1e-4]))
    np.testing.assert_allclose(updates, [0, -1], rtol=1e-12)
    assert accepted.tolist() == [False, True]
    assert int(evaluations[1]) == 2 < int(evaluations[0])


@pytest.mark.parametrize(
    ("damping", "before", "value", "factor"),
    [
        (1.0, 10.0, 9.3, 1.0),  # 0.7 of the promise, to the edge
        (0.0, 10.0, 9.3, 1.6),  # twice the step's length, which is 0.8 of the radius
        (1.0, 10.0, 9.2, 1.6),  # 0.8 of the promise
        (1.0, 10.0, 9.8, 0.5),  # 0.2 of it
        # The slope is 2 - 0.25 * 0.64 = 1.84: 0.5 * 1.84 / (1.84 + 3) of the step.
        (0.25, 10.0, 13.0, 0.92 / 4.84),
        (0.0, 10.0, 10.1, 1 / 2.1),
        (1.0, 10.0, 100.0, 0.1),  # where the parabola says less than a tenth
        (1.0, 1e-3, 0.2, 0.1),  # more than 100 times the value
        (1.0, 10.0, np.inf, 0.1),
        (1.0, 10.0, np.nan, 0.1),
    ],
)
def test_the_radius_follows_what_a_step_brought(x64, damping, before, value, factor):
    step = _Step(jnp.zeros(2), 0.8, damping, 1.0)
    np.testing.assert_allclose(_next_radius(1.0, step, before, value), factor, rtol=1e-9)


def test_a_short_step_that_failed_cuts_the_radius_to_it(x64):
    """To half of ten times its length, where that is less than the radius."""
    step = _Step(jnp.zeros(2), 0.04, 0.0, 1.0)
    np.testing.assert_allclose(_next_radius(1.0, step, 10.0, 9.9), 0.2, rtol=1e-9)


def mgh10(b):
    """NIST's MGH10, certified residual sum of squares 87.945855171."""
    x = 50 + 5 * jnp.arange(16.0)
    y = jnp.array([34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147])
    y = jnp.concatenate([y, jnp.array([4427, 3820, 3307, 2872])])
    return b[0] * jnp.exp(b[1] / (x + b[2])) - y


def test_a_far_start_takes_no_more_evaluations_than_minpack(x64):
    """MGH10 from the first start of NIST's table, where a damping alone takes thousands."""
    start = np.array([2.0, 400000.0, 25000.0])
    ours = optim.least_squares(mgh10, jnp.array(start))
    jacobian = jax.jit(jax.jacfwd(mgh10))
    theirs = scipy.optimize.least_squares(
        lambda b: np.asarray(mgh10(jnp.asarray(b))),
        start,
        jac=lambda b: np.asarray(jacobian(b)),
        method="lm",
        x_scale="jac",
        ftol=1e-14,
        max_nfev=2000,
    )
    np.testing.assert_allclose(2 * ours.value, 87.945855171, rtol=1e-9)
    assert int(ours.status) == optim.CONVERGED
    assert int(ours.evaluations) <= 1.2 * theirs.nfev

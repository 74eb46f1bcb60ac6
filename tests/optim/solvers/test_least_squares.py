"""Gauss-Newton and Levenberg-Marquardt against SciPy and against normal equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tests.optim import problems

from jdl import optim
from jdl.optim.solvers import marquardt
from jdl.optim.solvers.marquardt import _regulate

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


def marquardt_loop(w, damping, steps, fun=flat):
    """The rule in NumPy, with normal equations for the step."""
    f = lambda w: np.asarray(fun(jnp.asarray(w)))  # noqa: E731
    jacobian = jax.jit(jax.jacfwd(fun))
    growth, norms, path = 2.0, np.zeros(3), []
    for _ in range(steps):
        r, J = f(w), np.asarray(jacobian(jnp.asarray(w)))
        norms = np.maximum(norms, (J**2).sum(0))
        d = -np.linalg.solve(J.T @ J + damping * np.diag(norms), J.T @ r)
        model = 0.5 * (r + J @ d) @ (r + J @ d)
        ratio = (0.5 * r @ r - 0.5 * f(w + d) @ f(w + d)) / (0.5 * r @ r - model)
        path.append((ratio > 1e-4, damping, d))
        if ratio > 1e-4:
            w, damping, growth = w + d, damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 2.0
        else:
            damping, growth = damping * growth, growth * 2
    return w, path


def test_levenberg_marquardt_is_its_formula(x64):
    """Nine updates of the pair, from three dampings in lanes, runs of rejected ones among them."""
    dampings = [1e-8, 0.1, 3.0]
    start = np.array([-1.2, 1.0, 0.5])

    def run(damping):
        optimizer = optim.levenberg_marquardt(damping)
        w = jnp.array(start)

        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(w, state, w, residual_fn=valley)
            return (w + updates, state), (updates, state)

        (w, state), path = jax.lax.scan(step, (w, optimizer.init(w)), None, length=9)
        return w, state, path

    ends, states, (updates, path) = jax.jit(jax.vmap(run))(jnp.array(dampings))
    rejected = []
    for lane, damping in enumerate(dampings):
        _, expected = marquardt_loop(start, damping, 10, valley)
        for t, (accepted, _, d) in enumerate(expected[:9]):
            assert np.max(np.abs(d)) > 1e-3  # far above the rounding, which decides nothing here
            np.testing.assert_allclose(updates[lane, t], d if accepted else 0 * d, rtol=1e-8)
            np.testing.assert_allclose(path.damping[lane, t], expected[t + 1][1], rtol=1e-8)
            assert bool(path.accepted[lane, t]) == accepted
        np.testing.assert_allclose(ends[lane], start + updates[lane].sum(0), rtol=1e-12)
        rejected.append("".join("-+"[int(a)] for a, _, _ in expected[:9]))
    assert all("-" in lane for lane in rejected)
    assert any("---" in lane for lane in rejected), rejected  # the growth itself grows
    assert states.step.tolist() == [9] * 3


def test_the_solver_takes_the_steps_of_the_pair(x64):
    """To the same point with the same number of trials, started from the same damping."""
    w, path = marquardt_loop(START, 1e-8, 9)
    accepted = sum(a for a, _, _ in path)
    result = optim.least_squares(
        curved, jnp.array(START), max_iterations=accepted, damping=1e-8, gradient_tolerance=0.0
    )
    used = 1 + max(i + 1 for i, (a, _, _) in enumerate(path) if a)
    np.testing.assert_allclose(result.params, w, rtol=1e-8)
    np.testing.assert_allclose(result.value, 0.5 * np.sum(np.asarray(flat(jnp.array(w))) ** 2))
    assert (int(result.iterations), int(result.evaluations)) == (accepted, used)
    assert int(result.status) == optim.MAX_ITERATIONS


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
    with pytest.raises(ValueError, match=r"`damping` must be in \(0, inf\), got damping=0.0"):
        optim.least_squares(linear, jnp.ones(3), damping=0.0)
    with pytest.raises(ValueError, match=r"`damping` must be in \(0, inf\), got damping=0.0"):
        optim.levenberg_marquardt(0.0)
    for make in (optim.gauss_newton, optim.levenberg_marquardt):
        optimizer = make()
        with pytest.raises(ValueError, match=f"{make.__name__} needs .*residual_fn=fun"):
            optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)), jnp.ones(3))


def test_a_trial_is_taken_from_a_ten_thousandth_of_its_promise(x64):
    """`w` down to 0.5, a constant below it: the first trial falls on it, at a share as chosen.

    With `J = 1` the step is `-1 / (1 + damping)` and the promise half of
    `(1 + 2 damping) / (1 + damping)^2`; with the constant `c` the decrease is
    `(1 - c^2) / 2`.
    """
    damping = 0.01
    promise = (1 + 2 * damping) / (1 + damping) ** 2
    shares = jnp.array([0.9e-4, 1.1e-4])

    def run(share):
        fun = lambda w: jnp.where(w > 0.5, w, jnp.sqrt(1 - share * promise))  # noqa: E731
        w = jnp.ones(1)
        optimizer = optim.levenberg_marquardt(damping)
        updates, state = optimizer.update(w, optimizer.init(w), w, residual_fn=fun)
        solved = optim.least_squares(fun, w, damping=damping, max_iterations=1)
        return updates[0], state.accepted, solved.evaluations

    updates, accepted, evaluations = jax.jit(jax.vmap(run))(shares)
    np.testing.assert_allclose(updates, [0, -1 / (1 + damping)], rtol=1e-12)
    assert accepted.tolist() == [False, True]
    assert int(evaluations[1]) == 2 < int(evaluations[0])


def test_damping_grows_faster_with_each_rejection_and_from_2_after_an_acceptance(x64):
    """Two rejections, an acceptance at a ratio of 0.9, a rejection: by Nielsen's rule."""
    damping, growth = 0.5, 2.0
    seen = []
    for ratio, accepted in ((-1.0, False), (-1.0, False), (0.9, True), (-1.0, False)):
        damping, growth = _regulate(damping, growth, ratio, accepted)
        seen.append((float(damping), float(growth)))
    shrunk = 4.0 * (1 - 0.8**3)
    expected = [(1.0, 4.0), (4.0, 8.0), (shrunk, 2.0), (2 * shrunk, 4.0)]
    np.testing.assert_allclose(seen, expected, rtol=1e-12)

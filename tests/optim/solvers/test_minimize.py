"""`minimize` against SciPy on standard problems, in lanes, in float32, where it must give up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tests.optim import problems

from jdl import optim
from jdl.optim.solvers.descend import PATIENCE, Stop

SCIPY = {"lbfgs": "L-BFGS-B", "bfgs": "BFGS", "newton": "Newton-CG", "newton_cg": "Newton-CG"}


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def by_scipy(value_and_grad, start, method, **options):
    def fun(x):
        value, gradient = value_and_grad(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    if method == "lbfgs":
        options["ftol"] = 0.0
        options["maxfun"] = 20_000
    return scipy.optimize.minimize(
        fun, np.asarray(start), jac=True, method=SCIPY[method], options={"gtol": 1e-5, **options}
    )


@pytest.mark.parametrize("method", ["lbfgs", "bfgs"])
def test_reaches_the_published_minima_of_26_problems_in_scipys_evaluations(x64, method):
    """One compiled solver for all, since which problem it solves is an argument."""
    starts = jnp.array(problems.padded_starts())
    count = len(problems.PROBLEMS)

    def solve(arguments):
        x, index = arguments
        return optim.minimize(
            lambda x: problems.objective(x, index), x, method, gradient_tolerance=1e-5
        )

    ours = jax.jit(lambda xs: jax.lax.map(solve, (xs, jnp.arange(count))))(starts)
    value_and_grad = jax.jit(jax.value_and_grad(problems.objective))
    ratios = []
    for i, problem in enumerate(problems.PROBLEMS):
        n, value = len(problem.start), float(ours.value[i])
        near = min(problem.minimum, key=lambda known: abs(known - value))
        np.testing.assert_allclose(value, near, rtol=1e-5, atol=5e-5, err_msg=problem.name)
        assert value <= float(value_and_grad(starts[i], i)[0])
        assert int(ours.status[i]) == optim.CONVERGED or problem.name == "meyer", problem.name
        if problem.name in ("powell_badly_scaled", "jennrich_sampson", "meyer"):
            continue  # SciPy's L-BFGS-B stops early on these, above the minimum.
        theirs = by_scipy(lambda x, i=i: value_and_grad(x, i), starts[i], method, maxiter=1000)
        assert value <= theirs.fun + 1e-6 * max(1, abs(theirs.fun)), problem.name
        assert not np.asarray(ours.params[i, n:]).any()
        ratios.append(int(ours.evaluations[i]) / theirs.nfev)
    assert np.median(ratios) <= 1.5
    assert max(ratios) <= 2.5


def test_newton_methods_reach_the_minimum_in_scipys_evaluations(x64):
    chosen = ["beale", "bard", "powell_singular", "kowalik_osborne", "brown_dennis"]
    listed = [p for p in problems.PROBLEMS if p.name in chosen]

    def solve():
        return [
            optim.minimize(
                lambda x, p=p: jnp.sum(p.residuals(x) ** 2),
                jnp.array(p.start, float),
                method,
                gradient_tolerance=1e-5,
            )
            for p in listed
            for method in ("newton", "newton_cg")
        ]

    ratios, solved = {"newton": [], "newton_cg": []}, iter(jax.jit(solve)())
    for p in listed:
        fun = jax.jit(lambda x, p=p: jnp.sum(p.residuals(x) ** 2))
        gradient, hessian = jax.jit(jax.grad(fun)), jax.jit(jax.hessian(fun))
        theirs = scipy.optimize.minimize(
            lambda x, f=fun: float(f(x)),
            np.array(p.start, float),
            jac=lambda x, f=gradient: np.asarray(f(x)),
            hess=lambda x, f=hessian: np.asarray(f(x)),
            method="Newton-CG",
        )
        for method in ratios:
            ours = next(solved)
            np.testing.assert_allclose(ours.value, theirs.fun, rtol=1e-6, atol=1e-6, err_msg=p.name)
            assert int(ours.status) == optim.CONVERGED
            ratios[method].append(int(ours.evaluations) / theirs.nfev)
    assert all(np.median(r) <= 1.5 for r in ratios.values())


def test_rosenbrock_in_2_10_and_100_dimensions(x64):
    """One compiled program: the sizes are the first entries of one vector."""
    sizes = (2, 10, 100)

    def fun(x, n):
        terms = 100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2
        return jnp.sum(jnp.where(jnp.arange(99) < n - 1, terms, 0))

    alternating = jnp.tile(jnp.array([-1.2, 1.0]), 50)
    starts = jnp.stack([jnp.where(jnp.arange(100) < n, alternating, 0) for n in sizes])
    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def solve(arguments):
        x, n = arguments
        return [
            optim.minimize(lambda x: fun(x, n), x, method, gradient_tolerance=1e-5)
            for method in ("lbfgs", "bfgs")
        ]

    solved = jax.jit(lambda xs: jax.lax.map(solve, (xs, jnp.array(sizes))))(starts)
    for method, ours in zip(("lbfgs", "bfgs"), solved, strict=True):
        ratios = []
        for i, n in enumerate(sizes):
            at = lambda x, n=n: value_and_grad(x, n)  # noqa: E731
            theirs = by_scipy(at, starts[i], method, maxiter=2000)
            # Two minima from 4 dimensions on: 0, and 3.98657912 near (-1, 1, ..., 1) for 10.
            known = (0, 3.98657912) if n == 10 else (0,)
            assert min(abs(float(ours.value[i]) - minimum) for minimum in known) < 1e-6
            assert int(ours.status[i]) == optim.CONVERGED
            norm = jnp.abs(at(ours.params[i])[1]).max()
            np.testing.assert_allclose(ours.gradient_norm[i], norm, rtol=1e-6, atol=1e-12)
            assert float(norm) <= 1e-5
            ratios.append(int(ours.evaluations[i]) / theirs.nfev)
        assert np.median(ratios) <= 1.5


def logistic(w, x, y, l2):
    logits = x @ w["kernel"] + w["bias"][None]
    loss = jnp.mean(jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, y[:, None], 1)[:, 0])
    return loss + l2 * jnp.sum(w["kernel"] ** 2)


def test_full_batch_logistic_regression_on_digits_over_a_path_of_penalties(x64):
    """Four penalties in lanes of one solve, each to the minimum that SciPy finds."""
    from jdl import data

    train = data.digits().train
    x, y = jnp.asarray(train[0], float), jnp.asarray(train[1])
    penalties = jnp.array([0.3, 0.1, 0.01, 0.003])
    w = {"kernel": jnp.zeros((x.shape[1], 10)), "bias": jnp.zeros(10)}
    solve_to = functools.partial(optim.minimize, gradient_tolerance=1e-5)
    solve = jax.jit(jax.vmap(lambda l2: solve_to(lambda w: logistic(w, x, y, l2), w, "lbfgs")))
    ours = solve(penalties)
    assert (ours.status == optim.CONVERGED).all()
    flat, unflatten = jax.flatten_util.ravel_pytree(w)
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda v, l2: logistic(unflatten(v), x, y, l2)),
    )
    for lane, l2 in enumerate(penalties):
        theirs = by_scipy(lambda v, l2=l2: value_and_grad(v, l2), flat, "lbfgs")
        np.testing.assert_allclose(ours.value[lane], theirs.fun, rtol=0, atol=1e-6)
        assert int(ours.evaluations[lane]) <= 1.5 * theirs.nfev


def test_64_starts_with_one_that_is_nan(x64):
    """63 converge, as alone, and one says what it is."""
    starts = jax.random.uniform(jax.random.key(3), (64, 4), minval=-2.0, maxval=2.0)
    starts = starts.at[17, 2].set(jnp.nan)
    solve = lambda x: optim.minimize(rosenbrock, x, "lbfgs")  # noqa: E731
    lanes = jax.jit(jax.vmap(solve))(starts)
    others = jnp.arange(64) != 17
    assert (lanes.status[others] == optim.CONVERGED).all()
    minima = jnp.array([0.0, 3.70142844])
    gaps = jnp.abs(lanes.value[others][:, None] - minima[None])
    assert (gaps.min(1) < 1e-6).all()
    assert int(lanes.status[17]) == optim.NOT_FINITE
    assert jnp.isnan(lanes.value[17])
    assert (int(lanes.iterations[17]), int(lanes.evaluations[17])) == (0, 1)
    assert len(set(lanes.evaluations[others].tolist())) > 10
    alone = jax.jit(lambda xs: jax.lax.map(solve, xs))(starts[:6])
    np.testing.assert_allclose(alone.value, lanes.value[:6], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(alone.evaluations[:1], lanes.evaluations[:1])


FLOAT32 = [
    rosenbrock,
    lambda x: jnp.sum(jnp.exp(x) + jnp.exp(-2 * x)) * 1e3,
    lambda x: jnp.sum(jnp.array([1.0, 1e3, 1e6, 1e-3]) * (x - 1) ** 2) + 1e5,
]


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "newton_cg"])
def test_float32_never_ends_above_its_start(method):
    """Badly scaled starts of three problems, where float32 runs out; every lane ends."""
    scales = jnp.array([0.1, 1.0, 30.0])[:, None, None]
    starts = (jax.random.normal(jax.random.key(1), (3, 24, 4)) * scales).reshape(-1, 4)
    index = jnp.repeat(jnp.arange(3), 24)

    def solve(x, index):
        fun = lambda x: jax.lax.switch(index, FLOAT32, x)  # noqa: E731
        result = optim.minimize(fun, x, method, max_iterations=200)
        return fun(x), result, fun(result.params)

    before, result, after = jax.jit(jax.vmap(solve))(starts, index)
    finite = jnp.isfinite(before)
    assert (result.value <= before)[finite].all()
    assert (result.value < before).sum() > 50
    np.testing.assert_allclose(after[finite], result.value[finite], rtol=1e-5)
    assert (result.status[~finite] == optim.NOT_FINITE).all()
    assert (result.status >= 0).all()
    assert result.params.dtype == jnp.float32


def bowl(w):
    return jnp.sum(jnp.array([1.0, 20.0]) * w**2) + 1


def offset(w):
    return 1e9 + jnp.sum(jnp.array([1.0, 30.0]) * w**4)


@jax.custom_jvp
def wrong(w):
    return jnp.sum(w**2)


wrong.defjvp(lambda primal, tangent: (wrong(*primal), -2 * jnp.dot(primal[0], tangent[0])))

# name: (objective, gradient tolerance, value tolerance, most iterations, start)
ENDS = {
    "at the minimum": (bowl, 1e-5, 0.0, 100, (0.0, 0.0)),
    "none": (bowl, 1e-5, 0.0, 0, (3.0, -1.0)),
    "two": (bowl, 1e-5, 0.0, 2, (3.0, -1.0)),
    "loose": (bowl, 3.0, 0.0, 100, (3.0, -1.0)),
    "value": (bowl, 0.0, 0.3, 100, (3.0, -1.0)),
    "all the way": (bowl, 0.0, 0.0, 100, (3.0, -1.0)),
    "wrong gradient": (wrong, 1e-5, 0.0, 100, (3.0, -1.0)),
    "rounding": (offset, 0.0, 0.0, 2000, (3.0, -1.0)),
}


def test_statuses_and_tolerances(x64):
    """Each way to end, with its number, in lanes of one program with traced tolerances."""

    def solve(index, gradient, value, most, start):
        return optim.minimize(
            lambda w: jax.lax.switch(index, [bowl, offset, wrong], w),
            start,
            gradient_tolerance=gradient,
            value_tolerance=value,
            max_iterations=most,
        )

    rows = [([bowl, offset, wrong].index(f), *rest) for f, *rest in ENDS.values()]
    lanes = jax.jit(jax.vmap(solve))(*(jnp.array(x) for x in zip(*rows)))
    results = {name: jax.tree.map(lambda x, i=i: x[i], lanes) for i, name in enumerate(ENDS)}
    ends = {name: (int(r.status), int(r.iterations)) for name, r in results.items()}
    assert ends["at the minimum"] == (optim.CONVERGED, 0)
    assert ends["none"] == (optim.MAX_ITERATIONS, 0)
    assert results["none"].params.tolist() == [3.0, -1.0]
    assert float(results["none"].value) == 30.0
    assert ends["two"] == (optim.MAX_ITERATIONS, 2)
    assert ends["loose"][0] == optim.CONVERGED
    assert 1e-5 < float(results["loose"].gradient_norm) <= 3
    assert ends["value"][0] == optim.CONVERGED
    assert float(results["value"].gradient_norm) > 1e-5
    assert ends["all the way"][0] in (optim.STALLED, optim.LINE_SEARCH_FAILED, optim.CONVERGED)
    assert float(results["all the way"].value) == 1.0
    assert ends["wrong gradient"] == (optim.LINE_SEARCH_FAILED, 0)
    assert results["wrong gradient"].params.tolist() == [3.0, -1.0]
    assert ends["rounding"][0] in (optim.STALLED, optim.LINE_SEARCH_FAILED, optim.CONVERGED)
    assert float(results["rounding"].value) <= 1e9 + 1e-5
    codes = (optim.CONVERGED, optim.MAX_ITERATIONS, optim.LINE_SEARCH_FAILED)
    assert (*codes, optim.NOT_FINITE, optim.STALLED) == (0, 1, 2, 3, 4)
    for code in range(5):
        assert optim.status_message(code) == optim.STATUS_MESSAGES[code]
    assert "line search" in optim.status_message(ends["wrong gradient"][0])


def test_after_a_failed_search_the_solver_starts_over_along_the_gradient(x64):
    """A direction that points nowhere lower, then the truth: one restart, and it converges."""

    def propose(memory, fun, x, gradient, s, y, learn, reset, active):
        useless = jnp.array([1e-30, 0.0]) * -jnp.sign(gradient)
        first = memory == 0
        memory = jnp.where(active, memory + 1, memory)
        return memory, jnp.where(first, -gradient, jnp.where(memory == 2, useless, -gradient / 2))

    direction = optim.Direction(lambda x: jnp.zeros((), jnp.int32), propose)
    fun = lambda w: jnp.sum(jnp.array([1.0, 5.0]) * w**2)  # noqa: E731
    search = optim.zoom_linesearch(max_linesearch_steps=6)
    result = jax.jit(lambda w: optim.minimize(fun, w, direction, linesearch=search))(
        jnp.array([3.0, 1.0])
    )
    assert int(result.status) == optim.CONVERGED
    assert int(result.evaluations) >= int(result.iterations) + 6


def test_an_optimizer_as_the_method_in_lanes_with_schedules(x64):
    """Nesterov with a decaying rate, against the loop in NumPy; the best point is kept."""
    rates = np.array([0.02, 0.09, 0.3])
    curvature = np.array([1.0, 10.0])
    start = np.array([3.0, -2.0])
    bowl = lambda w: 0.5 * jnp.sum(jnp.asarray(curvature) * w["w"] ** 2)  # noqa: E731

    def solve(rate):
        optimizer = optim.nesterov(lambda t: rate / (1 + 0.05 * t), 0.8)
        return optim.minimize(
            bowl, {"w": jnp.array(start)}, optimizer, max_iterations=25, gradient_tolerance=1e-3
        )

    ours = jax.jit(jax.vmap(solve))(jnp.array(rates))
    for lane, rate in enumerate(rates):
        theta, v = start.copy(), np.zeros(2)
        best = (np.inf, None)
        for t in range(26):
            phi = theta + 0.8 * v
            value = 0.5 * np.sum(curvature * phi**2)
            g = curvature * phi
            if value < best[0]:
                best = value, phi, np.abs(g).max()
            if np.abs(g).max() <= 1e-3:
                break
            v = 0.8 * v - rate / (1 + 0.05 * t) * g
            theta = theta + v
        np.testing.assert_allclose(ours.value[lane], best[0], rtol=1e-8)
        np.testing.assert_allclose(ours.params["w"][lane], best[1], rtol=1e-6)
        np.testing.assert_allclose(ours.gradient_norm[lane], best[2], rtol=1e-6)
        assert int(ours.iterations[lane]) == t
        assert int(ours.evaluations[lane]) == t + 1
        converged = best[2] <= 1e-3
        assert int(ours.status[lane]) == (optim.CONVERGED if converged else optim.MAX_ITERATIONS)


def test_newton_steps_with_a_schedule_of_their_damping_in_lanes(x64):
    """Undamped it is exact in one step; damped, each step shrinks the error by a known factor."""
    h = np.array([[4.0, 1.0], [1.0, 3.0]])
    centre = np.array([0.7, -1.5])
    bowl = lambda w: 0.5 * (w - centre) @ jnp.asarray(h) @ (w - centre)  # noqa: E731

    def solve(damping, start):
        newton = optim.newton(1.0, lambda t: damping / (1 + t), linesearch=None)
        return optim.minimize(bowl, start, newton, max_iterations=5, gradient_tolerance=1e-12)

    dampings, starts = np.array([0.0, 0.5, 4.0]), np.array([[3.0, 1.0], [-2.0, 5.0], [0.1, 0.2]])
    lanes = jax.jit(jax.vmap(solve))(jnp.array(dampings), jnp.array(starts))
    for lane, damping in enumerate(dampings):
        error, steps = starts[lane] - centre, 1 if damping == 0 else 5
        for t in range(steps):
            # Damping is relative to a Hessian of unit diagonal.
            damped = h + damping / (1 + t) * np.diag(np.diag(h))
            error = error - np.linalg.solve(damped, h @ error)
        np.testing.assert_allclose(lanes.params[lane], centre + error, rtol=1e-10)
        assert int(lanes.iterations[lane]) == steps
    codes = [optim.CONVERGED, optim.MAX_ITERATIONS, optim.MAX_ITERATIONS]
    assert lanes.status.tolist() == codes


def test_an_lbfgs_with_a_schedule_and_a_diverging_rate_in_lanes(x64):
    """Each lane keeps its best; the one that overflows says so."""
    steep = lambda w: jnp.sum(jnp.exp(jnp.abs(w)) - jnp.abs(w)) + jnp.sum(w**4)  # noqa: E731

    def solve(rate):
        lbfgs = optim.lbfgs(lambda t: rate / (1 + t / 50), memory_size=4, linesearch=None)
        return optim.minimize(steep, jnp.array([2.0, -1.0]), lbfgs, max_iterations=60)

    lanes = jax.jit(jax.vmap(solve))(jnp.array([0.5, 0.9, 1e3]))
    assert lanes.status.tolist() == [optim.CONVERGED, optim.CONVERGED, optim.NOT_FINITE]
    np.testing.assert_allclose(lanes.value[:2], 2.0, atol=1e-9)
    assert float(lanes.value[2]) <= float(steep(jnp.array([2.0, -1.0])))
    assert jnp.isfinite(lanes.params).all()


def test_nested_lanes_over_starts_and_penalties(x64):
    """A vmap of a vmap: every lane as alone, whatever the others do."""
    fun = lambda w, a: jnp.sum((w[1:] - w[:-1] ** 2) ** 2) * a + jnp.sum((1 - w) ** 2)  # noqa: E731
    solve = lambda w, a: optim.minimize(lambda w: fun(w, a), w)  # noqa: E731
    starts = jnp.array([[-1.0, 2.0], [0.5, 0.1], [jnp.inf, 1.0]])
    scales = jnp.array([1.0, 300.0])
    grid = jax.jit(jax.vmap(jax.vmap(solve, (None, 0)), (0, None)))(starts, scales)
    alone = jax.jit(solve)
    for i in range(3):
        for j in range(2):
            one = alone(starts[i], scales[j])
            assert int(one.status) == int(grid.status[i, j])
            assert int(one.evaluations) == int(grid.evaluations[i, j])
            np.testing.assert_allclose(grid.value[i, j], one.value, atol=1e-9)


def test_low_precision_and_structure_are_kept():
    w = {"a": jnp.full((2, 2), 2.0, jnp.bfloat16), "b": jnp.array(3.0)}
    fun = lambda w: jnp.sum(w["a"].astype(jnp.float32) ** 2) + (w["b"] - 1) ** 2  # noqa: E731
    result = optim.minimize(fun, w)
    assert result.params["a"].dtype == jnp.bfloat16
    assert result.params["b"].dtype == jnp.float32
    assert float(fun(result.params)) == float(result.value) < 1e-3


@pytest.mark.parametrize("name", ["gradient_tolerance", "value_tolerance", "max_iterations"])
def test_numbers_out_of_range_are_named(name):
    match = rf"`{name}` must be in \[0, inf\), got {name}=-1"
    with pytest.raises(ValueError, match=match):
        optim.minimize(rosenbrock, jnp.ones(2), **{name: -1})
    with pytest.raises(ValueError, match=match):
        optim.least_squares(lambda w: w, jnp.ones(2), **{name: -1})


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"`method` must be one of 'lbfgs', 'bfgs'.*'powell'"):
        optim.minimize(rosenbrock, jnp.ones(2), "powell")
    for method in ("lbfgs", optim.sgd(0.1)):
        with pytest.raises(TypeError, match=r"real floating point, got .* of dtype int32"):
            optim.minimize(lambda w: jnp.sum(w**2.0), jnp.arange(2), method)
        with pytest.raises(TypeError, match="of dtype complex64"):
            optim.minimize(lambda w: jnp.abs(w), jnp.ones((), complex), method)


def test_a_small_decrease_is_relative_to_the_larger_value():
    rows = np.array(
        [
            (0.21, -4.0, -5.0, True),  # 1 <= 0.21 * 5, the larger in size
            (0.19, -4.0, -5.0, False),
            (0.21, 5.0, 4.0, True),
            (0.19, 5.0, 4.0, False),
            (0.7, 3e-9, 1e-9, True),  # 2 <= 0.7 * 3
            (0.6, 3e-9, 1e-9, False),
            (0.5, 2.0, 2.1, False),  # no decrease
            (0.5, 2.0, 2.0, True),
            (0.0, 2.0, 2.0, False),  # off
        ]
    )
    tolerance, before, after, small = rows.T
    assert (Stop(1e-5, tolerance, 9).small_decrease(before, after) == small).all()


def test_a_solve_stalls_where_the_gradient_falls_by_less_than_a_tenth(x64):
    """The value stays 0, and the gradient is `factor**k` after `k` steps of length 1."""

    def solve(factor):
        def fun(w):
            size = factor ** jax.lax.stop_gradient(-w[0])
            return size * (w[0] - jax.lax.stop_gradient(w[0]))

        search = optim.backtracking_linesearch(slope_rtol=0.0)
        direction = optim.Direction(lambda x: jnp.zeros(()), lambda m, f, x, g, *rest: (m, -g / g))
        return optim.minimize(
            fun,
            jnp.zeros(1),
            direction,
            linesearch=search,
            gradient_tolerance=1e-9,
            max_iterations=PATIENCE + 5,
        )

    ends = jax.vmap(solve)(jnp.array([0.88, 0.9999]))
    assert ends.status.tolist() == [optim.MAX_ITERATIONS, optim.STALLED]
    assert ends.iterations.tolist() == [PATIENCE + 5, PATIENCE]


def test_an_optimizers_lane_keeps_what_it_had_when_it_ended(x64):
    """One ends at its start and one after two steps, while the last goes on; and minus infinity."""

    def solve(tolerance, floor):
        fun = lambda w: jnp.where(w > floor, w**2, -jnp.inf)  # noqa: E731
        return optim.minimize(
            fun, jnp.ones(()), optim.sgd(0.25), gradient_tolerance=tolerance, max_iterations=5
        )

    lanes = jax.vmap(solve)(jnp.array([2.0, 0.5, 0.0, 0.0]), jnp.array([0.0, 0.0, 0.0, 0.3]))
    most, out = optim.MAX_ITERATIONS, optim.NOT_FINITE
    assert lanes.status.tolist() == [optim.CONVERGED, optim.CONVERGED, most, out]
    assert lanes.iterations.tolist() == [0, 2, 5, 2]
    assert lanes.params.tolist() == [1.0, 0.25, 0.5**5, 0.5]
    assert lanes.value.tolist() == [1.0, 0.25**2, 0.5**10, 0.25]

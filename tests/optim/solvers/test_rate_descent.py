"""Descent by a list of rates and by line searches, against loops in NumPy."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim
from jdl.optim.solvers.line_search import ACCEPTED, FAILED

CURVATURE = np.array([0.3, 1.7])
START = {"a": np.array([2.0]), "b": np.array([-1.5])}


def fun(w):
    """Rises to infinity beyond 20, so that long steps are not finite."""
    w = jnp.concatenate([w["a"], w["b"]])
    value = jnp.sum(jnp.asarray(CURVATURE) * w**2) + 0.1 * jnp.sum(jnp.sin(3 * w))
    return jnp.where(jnp.max(jnp.abs(w)) > 20, jnp.nan, value)


def flat_fun(w):
    if np.abs(w).max() > 20:
        return np.inf
    return np.sum(CURVATURE * w**2) + 0.1 * np.sum(np.sin(3 * w))


def flat_grad(w):
    return 2 * CURVATURE * w + 0.3 * np.cos(3 * w)


def path(optimizer, steps, give_value=True):
    start = jax.tree.map(jnp.asarray, START)

    def step(carry, _):
        w, state = carry
        value, g = jax.value_and_grad(fun)(w)
        known = {"value": value, "grad": g} if give_value else {}
        updates, state = optimizer.update(g, state, w, value_fn=fun, unknown=3, **known)
        w = optim.apply_updates(w, updates)
        return (w, state), (jnp.concatenate([w["a"], w["b"]]), state)

    return jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)[1]


def list_descent(rates, steps, allow_increase):
    """The teaching loop, with the best candidate kept inside it."""
    w, points, taken = np.array([2.0, -1.5]), [], []
    for t in range(steps):
        g, best, rate = flat_grad(w), np.inf, 0.0
        for candidate in rates(t):
            value = flat_fun(w - candidate * g)
            if value < best:
                best, rate = value, candidate
        if not allow_increase and best > flat_fun(w):
            rate = 0.0
        w = w - rate * g
        points.append(w)
        taken.append(rate)
    return np.array(points), np.array(taken)


@pytest.mark.parametrize("allow_increase", [False, True])
def test_line_search_descent_is_the_loop_over_its_rates(x64, allow_increase):
    """Six steps with a schedule among the rates, traced in two lanes, one of which stands still."""

    def run(first, second):
        optimizer = optim.line_search_descent(
            [lambda t: first / (1 + t), second, 30.0], allow_increase
        )
        return path(optimizer, 6)

    points, states = jax.jit(jax.vmap(run))(jnp.array([0.9, 3.9]), jnp.array([0.2, 4.1]))
    for lane, (first, second) in enumerate([(0.9, 0.2), (3.9, 4.1)]):
        expected, rates = list_descent(
            lambda t, a=first, b=second: [a / (1 + t), b, 30.0], 6, allow_increase
        )
        np.testing.assert_allclose(points[lane], expected, rtol=1e-12)
        np.testing.assert_allclose(states.learning_rate[lane], rates, rtol=1e-12)
        codes = np.where(rates > 0, ACCEPTED, FAILED)
        np.testing.assert_array_equal(states.stage[lane], codes)
    assert states.step[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert (states.evaluations == 3).all()
    assert allow_increase or (states.stage[1] == FAILED).any()


def test_the_default_rates_and_the_value_computed_where_none_is_given(x64):
    expected, rates = list_descent(lambda t: [0.1, 0.5, 1, 5, 10], 5, False)
    optimizer = optim.line_search_descent()
    points, states = jax.jit(lambda: path(optimizer, 5, give_value=False))()
    np.testing.assert_allclose(points, expected, rtol=1e-12)
    np.testing.assert_allclose(states.learning_rate, rates, rtol=1e-12)
    array = jax.jit(lambda: path(optim.line_search_descent(jnp.array([0.1, 0.5, 1, 5, 10])), 5))()
    np.testing.assert_allclose(array[0], expected, rtol=1e-12)


def test_no_finite_candidate_no_step(x64):
    optimizer = optim.line_search_descent([50.0, 70.0], allow_increase=True)
    points, states = jax.jit(lambda: path(optimizer, 1))()
    assert points[0].tolist() == [2.0, -1.5]
    assert (float(states.learning_rate[0]), int(states.stage[0])) == (0.0, FAILED)


def backtracking_descent(steps, increase, cap):
    """Armijo's loop whose first trial is the last step grown."""
    w, points, evaluations, last = np.array([2.0, -1.5]), [], [], None
    for _ in range(steps):
        g = flat_grad(w)
        d = -0.5 * g
        t, count = min(1.0 if last is None else last * increase, cap), 1
        while not flat_fun(w + t * d) <= flat_fun(w) + 0.3 * t * (g @ d):
            t, count = 0.6 * t, count + 1
        w, last = w + t * d, t
        points.append(w)
        evaluations.append(count)
    return np.array(points), evaluations


def test_scaling_by_backtracking_grows_and_shrinks_its_step(x64):
    """At the end of a chain, with increase and cap in lanes, from a start where it must shrink."""

    def run(increase, cap, give_value):
        search = optim.backtracking_linesearch(slope_rtol=0.3, decrease_factor=0.6)
        optimizer = optim.chain(optim.sgd(0.5), optim.scale_by_linesearch(search, increase, cap))
        return path(optimizer, 7, give_value)

    pairs = [(1.5, np.inf), (8.0, np.inf), (8.0, 1.2), (np.inf, 3.0)]
    both = jax.jit(
        lambda a, b: [jax.vmap(lambda i, c, g=g: run(i, c, g))(a, b) for g in (True, False)]
    )
    for points, states in both(*jnp.array(pairs).T):
        for lane, pair in enumerate(pairs):
            expected, evaluations = backtracking_descent(7, *pair)
            np.testing.assert_allclose(points[lane], expected, rtol=1e-10)
            assert states[1].evaluations[lane].tolist() == evaluations
    assert len({float(x) for x in states[1].learning_rate[1]}) > 2


def test_scaling_by_zoom_satisfies_strong_wolfe_and_refuses_to_go_uphill(x64):
    w = {"a": jnp.array([2.0]), "b": jnp.array([-1.5])}
    optimizer = optim.scale_by_linesearch(optim.zoom_linesearch(curv_rtol=0.1))

    def update(sign):
        g = jax.grad(fun)(w)
        return optimizer.update(
            jax.tree.map(lambda x: -sign * 0.01 * x, g), optimizer.init(w), w, value_fn=fun
        )

    updates, state = jax.jit(jax.vmap(update))(jnp.array([1.0, -1.0]))
    down = {k: w[k] + updates[k][0] for k in w}
    g, after = jax.grad(fun)(w), jax.grad(fun)(down)
    slope = -sum(float(jnp.sum(g[k] * g[k])) for k in g)
    assert abs(sum(float(jnp.sum(-g[k] * after[k])) for k in g)) <= 0.1 * abs(slope)
    assert float(state.learning_rate[0]) > 10
    assert state.stage.tolist() == [ACCEPTED, FAILED]
    assert [float(updates[k][1][0]) for k in w] == [0.0, 0.0]


def test_dtypes_are_kept():
    w = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(1, jnp.float32)}
    loss = lambda w: jnp.sum(w["a"].astype(jnp.float32) ** 2) + jnp.sum(w["b"] ** 2)  # noqa: E731
    search = optim.scale_by_linesearch(optim.backtracking_linesearch())
    for optimizer in (optim.line_search_descent(), optim.chain(optim.sgd(1.0), search)):
        g = jax.grad(loss)(w)
        updates, state = optimizer.update(g, optimizer.init(w), w, value_fn=loss)
        assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, w)
        again = optimizer.update(g, state, w, value_fn=loss)[1]
        same = jax.tree.map(lambda x, y: x.dtype == y.dtype, again, state)
        assert all(jax.tree.leaves(same))


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"`rates` must be in \(0, inf\), got rates=0.0"):
        optim.line_search_descent([0.1, 0.0])
    with pytest.raises(ValueError, match="`rates` must name at least one rate"):
        optim.line_search_descent([])
    search = optim.backtracking_linesearch()
    for name in ("increase_factor", "max_learning_rate"):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \(0, inf\], got {name}=0.0"):
            optim.scale_by_linesearch(search, **{name: 0.0})
    for optimizer in (optim.line_search_descent(), optim.scale_by_linesearch(search)):
        state = optimizer.init(jnp.ones(2))
        with pytest.raises(ValueError, match="evaluates the objective: call update"):
            optimizer.update(jnp.ones(2), state, jnp.ones(2))


def test_the_defaults_are_the_taught_ones():
    defaults = inspect.signature(optim.line_search_descent).parameters
    assert defaults["rates"].default == (0.1, 0.5, 1.0, 5.0, 10.0)
    assert defaults["allow_increase"].default is False
    defaults = inspect.signature(optim.scale_by_linesearch).parameters
    assert defaults["increase_factor"].default == 1.5
    assert defaults["max_learning_rate"].default == float("inf")

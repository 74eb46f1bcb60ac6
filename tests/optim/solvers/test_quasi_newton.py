"""BFGS and L-BFGS against the textbook recursions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

SIZE, MEMORY = 4, 3
RNG = np.random.default_rng(5)
A = RNG.normal(size=(SIZE, SIZE))
HESSIAN = A @ A.T + np.diag([0.1, 1.0, 3.0, 9.0])


def two_loop(pairs, g):
    """Nocedal and Wright, algorithm 7.4, times -1."""
    if not pairs:
        return -g / np.linalg.norm(g)
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (y @ s))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas)):
        r += s * (alpha - y @ r / (y @ s))
    return -r


def dense(pairs, g):
    """Nocedal and Wright, equation 6.17 from equation 6.20, times -1."""
    if not pairs:
        return -g / np.linalg.norm(g)
    s, y = pairs[0]
    H = np.eye(SIZE) * (s @ y) / (y @ y)
    for s, y in pairs:
        V = np.eye(SIZE) - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    return -H @ g


def turns():
    """(s, y, gradient, learn, reset): pairs of a quadratic with noise, some not to be learnt."""
    rng = np.random.default_rng(7)
    listed = []
    for i in range(12):
        s = rng.normal(size=SIZE) * 10.0 ** rng.integers(-2, 3)
        y = HESSIAN @ s + 0.02 * np.linalg.norm(s) * rng.normal(size=SIZE)
        y = y if y @ s > 0 else -y
        learn, reset = i not in (0, 4), i == 9
        if i == 5:
            y = -y
        if i == 7:  # no curvature beyond rounding of <s, g>
            y = y * 1e-18
        g = rng.normal(size=SIZE)
        if i == 7:
            g = s / np.linalg.norm(s) * 3
        listed.append((s, y, g, learn and not reset, reset))
    return listed


@pytest.mark.parametrize(
    ("direction", "formula", "memory"),
    [
        (optim.lbfgs_direction(MEMORY), two_loop, MEMORY),
        (optim.bfgs_direction(), dense, 100),
    ],
    ids=["lbfgs", "bfgs"],
)
def test_directions_are_the_textbooks_through_skips_resets_and_a_full_memory(
    x64, direction, formula, memory
):
    def propose(state, turn):
        s, y, g, learn, reset = turn
        state, d = direction.propose(state, None, g, g, s, y, learn, reset, jnp.array(True))
        return state, d

    listed = turns()
    stacked = tuple(jnp.array(x) for x in zip(*listed))
    run = jax.jit(lambda turns: jax.lax.scan(propose, direction.init(jnp.zeros(SIZE)), turns)[1])
    ours = run(stacked)
    pairs = []
    for i, (s, y, g, learn, reset) in enumerate(listed):
        if reset:
            pairs = []
        elif learn and i not in (5, 7):
            pairs = [*pairs, (s, y)][-memory:]
        np.testing.assert_allclose(ours[i], formula(pairs, g), rtol=1e-9, err_msg=f"turn {i}")
    lanes = jax.jit(jax.vmap(run))(
        tuple(jnp.stack([x, x[::-1] if x.dtype != bool else x]) for x in stacked)
    )
    np.testing.assert_allclose(lanes[0], ours, rtol=1e-9)
    assert not np.allclose(lanes[1], ours)


def test_the_first_direction_may_be_the_plain_gradient(x64):
    g = jnp.array([3.0, -4.0])
    for scaled, expected in ((True, [-0.6, 0.8]), (False, [-3.0, 4.0])):
        optimizer = optim.lbfgs(scale_init_precond=scaled, linesearch=None)
        updates, _ = optimizer.update(g, optimizer.init(jnp.ones(2)), jnp.ones(2))
        np.testing.assert_allclose(updates, expected, rtol=1e-15)


def run_pair(optimizer, w, steps, fun):
    def step(carry, _):
        w, state = carry
        value, g = jax.value_and_grad(fun)(w)
        updates, state = optimizer.update(g, state, w, value=value, value_fn=fun)
        w = optim.apply_updates(w, updates)
        return (w, state), (w, state)

    return jax.lax.scan(step, (w, optimizer.init(w)), None, length=steps)[1]


def quadratic(w):
    return 0.5 * w["a"] @ jnp.asarray(HESSIAN) @ w["a"] - jnp.sum(w["a"]) + 0.5 * w["b"] ** 2


START = {"a": jnp.array([1.0, -2.0, 0.5, 3.0]), "b": jnp.array(2.0)}


def test_pairs_follow_a_schedule_in_lanes(x64):
    """The NumPy loop `w += rate(t) d` with the two-loop recursion, for three traced rates."""
    rates = np.array([0.2, 0.5, 0.9])

    def run(rate):
        optimizer = optim.lbfgs(lambda t: rate / (1 + 0.1 * t), MEMORY, linesearch=None)
        return run_pair(optimizer, jax.tree.map(jnp.float64, START), 8, quadratic)[0]

    lanes = jax.jit(jax.vmap(run))(jnp.array(rates))
    full = np.zeros((SIZE + 1, SIZE + 1))
    full[:SIZE, :SIZE], full[SIZE, SIZE] = HESSIAN, 1
    linear = np.array([1.0] * SIZE + [0.0])
    for lane, rate in enumerate(rates):
        w, pairs, before = np.array([1.0, -2.0, 0.5, 3.0, 2.0]), [], None
        for t in range(8):
            g = full @ w - linear
            if before is not None:
                pairs = [*pairs, (w - before[0], g - before[1])][-MEMORY:]
            before = w, g
            w = w + rate / (1 + 0.1 * t) * two_loop(pairs, g)
            np.testing.assert_allclose(lanes["a"][lane, t], w[:SIZE], rtol=1e-9)
            np.testing.assert_allclose(lanes["b"][lane, t], w[SIZE], rtol=1e-9)


@pytest.mark.parametrize("name", ["lbfgs", "bfgs"])
def test_pairs_with_their_line_search_are_the_solver(x64, name):
    """Eight updates of the pair are eight iterations of `minimize`, to rounding."""
    start = jax.tree.map(jnp.float64, START)

    def both(w):
        path, states = run_pair(getattr(optim, name)(), w, 8, quadratic)
        solved = optim.minimize(quadratic, w, name, max_iterations=8, gradient_tolerance=0.0)
        return path, states, solved

    path, states, solved = jax.jit(both)(start)
    np.testing.assert_allclose(path["a"][-1], solved.params["a"], rtol=1e-7)
    assert int(states.evaluations.sum()) + 1 == int(solved.evaluations)
    assert (states.learning_rate > 0).all()
    assert states.step.tolist() == list(range(1, 9))
    assert float(solved.value) < float(quadratic(start)) - 1


def test_a_failed_search_gives_a_zero_update_and_forgets(x64):
    """An objective that contradicts its gradient: nothing is lower, so nothing moves."""
    optimizer = optim.lbfgs(linesearch=optim.backtracking_linesearch(3))
    w = jnp.array([1.0, 2.0])
    state = optimizer.init(w)
    for g in ([1.0, 3.0], [2.0, -1.0]):
        updates, state = optimizer.update(
            jnp.array(g), state, w, value=0.0, value_fn=lambda p: jnp.sum(p**2)
        )
        assert updates.tolist() == [0.0, 0.0]
        assert float(state.memory.scale) == 0.0
        assert int(state.evaluations) == 3
    good, state = optimizer.update(2 * w, state, w, value_fn=lambda p: jnp.sum(p**2))
    np.testing.assert_allclose(good, -w / np.sqrt(5), rtol=1e-12)


def test_what_is_not_finite_is_not_learnt(x64):
    """A gradient with NaN gives an update with NaN and no lasting harm."""
    optimizer = optim.lbfgs(0.1, memory_size=2, linesearch=None)
    update = jax.jit(optimizer.update)
    w, state = jnp.array([1.0, 2.0]), optimizer.init(jnp.ones(2))
    for g in ([1.0, 3.0], [jnp.nan, 1.0], [0.5, 2.0], [0.4, 1.0]):
        updates, state = update(jnp.array(g), state, w)
        w = w - 0.1 * jnp.nan_to_num(jnp.array(g))
    assert jnp.isfinite(updates).all()
    assert jnp.isfinite(state.memory.pairs).all()
    assert float(state.memory.scale) > 0


def test_uphill_directions_are_replaced_by_the_negative_gradient(x64):
    """A negative rate turns the direction uphill; the search then goes down all the same."""
    optimizer = optim.bfgs(-2.0, optim.backtracking_linesearch())
    w = jnp.array([3.0, 4.0])
    fun = lambda p: 0.5 * jnp.sum(p**2)  # noqa: E731
    updates, _ = optimizer.update(w, optimizer.init(w), w, value_fn=fun)
    np.testing.assert_allclose(updates, [-0.6, -0.8], rtol=1e-12)


def test_low_precision_parameters_keep_their_dtype():
    w = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones((), jnp.float32)}
    fun = lambda p: jnp.sum(p["a"].astype(jnp.float32) ** 2) + p["b"] ** 2  # noqa: E731
    optimizer = optim.lbfgs()
    update = jax.jit(lambda g, s, p: optimizer.update(g, s, p, value_fn=fun))
    state = optimizer.init(w)
    for _ in range(2):
        updates, state = update(jax.grad(fun)(w), state, w)
        assert updates["a"].dtype == jnp.bfloat16
        assert updates["b"].dtype == jnp.float32
        w = optim.apply_updates(w, updates)
    assert state.memory.pairs.dtype == jnp.float32
    assert update._cache_size() == 1
    assert float(fun(w)) < 1


def test_misuse_is_named():
    optimizer = optim.lbfgs()
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match="lbfgs needs the parameters"):
        optimizer.update(jnp.ones(2), state)
    with pytest.raises(ValueError, match=r"lbfgs evaluates the objective.*value_fn=fun"):
        optimizer.update(jnp.ones(2), state, jnp.ones(2))
    with pytest.raises(ValueError, match="`memory_size` must be an integer of at least 1"):
        optim.lbfgs(memory_size=0)
    with pytest.raises(TypeError, match=r"real floating point, got \['a'\] of dtype int32"):
        optimizer.init({"a": jnp.arange(3)})

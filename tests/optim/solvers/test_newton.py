"""Newton's method: exact on quadratics, downhill elsewhere, and its conjugate gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

RNG = np.random.default_rng(11)
A = RNG.normal(size=(5, 5))
HESSIAN = A @ A.T + 0.1 * np.eye(5)
LINEAR = RNG.normal(size=5)
W = RNG.normal(size=5)
YES, NO = jnp.array(True), jnp.array(False)


def quadratic(w):
    return 0.5 * w @ jnp.asarray(HESSIAN) @ w - jnp.asarray(LINEAR) @ w


def direction_at(direction, fun, w, active=YES):
    zero = jnp.zeros_like(w)
    g = jax.grad(fun)(w)
    return direction.propose(direction.init(w), fun, w, g, zero, zero, NO, NO, active)


def test_one_step_on_a_quadratic_is_exact(x64):
    def step(w):
        optimizer = optim.newton()
        g = jax.grad(quadratic)(w)
        updates, state = optimizer.update(g, optimizer.init(w), w, value_fn=quadratic)
        return w + updates, state, optim.minimize(quadratic, w, "newton", gradient_tolerance=1e-9)

    end, state, result = jax.jit(step)(jnp.array(W))
    exact = np.linalg.solve(HESSIAN, LINEAR)
    np.testing.assert_allclose(end, exact, rtol=1e-9)
    np.testing.assert_allclose(result.params, exact, rtol=1e-9)
    assert int(state.evaluations) == 1
    assert (int(result.iterations), int(result.evaluations), int(result.status)) == (1, 2, 0)


def test_newton_divides_by_absolute_eigenvalues_plus_damping(x64):
    Q, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    h = np.array([-3.0, 0.5, 2.0, 0.0, 7.0])
    saddle = lambda w: 0.5 * w @ jnp.asarray(Q * h @ Q.T) @ w  # noqa: E731

    def directions(damping):
        schedule = lambda t: damping * (1 + t)  # noqa: E731
        w = jnp.array(W)
        memory, first = direction_at(optim.newton_direction(schedule), saddle, w)
        again = optim.newton_direction(schedule).propose(
            memory, saddle, w, jax.grad(saddle)(w), w, w, NO, NO, YES
        )
        return first, *again[::-1]

    first, second, count = jax.jit(jax.vmap(directions))(jnp.array([0.3, 4.0]))
    H = Q * h @ Q.T
    g, D = H @ W, np.abs(np.diag(H)) ** -0.5
    values, V = np.linalg.eigh(D[:, None] * H * D)
    for lane, damping in enumerate([0.3, 4.0]):
        for ours, shift in ((first, damping), (second, 2 * damping)):
            expected = -D * (V @ ((V.T @ (D * g)) / (np.abs(values) + shift)))
            np.testing.assert_allclose(ours[lane], expected, rtol=1e-9, atol=1e-12)
    assert count.tolist() == [2, 2]


def test_a_flat_direction_gives_a_finite_step(x64):
    """The Hessian of a function that ignores two parameters, and of a constant."""
    partial = lambda w: jnp.sum((w[:3] - 1.0) ** 2)  # noqa: E731
    d = jax.jit(lambda w: direction_at(optim.newton_direction(), partial, w)[1])(jnp.array(W))
    np.testing.assert_allclose(d, [*(1 - W[:3]), 0, 0], rtol=1e-12)
    constant = lambda w: 0.0 * jnp.sum(w)  # noqa: E731
    d = jax.jit(lambda w: direction_at(optim.newton_direction(), constant, w)[1])(jnp.array(W))
    assert d.tolist() == [0.0] * 5


def conjugate_gradients(H, g, bound):
    """Nocedal and Wright, algorithm 7.1: line-search Newton-CG."""
    z, r, p = np.zeros_like(g), g.copy(), -g
    goal = min(0.5, np.sqrt(np.linalg.norm(g))) * np.linalg.norm(g)
    for j in range(bound):
        curvature = p @ H @ p
        if curvature <= 0:
            return -g if j == 0 else z
        rate = (r @ r) / curvature
        z = z + rate * p
        new = r + rate * H @ p
        if np.linalg.norm(new) <= goal:
            return z
        p = -new + (new @ new) / (r @ r) * p
        r = new
    return z


def test_newton_cg_is_the_textbook_loop(x64):
    """Bounds and dampings in lanes, at gradients on both sides of the truncation's corner."""
    saddle = np.diag([4.0, 3.0, 2.0, 1.0, -2.0])
    mound = -np.eye(5)
    gradients = [LINEAR * 3, LINEAR * 0.01, np.array([1.0, 1.0, 1.0, 1.0, 0.2]), LINEAR]
    cases = [(H, g, n, 0.0) for H in (HESSIAN, saddle, mound) for g in gradients for n in (1, 2, 9)]
    cases += [(HESSIAN, LINEAR, 9, 0.7), (saddle, LINEAR, 9, 2.5)]

    def run(H, g, bound, damping, active):
        fun = lambda w: 0.5 * w @ H @ w + g @ w  # noqa: E731
        return direction_at(optim.newton_cg_direction(damping, bound), fun, jnp.zeros(5), active)

    stacked = [jnp.array(x) for x in zip(*cases)]
    count, ours = jax.jit(jax.vmap(run))(*stacked, jnp.ones(len(cases), bool))
    for d, (H, g, bound, damping) in zip(ours, cases):
        expected = conjugate_gradients(H + damping * np.eye(5), g, bound)
        np.testing.assert_allclose(d, expected, rtol=1e-9)
    assert count.tolist() == [1] * len(cases)
    count, ours = jax.jit(run)(*(x[0] for x in stacked), NO)
    assert (int(count), ours.tolist()) == (0, [0.0] * 5)


def test_newton_cg_by_default_runs_twice_the_parameters(x64):
    """With a badly conditioned Hessian the bound is what ends the loop."""
    H = jnp.diag(jnp.array([1.0, 1e7]))
    fun = lambda w: 0.5 * w @ H @ w + jnp.array([1e-9, 1e-9]) @ w  # noqa: E731
    default = jax.jit(lambda w: direction_at(optim.newton_cg_direction(), fun, w)[1])
    np.testing.assert_allclose(default(jnp.zeros(2)), [-1e-9, -1e-16], rtol=1e-4)


def rosenbrock(w):
    return 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2


def test_pairs_are_the_solver(x64):
    """Updates of the pair against iterations of `minimize`, on a function with a curved valley."""
    start = jnp.array([-1.2, 1.0])

    def both(w):
        paths = []
        for name in ("newton", "newton_cg"):
            optimizer = getattr(optim, name)(damping=0.02)

            def step(carry, _, optimizer=optimizer):
                w, state = carry
                g = jax.grad(rosenbrock)(w)
                updates, state = optimizer.update(g, state, w, value_fn=rosenbrock)
                return (w + updates, state), state.evaluations

            (end, _), evaluations = jax.lax.scan(step, (w, optimizer.init(w)), None, length=6)
            direction = getattr(optim, f"{name}_direction")(damping=0.02)
            result = optim.minimize(rosenbrock, w, direction, max_iterations=6)
            paths.append((end, evaluations.sum() + 1, result))
        return paths

    for end, evaluations, result in jax.jit(both)(start):
        np.testing.assert_allclose(end, result.params, rtol=1e-9)
        assert int(evaluations) == int(result.evaluations)
        assert float(result.value) < 5


def test_misuse_is_named():
    for make in (optim.newton, optim.newton_cg):
        with pytest.raises(ValueError, match=r"`damping` must be in \[0, inf\), got damping=-1.0"):
            make(damping=-1.0)
        optimizer = make(linesearch=None)
        with pytest.raises(ValueError, match=rf"{make.__name__} evaluates the objective"):
            optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(
        ValueError, match=r"`max_cg_steps` must be in \[1, inf\), got max_cg_steps=0"
    ):
        optim.newton_cg(max_cg_steps=0)

"""Gradient descent, momentum and Nesterov against the loops that the textbooks print."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

H = np.array([[3.0, 0.7, -0.2], [0.7, 1.1, 0.3], [-0.2, 0.3, 0.4]])
CENTRE = np.array([0.6, -1.2, 2.0])
START = np.array([1.5, 2.0, -0.7])


def rate(step):
    return 0.2 / (1.0 + 0.3 * step)


def mu(step):
    return 0.5 + 0.02 * step


def slope(w):
    return H @ (w - CENTRE)


def loss(w):
    return 0.5 * (w - CENTRE) @ jnp.asarray(H) @ (w - CENTRE)


def run(optimizer, steps=15):
    """The parameters after each step of full-batch descent."""
    w, found = jnp.asarray(START), []
    state = optimizer.init(w)
    for _ in range(steps):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w, value_fn=loss)
        w = optim.apply_updates(w, updates)
        found.append(np.asarray(w))
    return np.array(found), state


def test_gradient_descent_is_the_plain_loop(x64):
    w, expected = START, []
    for t in range(15):
        w = w - rate(t) * slope(w)
        expected.append(w)
    np.testing.assert_allclose(run(optim.sgd(rate))[0], expected, rtol=1e-13)


CONVENTIONS = {
    "inside": lambda v, g, lr, m: (m * v + lr * g, 1.0),
    "outside": lambda v, g, lr, m: (m * v + g, lr),
    "average": lambda v, g, lr, m: (m * v + (1 - m) * g, lr),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_momentum_convention_is_its_loop_under_schedules(convention, x64):
    w, v, expected = START, np.zeros(3), []
    for t in range(15):
        v, out = CONVENTIONS[convention](v, slope(w), rate(t), mu(t))
        w = w - out * v
        expected.append(w)
    found, state = run(optim.momentum(rate, mu, convention))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(state.velocity, v, rtol=1e-13)


def test_conventions_agree_for_a_constant_rate_and_differ_under_a_schedule(x64):
    inside, outside, average = (
        run(optim.momentum(lr, 0.7, convention))[0]
        for convention, lr in (("inside", 0.1), ("outside", 0.1), ("average", 0.1 / (1 - 0.7)))
    )
    np.testing.assert_allclose(inside, outside, rtol=1e-12)
    np.testing.assert_allclose(inside, average, rtol=1e-12)
    inside, outside = (run(optim.momentum(rate, 0.7, c))[0] for c in ("inside", "outside"))
    assert np.max(np.abs(inside - outside)) > 0.01
    average = run(optim.momentum(lambda t: rate(t) / (1 - 0.7), 0.7, "average"))[0]
    np.testing.assert_allclose(average, outside, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.7, mu])
def test_both_nesterov_forms_trace_the_two_point_loop(momentum, x64):
    at = momentum if callable(momentum) else lambda t: momentum
    theta, v, thetas, points = START, np.zeros(3), [], []
    for t in range(15):
        v = at(t) * v - rate(t) * slope(theta + at(t) * v)
        theta = theta + v
        thetas.append(theta)
        points.append(theta + at(t + 1) * v)
    lookahead, state = run(optim.nesterov(rate, momentum, "lookahead"))
    np.testing.assert_allclose(lookahead, thetas, rtol=1e-12)
    np.testing.assert_allclose(state.velocity, v, rtol=1e-12)
    rewritten, state = run(optim.nesterov(rate, momentum))
    np.testing.assert_allclose(rewritten, points, rtol=1e-12)
    np.testing.assert_allclose(state.velocity, v, rtol=1e-12)


def test_the_other_sign_of_the_nesterov_velocity_is_the_same_method(x64):
    w, v, expected = START, np.zeros(3), []
    for t in range(15):
        v = 0.7 * v + rate(t) * slope(w - 0.7 * v)
        w = w - v
        expected.append(w)
    np.testing.assert_allclose(run(optim.nesterov(rate, 0.7, "lookahead"))[0], expected, rtol=1e-12)


def test_sgd_with_nesterov_holds_the_lookahead_points_for_a_constant_rate(x64):
    torch_form = run(optim.sgd(0.1, 0.7, nesterov=True))[0]
    np.testing.assert_allclose(torch_form, run(optim.nesterov(0.1, 0.7))[0], rtol=1e-12)


def test_dampening_weighs_all_but_the_first_gradient(x64):
    w, v, expected = START, None, []
    for t in range(15):
        g = slope(w)
        v = g if v is None else mu(t) * v + (1 - 0.4) * g
        w = w - rate(t) * (g + mu(t) * v)
        expected.append(w)
    found, _ = run(optim.sgd(rate, mu, True, dampening=0.4))
    # One entry passes through 5e-4, a difference of numbers of order 1, whose rounding it keeps.
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_the_velocity_is_float32_unless_asked_and_absent_without_momentum():
    w = jnp.ones(2, jnp.bfloat16)
    assert optim.sgd(0.1).init(w).velocity is None
    assert optim.sgd(0.1, 0.9).init(w).velocity.dtype == jnp.float32
    assert (
        optim.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16).init(w).velocity.dtype == jnp.bfloat16
    )


def test_counts_its_updates():
    for optimizer in (
        optim.sgd(0.1),
        optim.sgd(0.1, 0.5),
        optim.momentum(0.1),
        optim.nesterov(0.1),
    ):
        state = optimizer.init(jnp.ones(2))
        assert int(state.step) == 0
        for _ in range(3):
            _, state = optimizer.update(jnp.ones(2), state)
        assert int(state.step) == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.sgd(0.0), r"`learning_rate` must be in \(0, inf\), got learning_rate=0.0\. "
         r"To keep some parameters as they are, use `optim.freeze`"),
        (lambda: optim.sgd(-1), r"`learning_rate` must be in \(0, inf\), got learning_rate=-1"),
        (lambda: optim.sgd(float("nan")), "got learning_rate=nan"),
        (lambda: optim.sgd(0.1, 1.1), r"`momentum` must be in \[0, 1\], got momentum=1.1"),
        (lambda: optim.sgd(0.1, 0.9, dampening=-1), r"`dampening` must be in \[0, 1\]"),
        (lambda: optim.momentum(0.0), r"`learning_rate` must be in \(0, inf\)"),
        (lambda: optim.momentum(0.1, -0.1), r"`momentum` must be in \[0, 1\]"),
        (lambda: optim.momentum(0.1, convention="torch"), "'inside', 'outside', 'average', got"),
        (lambda: optim.nesterov(0.0), r"`learning_rate` must be in \(0, inf\)"),
        (lambda: optim.nesterov(0.1, 2), r"`momentum` must be in \[0, 1\]"),
        (lambda: optim.nesterov(0.1, form="torch"), "'rewritten', 'lookahead', got form='torch'"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_the_lookahead_form_says_what_it_needs():
    optimizer = optim.nesterov(0.1, form="lookahead")
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"update\(grads, state, params, value_fn=loss\)"):
        optimizer.update(jnp.ones(2), state, jnp.ones(2))
    with pytest.raises(ValueError, match=r"nesterov needs the parameters"):
        optimizer.update(jnp.ones(2), state, value_fn=loss)


def test_the_boundaries_of_the_ranges_are_allowed():
    for optimizer in (optim.sgd(1e-30, 0), optim.sgd(0.1, 1, dampening=1), optim.momentum(1, 0)):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    (
        optim.sgd(0.1, dampening=0),
        optim.momentum(0.1, 1.0),
        optim.nesterov(0.1, 0),
        optim.nesterov(1, 1),
    )

"""Adagrad, RMSProp and Adadelta against loops, at their edges, and in what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

GRADS = np.random.default_rng(5).normal(size=(12, 3)) * [1.0, 0.0, 1e-3]
START = np.array([0.5, -1.0, 2.0])


def run(optimizer, grads=GRADS):
    w = jnp.asarray(START)
    state, found = optimizer.init(w), []
    for g in grads:
        updates, state = optimizer.update(jnp.asarray(g), state, w)
        w = optim.apply_updates(w, updates)
        found.append(np.asarray(w))
    return np.array(found), state


def test_adagrad_is_its_loop(x64):
    for inside in (True, False):
        w, c, expected = START, np.full(3, 0.2), []
        for t, g in enumerate(GRADS):
            c = c + g**2
            lr = 0.4 / (1 + t)
            w = w - lr * (g / np.sqrt(c + 0.05) if inside else g / (np.sqrt(c) + 0.05))
            expected.append(w)
        optimizer = optim.adagrad(lambda t: 0.4 / (1 + t), 0.2, 0.05, eps_in_sqrt=inside)
        found, state = run(optimizer)
        np.testing.assert_allclose(found, expected, rtol=1e-13)
        np.testing.assert_allclose(state.sum_of_squares, c, rtol=1e-13)
        assert int(state.step) == len(GRADS)


def test_rmsprop_is_its_loop(x64):
    for inside in (True, False):
        w, c, expected = START, np.zeros(3), []
        for g in GRADS:
            c = 0.7 * c + 0.3 * g**2
            w = w - 0.1 * (g / np.sqrt(c + 0.05) if inside else g / (np.sqrt(c) + 0.05))
            expected.append(w)
        found, state = run(optim.rmsprop(0.1, 0.7, 0.05, eps_in_sqrt=inside))
        np.testing.assert_allclose(found, expected, rtol=1e-13)
        assert state.first_moment is None and state.velocity is None
        assert int(state.step) == len(GRADS)


@pytest.mark.parametrize("convention", ["inside", "outside"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_with_momentum_is_its_loop(convention, nesterov, centered, x64):
    w, c, a, v, expected = START, np.full(3, 0.3), np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS):
        lr, mu = 0.2 / (1 + 0.5 * t), 0.5 + 0.03 * t
        c = 0.7 * c + 0.3 * g**2
        a = 0.7 * a + 0.3 * g
        c_hat, a_hat = c / (1 - 0.7 ** (t + 1)), a / (1 - 0.7 ** (t + 1))
        d = g / (np.sqrt(c_hat - a_hat**2 if centered else c_hat) + 0.05)
        added = lr * d if convention == "inside" else d
        v = mu * v + added
        step = mu * v + added if nesterov else v
        w = w - (step if convention == "inside" else lr * step)
        expected.append(w)
    optimizer = optim.rmsprop(
        lambda t: 0.2 / (1 + 0.5 * t), 0.7, 0.05, 0.3, False, centered, lambda t: 0.5 + 0.03 * t,
        nesterov, True, convention=convention,
    )  # fmt: skip
    found, state = run(optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, c, rtol=1e-12)
    np.testing.assert_allclose(state.velocity, v, rtol=1e-12)
    if centered:
        np.testing.assert_allclose(state.first_moment, a, rtol=1e-12)


def test_adadelta_is_its_loop(x64):
    w, c, x, expected = START, np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS):
        g = g + 0.1 * w
        c = 0.7 * c + 0.3 * g**2
        d = np.sqrt(x + 0.02) / np.sqrt(c + 0.02) * g
        x = 0.7 * x + 0.3 * d**2
        w = w - 1.3 / (1 + t) * d
        expected.append(w)
    found, state = run(optim.adadelta(lambda t: 1.3 / (1 + t), 0.7, 0.02, 0.1))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(state.squared_gradient, c, rtol=1e-13)
    np.testing.assert_allclose(state.squared_update, x, rtol=1e-13)
    assert int(state.step) == len(GRADS)
    np.testing.assert_array_equal(run(optim.adadelta())[0], run(optim.adadelta(1.0))[0])


def test_a_zero_gradient_over_a_zero_history_moves_nothing():
    for optimizer in (
        optim.adagrad(0.1, 0.0, 0.0),
        optim.adagrad(0.1, 0.0, 0.0, eps_in_sqrt=False),
        optim.rmsprop(0.1, eps=0.0),
        optim.rmsprop(0.1, eps=0.0, eps_in_sqrt=False, centered=True),
    ):
        updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(jnp.zeros(2)))
        assert updates.tolist() == [0.0, 0.0]


def test_the_variance_of_a_constant_gradient_is_never_below_0():
    optimizer = optim.rmsprop(0.1, 0.7, 1e-12, centered=True, bias_correction=True)
    state = optimizer.init(jnp.ones(50))
    for _ in range(20):
        updates, state = optimizer.update(jnp.linspace(0.1, 9.0, 50), state)
        assert bool(jnp.all(jnp.isfinite(updates)))


def test_differentiates_through_a_gradient_that_was_always_zero():
    def moved(lr, make):
        optimizer = make(lr)
        w = jnp.array([1.0, 2.0])
        state = optimizer.init(w)
        for _ in range(2):
            updates, state = optimizer.update(jnp.array([0.0, 1.0]) * w, state, w)
            w = optim.apply_updates(w, updates)
        return jnp.sum(w**2)

    for make in (
        lambda lr: optim.adagrad(lr, 0.0, 1e-7, eps_in_sqrt=False),
        lambda lr: optim.rmsprop(lr, eps_in_sqrt=False),
        lambda lr: optim.adagrad(lr, 0.0, 0.0),
    ):
        slope = jax.grad(moved)(0.1, make)
        assert bool(jnp.isfinite(slope)) and float(slope) < -1.0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.adagrad(0.0), r"`learning_rate` must be in \(0, inf\)"),
        (lambda: optim.adagrad(0.1, -0.1), r"`initial_accumulator_value` must be in \[0, inf\)"),
        (lambda: optim.adagrad(0.1, eps=-0.1), r"`eps` must be in \[0, inf\)"),
        (lambda: optim.rmsprop(0.0), r"`learning_rate` must be in \(0, inf\)"),
        (lambda: optim.rmsprop(0.1, 1.0), r"`decay` must be in \[0, 1\)"),
        (lambda: optim.rmsprop(0.1, eps=-0.1), r"`eps` must be in \[0, inf\)"),
        (lambda: optim.rmsprop(0.1, initial_scale=-0.1), r"`initial_scale` must be in \[0, inf\)"),
        (lambda: optim.rmsprop(0.1, momentum=1.1), r"`momentum` must be in \[0, 1\]"),
        (lambda: optim.rmsprop(0.1, convention="tf"), "'inside', 'outside', got convention='tf'"),
        (lambda: optim.adadelta(0.0), r"`learning_rate` must be in \(0, inf\)"),
        (lambda: optim.adadelta(0.1, 1.0), r"`rho` must be in \[0, 1\)"),
        (lambda: optim.adadelta(0.1, 0.9, 0.0), r"`eps` must be in \(0, inf\)"),
        (lambda: optim.adadelta(0.1, weight_decay=-1), r"`weight_decay` must be in \[0, inf\)"),
    ],
)
def test_what_is_out_of_range_is_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_adadelta_needs_the_parameters():
    optimizer = optim.adadelta()
    with pytest.raises(ValueError, match="adadelta needs the parameters"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))

"""RAdam, AdaBelief and Yogi against loops, at their edges, and in what they keep."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import (
    GRADS,
    START,
    check_adam_like,
    check_named,
    rate,
    run,
)

from jdl import optim


@pytest.mark.parametrize("make", [optim.radam, optim.adabelief, optim.yogi])
def test_is_a_rule_with_two_moments(make):
    check_adam_like(make, 1e-6 if make is optim.yogi else 0.0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_radam_is_its_loop(nesterov, x64):
    w, m, v, expected, trusted = START, np.zeros(3), np.zeros(3), [], []
    big = 2 / (1 - 0.9) - 1
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        v = 0.9 * v + 0.1 * g**2
        c1, c2, c_next = 1 - 0.6**t, 1 - 0.9**t, 1 - 0.6 ** (t + 1)
        m_hat = 0.6 * m / c_next + 0.4 * g / c1 if nesterov else m / c1
        n = big - 2 * t * 0.9**t / c2
        step = m_hat
        if n >= 4.3:
            r = np.sqrt((n - 4) * (n - 2) * big / ((big - 4) * (big - 2) * n))
            step = r * m_hat / (np.sqrt(v / c2 + 0.02) + 0.3)
        trusted.append(n >= 4.3)
        w = w - rate(t - 1) * step
        expected.append(w)
    assert 2 < sum(trusted) < 10
    found, state = run(optim.radam(rate, 0.6, 0.9, 0.3, 0.02, 4.3, nesterov=nesterov))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, v, rtol=1e-12)
    assert int(state.step) == len(GRADS)


def test_radam_rectifies_in_float32_as_in_float64():
    """At b2 = 0.999 the length of the average is a difference of two numbers near 2000."""
    g = np.float32(0.7)
    optimizer = optim.radam(1.0)
    state = optimizer.init(jnp.zeros(1))
    b2 = np.float64(np.float32(0.999))
    big = 2 / (1 - b2) - 1
    for t in range(1, 30):
        updates, state = optimizer.update(jnp.full(1, g), state)
        n = big - 2 * t * b2**t / -np.expm1(t * np.log(b2))
        r = np.sqrt((n - 4) * (n - 2) * big / ((big - 4) * (big - 2) * n)) if n >= 5 else g
        np.testing.assert_allclose(updates, -r, rtol=2e-3, err_msg=f"step {t}")


@pytest.mark.parametrize("nesterov", [False, True])
def test_adabelief_is_its_loop(nesterov, x64):
    w, m, s, expected = START, np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        s = 0.8 * s + 0.2 * (g - m) ** 2 + 0.02
        c1, c2, c_next = 1 - 0.6**t, 1 - 0.8**t, 1 - 0.6 ** (t + 1)
        m_hat = 0.6 * m / c_next + 0.4 * g / c1 if nesterov else m / c1
        w = w - rate(t - 1) * m_hat / (np.sqrt(s / c2) + 0.3)
        expected.append(w)
    found, state = run(optim.adabelief(rate, 0.6, 0.8, 0.3, 0.02, nesterov=nesterov))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, s, rtol=1e-12)
    assert int(state.step) == len(GRADS)


def test_yogi_is_its_loop(x64):
    w, m, v, expected = START, np.full(3, 0.05), np.full(3, 0.05), []
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        v = v - 0.2 * np.sign(v - g**2) * g**2
        w = w - rate(t - 1) * m / (1 - 0.6**t) / (np.sqrt(v / (1 - 0.8**t)) + 0.3)
        expected.append(w)
    found, state = run(optim.yogi(rate, 0.6, 0.8, 0.3, initial_accumulator_value=0.05))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, v, rtol=1e-12)
    assert int(state.step) == len(GRADS)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.radam(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.radam(0.1, threshold=3.9), r"`threshold` must be in \[4, inf\]"),
        (lambda: optim.adabelief(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (
            lambda: optim.yogi(0.1, initial_accumulator_value=-1.0),
            r"`initial_accumulator_value` must be in \[0, inf\)",
        ),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)

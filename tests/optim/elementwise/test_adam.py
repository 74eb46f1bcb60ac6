"""The Adam family against loops, at its edges, and in what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

GRADS = np.random.default_rng(6).normal(size=(12, 3)) * [1.0, 0.0, 1e-3]
START = np.array([0.5, -1.0, 2.0])
FAMILY = [
    optim.adam, optim.adamw, optim.nadam, optim.nadamw, optim.amsgrad, optim.adamax,
    optim.adamaxw, optim.radam, optim.adabelief, optim.yogi, optim.adan,
]  # fmt: skip


def rate(t):
    return 0.2 / (1 + 0.5 * t)


def run(optimizer, grads=GRADS):
    w = jnp.asarray(START)
    state, found = optimizer.init(w), []
    for g in grads:
        updates, state = optimizer.update(jnp.asarray(g), state, w)
        w = optim.apply_updates(w, updates)
        found.append(np.asarray(w))
    return np.array(found), state


@pytest.mark.parametrize("decay", ["scaled", "independent", "coupled"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("correct", [False, True])
def test_adamw_is_its_loop(decay, nesterov, correct, x64):
    w, m, v, expected = START, np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS, start=1):
        lr = rate(t - 1)
        g = g + 0.3 * w if decay == "coupled" else g
        m = 0.6 * m + 0.4 * g
        v = 0.8 * v + 0.2 * g**2
        c1, c2, c_next = (1 - 0.6**t, 1 - 0.8**t, 1 - 0.6 ** (t + 1)) if correct else (1, 1, 1)
        m_hat = 0.6 * m / c_next + 0.4 * g / c1 if nesterov else m / c1
        step = lr * m_hat / (np.sqrt(v / c2 + 0.02) + 0.3)
        w = w - step - {"scaled": lr * 0.3 * w, "independent": 0.3 * w, "coupled": 0}[decay]
        expected.append(w)
    optimizer = optim.adamw(
        rate, 0.6, 0.8, 0.3, 0.02, weight_decay=0.3, nesterov=nesterov, bias_correction=correct,
        decay=decay,
    )  # fmt: skip
    found, state = run(optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, v, rtol=1e-12)
    assert int(state.step) == len(GRADS)


def test_adam_passes_its_arguments_on(x64):
    expected, _ = run(
        optim.adamw(
            rate, 0.6, 0.8, 0.3, 0.02, weight_decay=None, nesterov=True, bias_correction=False
        )
    )
    found, _ = run(optim.adam(rate, 0.6, 0.8, 0.3, 0.02, nesterov=True, bias_correction=False))
    np.testing.assert_array_equal(found, expected)


def test_the_first_moment_takes_the_dtype_asked_for():
    for make in (optim.adam, optim.adamw, optim.nadam, optim.nadamw, optim.amsgrad):
        state = make(0.1, mu_dtype=jnp.bfloat16).init(jnp.ones(2))
        assert state.first_moment.dtype == jnp.bfloat16
        assert state.second_moment.dtype == jnp.float32


@pytest.mark.parametrize("make", FAMILY)
def test_squares_are_real_where_parameters_are_complex(make):
    state = make(0.1).init(jnp.ones(2, jnp.complex64))
    assert state.first_moment.dtype == jnp.complex64
    assert state.second_moment.dtype == jnp.float32
    assert int(state.step) == 0
    for moment in (state.first_moment, state.second_moment):
        np.testing.assert_allclose(moment, 1e-6 if make is optim.yogi else 0.0, rtol=1e-6)


@pytest.mark.parametrize("corrected_maximum", [False, True])
def test_amsgrad_is_its_loop(corrected_maximum, x64):
    w, m, v, top, expected = START, np.zeros(3), np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        v = 0.8 * v + 0.2 * g**2
        c2 = 1 - 0.8**t
        top = np.maximum(top, v if corrected_maximum else v / c2)
        v_hat = top / c2 if corrected_maximum else top
        w = w - rate(t - 1) * m / (1 - 0.6**t) / (np.sqrt(v_hat + 0.02) + 0.3)
        expected.append(w)
    found, state = run(optim.amsgrad(rate, 0.6, 0.8, 0.3, 0.02, correct_maximum=corrected_maximum))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.largest_second_moment, top, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, v, rtol=1e-12)
    assert int(state.step) == len(GRADS)


def test_adamax_is_its_loop(x64):
    w, m, u, expected = START, np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        u = np.maximum(0.8 * u, np.abs(g) + 0.3)
        w = w - rate(t - 1) * (m / (1 - 0.6**t) / u + 0.7 * w)
        expected.append(w)
    found, state = run(optim.adamaxw(rate, 0.6, 0.8, 0.3, 0.7))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, u, rtol=1e-12)
    assert int(state.step) == len(GRADS)


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


def test_adan_with_the_papers_extrapolation_is_its_loop(x64):
    w, m, v, n, last, expected = START, np.zeros(3), np.zeros(3), np.zeros(3), GRADS[0], []
    for t, g in enumerate(GRADS, start=1):
        d, last = g - last, g
        m = 0.6 * m + 0.4 * g
        v = 0.8 * v + 0.2 * d
        n = 0.7 * n + 0.3 * (g + 0.8 * d) ** 2
        up = m / (1 - 0.6**t) + 0.8 * v / (1 - 0.8**t)
        w = w - rate(t - 1) * (up / (np.sqrt(n / (1 - 0.7**t) + 0.02) + 0.3) + 0.9 * w)
        expected.append(w)
    optimizer = optim.adan(rate, 0.6, 0.8, 0.7, 0.3, 0.02, 0.9, extrapolation=0.8)
    found, state = run(optimizer)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(state.first_moment, m, rtol=1e-12)
    np.testing.assert_allclose(state.difference_moment, v, rtol=1e-12)
    np.testing.assert_allclose(state.second_moment, n, rtol=1e-12)
    np.testing.assert_allclose(state.last_gradient, last, rtol=1e-12)
    assert int(state.step) == len(GRADS)


def test_without_a_bias_correction_the_first_step_of_adam_is_small():
    g = jnp.array([1.0])
    optimizer = optim.adam(0.1, bias_correction=False)
    updates, _ = optimizer.update(g, optimizer.init(g))
    np.testing.assert_allclose(updates, -0.1 * 0.1 / np.sqrt(0.001), rtol=1e-4)


@pytest.mark.parametrize("make", FAMILY)
def test_differentiates_through_a_gradient_that_was_always_zero(make):
    def moved(lr):
        optimizer = make(lr)
        w = jnp.array([1.0, 2.0])
        state = optimizer.init(w)
        for _ in range(2):
            updates, state = optimizer.update(jnp.array([0.0, 1.0]) * w, state, w)
            w = optim.apply_updates(w, updates)
        return jnp.sum(w**2)

    slope = jax.grad(moved)(0.1)
    assert bool(jnp.isfinite(slope)) and float(slope) < -0.5


@pytest.mark.parametrize("make", [optim.adamw, optim.nadamw, optim.adamaxw, optim.adan])
def test_decay_needs_the_parameters_unless_it_is_absent(make):
    optimizer = make(0.1)
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    absent = make(0.1, weight_decay=None)
    absent.update(jnp.ones(2), absent.init(jnp.ones(2)))


@pytest.mark.parametrize("make", FAMILY)
def test_numbers_out_of_range_are_named(make):
    with pytest.raises(ValueError, match=r"`learning_rate` must be in \(0, inf\)"):
        make(0.0)
    for name in ("b1", "b2"):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\), got {name}=1.0"):
            make(0.1, **{name: 1.0})
        make(0.1, **{name: 0.0})
    with pytest.raises(ValueError, match=r"`eps` must be in [\[\(]0, inf\)"):
        make(0.1, eps=-1.0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.adamw(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adamw(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (
            lambda: optim.adamw(0.1, decay="l2"),
            "'scaled', 'independent', 'coupled', got decay='l2'",
        ),
        (lambda: optim.amsgrad(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adamax(0.1, eps=0.0), r"`eps` must be in \(0, inf\)"),
        (lambda: optim.adamaxw(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (lambda: optim.radam(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.radam(0.1, threshold=3.9), r"`threshold` must be in \[4, inf\]"),
        (lambda: optim.adabelief(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (
            lambda: optim.yogi(0.1, initial_accumulator_value=-1.0),
            r"`initial_accumulator_value` must be in \[0, inf\)",
        ),
        (lambda: optim.adan(0.1, b3=1.0), r"`b3` must be in \[0, 1\)"),
        (lambda: optim.adan(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adan(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (lambda: optim.adan(0.1, extrapolation=-1.0), r"`extrapolation` must be in \[0, inf\)"),
    ],
)
def test_other_numbers_out_of_range_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()

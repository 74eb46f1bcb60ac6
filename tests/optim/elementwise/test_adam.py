"""Adam, AdamW, NAdam against loops, at their edges, and in what they keep."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import (
    GRADS,
    START,
    check_adam_like,
    check_decay_needs_params,
    check_named,
    rate,
    run,
)

from jdl import optim


@pytest.mark.parametrize("make", [optim.adam, optim.adamw, optim.nadam, optim.nadamw])
def test_is_a_rule_with_two_moments(make):
    check_adam_like(make)


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


def test_without_a_bias_correction_the_first_step_of_adam_is_small():
    g = jnp.array([1.0])
    optimizer = optim.adam(0.1, bias_correction=False)
    updates, _ = optimizer.update(g, optimizer.init(g))
    np.testing.assert_allclose(updates, -0.1 * 0.1 / np.sqrt(0.001), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.adamw(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adamw(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (
            lambda: optim.adamw(0.1, decay="l2"),
            "'scaled', 'independent', 'coupled', got decay='l2'",
        ),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)


@pytest.mark.parametrize("make", [optim.adamw, optim.nadamw])
def test_decay_needs_the_parameters_unless_it_is_absent(make):
    check_decay_needs_params(make)

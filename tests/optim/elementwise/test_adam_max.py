"""AMSGrad and Adamax against loops, at their edges, and in what they keep."""

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


@pytest.mark.parametrize("make", [optim.amsgrad, optim.adamax, optim.adamaxw])
def test_is_a_rule_with_two_moments(make):
    check_adam_like(make)


@pytest.mark.parametrize("corrected_maximum", [False, True])
@pytest.mark.parametrize("correct", [(True, True), (False, True), (True, False)])
def test_amsgrad_is_its_loop(corrected_maximum, correct, x64):
    w, m, v, top, expected = START, np.zeros(3), np.zeros(3), np.zeros(3), []
    for t, g in enumerate(GRADS, start=1):
        m = 0.6 * m + 0.4 * g
        v = 0.8 * v + 0.2 * g**2
        c1, c2 = 1 - 0.6**t if correct[0] else 1, 1 - 0.8**t if correct[1] else 1
        top = np.maximum(top, v if corrected_maximum else v / c2)
        v_hat = top / c2 if corrected_maximum else top
        w = w - rate(t - 1) * m / c1 / (np.sqrt(v_hat + 0.02) + 0.3)
        expected.append(w)
    found, state = run(
        optim.amsgrad(
            rate, 0.6, 0.8, 0.3, 0.02, correct_maximum=corrected_maximum,
            bias_correction_mu=correct[0], bias_correction_nu=correct[1],
        )
    )  # fmt: skip
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


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.amsgrad(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adamax(0.1, eps=0.0), r"`eps` must be in \(0, inf\)"),
        (lambda: optim.adamaxw(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)


@pytest.mark.parametrize("make", [optim.adamaxw])
def test_decay_needs_the_parameters_unless_it_is_absent(make):
    check_decay_needs_params(make)

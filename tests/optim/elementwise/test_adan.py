"""Adan against its loop, at its edges, and in what it keeps."""

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


def test_is_a_rule_with_two_moments():
    check_adam_like(optim.adan)


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


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.adan(0.1, b3=1.0), r"`b3` must be in \[0, 1\)"),
        (lambda: optim.adan(0.1, eps_root=-1.0), r"`eps_root` must be in \[0, inf\)"),
        (lambda: optim.adan(0.1, weight_decay=-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (lambda: optim.adan(0.1, extrapolation=-1.0), r"`extrapolation` must be in \[0, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)


def test_decay_needs_the_parameters_unless_it_is_absent():
    check_decay_needs_params(optim.adan)

"""LARS and LAMB against recordings, formulas and properties."""

import numpy as np
import pytest
from tests.optim.modern import (
    DECAY,
    NOT_BIAS,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
    falling,
    one_update,
    vector,
)

from jdl import optim

CASES = {
    "lars": optim.lars(0.3, 0.2, True, 0.05, 0.4, True, 0.7),
    "lars nesterov masks": optim.lars(falling, 0.2, NOT_BIAS, 0.05, 0.4, NOT_BIAS, 0.7, True),
    "lamb": optim.lamb(0.3, 0.6, 0.85, 0.1, 0.03, 0.2),
    "lamb mask": optim.lamb(falling, 0.6, 0.85, 1e-3, 0.0, 0.2, NOT_BIAS),
}


RANGES = {
    optim.lars: {
        "learning_rate": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "trust_coefficient": POSITIVE,
        "eps": NOT_NEGATIVE,
        "momentum": DECAY,
    },
    optim.lamb: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "eps_root": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_equal_the_recorded_ones(name, x64):
    check_recording(name, CASES[name])


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_keeps_its_dtypes(make):
    check_dtypes(make)


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    check_ranges(make, RANGES[make])


@pytest.mark.parametrize("make", [optim.lars, optim.lamb])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_layerwise_ratio_is_one_where_a_norm_is_zero():
    zero, g = vector(0.0, 0.0), vector(3.0, 4.0)
    np.testing.assert_allclose(one_update(optim.lars(0.1), zero, g), -0.1 * g, rtol=1e-6)
    lamb = one_update(optim.lamb(0.1, eps=1.0), zero, g)
    np.testing.assert_allclose(lamb, [-0.075, -0.08], rtol=1e-5)
    np.testing.assert_array_equal(one_update(optim.lars(0.1), g, zero), 0)
    np.testing.assert_array_equal(one_update(optim.lamb(0.1), g, zero), 0)

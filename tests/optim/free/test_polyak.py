"""Polyak's rate and averaged descent against recordings, formulas and properties."""

import numpy as np
import pytest
from tests.optim.modern import (
    NOT_NEGATIVE,
    POSITIVE,
    UP_TO_INF,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
    one_update,
    vector,
)

from jdl import optim

CASES = {
    "polyak_sgd sps": optim.polyak_sgd(0.02, 1.0, 0.3, 0.1, "sps"),
    "polyak_sgd sps+": optim.polyak_sgd(0.02, 1.0, 0.3, 0.1, "sps+"),
    "asgd": optim.asgd(0.3, 0.2, 0.6, 11.0, 0.1),
}


AVERAGES = {
    "asgd average": lambda state, params: state.average,
}


RANGES = {
    optim.polyak_sgd: {
        "max_learning_rate": UP_TO_INF,
        "scaling": POSITIVE,
        "f_min": ("(-inf, inf)", (-5.0, 5.0), (float("inf"),)),
        "eps": NOT_NEGATIVE,
    },
    optim.asgd: {
        "learning_rate": POSITIVE,
        "lambd": NOT_NEGATIVE,
        "alpha": NOT_NEGATIVE,
        "t0": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_equal_the_recorded_ones(name, x64):
    check_recording(name, CASES[name], AVERAGES.get(f"{name} average"))


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_keeps_its_dtypes(make):
    check_dtypes(make)


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    check_ranges(make, RANGES[make])


@pytest.mark.parametrize("make", [optim.asgd])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_polyak_s_rate_is_the_gap_over_the_squared_gradient():
    g = vector(3.0, 4.0)
    optimizer = optim.polyak_sgd(0.5, 3.0, 1.0, 5.0)
    move = lambda o, value, g=g: one_update(o, g, g, value=value)  # noqa: E731
    np.testing.assert_allclose(move(optimizer, 4.0), -3 * 0.1 * g, rtol=1e-6)
    np.testing.assert_allclose(move(optimizer, 100.0), -3 * 0.5 * g, rtol=1e-6)
    np.testing.assert_allclose(move(optimizer, -2.0), 3 * 0.1 * g, rtol=1e-6)
    plus = optim.polyak_sgd(0.5, 3.0, 1.0, 5.0, "sps+")
    np.testing.assert_array_equal(move(plus, -2.0), 0)
    np.testing.assert_array_equal(move(optim.polyak_sgd(), 4.0, 0 * g), 0)
    with pytest.raises(ValueError, match=r"polyak_sgd needs the loss: .*got value=None"):
        one_update(optimizer, g, g)

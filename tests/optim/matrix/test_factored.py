"""Adafactor against recordings, formulas and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    DECAY,
    NOT_BIAS,
    NOT_NEGATIVE,
    POSITIVE,
    UP_TO_INF,
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
    "adafactor": optim.adafactor(0.3, 3, 0.7, eps=1e-3, clipping_threshold=0.6),
    "adafactor momentum decay": optim.adafactor(
        falling, 2, 0.6, 0, False, 0.8, 0.7, jnp.float64, 0.1, 1e-2, True, NOT_BIAS
    ),
    "adafactor whole": optim.adafactor(None, 2, 0.9, clipping_threshold=None, factored=False),
}


RANGES = {
    optim.adafactor: {
        "learning_rate": POSITIVE,
        "decay_rate": ("[0, 1]", (0.0, 1.0), (-0.1, 1.1)),
        "decay_offset": NOT_NEGATIVE,
        "clipping_threshold": UP_TO_INF,
        "momentum": DECAY,
        "weight_decay_rate": NOT_NEGATIVE,
        "eps": POSITIVE,
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


@pytest.mark.parametrize("make", [optim.adafactor])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_adafactor_starts_afresh_at_its_offset(x64):
    def updates(optimizer, count):
        state, found = optimizer.init(jnp.ones(2)), []
        for i in range(count):
            move, state = optimizer.update(jnp.array([1.0 + i, 2.0]), state, jnp.ones(2))
            found.append(move)
        return found, state

    options = {"clipping_threshold": None, "multiply_by_parameter_scale": False}
    late, state = updates(optim.adafactor(0.1, decay_offset=3, **options), 3)
    for i, move in enumerate(late):
        np.testing.assert_allclose(move, -0.1, rtol=1e-12, err_msg=str(i))
    np.testing.assert_allclose(state.second_moment, [9, 4], rtol=1e-12)


def test_adafactor_takes_a_scale_of_1e_minus_3_for_small_weights():
    small = vector(1e-5, -1e-5)
    options = {"eps": 1e-12, "clipping_threshold": None}
    move = one_update(optim.adafactor(0.1, **options), small, vector(5.0, -7.0))
    np.testing.assert_allclose(move, [-1e-4, 1e-4], rtol=1e-5)

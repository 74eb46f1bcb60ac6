"""Signs of gradients against recordings, formulas and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    AT_LEAST_ONE,
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
)

from jdl import optim

CASES = {
    "sign_sgd": optim.sign_sgd(falling),
    "signum": optim.signum(0.3, 0.7),
    "lion": optim.lion(0.3, 0.6, 0.85, weight_decay=0.2),
    "lion mask": optim.lion(falling, 0.6, 0.85, None, 0.2, NOT_BIAS),
    "rprop": optim.rprop(0.03, 0.4, 1.3, 0.02, 0.09),
}


RANGES = {
    optim.sign_sgd: {"learning_rate": POSITIVE},
    optim.signum: {"learning_rate": POSITIVE, "beta": DECAY},
    optim.lion: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.rprop: {
        "learning_rate": POSITIVE,
        "eta_minus": ("(0, 1]", (0.1, 1.0), (0.0, 1.1)),
        "eta_plus": AT_LEAST_ONE,
        "min_step_size": NOT_NEGATIVE,
        "max_step_size": UP_TO_INF,
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


@pytest.mark.parametrize("make", [optim.lion])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_rprop_moves_the_parts_of_a_complex_number_each_by_its_own_step():
    optimizer = optim.rprop(0.1)
    w = jnp.array([1 + 1j])
    state = optimizer.init(w)
    for g, expected in ((2 - 3j, -0.1 + 0.1j), (1 + 2j, -0.12 + 0j), (1 + 5j, -0.144 - 0.05j)):
        move, state = optimizer.update(jnp.array([g]), state, w)
        np.testing.assert_allclose(move, [expected], rtol=1e-5, atol=1e-8)

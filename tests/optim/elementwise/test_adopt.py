"""ADOPT against recordings, formulas and properties."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_ranges,
    check_recording,
    falling,
)

from jdl import optim

CASES = {
    "adopt": optim.adopt(0.3, 0.6, 0.85, 0.1),
    "adopt nesterov": optim.adopt(falling, 0.6, 0.85, 0.3, nesterov=True, use_clipping=False),
    "adopt clip": optim.adopt(0.3, 0.6, 0.85, 1e-2, clip_value_fn=lambda t: 0.3 * t),
}


RANGES = {
    optim.adopt: {"learning_rate": POSITIVE, "b1": DECAY, "b2": DECAY, "eps": NOT_NEGATIVE},
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


def test_adopt_clips_the_modulus_of_a_complex_number():
    optimizer = optim.adopt(1.0, 0.0, 0.0, clip_value_fn=lambda t: 0.5 * t)
    state = optimizer.init(jnp.array([0j]))
    move, state = optimizer.update(jnp.array([1 + 0j]), state)
    np.testing.assert_array_equal(move, 0)
    move, _ = optimizer.update(jnp.array([3 + 4j]), state)
    np.testing.assert_allclose(move, [-0.3 - 0.4j], rtol=1e-6)
    optimizer = optim.adopt(1.0, 0.0, 0.0, clip_value_fn=lambda t: 20.0 * t)
    within, _ = optimizer.update(jnp.array([3 + 4j]), state)
    np.testing.assert_allclose(within, [-3 - 4j], rtol=1e-6)
    unclipped = optim.adopt(1.0, 0.0, 0.0, use_clipping=False, clip_value_fn=lambda t: 0.5 * t)
    np.testing.assert_allclose(unclipped.update(jnp.array([3 + 4j]), state)[0], within, rtol=1e-6)

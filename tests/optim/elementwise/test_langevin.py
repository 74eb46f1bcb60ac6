"""Noisy descent against recordings, formulas and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    KEY,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_ranges,
    one_update,
    vector,
)

from jdl import optim

RANGES = {
    optim.noisy_sgd: {"learning_rate": POSITIVE, "eta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE},
    optim.sgld: {"learning_rate": POSITIVE, "temperature": NOT_NEGATIVE},
}


NEEDS = {
    optim.noisy_sgd: dict(key=KEY),
    optim.sgld: dict(key=KEY),
}


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_keeps_its_dtypes(make):
    check_dtypes(make, **NEEDS.get(make, {}))


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    check_ranges(make, RANGES[make], **NEEDS.get(make, {}))


def test_noise_has_the_stated_variance_and_dies_out():
    n = 40_000
    zeros = {"a": jnp.zeros(n), "b": jnp.zeros(n)}
    optimizer = optim.noisy_sgd(0.3, 0.8, 1.5, KEY)
    state = optimizer.init(zeros)
    draws = []
    for t in range(3):
        updates, state = jax.jit(optimizer.update)(zeros, state)
        expected = 0.3 * np.sqrt(0.8 / (t + 1) ** 1.5)
        for leaf in updates.values():
            error = expected / np.sqrt(2 * n)
            assert abs(np.std(leaf) - expected) < 5 * error
            assert abs(np.mean(leaf)) < 5 * expected / np.sqrt(n)
        draws += [np.asarray(leaf) / expected for leaf in updates.values()]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(n)


def test_noisy_descent_without_noise_is_descent():
    g = vector(1.0, -2.0)
    for optimizer in (optim.noisy_sgd(0.3, 0.0, key=KEY), optim.sgld(0.3, 0.0, KEY)):
        np.testing.assert_allclose(one_update(optimizer, g, g), -0.3 * g, rtol=1e-6)


def test_langevin_dynamics_sample_the_tempered_density():
    """On w**2/2 the stationary variance of the discrete chain is T / (1 - lr/2)."""
    lr, temperature, lanes = 0.4, 0.7, 4000
    optimizer = optim.sgld(lr, temperature, KEY)
    start = jnp.zeros(lanes)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(w, state, w)
        return (w + updates, state), w

    (_, _), path = jax.lax.scan(step, (start, optimizer.init(start)), length=120)
    samples = np.asarray(path[60::20])
    expected = temperature / (1 - lr / 2)
    error = expected * np.sqrt(2 / samples.size)
    assert abs(np.var(samples) - expected) < 5 * error

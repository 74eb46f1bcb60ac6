"""Shampoo against recordings, formulas and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    AT_LEAST_ONE,
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
    one_update,
)

from jdl import optim

CASES = {
    "shampoo": optim.shampoo(0.3, 0.7, 1.0, 0.01, 0.2),
    "shampoo average": optim.shampoo(
        0.3, 0.0, 0.8, 0.1, 0.0, exponent=0.4, precondition_frequency=3, max_precond_dim=4
    ),
    "shampoo sgd": optim.shampoo(0.3, 0.6, 0.9, 0.1, graft="sgd"),
    "shampoo adagrad": optim.shampoo(0.3, 0.6, 1.0, 0.2, 0.1, graft="adagrad", max_precond_dim=3),
}


RANGES = {
    optim.shampoo: {
        "learning_rate": POSITIVE,
        "momentum": DECAY,
        "b2": ("(0, 1]", (0.1, 1.0), (0.0, 1.1)),
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "exponent": POSITIVE,
        "precondition_frequency": AT_LEAST_ONE,
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


@pytest.mark.parametrize("make", [optim.shampoo])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def random_matrices(*shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


def test_shampoo_by_newton_equals_shampoo_by_eigh(x64):
    params = {"w": random_matrices(4, 3), "b": jnp.zeros(3), "s": jnp.ones(())}
    grads = jax.tree.map(lambda w: jnp.sin(3 * w + 1), params)
    ours, theirs = (
        one_update(optim.shampoo(0.1, eps=0.2, method=method), params, grads)
        for method in ("eigh", "newton")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, theirs)
    np.testing.assert_allclose(ours["s"], -0.1 * np.sin(4) / np.sqrt(np.sin(4) ** 2 + 0.2))

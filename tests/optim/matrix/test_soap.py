"""SOAP against recordings, formulas and properties."""

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
)

from jdl import optim
from jdl.optim.matrix.soap import _eigenvectors

CASES = {
    "soap": optim.soap(0.3, 0.7, 0.8, None, 1e-3, 0.0, precondition_frequency=3),
    "soap frequent": optim.soap(
        0.3,
        0.7,
        0.8,
        0.6,
        1e-3,
        0.0,
        precondition_frequency=1,
        max_precond_dim=4,
        bias_correction=False,
    ),
    "soap vectors": optim.soap(
        0.3, 0.6, 0.9, None, 1e-3, 0.0, precondition_frequency=2, precondition_1d=True
    ),
}


RANGES = {
    optim.soap: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "shampoo_beta": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
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


@pytest.mark.parametrize("make", [optim.soap])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def random_matrices(*shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


def test_soap_in_a_turned_basis_takes_the_turned_step(x64):
    """Turning parameters and gradients by orthogonal matrices turns every update by them."""
    left = np.linalg.qr(np.asarray(random_matrices(3, 3)))[0]
    right = np.linalg.qr(np.asarray(random_matrices(4, 4)))[0]
    grads = np.random.default_rng(9).normal(size=(6, 3, 4))
    optimizer = optim.soap(0.1, 0.6, 0.8, eps=1e-3, weight_decay=0.0, precondition_frequency=2)

    def run(grads):
        def step(state, g):
            updates, state = optimizer.update(g, state, jnp.zeros((3, 4)))
            return state, updates

        return jax.lax.scan(step, optimizer.init(jnp.zeros((3, 4))), jnp.asarray(grads))[1]

    straight, turned = run(grads), run(left @ grads @ right)
    np.testing.assert_allclose(turned, left @ np.asarray(straight) @ right, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(straight[0], 0)


def test_soap_begins_with_the_largest_eigenvalue(x64):
    """The first basis is of eigenvectors in falling order of their eigenvalues."""
    g = random_matrices(3, 4)
    statistics = (g @ g.T, g.T @ g)
    bases, _ = _eigenvectors(statistics, statistics, ())
    for statistic, basis in zip(statistics, bases, strict=True):
        values = np.linalg.eigvalsh(statistic)[::-1]
        turned = basis.T @ statistic @ basis
        np.testing.assert_allclose(turned, np.diag(values), atol=1e-12 * values[0])

"""Muon against recordings, formulas and properties."""

import jax.numpy as jnp
import pytest
from tests.optim.modern import (
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
    falling,
    one_update,
)

from jdl import optim

BOTH = {
    "bias": None,
    "kernel": optim.MuonDimensionNumbers(),
    "tensor": optim.MuonDimensionNumbers((2, 0), 1),
}


CASES = {
    "muon": optim.muon(0.3, beta=0.7, eps=0.1, weight_decay=0.2),
    "muon plain": optim.muon(
        falling,
        (3.0, -3.2, 1.2),
        3,
        0.6,
        1e-4,
        0.2,
        {"bias": True, "kernel": False, "tensor": True},
        nesterov=False,
        adaptive=True,
        adam_b1=0.8,
        adam_b2=0.9,
        adam_eps_root=0.02,
        adam_weight_decay=0.3,
        adam_learning_rate=0.05,
        consistent_rms=0.3,
        muon_weight_dimension_numbers={
            "bias": None,
            "kernel": optim.MuonDimensionNumbers(1, 0),
            "tensor": optim.MuonDimensionNumbers(2, 0),
        },
    ),
    "muon spectral": optim.muon(
        0.3,
        "dion",
        beta=0.7,
        eps=0.1,
        preconditioning="spectral",
        muon_weight_dimension_numbers=BOTH,
    ),
    "muon aol": optim.muon(
        0.3,
        (3.0, -3.2, 1.2),
        beta=0.7,
        eps=0.1,
        preconditioning="aol",
        muon_weight_dimension_numbers=lambda params: BOTH,
    ),
}


RANGES = {
    optim.muon: {
        "learning_rate": POSITIVE,
        "beta": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "adam_b1": DECAY,
        "adam_b2": DECAY,
        "adam_eps_root": NOT_NEGATIVE,
        "adam_weight_decay": NOT_NEGATIVE,
        "adam_learning_rate": POSITIVE,
        "consistent_rms": POSITIVE,
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


@pytest.mark.parametrize("make", [optim.muon])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_muon_says_when_the_sides_share_an_axis():
    same = optim.MuonDimensionNumbers(0, -2)
    params = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"different axes for the two sides, .*shape \(2, 3\)"):
        one_update(optim.muon(0.1, muon_weight_dimension_numbers=same), params, jnp.ones((2, 3)))

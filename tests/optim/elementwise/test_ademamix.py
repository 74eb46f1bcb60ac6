"""AdEMAMix against recordings, formulas and properties."""

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
)

from jdl import optim

CASES = {
    "ademamix": optim.ademamix(0.3, 0.6, 0.85, 0.95, 2.5, 0.1, 0.03, None, 0.2, NOT_BIAS),
}


RANGES = {
    optim.ademamix: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "b3": DECAY,
        "alpha": NOT_NEGATIVE,
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


@pytest.mark.parametrize("make", [optim.ademamix])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)

"""DoG and DoWG against recordings, formulas and properties."""

import pytest
from tests.optim.modern import (
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
    "dog heuristic": optim.dog(0.7, ("heuristic", 0.01), 0.3, 0.2, NOT_BIAS),
    "dog distance": optim.dog(0.7, ("distance", 0.05), 0.3, 0.2, NOT_BIAS),
    "dog learning_rate": optim.dog(0.7, ("learning_rate", 0.07), 0.3, 0.2, NOT_BIAS),
    "dowg": optim.dowg(0.7, 0.05, 0.3, 0.2, NOT_BIAS),
    "dowg plain": optim.dowg(eps=0.04),
}


RANGES = {
    optim.dog: {"learning_rate": POSITIVE, "eps": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE},
    optim.dowg: {
        "learning_rate": POSITIVE,
        "init_estim_sq_dist": POSITIVE,
        "eps": POSITIVE,
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


@pytest.mark.parametrize("make", [optim.dog, optim.dowg])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


def test_dog_names_the_ways_to_start():
    with pytest.raises(ValueError, match="`init_step` must be one of 'heuristic', 'distance'"):
        optim.dog(init_step=("length", 1.0))
    with pytest.raises(ValueError, match=r"`init_step` must be in \(0, inf\), got init_step=0.0"):
        optim.dog(init_step=("distance", 0.0))

"""Prodigy and D-Adaptation against recordings, formulas and properties."""

import pytest
from tests.optim.modern import (
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
)

from jdl import optim

CASES = {
    "prodigy safeguard=False": optim.prodigy(0.7, (0.6, 0.85), 0.9, 0.1, 1e-2, 1.7, 0.2),
    "prodigy safeguard=True": optim.prodigy(0.7, (0.6, 0.85), 0.9, 0.1, 1e-2, 1.7, 0.2, True),
    "prodigy beta3": optim.prodigy(0.7, (0.6, 0.85), None, 0.1, 1e-2),
    "dadapt_adamw": optim.dadapt_adamw(0.7, (0.6, 0.85), 0.1, 1e-2, 0.2),
}


RANGES = {
    optim.prodigy: {
        "learning_rate": POSITIVE,
        "beta3": DECAY,
        "eps": NOT_NEGATIVE,
        "estim_lr0": POSITIVE,
        "estim_lr_coef": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.dadapt_adamw: {
        "learning_rate": POSITIVE,
        "eps": NOT_NEGATIVE,
        "estim_lr0": POSITIVE,
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


@pytest.mark.parametrize("make", [optim.prodigy, optim.dadapt_adamw])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make)


@pytest.mark.parametrize("make", [optim.prodigy, optim.dadapt_adamw])
def test_both_betas_are_held_to_their_range(make):
    for betas, name in (((1.0, 0.5), "b1"), ((0.5, 1.0), "b2")):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\), got {name}=1.0"):
            make(betas=betas)

"""Schedule-free descent against recordings, formulas and properties."""

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

CASES = {
    "schedule_free_sgd": optim.schedule_free_sgd(0.3, None, 0.7, 0.2, 1.5),
    "schedule_free_adamw": optim.schedule_free_adamw(0.3, None, 0.7, 0.8, 0.1, 0.2, 1.5),
    "schedule_free_adamw warmup": optim.schedule_free_adamw(0.3, 20, 0.7, 0.8, 0.1, 0.2, 1.5),
    "schedule_free_sgd warmup": optim.schedule_free_sgd(0.3, 20, 0.6, 0.2, 0.5),
}


AVERAGES = {
    "schedule_free_sgd average": optim.schedule_free_eval_params,
    "schedule_free_adamw warmup average": optim.schedule_free_eval_params,
}


RANGES = {
    optim.schedule_free: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "weight_lr_power": NOT_NEGATIVE,
    },
    optim.schedule_free_sgd: {
        "learning_rate": POSITIVE,
        "warmup_steps": AT_LEAST_ONE,
        "b1": DECAY,
        "weight_decay": NOT_NEGATIVE,
        "weight_lr_power": NOT_NEGATIVE,
    },
    optim.schedule_free_adamw: {
        "learning_rate": POSITIVE,
        "warmup_steps": AT_LEAST_ONE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "weight_lr_power": NOT_NEGATIVE,
    },
}


NEEDS = {
    optim.schedule_free: dict(base_optimizer=optim.sgd(0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_equal_the_recorded_ones(name, x64):
    check_recording(name, CASES[name], AVERAGES.get(f"{name} average"))


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_keeps_its_dtypes(make):
    check_dtypes(make, **NEEDS.get(make, {}))


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    check_ranges(make, RANGES[make], **NEEDS.get(make, {}))


@pytest.mark.parametrize(
    "make", [optim.schedule_free, optim.schedule_free_sgd, optim.schedule_free_adamw]
)
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make, **NEEDS.get(make, {}))


def test_schedule_free_follows_a_schedule_of_b1(x64):
    """Against the two sequences written out, x kept beside z instead of divided out of y."""
    beta = lambda t: 0.5 + 0.4 / (1 + t)  # noqa: E731
    rate = lambda t: 0.3 / (1 + 0.5 * t)  # noqa: E731
    optimizer = optim.schedule_free(optim.sgd(rate), rate, beta, 1.0)
    y = jnp.array([1.0, -2.0])
    state = optimizer.init(y)
    x = z = np.array([1.0, -2.0])
    weights = 0.0
    for t in range(6):
        g = 2 * y + t
        updates, state = optimizer.update(g, state, y)
        y = optim.apply_updates(y, updates)
        z = z - rate(t) * np.asarray(g)
        weights += rate(0)  # the highest rate so far
        x = x + rate(0) / weights * (z - x)
        np.testing.assert_allclose(y, beta(t) * x + (1 - beta(t)) * z, rtol=1e-12)
        np.testing.assert_allclose(optim.schedule_free_eval_params(state, y), x, rtol=1e-12)


def test_schedule_free_without_interpolation_is_the_base_optimizer():
    grads = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    for free, base in (
        (optim.schedule_free_sgd(0.3, b1=0.0), optim.sgd(0.3)),
        (optim.schedule_free(optim.adam(0.2), 0.2, 0.0), optim.adam(0.2)),
    ):
        ends = []
        for optimizer in (free, base):
            params = jnp.ones(3)
            state = optimizer.init(params)
            for g in grads:
                updates, state = optimizer.update(jnp.asarray(g), state, params)
                params = optim.apply_updates(params, updates)
            ends.append(params)
        np.testing.assert_allclose(*ends, rtol=1e-6)


def test_schedule_free_keeps_z_in_float32_or_in_the_dtype_asked_for():
    params = jnp.ones(2, jnp.bfloat16)
    assert optim.schedule_free_sgd(0.1).init(params).z.dtype == jnp.float32
    state = optim.schedule_free_sgd(0.1, state_dtype=jnp.float16).init(params)
    assert state.z.dtype == jnp.float16
    assert optim.schedule_free_eval_params(state, params).dtype == jnp.bfloat16
    optimizer = optim.schedule_free_sgd(0.1)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    assert (updates.dtype, state.z.dtype) == (jnp.bfloat16, jnp.float32)

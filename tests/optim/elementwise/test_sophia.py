"""Sophia and its estimator against recordings, formulas and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import (
    AT_LEAST_ONE,
    DECAY,
    KEY,
    NOT_BIAS,
    NOT_NEGATIVE,
    POSITIVE,
    UP_TO_INF,
    check_dtypes,
    check_needs_params,
    check_ranges,
    check_recording,
    vector,
)

from jdl import optim
from jdl.optim.base import Optimizer


def curvature():
    """An estimator for Sophia that is known in closed form: 0.3 w**2 - 0.1."""
    return Optimizer(
        lambda params: (),
        lambda grads, state, params=None, **_: (
            jax.tree.map(lambda w: 0.3 * w**2 - 0.1, params),
            state,
        ),
    )


CASES = {
    "sophia": optim.sophia(
        0.3, 0.6, 0.85, 0.01, 0.2, NOT_BIAS, 0.4, 0.7, 3, hessian_diagonal_fn=curvature()
    ),
}


RANGES = {
    optim.sophia: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "gamma": POSITIVE,
        "clip_threshold": UP_TO_INF,
        "update_interval": AT_LEAST_ONE,
    },
}


NEEDS = {
    optim.sophia: dict(key=KEY),
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_equal_the_recorded_ones(name, x64):
    check_recording(name, CASES[name])


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_keeps_its_dtypes(make):
    check_dtypes(make, **NEEDS.get(make, {}))


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    check_ranges(make, RANGES[make], **NEEDS.get(make, {}))


@pytest.mark.parametrize("make", [optim.sophia])
def test_says_that_it_needs_the_parameters(make):
    check_needs_params(make, **NEEDS.get(make, {}))


def quadratic(matrix):
    return lambda params: 0.5 * params["w"] @ matrix @ params["w"]


def test_hutchinson_is_exact_where_the_hessian_is_diagonal_and_unbiased_elsewhere():
    params = {"w": vector(1.0, -2.0, 0.5)}
    estimator = optim.hutchinson_estimator_diag_hessian(KEY)
    diagonal = jnp.diag(vector(2.0, -3.0, 0.25))
    state = estimator.init(params)
    found, state = estimator.update(params, state, params, value_fn=quadratic(diagonal))
    np.testing.assert_allclose(found["w"], [2, -3, 0.25], rtol=1e-6)
    assert state.step == 1
    full = diagonal + vector(0.0, 1.0, 2.0)[:, None] * vector(0.0, 1.0, 2.0)[None, :]

    def step(state, _):
        found, state = estimator.update(params, state, params, value_fn=quadratic(full))
        return state, found["w"]

    draws = np.asarray(jax.lax.scan(step, state, length=2000)[1])
    np.testing.assert_allclose(draws.mean(0), jnp.diag(full), atol=5 * 2 / np.sqrt(2000))
    assert draws[:, 1].std() > 1.5
    with pytest.raises(ValueError, match=r"needs the loss: .*got value_fn=None"):
        estimator.update(params, state, params)
    with pytest.raises(ValueError, match="hutchinson_estimator_diag_hessian needs the param"):
        estimator.update(params, state, value_fn=quadratic(full))


def test_sophia_with_its_own_estimator_takes_the_newton_step_of_a_diagonal_quadratic():
    params = {"w": vector(1.0, -2.0, 0.5)}
    curvature = vector(2.0, 3.0, 0.25)
    optimizer = optim.sophia(0.5, 0.0, 0.0, gamma=2.0, weight_decay=0.0, key=KEY)
    state = optimizer.init(params)
    extra = {"value_fn": quadratic(jnp.diag(curvature))}
    g = {"w": curvature * params["w"]}
    first, state = optimizer.update(g, state, params, **extra)
    np.testing.assert_allclose(first["w"], [-0.5, 0.5, -0.5], rtol=1e-6)
    second, _ = optimizer.update(g, state, params, **extra)
    np.testing.assert_allclose(second["w"], -0.5 * params["w"] / 2, rtol=1e-6)


def test_sophia_estimates_the_curvature_at_its_interval_alone():
    calls = optim.Optimizer(
        lambda params: jnp.zeros(()),
        lambda grads, count, params=None, **_: (jnp.full(2, count + 1.0), count + 1),
    )
    optimizer = optim.sophia(0.1, b2=0.0, update_interval=3, hessian_diagonal_fn=calls)
    params = vector(1.0, 2.0)
    state, seen = optimizer.init(params), []
    for _ in range(7):
        _, state = optimizer.update(params, state, params)
        seen.append(float(state.curvature[0]))
    assert seen == [1, 1, 1, 2, 2, 2, 3]


def test_the_first_moment_alone_takes_the_dtype_asked_for():
    state = optim.sophia(0.1, mu_dtype=jnp.bfloat16, key=KEY).init(vector(1.0, 2.0))
    assert state.momentum.dtype == jnp.bfloat16
    assert state.curvature.dtype == jnp.float32

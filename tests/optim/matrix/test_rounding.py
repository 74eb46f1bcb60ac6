"""Shampoo and SOAP on full batches in float32: what rounding moves stays rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 5)).astype(np.float32)
Y = RNG.normal(size=(20, 2)).astype(np.float32)
START = RNG.normal(size=(5, 2)).astype(np.float32)
RULES = {
    "soap": optim.soap,
    "soap turned often": lambda lr: optim.soap(lr, precondition_frequency=3),
    "shampoo": optim.shampoo,
    "shampoo without eps": lambda lr: optim.shampoo(lr, eps=0.0),
}


def trained(make, lr, w):
    """The parameters after each of 12 steps; 5 x 2, so that one statistic has a null space."""
    optimizer = make(lr)

    def loss(w):
        return jnp.mean((jnp.tanh(jnp.dot(X, w, precision="highest")) - Y) ** 2)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        w = optim.apply_updates(w, updates)
        return (w, state), w

    return jax.lax.scan(step, (w, optimizer.init(w)), None, length=12)[1]


@pytest.mark.parametrize("name", RULES)
def test_a_start_moved_by_rounding_ends_where_it_did(name):
    run = jax.jit(lambda lr, w: trained(RULES[name], lr, w))
    one, other = (np.asarray(run(0.1, w)) for w in (START, np.nextafter(START, np.inf)))
    np.testing.assert_allclose(other[1], one[1], atol=3e-6)
    np.testing.assert_allclose(other, one, atol=1e-3)
    assert np.abs(one[-1] - START).max() > 0.05


@pytest.mark.parametrize("name", RULES)
def test_a_lane_is_a_lone_run_to_rounding(name):
    rates = jnp.array([0.03, 0.1, 0.3])
    lanes = jax.jit(jax.vmap(lambda lr: trained(RULES[name], lr, jnp.asarray(START))))(rates)
    lone = jax.jit(lambda lr: trained(RULES[name], lr, jnp.asarray(START)))(0.1)
    np.testing.assert_allclose(lanes[1], lone, atol=1e-3)
    np.testing.assert_allclose(lanes[1][1], lone[1], atol=3e-6)

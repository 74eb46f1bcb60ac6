"""What the tests of the elementwise rules and of the transforms share: gradients, runs, checks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

# One element of every size, one that is always zero, one that is small.
GRADS = np.random.default_rng(6).normal(size=(12, 3)) * [1.0, 0.0, 1e-3]
START = np.array([0.5, -1.0, 2.0])
PARAMS = {"kernel": np.array([[0.4, -1.2], [2.0, 0.3], [-0.7, 0.9]]), "bias": np.array([1.1, -0.6])}


def rate(t):
    return 0.2 / (1 + 0.5 * t)


def run(optimizer, grads=GRADS, start=START):
    """The parameters after each update, and the last state."""
    w = jnp.asarray(start)
    state, found = optimizer.init(w), []
    for g in grads:
        updates, state = optimizer.update(jnp.asarray(g), state, w)
        w = optim.apply_updates(w, updates)
        found.append(np.asarray(w))
    return np.array(found), state


def draw(steps, seed=0):
    """Gradients for `PARAMS`, one tree a step."""
    rng = np.random.default_rng(seed)
    return [
        {key: jnp.asarray(rng.normal(size=w.shape)) for key, w in PARAMS.items()}
        for _ in range(steps)
    ]


def initial():
    return jax.tree.map(jnp.asarray, PARAMS)


def updates_of(optimizer, grads, params=None, **extra):
    """All updates and the last parameters and state."""
    w = initial() if params is None else params
    state, updates = optimizer.init(w), []
    for g in grads:
        u, state = optimizer.update(g, state, w, **extra)
        w = optim.apply_updates(w, u)
        updates.append(u)
    return updates, w, state


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-300), a, b)


def check_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def check_adam_like(make, start=0.0):
    """What every rule with two moments keeps to: real squares, finite slopes, named ranges."""
    state = make(0.1).init(jnp.ones(2, jnp.complex64))
    assert state.first_moment.dtype == jnp.complex64
    assert state.second_moment.dtype == jnp.float32
    assert int(state.step) == 0
    for moment in (state.first_moment, state.second_moment):
        np.testing.assert_allclose(moment, start, rtol=1e-6)

    def moved(lr):
        optimizer = make(lr)
        w = jnp.array([1.0, 2.0])
        state = optimizer.init(w)
        for _ in range(2):
            updates, state = optimizer.update(jnp.array([0.0, 1.0]) * w, state, w)
            w = optim.apply_updates(w, updates)
        return jnp.sum(w**2)

    slope = jax.grad(moved)(0.1)  # through a gradient that was always zero
    assert bool(jnp.isfinite(slope)) and float(slope) < -0.5

    check_named(lambda: make(0.0), r"`learning_rate` must be in \(0, inf\)")
    for name in ("b1", "b2"):
        match = rf"`{name}` must be in \[0, 1\), got {name}=1.0"
        check_named(lambda name=name: make(0.1, **{name: 1.0}), match)
        make(0.1, **{name: 0.0})
    check_named(lambda: make(0.1, eps=-1.0), r"`eps` must be in [\[\(]0, inf\)")


def check_decay_needs_params(make):
    """Decay needs the parameters, unless it is absent."""
    optimizer = make(0.1)
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    absent = make(0.1, weight_decay=None)
    absent.update(jnp.ones(2), absent.init(jnp.ones(2)))

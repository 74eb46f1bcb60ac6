"""What the tests of the modern rules share: recorded updates, ranges, and one update by hand."""

from __future__ import annotations

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

PATH = pathlib.Path(__file__).parents[1] / "golden" / "optim_modern.npz"
KEPT = np.array((0, 1, 2, 8, 24, 49))
NOT_BIAS = {"bias": False, "kernel": True, "tensor": True}
KEY = jax.random.key(11)
# Where an update is the end of a long sum or of matrix products, one element of it
# is exact only to the size of the others.
COUPLED = ("muon", "shampoo", "soap", "schedule_free", "prodigy", "dadapt", "dog", "dowg", "asgd")

# An interval as errors print it, values inside it, values outside it.
inf = float("inf")
NOT_NEGATIVE = ("[0, inf)", (0.0, 3.0), (-0.1, inf))
POSITIVE = ("(0, inf)", (1e-3, 3.0), (0.0, -1.0, inf))
DECAY = ("[0, 1)", (0.0, 0.99), (-0.1, 1.0))
AT_LEAST_ONE = ("[1, inf)", (1.0, 9.0), (0.9, inf))
UP_TO_INF = ("(0, inf]", (1e-3, inf), (0.0, -1.0))


def vector(*values):
    return jnp.array(values, jnp.float32)


def falling(t):
    return 0.2 / (1 + 0.3 * t)


def one_update(optimizer, params, grads, **extra):
    return optimizer.update(grads, optimizer.init(params), params, **extra)[0]


@functools.cache
def golden():
    with np.load(PATH) as file:
        return {name: file[name] for name in file.files}


def tree(name):
    """The recorded tree of that name."""
    return {key: golden()[f"{name}/{key}"] for key in NOT_BIAS if f"{name}/{key}" in golden()}


def run(optimizer):
    """All fifty updates, stacked, and the last state and parameters."""

    def step(carry, inputs):
        params, state = carry
        grads, value = inputs
        updates, state = optimizer.update(grads, state, params, value=value)
        return (optim.apply_updates(params, updates), state), updates

    def loop(params, grads, values):
        return jax.lax.scan(step, (params, optimizer.init(params)), (grads, values))

    (params, state), updates = jax.jit(loop)(tree("params"), tree("grads"), golden()["values"])
    return updates, state, params


def check_recording(name, optimizer, average=None):
    """The updates, and the average that a state holds at the end, are the recorded ones."""
    updates, state, params = run(optimizer)
    for key, expected in tree(name).items():
        scale = np.max(np.abs(expected)) if name.startswith(COUPLED) else 1e-4
        np.testing.assert_allclose(
            updates[key][KEPT], expected, rtol=1e-12, atol=1e-12 * scale, err_msg=key
        )
    if average:
        found = average(state, params)
        for key, expected in tree(f"{name} average").items():
            np.testing.assert_allclose(found[key], expected[0], rtol=1e-12, err_msg=key)


def check_ranges(make, ranges, **needs):
    """Each number is taken inside its interval, and named with it outside."""
    required = ({"learning_rate": 0.1} if "learning_rate" in ranges else {}) | needs
    for name, (interval, inside, outside) in ranges.items():
        for value in inside:
            make(**(required | {name: value}))
        for value in outside:
            with pytest.raises(ValueError) as error:
                make(**(required | {name: value}))
            assert f"`{name}` must be in {interval}, got {name}={value}." in str(error.value)


def check_needs_params(make, **needs):
    """An update without the parameters says so, by the rule's name."""
    optimizer = make(**({"learning_rate": 0.1} | needs))
    params = vector(1.0, 2.0)
    name = make.__name__ if "schedule_free" not in make.__name__ else "schedule_free"
    with pytest.raises(ValueError, match=rf"{name} needs the parameters: .*got params=None"):
        optimizer.update(params, optimizer.init(params))


def check_dtypes(make, **needs):
    """Updates have the parameters' dtypes, and a state keeps its own, float32 where it is real."""
    takes = inspect.signature(make).parameters
    optimizer = make(**(({"learning_rate": 0.1} if "learning_rate" in takes else {}) | needs))
    params = {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}

    def step(params):
        state = optimizer.init(params)
        loss = lambda p: jnp.sum(p["w"].astype(jnp.float32) ** 2) + jnp.sum(p["b"])  # noqa: E731
        return state, *optimizer.update(params, state, params, value=1.0, value_fn=loss)

    state, updates, after = jax.eval_shape(step, params)
    kind = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert kind(updates) == kind(params) and kind(after) == kind(state)
    for leaf in jax.tree.leaves(state):
        assert not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == jnp.float32

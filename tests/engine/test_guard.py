"""`guarded` against the step and a selection of the whole state after it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim
from jdl.engine.guard import guarded
from jdl.engine.keys import to_keys, to_words

START = {"w": jnp.arange(3.0), "b": jnp.float32(1)}
X, Y = jnp.eye(4, 3), jnp.arange(4.0)


def loss(params, x, y):
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def plain(step, sound, state, *args):
    after, metrics = step(state, *args)
    ok = sound(metrics)
    return jax.tree.map(lambda a, b: jnp.where(ok, a, b), after, state), metrics, ok


@pytest.mark.parametrize("make", [optim.sgd, optim.momentum, optim.adam, optim.adagrad])
@pytest.mark.parametrize("limit", [np.inf, 0.0])
def test_the_state_is_that_after_the_step_or_that_before_it(make, limit):
    optimizer = make(0.1)

    def step(state, x, y):
        params, slots = state
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, slots = optimizer.update(grads, slots, params)
        return (optim.apply_updates(params, updates), slots), {"loss": value}

    state = expected = (START, optimizer.init(START))
    for _ in range(3):
        args = step, lambda m: m["loss"] < limit
        state, metrics, ok = jax.jit(lambda s: guarded(*args, s, X, Y))(state)  # noqa: B023
        expected, wanted, _ = plain(*args, expected, X, Y)
        assert ok == (limit > 0)
        np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, expected)


def test_leaves_that_share_a_value_each_go_back_to_their_own():
    def step(state, batch):
        one, _, kept, _ = state
        new = 0.9 * one + batch
        return (new, new, kept, jnp.float32(7)), {"loss": jnp.sum(one)}

    state = (jnp.float32(1), jnp.float32(2), jnp.float32(3), jnp.float32(4))
    for limit, expected in ((2.0, (2.9, 2.9, 3, 7)), (0.0, (1, 2, 3, 4))):
        after, _, ok = guarded(step, lambda m, limit=limit: m["loss"] < limit, state, 2.0)
        assert ok == (limit > 0)
        np.testing.assert_allclose(after, expected, rtol=1e-6)


def test_a_metric_of_the_new_state_is_that_of_the_step():
    def step(state, batch):
        new = state - batch
        return new, {"loss": new * new, "size": jnp.abs(new)}

    after, metrics, ok = guarded(step, lambda m: m["loss"] < 4, jnp.float32(1), jnp.float32(5))
    assert (after, metrics["loss"], metrics["size"], ok) == (1, 16, 4, False)


def test_under_vmap_each_lane_decides_for_itself_with_keys_and_loops_in_the_state():
    def step(state, batch):
        key, total, count = to_keys(state)
        key, own = jax.random.split(key)
        noise = jax.random.normal(own)
        total = jax.lax.fori_loop(0, 3, lambda i, t: t + i * batch, total)
        return to_words((key, total, count + 1)), {"loss": total, "noise": noise}

    keys = jax.random.split(jax.random.key(0), 3)
    state = to_words((keys, jnp.arange(3.0), jnp.zeros(3, jnp.int32)))
    batch = jnp.array([1.0, 10.0, 2.0])
    sound = lambda m: m["loss"] < 10  # noqa: E731
    after, _, ok = jax.vmap(lambda s, b: guarded(step, sound, s, b))(state, batch)
    assert ok.tolist() == [True, False, True]
    assert to_keys(after)[1].tolist() == [3, 1, 8] and to_keys(after)[2].tolist() == [1, 0, 1]
    moved = jax.random.key_data(to_keys(after)[0]) != jax.random.key_data(keys)
    assert moved.any(1).tolist() == [True, False, True]


def test_a_step_with_references_keeps_its_order():
    def step(state, batch):
        ref = jax.new_ref(state["w"])

        def add(i, _):
            ref[...] += batch

        jax.lax.fori_loop(0, 3, add, None)
        w = ref[...]
        return {"w": w, "n": state["n"] + 1}, {"loss": w.sum()}

    state = {"w": jnp.arange(2.0), "n": jnp.int32(0)}
    for limit, expected in ((np.inf, [6, 7]), (0.0, [0, 1])):
        take = lambda s, limit=limit: guarded(step, lambda m: m["loss"] < limit, s, 2.0)  # noqa: E731
        after, metrics, _ = jax.jit(take)(state)
        assert after["w"].tolist() == expected and after["n"] == (limit > 0)
        assert metrics["loss"] == 13


def test_a_step_with_callbacks_keeps_their_order():
    seen = []

    def step(state, batch):
        jax.experimental.io_callback(
            lambda s: seen.append(("first", int(s))), None, state, ordered=True
        )
        extra = jax.experimental.io_callback(
            lambda: np.float32(len(seen)), jax.ShapeDtypeStruct((), np.float32), ordered=True
        )
        return state + 1, {"loss": extra}

    _, metrics, _ = jax.jit(lambda s: guarded(step, lambda m: m["loss"] < 9, s, 0.0))(jnp.int32(5))
    assert metrics["loss"] == 1 and seen == [("first", 5)]


def test_the_compiled_step_copies_no_moments():
    """The old moments are not needed once the new ones are selected."""
    optimizer = optim.adam(1e-3)
    params = {"w": jnp.zeros((128, 128))}

    def step(state, x):
        params, slots = state
        value, grads = jax.value_and_grad(lambda p: jnp.sum((x @ p["w"]) ** 2))(params)
        updates, slots = optimizer.update(grads, slots, params)
        return (optim.apply_updates(params, updates), slots), {"loss": value}

    def copies(take):
        state = (params, optimizer.init(params))
        run = jax.jit(
            lambda s, x: jax.lax.fori_loop(
                0, 9, lambda _, s: take(step, lambda m: m["loss"] < 1e9, s, x)[0], s
            ),
            donate_argnums=0,
        )
        text = run.lower(state, jnp.ones((4, 128))).compile().as_text()
        return sum(" copy(" in line and "f32[128,128]" in line for line in text.splitlines())

    assert copies(guarded) < copies(plain)

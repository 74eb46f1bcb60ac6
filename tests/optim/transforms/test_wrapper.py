"""Accumulation, lookahead and SAM against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import PARAMS, check_named, close, draw, initial, updates_of

from jdl import optim, tree


def test_off_is_a_value(x64):
    (g,) = draw(1)
    for off in (optim.accumulate(optim.identity(), 1),):
        close(updates_of(off, [g])[0][0], g)


def test_accumulating_equal_batches_is_one_large_batch(x64):
    grads = draw(9)
    inner = optim.adam(lambda step: 0.1 / (1 + step), 0.6, 0.7)
    updates, w, state = updates_of(optim.accumulate(inner, 3), grads)
    means = [jax.tree.map(lambda *g: sum(g) / 3, *grads[i : i + 3]) for i in (0, 3, 6)]
    expected, w_expected, inner_state = updates_of(inner, means)
    close(updates[2::3], expected, 1e-10)
    close(w, w_expected, 1e-10)
    close(state.inner, inner_state, 1e-10)
    assert int(state.step) == 3 and int(state.micro_step) == 0
    for i in (0, 1, 3, 4, 6, 7):
        assert float(tree.norm(updates[i])) == 0.0


def test_accumulating_a_sum_over_a_growing_number(x64):
    grads = draw(6)
    updates, _, state = updates_of(
        optim.accumulate(optim.sgd(0.1), lambda step: step + 1, False), grads
    )
    sums = [
        grads[0],
        jax.tree.map(lambda *g: sum(g), *grads[1:3]),
        jax.tree.map(lambda *g: sum(g), *grads[3:6]),
    ]
    expected = [jax.tree.map(lambda g: -0.1 * g, s) for s in sums]
    close([updates[0], updates[2], updates[5]], expected)
    assert int(state.step) == 3


def test_accumulates_in_float32():
    g = jnp.array([1.0], jnp.bfloat16)
    assert optim.accumulate(optim.sgd(0.1), 2).init(g).collected.dtype == jnp.float32
    half = optim.accumulate(optim.sgd(0.1), 2, accumulator_dtype=jnp.bfloat16).init(g)
    assert half.collected.dtype == jnp.bfloat16


@pytest.mark.parametrize("reset", [False, True])
def test_lookahead_is_its_loop(reset, x64):
    grads = draw(7)
    inner = optim.momentum(0.1, 0.8)
    _, w, state = updates_of(optim.lookahead(inner, 3, 0.4, reset), grads)
    fast, slow, v = dict(PARAMS), dict(PARAMS), jax.tree.map(np.zeros_like, PARAMS)
    for i, g in enumerate(grads):
        v = {k: 0.8 * v[k] + 0.1 * np.asarray(g[k]) for k in v}
        fast = {k: fast[k] - v[k] for k in v}
        if i % 3 == 2:
            slow = {k: slow[k] + 0.4 * (fast[k] - slow[k]) for k in v}
            fast = dict(slow)
            v = jax.tree.map(np.zeros_like, v) if reset else v
    close(w, fast, 1e-10)
    close(state.slow, slow, 1e-10)
    assert int(state.since_sync) == 1 and int(state.step) == 7


def loss(w):
    return jnp.sum(jnp.cos(w["kernel"]) @ w["bias"]) + jnp.sum(w["bias"] ** 4)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_takes_the_gradient_at_the_worst_point_near_by(adaptive, x64):
    optimizer = optim.sam(optim.momentum(0.1, 0.8), 0.3, adaptive)
    w, state, v = initial(), optimizer.init(initial()), 0.0
    for _ in range(3):
        g = jax.grad(loss)(w)
        updates, state = optimizer.update(g, state, w, value_fn=loss)
        size = {k: np.abs(w[k]) if adaptive else 1.0 for k in w}
        length = np.sqrt(sum(np.sum((size[k] * g[k]) ** 2) for k in g))
        worst = {k: w[k] + 0.3 * size[k] ** 2 * g[k] / length for k in g}
        v = (
            jax.tree.map(lambda a, b: 0.8 * a + 0.1 * b, v, jax.grad(loss)(worst))
            if v
            else (jax.tree.map(lambda b: 0.1 * b, jax.grad(loss)(worst)))
        )
        close(updates, jax.tree.map(lambda x: -x, v), 1e-11)
        w = optim.apply_updates(w, updates)
    assert int(state.step) == 3


def test_sam_says_what_it_needs_and_stands_a_zero_gradient():
    optimizer = optim.sam(optim.sgd(0.1))
    w = jnp.ones(2)
    state = optimizer.init(w)
    with pytest.raises(ValueError, match=r"`sam` needs the loss .* value_fn=loss"):
        optimizer.update(w, state, w)
    with pytest.raises(ValueError, match="sam needs the parameters"):
        optimizer.update(w, state, value_fn=jnp.sum)
    updates, _ = optimizer.update(jnp.zeros(2), state, w, value_fn=lambda w: jnp.sum(0.0 * w))
    assert updates.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.accumulate(optim.sgd(1), 0), r"`every` must be in \[1, inf\)"),
        (lambda: optim.lookahead(optim.sgd(1), 0, 0.5), r"`sync_period` must be in \[1, inf\)"),
        (lambda: optim.lookahead(optim.sgd(1), 2, 1.5), r"`slow_step_size` must be in \[0, 1\]"),
        (lambda: optim.sam(optim.sgd(1), -0.1), r"`rho` must be in \[0, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)

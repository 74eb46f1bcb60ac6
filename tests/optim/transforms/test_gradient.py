"""Transforms of gradients against plain loops and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import PARAMS, check_named, close, draw, initial, updates_of

from jdl import optim


def test_identity_zero_and_scale(x64):
    (g,) = draw(1)
    close(updates_of(optim.identity(), [g])[0][0], g)
    close(updates_of(optim.set_to_zero(), [g])[0][0], jax.tree.map(jnp.zeros_like, g))
    first, second = updates_of(optim.scale(lambda step: 0.5 + step), [g, g])[0]
    close(first, jax.tree.map(lambda x: 0.5 * x, g))
    close(second, jax.tree.map(lambda x: 1.5 * x, g))


def test_off_is_a_value(x64):
    (g,) = draw(1)
    for off in (
        optim.add_decayed_weights(0.0),
        optim.add_noise(0.0, 0.5, jax.random.key(0)),
        optim.ema(0.0),
        optim.scale(1.0),
    ):
        close(updates_of(off, [g])[0][0], g)


def test_a_masked_decay_reads_a_tree_a_prefix_or_a_function(x64):
    (g,) = draw(1)
    kernel_only = {"kernel": g["kernel"] + 0.3 * PARAMS["kernel"], "bias": g["bias"]}
    for mask in (
        {"kernel": True, "bias": False},
        lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
        optim.by_path(lambda path: path == "kernel"),
    ):
        close(updates_of(optim.add_decayed_weights(0.3, mask), [g])[0][0], kernel_only)
    everything = jax.tree.map(lambda x, w: x + 0.3 * w, g, initial())
    close(updates_of(optim.add_decayed_weights(0.3), [g])[0][0], everything)
    close(updates_of(optim.add_decayed_weights(0.3, True), [g])[0][0], everything)


def test_decay_says_that_it_needs_the_parameters():
    optimizer = optim.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match="add_decayed_weights needs the parameters"):
        optimizer.update(initial(), optimizer.init(initial()))


@pytest.mark.parametrize("debias", [False, True])
def test_ema_is_its_loop(debias, x64):
    grads = draw(4)
    updates, _, state = updates_of(optim.ema(lambda step: 0.6 + 0.1 * step, debias), grads)
    a = jax.tree.map(np.zeros_like, PARAMS)
    for t, g in enumerate(grads):
        rho = 0.6 + 0.1 * t
        a = {key: rho * a[key] + (1 - rho) * g[key] for key in a}
        share = 1 - rho ** (t + 1) if debias else 1
        close(updates[t], {key: x / share for key, x in a.items()})
    close(state.average, a)
    assert int(state.step) == 4
    low = optim.ema(0.5, accumulator_dtype=jnp.bfloat16).init(jnp.ones(2))
    assert low.average.dtype == jnp.bfloat16 and low.average.tolist() == [0.0, 0.0]
    assert int(low.step) == 0


def test_normalizing_divides_by_the_joint_norm(x64):
    (g,) = draw(1)
    for size in (1.0, 1e-3):
        small = jax.tree.map(lambda x, size=size: size * x, g)
        length = np.sqrt(sum(np.sum(np.square(x)) for x in small.values()))
        found = updates_of(optim.normalize_by_update_norm(1.7, 0.2), [small])[0][0]
        close(found, {key: x * 1.7 / (length + 0.2) for key, x in small.items()})
    zeros = jax.tree.map(jnp.zeros_like, g)
    close(updates_of(optim.normalize_by_update_norm(1.7, 0.0), [zeros])[0][0], zeros)


def test_centralize_leaves_each_output_without_a_mean(x64):
    g = {
        "kernel": draw(1)[0]["kernel"],
        "bias": jnp.array([1.0, 2.0]),
        "conv": jnp.ones((2, 3, 4, 5)),
    }
    found, _ = optim.centralize(-1).update(g, optim.centralize(-1).init(g))
    expected = g["kernel"] - np.mean(g["kernel"], 0, keepdims=True)
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-12)
    assert found["bias"].tolist() == [1.0, 2.0]
    assert float(jnp.max(jnp.abs(found["conv"]))) == 0.0
    rows, _ = optim.centralize().update(g, optim.centralize().init(g))
    expected = g["kernel"] - np.mean(g["kernel"], 1, keepdims=True)
    np.testing.assert_allclose(rows["kernel"], expected, rtol=1e-12)


def test_noise_has_the_variance_it_says_and_is_new_at_every_step():
    g = {"a": jnp.zeros((300, 100)), "b": jnp.zeros((300, 100))}
    optimizer = optim.add_noise(0.4, 0.7, jax.random.key(1))
    (first, second), _, _ = updates_of(optimizer, [g, g], g)
    for t, found in ((1, first), (2, second)):
        for leaf in found.values():
            variance = 0.4 / t**0.7
            # The variance of n samples has a standard error of variance * sqrt(2 / n).
            assert abs(float(jnp.var(leaf)) - variance) < 5 * variance * (2 / leaf.size) ** 0.5
            assert abs(float(jnp.mean(leaf))) < 5 * (variance / leaf.size) ** 0.5
    pairs = ((first["a"], first["b"]), (first["a"], second["a"]), (first["b"], second["a"]))
    for x, y in pairs:
        assert abs(float(jnp.corrcoef(x.ravel(), y.ravel())[0, 1])) < 5 / x.size**0.5
    again, _ = optimizer.update(g, optimizer.init(g))
    assert jnp.array_equal(again["a"], first["a"])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.add_decayed_weights(-1.0), r"`weight_decay` must be in \[0, inf\)"),
        (lambda: optim.normalize_by_update_norm(0.0), r"`scale_factor` must be in \(0, inf\)"),
        (lambda: optim.normalize_by_update_norm(1.0, -1), r"`eps` must be in \[0, inf\)"),
        (lambda: optim.add_noise(-1, 0.5, None), r"`eta` must be in \[0, inf\)"),
        (lambda: optim.add_noise(1, -0.5, None), r"`gamma` must be in \[0, inf\)"),
        (lambda: optim.ema(1.0), r"`decay` must be in \[0, 1\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)

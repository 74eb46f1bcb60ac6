"""Clipping against plain loops and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import check_named, close, draw, updates_of

from jdl import optim


def test_off_is_a_value(x64):
    (g,) = draw(1)
    for off in (
        optim.clip(jnp.inf),
        optim.clip_by_global_norm(jnp.inf),
        optim.clip_by_block_rms(jnp.inf),
        optim.adaptive_grad_clip(jnp.inf),
    ):
        close(updates_of(off, [g])[0][0], g)


def test_clipping_is_its_formula(x64):
    g = {"kernel": jnp.array([[3.0, -0.2], [0.5, -4.0]]), "bias": jnp.array([0.4, -0.3])}
    clipped = updates_of(optim.clip(0.45), [g], g)[0][0]
    close(clipped, {"kernel": [[0.45, -0.2], [0.45, -0.45]], "bias": [0.4, -0.3]})
    whole = np.sqrt(sum(np.sum(np.square(x)) for x in g.values()))
    clipped = updates_of(optim.clip_by_global_norm(lambda step: 2.0 + step), [g, g], g)[0]
    for t in range(2):
        close(clipped[t], {key: x * (2.0 + t) / whole for key, x in g.items()})
    close(updates_of(optim.clip_by_global_norm(whole + 1e-9), [g], g)[0][0], g)
    clipped = updates_of(optim.clip_by_block_rms(0.7), [g], g)[0][0]
    rms = np.sqrt(np.mean(np.square(g["kernel"])))
    close(clipped, {"kernel": g["kernel"] * 0.7 / rms, "bias": g["bias"]})


def test_one_lane_with_a_huge_gradient_leaves_the_others_alone():
    g = jnp.array([[0.3, 0.4], [3e20, 4e20], [3.0, 4.0]])

    def lane(g):
        optimizer = optim.clip_by_global_norm(1.0)
        return optimizer.update(g, optimizer.init(g))[0]

    found = jax.vmap(lane)(g)
    assert found[0].tolist() == g[0].tolist()
    np.testing.assert_allclose(found[2], [0.6, 0.8], rtol=1e-6)


def test_norms_do_not_overflow_in_half_precision():
    g = jnp.full(4, 400.0, jnp.float16)
    clipped, _ = optim.clip_by_global_norm(1.0).update(g, optim.clip_by_global_norm(1.0).init(g))
    np.testing.assert_allclose(np.asarray(clipped, np.float32), 0.5, rtol=1e-3)
    assert clipped.dtype == jnp.float16


def test_clipping_a_zero_gradient_is_zero_and_differentiable():
    for optimizer in (
        optim.clip_by_global_norm(1.0),
        optim.clip_by_block_rms(1.0),
        optim.normalize_by_update_norm(1.0, 0.0),
    ):
        updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(jnp.zeros(3)))
        assert updates.tolist() == [0.0, 0.0, 0.0]


def test_clip_by_value_holds_the_modulus_of_a_complex_number(x64):
    g = jnp.array([3.0 + 4.0j, 0.3 - 0.4j])
    clipped, _ = optim.clip(2.5).update(g, optim.clip(2.5).init(g))
    np.testing.assert_allclose(clipped, [1.5 + 2.0j, 0.3 - 0.4j], rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), None),
        ((4,), None),
        ((1, 4), None),
        ((3, 2), 0),
        ((3, 2, 2), 0),
        ((2, 3, 2, 2), (0, 1, 2)),
        ((2, 1, 3, 2, 2), (0, 1, 2, 3)),
    ],
)
def test_adaptive_clipping_has_a_norm_for_each_unit(shape, axes, x64):
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=shape), rng.normal(size=shape)
    norm = lambda x: np.sqrt(np.sum(x**2, axes, keepdims=True))  # noqa: E731
    limit = 0.4 * np.maximum(norm(w), 0.9)
    expected = np.where(norm(g) > limit, g * limit / norm(g), g)
    optimizer = optim.adaptive_grad_clip(0.4, 0.9)
    found, _ = optimizer.update(jnp.asarray(g), optimizer.init(w), jnp.asarray(w))
    np.testing.assert_allclose(found, expected.reshape(shape), rtol=1e-12)


def test_adaptive_clipping_takes_axes(x64):
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    norm = lambda x: np.sqrt(np.sum(x**2, (0, 1), keepdims=True))  # noqa: E731
    limit = 0.2 * norm(w)
    optimizer = optim.adaptive_grad_clip(0.2, axis=(0, 1))
    found, _ = optimizer.update(jnp.asarray(g), optimizer.init(w), jnp.asarray(w))
    np.testing.assert_allclose(found, np.where(norm(g) > limit, g * limit / norm(g), g), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.clip(0.0), r"`max_delta` must be in \(0, inf\]"),
        (lambda: optim.clip_by_global_norm(0.0), r"`max_norm` must be in \(0, inf\]"),
        (lambda: optim.clip_by_block_rms(0.0), r"`threshold` must be in \(0, inf\]"),
        (lambda: optim.adaptive_grad_clip(0.0), r"`clipping` must be in \(0, inf\]"),
        (lambda: optim.adaptive_grad_clip(0.1, 0.0), r"`eps` must be in \(0, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    check_named(make, match)

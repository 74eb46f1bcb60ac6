"""The vision transformer: patches by a loop, order of its layers, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn
from jdl.models.vit import patches


def test_patches_by_a_loop():
    images = np.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3).astype(np.float32)
    expected = [
        [
            images[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
            for i in range(3)
            for j in range(4)
        ]
        for b in range(2)
    ]
    assert (patches(jnp.asarray(images), 2) == np.array(expected)).all()
    for size in (4, 3):
        with pytest.raises(ValueError, match=f"must divide the image's 6x8, got patch={size}"):
            patches(jnp.asarray(images), size)


def test_vit_sees_every_patch_and_its_place():
    model = models.vit(3, patch=2, depth=1, features=8, heads=2, hidden=5, stddev=0.5)
    assert [part.name for part in model.parts] == [
        "cut", "dense", "sinusoidal_positions", "attention", "perceptron",
        "layer_norm", "mean_step", "dense",
    ]  # fmt: skip
    images = np.random.default_rng(1).normal(size=(2, 4, 4, 1)).astype(np.float32)
    params, state = jax.jit(lambda key: model.init(key, images))(jax.random.key(0))
    assert params[4][0][1]["kernel"].shape == (8, 5)
    apply = jax.jit(lambda x: model.apply(params, state, x)[0])
    y = np.asarray(apply(images))
    assert y.shape == (2, 3)
    for row in (0, 2):
        for column in (0, 2):
            other = images.copy()
            other[0, row, column] += 1.0
            changed = apply(other)
            assert not np.allclose(changed[0], y[0], atol=1e-4)
            np.testing.assert_allclose(changed[1], y[1], rtol=1e-5)
    # The first patch sees the last: attention looks both ways.
    other = images.copy()
    other[0, 3, 3] += 1.0
    perceptron = jax.jit(lambda x: nn.record(model, params, state, x)[2][4].y)
    first, second = perceptron(images), perceptron(other)
    assert not np.allclose(first[0, 0], second[0, 0], atol=1e-4)
    # Two patches exchanged: positions tell.
    swapped = images.copy()
    swapped[0, :2, :2], swapped[0, 2:, 2:] = images[0, 2:, 2:], images[0, :2, :2]
    assert not np.allclose(apply(swapped)[0], y[0], atol=1e-4)

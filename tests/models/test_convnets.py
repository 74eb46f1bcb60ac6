"""Convolutional models: counted parameters, hand-made forward passes, lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn, tree

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


def shapes(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)


def test_known_sizes():
    # He et al., table 6: 0.27M, 0.46M, 0.66M; the first layer by 3 channels, ten classes.
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    for depth, size in ((20, 269_722), (32, 464_154), (44, 658_586)):
        params, _ = shapes(models.resnet(10, depth=depth), image)
        assert tree.size(params) == size
    lenet = models.cnn(10, features=(6, 16), kernel_size=5, hidden=(120, 84))
    params, _ = shapes(lenet, jax.ShapeDtypeStruct((1, 28, 28, 1), "float32"))
    assert tree.size(params) == 156 + 2416 + (784 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    params, state = shapes(models.vgg(7), image)
    kernels = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    convolutions = sum(9 * a * b + 2 * b for a, b in kernels)
    assert tree.size(params) == convolutions + (2048 * 128 + 128) + (128 * 7 + 7)
    assert tree.size(state) == 2 * 2 * (32 + 64 + 128)


def test_the_order_of_layers():
    def names(model):
        return [part.name for part in model.parts]

    block = ["conv", "relu", "max_pool"]
    assert names(models.cnn(3)) == [*block * 2, "flatten", "dense"]
    model = models.cnn(
        3, features=(4,), hidden=(5,), activation=nn.tanh, batch_norm=True, dropout=0
    )
    assert names(model) == [
        "conv", "batch_norm", "tanh", "max_pool", "flatten", "dropout", "dense", "tanh", "dropout",
        "dense",
    ]  # fmt: skip
    model = models.vgg(3, stages=((4, 4), (8,)), hidden=(5,), dropout=0.5, batch_norm=False)
    assert names(model) == [
        "conv", "relu", "conv", "relu", "max_pool", "conv", "relu", "max_pool",
        "flatten", "dense", "relu", "dropout", "dense",
    ]  # fmt: skip
    params, _ = shapes(model, IMAGES)
    assert "bias" in params[0]
    params, _ = shapes(models.vgg(3, stages=((4,),), hidden=()), IMAGES)
    assert "bias" not in params[0] and params[1].keys() == {"scale", "bias"}


def test_resnet_by_hand():
    model = models.resnet(5, depth=8, features=2)
    assert [part.name for part in model.parts] == [
        "conv", "batch_norm", "relu", *["block", "relu"] * 3, "global_avg_pool", "dense",
    ]  # fmt: skip

    def by_hand(params, x):
        def conv(x, kernel, stride):
            return jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            ) / jnp.sqrt(1 + 1e-5)  # fmt: skip

        x = jax.nn.relu(conv(x, params[0]["kernel"], 1))
        for at, stride in ((3, 1), (5, 2), (7, 2)):
            body = params[at][0]
            y = jax.nn.relu(conv(x, body[0]["kernel"], stride))
            y = conv(y, body[3]["kernel"], 1)
            if stride == 2:
                x = x[:, ::2, ::2]
                x = jnp.concatenate([x, jnp.zeros_like(x)], -1)
            x = jax.nn.relu(x + y)
        return x.mean((1, 2)) @ params[-1]["kernel"] + params[-1]["bias"][None]

    @jax.jit
    def run(key):
        params, state = model.init(key, IMAGES)
        return model.apply(params, state, IMAGES)[0], by_hand(params, IMAGES)

    ours, expected = run(jax.random.key(1))
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-5)


def test_lanes_equal_lone_runs():
    model = models.cnn(3, features=(2, 3), dropout=0.3)
    keys = jax.random.split(jax.random.key(3), 2)

    def grads(key, x):
        params, state = model.init(jax.random.fold_in(key, 0), x)

        def loss(params):
            y, _ = model.apply(params, state, x, key=jax.random.fold_in(key, 1), train=True)
            return (y**2).sum()

        return jax.value_and_grad(loss)(params)

    @jax.jit
    def run(keys, x):
        return jax.vmap(grads, (0, None))(keys, x), [grads(key, x) for key in keys]

    mapped, alone = run(keys, IMAGES)
    for lane, expected in enumerate(alone):
        got = jax.tree.map(lambda leaf, lane=lane: leaf[lane], mapped)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert not np.allclose(mapped[0][0], mapped[0][1])


def test_errors():
    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 2 .* got depth=18"):
        models.resnet(10, depth=18)
    with pytest.raises(ValueError, match="got depth=2"):
        models.resnet(10, depth=2)


def test_biases_begin_at_zero():
    params, _ = jax.jit(models.cnn(3, features=(2,)).init)(jax.random.key(0), IMAGES)
    assert not params[0]["bias"].any() and not params[-1]["bias"].any()

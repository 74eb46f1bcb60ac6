"""A batch sharded on explicit axes, which `jax.make_mesh` makes, trains as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jdl import models, nn, optim, train

RNG = np.random.default_rng(0)
IMAGES, ROWS = RNG.normal(size=(4, 8, 8, 3)), RNG.normal(size=(4, 6))
STEPS, TOKENS = RNG.normal(size=(4, 5, 6)), RNG.integers(0, 7, (4, 5))
LAYERS = {
    "dense": (nn.dense(3), ROWS),
    "maxout": (nn.maxout(3), ROWS),
    "dropout": (nn.dropout(0.5), ROWS),
    "layer_norm": (nn.layer_norm(), ROWS),
    "rms_norm": (nn.rms_norm(), ROWS),
    "batch_norm": (nn.batch_norm(), IMAGES),
    "group_norm": (nn.group_norm(1), IMAGES),
    "conv": (nn.conv(3, 3), IMAGES),
    "strided conv": (nn.conv(3, 3, 2), IMAGES),
    "conv over time": (nn.conv(3, 3), STEPS),
    "max_pool": (nn.max_pool(2), IMAGES),
    "avg_pool": (nn.avg_pool(3, 2), IMAGES),
    "rnn": (nn.rnn(4), STEPS),
    "lstm": (nn.lstm(4), STEPS),
    "gru": (nn.gru(4), STEPS),
    "multi_head_attention": (nn.multi_head_attention(2), STEPS),
    "embedding": (nn.embedding(7, 4), TOKENS),
    "cnn": (models.cnn(10), IMAGES),
    "vit": (models.vit(10, patch=4, features=8, depth=1, heads=2), IMAGES),
    "lstm_classifier": (models.lstm_classifier(7, 2, features=4, padding=0), TOKENS),
    "transformer": (models.transformer(7, features=8, depth=1, heads=2, length=5), TOKENS),
}


def on_mesh(mesh, tree, spec):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), tree)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_layer_are_those_of_one_device(x64, name):
    layer, x = LAYERS[name]
    params, state = layer.init(jax.random.key(0), jnp.asarray(x))

    @jax.jit
    @jax.grad
    def gradients(inputs, x):
        params, state = inputs
        y, _ = layer.apply(params, state, x, train=True, key=jax.random.key(1))
        return jnp.sum(y**2)

    mesh = jax.make_mesh((2,), ("data",))
    with jax.set_mesh(mesh):
        inputs = on_mesh(mesh, (params, state), P())
        got = gradients(inputs, on_mesh(mesh, x, P("data")))
    for a, b in zip(*map(jax.tree.leaves, (got, gradients((params, state), x))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("task", ["classifier", "regressor", "language_model"])
def test_training_steps_are_those_of_one_device(x64, task):
    trial, batch = {
        "classifier": (
            train.classifier(models.mlp((8, 3), batch_norm=True), optim.adam(0.1)),
            (ROWS, np.array([0, 1, 2, 1])),
        ),
        "regressor": (
            train.regressor(models.mlp((8, 1)), optim.momentum(0.1)),
            (ROWS, ROWS[:, :1]),
        ),
        "language_model": (
            train.language_model(LAYERS["transformer"][0], optim.adam(0.1)),
            (TOKENS, TOKENS[:, ::-1]),
        ),
    }[task]
    state = trial.init(jax.random.key(0), batch)
    step = jax.jit(trial.step)
    mesh = jax.make_mesh((2,), ("data",))
    with jax.set_mesh(mesh):
        got = step(on_mesh(mesh, state, P()), on_mesh(mesh, batch, P("data")), jax.random.key(1))
    expected = step(state, jax.tree.map(jnp.asarray, batch), jax.random.key(1))
    for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        if jnp.issubdtype(jnp.result_type(a), jnp.number):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["conv", "max_pool", "lstm", "embedding", "vit"])
def test_layers_inside_a_partly_manual_map(x64, name):
    layer, x = LAYERS[name]
    params, state = layer.init(jax.random.key(0), jnp.asarray(x))

    def output(x):
        return layer.apply(params, state, x)[0]

    mesh = jax.make_mesh((2, 2), ("a", "b"))
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(output, in_specs=P("a"), out_specs=P("a"), axis_names={"a"})
        got = jax.jit(mapped)(on_mesh(mesh, x, P("a")))
    np.testing.assert_allclose(got, jax.jit(output)(x), rtol=1e-9, atol=1e-9)

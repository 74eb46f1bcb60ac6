"""The perceptron and the neuron: their layers in order, and their arithmetic in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn
from jdl.nn import initializer


def test_mlp_is_its_layers_in_order():
    full = models.mlp((5, 4, 3), activation=nn.tanh, batch_norm=True, dropout=0.0)
    block = ["dense", "batch_norm", "tanh", "dropout"]
    assert [part.name for part in full.parts] == ["flatten", *block, *block, "dense"]
    plain = models.mlp((5, 3))
    assert [part.name for part in plain.parts] == ["flatten", "dense", "relu", "dense"]
    assert [part.name for part in models.mlp((3,)).parts] == ["flatten", "dense"]
    drop = models.mlp((5, 3), dropout=0.3, dropout_form="monte_carlo")
    assert drop.parts[3].name == "monte_carlo_dropout"


def test_mlp_arithmetic(x64):
    model = models.mlp(
        (4, 3), kernel_init=initializer.normal(0.7), bias_init=initializer.normal(0.5)
    )
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    params, state = jax.jit(lambda key: model.init(key, x))(jax.random.key(0))
    first, second = (jax.tree.map(np.asarray, params[i]) for i in (1, 3))
    hidden = np.maximum(x.reshape(5, 6) @ first["kernel"] + first["bias"], 0)
    expected = hidden @ second["kernel"] + second["bias"]
    y, _ = model.apply(params, state, jnp.asarray(x))
    np.testing.assert_allclose(y, expected, rtol=1e-10)
    assert (first["bias"] != 0).all()
    fresh, _ = jax.jit(lambda key: models.mlp((4, 3)).init(key, x))(jax.random.key(0))
    assert (fresh[1]["bias"] == 0).all() and (fresh[3]["bias"] == 0).all()


def test_sigmoid_neuron(x64):
    model = models.sigmoid_neuron(bias_init=initializer.constant(0.3))
    x = jnp.array([[1.0, 2.0], [-0.5, 0.25]])
    params, state = model.init(jax.random.key(0), x)
    w = np.asarray(params[0]["kernel"])[:, 0]
    y, _ = model.apply(params, state, x)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-(x @ w + 0.3))), rtol=1e-12)


def test_mlp_needs_an_output():
    with pytest.raises(ValueError, match=r"`features` must name at least the output's size, got"):
        models.mlp(())


def test_a_neuron_begins_without_bias():
    params, _ = models.sigmoid_neuron().init(jax.random.key(0), jnp.ones((2, 3)))
    assert params[0]["bias"].tolist() == [0.0]

"""Defaults are promises: what each constructor does when a number is left out."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from jdl import losses, metrics, models, nn

DEFAULTS = {
    nn.batch_norm: {
        "momentum": 0.1,
        "eps": 1e-5,
        "unbiased": True,
        "use_scale": True,
        "use_bias": True,
        "axis_name": None,
    },
    nn.chain: {"name": "chain"},
    nn.avg_pool: {"window": 2, "stride": None, "padding": "VALID", "count_padding": True},
    nn.conv: {"stride": 1, "padding": "SAME", "dilation": 1, "groups": 1, "use_bias": True},
    nn.convolve: {"stride": 1, "padding": "SAME", "dilation": 1, "groups": 1},
    nn.dense: {"use_bias": True},
    nn.dropout: {"form": "inverted"},
    nn.elu: {"alpha": 1.0},
    nn.gelu: {"approximate": True},
    nn.group_norm: {"eps": 1e-5, "use_scale": True, "use_bias": True},
    nn.gru: {"reverse": False},
    nn.layer_norm: {"eps": 1e-5, "use_scale": True, "use_bias": True},
    nn.leaky_relu: {"slope": 0.01},
    nn.log_softmax: {"axis": -1},
    nn.lstm: {"forget_bias": 1.0, "reverse": False},
    nn.maxout: {"pieces": 2},
    nn.max_pool: {"window": 2, "stride": None, "padding": "VALID"},
    nn.multi_head_attention: {
        "features": None,
        "causal": False,
        "rotary_base": None,
        "use_bias": True,
        "out_init": None,
    },
    nn.parallel: {"name": "parallel"},
    nn.prelu: {"slope": 0.25, "shared": True},
    nn.recompute_batch_stats: {"key": None},
    nn.record: {"key": None, "train": False},
    nn.residual: {"shortcut": None, "name": "residual"},
    nn.rms_norm: {"eps": 1e-6, "use_scale": True},
    nn.rnn: {"reverse": False},
    nn.softmax: {"axis": -1},
    nn.initializer.normal: {"stddev": 0.01},
    nn.initializer.orthogonal: {"gain": 1.0},
    nn.initializer.truncated_normal: {"stddev": 0.01},
    nn.initializer.uniform: {"bound": 0.01},
    nn.initializer.variance_scaling: {"distribution": "normal"},
    losses.hinge: {"margin": 1.0},
    losses.huber: {"delta": 1.0},
    losses.multiclass_hinge: {"margin": 1.0},
    losses.sigmoid_cross_entropy: {"label_smoothing": 0.0},
    losses.softmax_cross_entropy: {"label_smoothing": 0.0, "where": None},
    metrics.add: {"weights": None},
    metrics.top_k_accuracy: {"k": 5},
    models.cnn: {"kernel_size": 3, "batch_norm": False, "dropout": None},
    models.lstm_classifier: {
        "features": 64,
        "layers": 1,
        "bidirectional": False,
        "padding": None,
        "dropout": None,
        "forget_bias": 1.0,
    },
    models.mlp: {"batch_norm": False, "dropout": None, "dropout_form": "inverted"},
    models.resnet: {"depth": 20, "features": 16},
    models.transformer: {
        "depth": 4,
        "features": 128,
        "heads": 4,
        "hidden": None,
        "dropout": None,
        "stddev": 0.02,
    },
    models.vgg: {"batch_norm": True, "dropout": None},
    models.vit: {
        "patch": 4,
        "depth": 4,
        "features": 64,
        "heads": 4,
        "hidden": None,
        "dropout": None,
        "stddev": 0.02,
    },
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda f: f.__name__)
def test_defaults(function):
    parameters = inspect.signature(function).parameters.values()
    plain = int | float | str | bool | None
    found = {p.name: p.default for p in parameters if isinstance(p.default, plain)}
    assert found == DEFAULTS[function]
    assert list(found) == list(DEFAULTS[function])


INIT = {"kernel_init": nn.initializer.lecun_normal, "bias_init": nn.initializer.zeros}
NOT_PLAIN = {
    nn.conv: INIT,
    nn.dense: INIT,
    nn.gru: INIT,
    nn.lstm: INIT,
    nn.maxout: INIT,
    nn.monte_carlo_prediction: {"output": nn.softmax},
    nn.multi_head_attention: INIT,
    nn.parallel: {"merge": nn.concatenate},
    nn.rnn: {"activation": jnp.tanh, **INIT},
    models.cnn: {"features": (16, 32), "hidden": (), "activation": nn.relu, **INIT},
    models.mlp: {"activation": nn.relu, **INIT},
    models.resnet: {"kernel_init": nn.initializer.he_normal},
    models.sigmoid_neuron: INIT,
    models.vgg: {
        "stages": ((32, 32), (64, 64), (128, 128)),
        "hidden": (128,),
        "kernel_init": nn.initializer.he_normal,
    },
}


@pytest.mark.parametrize("function", NOT_PLAIN, ids=lambda f: f.__name__)
def test_defaults_that_are_functions_or_sizes(function):
    parameters = inspect.signature(function).parameters
    for name, default in NOT_PLAIN[function].items():
        assert parameters[name].default == default, name


def told(key, shape, dtype):
    """As if drawn: the key's own bits in every element."""
    return jnp.full(shape, int(jax.random.key_data(key)[-1]) % 4093, dtype)


def test_the_same_key_draws_the_same_parameters():
    """In which order a layer splits its key: a seed means the same in every version."""
    x = jax.ShapeDtypeStruct((1, 4, 2), jnp.float32)
    inits = {"kernel_init": told, "bias_init": told}
    recurrent = nn.rnn(3, recurrent_init=told, **inits)
    attention = nn.multi_head_attention(1, **inits)
    layers = (nn.dense(3, **inits), nn.conv(3, (3,), **inits), recurrent, attention)
    dense, conv, rnn, attended = (layer.init(jax.random.key(5), x)[0] for layer in layers)

    def told_by(*splits):
        """What the key tells, after each split the part of that index of so many."""
        key = jax.random.key(5)
        for index, count in splits:
            key = jax.random.split(key, count)[index]
        return float(told(key, (), jnp.float32))

    def first(leaf):
        return float(leaf.ravel()[0])

    kernel, bias = told_by((0, 2)), told_by((1, 2))
    assert (first(dense["kernel"]), first(dense["bias"])) == (kernel, bias)
    assert (first(conv["kernel"]), first(conv["bias"])) == (kernel, bias)
    assert first(rnn["kernel"]) == told_by((0, 3), (0, 1))
    assert first(rnn["recurrent_kernel"]) == told_by((1, 3), (0, 1))
    assert first(rnn["bias"]) == told_by((2, 3))
    assert first(attended["qkv"]["kernel"]) == told_by((0, 2), (0, 2), (0, 3))
    assert first(attended["out"]["kernel"]) == told_by((1, 2), (0, 2))

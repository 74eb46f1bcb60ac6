"""Defaults are promises: what each constructor does when a number is left out."""

import inspect

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

"""A user's narrow integers and half-precision numbers give what wide ones give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import losses, metrics, nn, train, tree

INTEGERS = ["int8", "uint8", "int16", "uint16", "uint32", "int32"]
CLASSES = 256
LABELS = np.array([0, 3, 100, 127, 5])
LOGITS = np.random.default_rng(4).normal(size=(5, CLASSES)).astype(np.float32)
PIXELS = np.random.default_rng(5).integers(0, 120, (3, 4, 4, 2))
STEPS = np.random.default_rng(6).integers(0, 120, (3, 5, 4))
MASK = np.arange(5)[None] < np.array([5, 2, 3])[:, None]


def by_numpy(logits, labels):
    """Cross-entropy, in float64."""
    wide = logits.astype(np.float64)
    return np.log(np.exp(wide).sum(1)) - wide[np.arange(len(labels)), labels]


def wide(x):
    return x.astype(jnp.float32)


OF_LABELS = {
    "softmax_cross_entropy": lambda y: losses.softmax_cross_entropy(jnp.asarray(LOGITS), y),
    "multiclass_hinge": lambda y: losses.multiclass_hinge(jnp.asarray(LOGITS), y),
    "accuracy": lambda y: metrics.accuracy(jnp.asarray(LOGITS), y),
    "top_k_accuracy": lambda y: metrics.top_k_accuracy(jnp.asarray(LOGITS), y, 90),
    "confusion": lambda y: metrics.confusion(jnp.asarray(LOGITS), y),
    "reliability": lambda y: train.reliability(jax.nn.softmax(LOGITS * 4), y, 3).accuracy,
    "fit_temperature": lambda y: train.fit_temperature(jax.nn.softmax(LOGITS), y),
    "squared_error": lambda y: losses.squared_error(wide(y)[:, None], y[::-1]),
    "absolute_error": lambda y: losses.absolute_error(wide(y), y[::-1]),
    "huber": lambda y: losses.huber(wide(y), y[::-1], 3.5),
    "hinge": lambda y: losses.hinge(wide(y) / 100, y),
    "sigmoid_cross_entropy": lambda y: losses.sigmoid_cross_entropy(wide(y) / 100, y),
    "kl_divergence": lambda y: losses.kl_divergence(wide(y)[None] / 50, wide(y)[None] / 235),
    "binary_accuracy": lambda y: metrics.binary_accuracy(y, y[::-1]),
    "average": lambda y: metrics.result(metrics.add(metrics.start(), y, y)),
    "embedding": lambda y: nn.embedding(CLASSES, 3).apply(
        {"embedding": jnp.asarray(LOGITS[:, :3].repeat(52, 0)[:CLASSES])}, {}, y
    )[0],
    "tree.dot": lambda y: tree.dot({"y": y}, {"y": y}),
    "tree.norm": lambda y: tree.norm([y, y]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", OF_LABELS)
def test_narrow_integers_are_the_integers_they_are(name, dtype):
    expected = OF_LABELS[name](jnp.asarray(LABELS, jnp.int32))
    assert np.isfinite(expected).all()
    got = OF_LABELS[name](jnp.asarray(LABELS, dtype))
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_as_many_classes_as_a_byte_has_values(dtype):
    labels = jnp.asarray(LABELS, dtype)
    got = losses.softmax_cross_entropy(jnp.zeros((5, CLASSES)), labels)
    np.testing.assert_allclose(got, np.log(CLASSES), rtol=1e-6)
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(jnp.asarray(LOGITS), labels), by_numpy(LOGITS, LABELS), 1e-5
    )


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_a_negative_label_or_token_is_none_in_any_type(dtype):
    outside = jnp.asarray([-1, -100, 2], dtype)
    logits = jnp.asarray(LOGITS[:3, :200])
    assert np.isnan(losses.softmax_cross_entropy(logits, outside)).tolist() == [True, True, False]
    assert np.isnan(losses.multiclass_hinge(logits, outside)).tolist() == [True, True, False]
    table = {"embedding": jnp.ones((200, 1))}
    rows = nn.embedding(200, 1).apply(table, {}, outside)[0]
    assert np.isnan(rows[:, 0]).tolist() == [True, True, False]


# Layers that compute: of pixels or counts in bytes they give what they give of floats.
LAYERS = {
    "dense": nn.dense(3),
    "prelu": nn.prelu(0.3),
    "conv": nn.conv(3, 2),
    "max_pool": nn.max_pool(2),
    "avg_pool": nn.avg_pool(2),
    "global_avg_pool": nn.as_layer(nn.global_avg_pool),
    "batch_norm": nn.batch_norm(),
    "layer_norm": nn.layer_norm(),
    "group_norm": nn.group_norm(2),
    "rms_norm": nn.rms_norm(),
    "dropout": nn.dropout(0.4),
    "vanilla": nn.dropout(0.4, "vanilla"),
    "leaky_relu": nn.as_layer(lambda x: nn.leaky_relu(x, 0.3)),
    "elu": nn.as_layer(lambda x: nn.elu(x, 0.7)),
    "gelu": nn.as_layer(nn.gelu),
    "selu": nn.as_layer(nn.selu),
    "silu": nn.as_layer(nn.silu),
    "sigmoid": nn.as_layer(nn.sigmoid),
    "softplus": nn.as_layer(nn.softplus),
    "softmax": nn.as_layer(nn.softmax),
    "log_softmax": nn.as_layer(nn.log_softmax),
    "tanh": nn.as_layer(nn.tanh),
}
OF_STEPS = {
    "rnn": nn.rnn(3),
    "lstm": nn.lstm(3),
    "gru": nn.gru(3),
    "multi_head_attention": nn.multi_head_attention(2),
    "learned_positions": nn.learned_positions(6, embedding_init=nn.initializer.normal(0.4)),
    "sinusoidal_positions": nn.as_layer(nn.sinusoidal_positions),
    "mean_step": nn.as_layer(nn.mean_step),
}


@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, *OF_STEPS])
def test_layers_of_bytes_give_what_they_give_of_floats(name, train_mode):
    layer = LAYERS.get(name) or OF_STEPS[name]
    whole = PIXELS if name in LAYERS else STEPS

    def run(dtype):
        x = jnp.asarray(whole, dtype)
        x = x if name in LAYERS else nn.Masked(x, jnp.asarray(MASK))
        params, state = layer.init(jax.random.key(0), x)
        y, _ = layer.apply(params, state, x, key=jax.random.key(1), train=train_mode)
        return y.values if isinstance(y, nn.Masked) else y

    expected = run("float32")
    for dtype in ("uint8", "int16"):
        got = run(dtype)
        if name != "max_pool":
            assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


HALVES = ["float16", "bfloat16"]


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_over_halves_are_taken_wide(dtype):
    """Each sum here is beyond the largest float16, or beyond what bfloat16 can count to."""
    many = jnp.full(3000, 50, dtype)
    assert float(metrics.result(metrics.add(metrics.start(), many))) == 50
    assert float(tree.dot([many], [many])) == 3000 * 50**2
    np.testing.assert_allclose(tree.norm([many]), 50 * np.sqrt(3000), rtol=1e-6)
    row = many[None]
    np.testing.assert_allclose(losses.squared_error(row, 0 * row), 2500)
    np.testing.assert_allclose(losses.absolute_error(row, 0 * row), 50)
    np.testing.assert_allclose(losses.huber(row, 0 * row, 10.0), 450)
    np.testing.assert_allclose(losses.hinge(row, 0 * row), 51)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(row, 0 * row), 50)
    steps = nn.Masked(many.reshape(1, 3000, 1), jnp.ones((1, 3000), bool))
    np.testing.assert_allclose(np.asarray(nn.mean_step(steps), np.float32), [[50]])
    np.testing.assert_allclose(
        np.asarray(nn.global_avg_pool(many.reshape(1, 60, 50, 1)), np.float32), [[50]]
    )


def test_calibration_of_many_halves_is_that_of_doubles():
    rng = np.random.default_rng(1)
    said = rng.uniform(0.5, 1, 200_000).astype(np.float16)
    labels = (rng.uniform(size=200_000) > said - 0.1).astype(np.uint8)
    got = train.calibration_error(jnp.stack([said, 1 - said], 1), labels, 5)
    confidence = said.astype(np.float64)
    expected = 0.0
    for low in np.arange(0.4, 1, 0.2):
        inside = (confidence > low) & (confidence <= low + 0.2)
        expected += abs(np.sum(confidence[inside] - (labels[inside] == 0))) / 200_000
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert 0.08 < expected < 0.12


@pytest.mark.parametrize("wrong", ["column", "one_hot", "scalar", "floats", "longer"])
@pytest.mark.parametrize(
    "name",
    [
        *("softmax_cross_entropy", "multiclass_hinge", "accuracy", "top_k_accuracy", "confusion"),
        *("reliability", "calibration_error", "fit_temperature"),
    ],
)
def test_labels_of_another_shape_are_refused(name, wrong):
    logits = jnp.asarray(LOGITS[:, :4])
    labels = {
        "column": jnp.zeros((5, 1), jnp.int32),
        "one_hot": jnp.zeros((5, 4), jnp.int32),
        "scalar": jnp.int32(1),
        "floats": jnp.zeros(5),
        "longer": jnp.zeros(6, jnp.int32),
    }[wrong]
    call = {
        "top_k_accuracy": lambda: metrics.top_k_accuracy(logits, labels, 2),
        "reliability": lambda: train.reliability(logits, labels),
        "calibration_error": lambda: train.calibration_error(logits, labels),
        "fit_temperature": lambda: train.fit_temperature(jax.nn.softmax(logits), labels),
    }
    home = losses if hasattr(losses, name) else metrics
    run = call.get(name, lambda: getattr(home, name)(logits, labels))
    with pytest.raises(ValueError, match=r"as (integer classes|probabilities) must have shape"):
        run()


def test_an_average_refuses_weights_that_would_broadcast():
    for weights in (jnp.ones((3, 1)), jnp.ones(()), jnp.ones(4)):
        with pytest.raises(ValueError, match=r"`weights` must have the values' shape \(3,\), got"):
            metrics.add(metrics.start(), jnp.ones(3), weights)

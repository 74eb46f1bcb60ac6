"""FLOPs and bytes of what `jdl bench` runs, against formulas by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn, optim
from jdl.bench import ceilings, lanes, layers, steps, updates
from jdl.bench.measurement import counts


def layer_counts(layer, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    y = jax.eval_shape(lambda *args: layer.apply(*args)[0], params, state, x)
    return counts(layers.both_passes(layer), params, state, x, y)


def test_dense_forward_and_backward():
    flops, moved = layer_counts(nn.dense(7), (3, 5))
    # Product, its gradients for kernel and input; the bias and its gradient.
    assert flops == 3 * 2 * 3 * 5 * 7 + 2 * 3 * 7
    # Parameters, input and output, each with its gradient, in float32.
    assert moved == 4 * 2 * (5 * 7 + 7 + 3 * 5 + 3 * 7)


def test_both_passes_give_the_gradients_of_parameters_and_input():
    layer = nn.dense(4)
    x = jax.random.normal(jax.random.key(0), (6, 3))
    params = {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.arange(4.0)}
    gradient = jax.random.normal(jax.random.key(2), (6, 4))
    y, _, (of_params, of_x) = layers.both_passes(layer)(params, {}, x, gradient)
    np.testing.assert_allclose(y, x @ params["kernel"] + params["bias"][None], rtol=1e-5)
    np.testing.assert_allclose(of_params["kernel"], x.T @ gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_x, gradient @ params["kernel"].T, rtol=1e-4, atol=1e-5)


def test_a_convolution_counts_its_taps():
    flops, _ = layer_counts(nn.conv(6, 3, padding="VALID"), (2, 10, 12, 4))
    outputs = 2 * 8 * 10 * 6
    assert flops == 3 * 2 * outputs * 9 * 4 + 2 * outputs


@pytest.mark.parametrize("time", [4, 12])
def test_an_lstm_is_counted_for_every_step_of_its_scan(time):
    features = 64
    flops, _ = layer_counts(nn.lstm(features), (8, time, features))
    products = 3 * 2 * 8 * time * (2 * features) * (4 * features)
    assert products < flops < 1.15 * products


def test_attention_counts_projections_scores_and_sums():
    batch, time, features = 2, 32, 64
    flops, _ = layer_counts(nn.multi_head_attention(8), (batch, time, features))
    projections = 3 * 2 * batch * time * features * 4 * features
    scores = 3 * 2 * 2 * batch * time * time * features
    assert projections + scores < flops < 1.25 * (projections + scores)


@pytest.mark.parametrize(
    ("optimizer", "states"),
    [(optim.sgd(0.1, 0.9), 1), (optim.adam(0.1), 2), (optim.lion(0.1), 1)],
)
def test_an_update_moves_gradients_parameters_and_state(optimizer, states):
    params = {"kernel": jnp.ones((30, 50)), "bias": jnp.ones(50)}
    run, flops, moved = updates.updater(optimizer, params, jax.tree.map(jnp.copy, params))
    size = 1550
    counters = moved - 4 * size * (3 + 2 * states)
    assert 0 <= counters <= 16  # numbers of steps, which a state may hold
    assert 3 * size < flops < 20 * size
    before = np.asarray(run()[0]["bias"])
    assert (np.asarray(run()[0]["bias"]) < before).all()  # each call goes on from the last


def test_a_training_step_of_a_lane():
    like = jax.ShapeDtypeStruct
    batch = like((32, 64), jnp.float32), like((32,), jnp.int32)
    flops, moved = lanes.step_counts(batch)
    # Two layers forward and their kernels' gradients; the input's gradient of the second alone.
    products = 2 * 32 * (2 * 64 * 32 + 3 * 32 * 10)
    parameters = 64 * 32 + 32 + 32 * 10 + 10
    assert products + 8 * parameters < flops < 1.25 * products
    # Parameters and two moments, in and out; the batch.
    least = 4 * (2 * 3 * parameters + 32 * 64 + 32)
    assert least < moved < least + 64


def test_every_layer_and_network_can_be_counted():
    for name, (layer, kind) in layers.layers(16).items():
        flops, moved = layer_counts(layer, layers.shape_of(kind, 2, 5, 16))
        assert flops > 0 and moved > 0, name
    for name, make in steps.networks(4, 5, 16).items():
        model, batch = make()
        trial = steps.trial_of(name, model)
        state = jax.eval_shape(trial.init, jax.random.key(0), batch)
        assert counts(lambda s, b, t=trial: t.step(s, b, None)[0], state, batch)[0] > 0, name


def test_ceilings_count_every_device():
    devices = jax.devices()[:2]
    product = ceilings.matmul(16, "float32", devices, length=1e-4)
    assert product.flops == 2 * 2 * 16**3 and product.bytes == 2 * 2 * 4 * 16**2
    copied = ceilings.copy(100, devices, length=1e-4)
    assert copied.bytes == 2 * 2 * 4 * 100 and len(copied.seconds) == 5
    one = ceilings.copy(100, devices[:1], length=1e-4)
    known = [product, copied, one]
    assert ceilings.bandwidth(known, product) is copied
    assert ceilings.bandwidth(known, one) is one
    # A program of one device is held against the nearest team that was measured.
    assert ceilings.peak(known, one) is product
    assert ceilings.peak(known, one._replace(dtype="bfloat16")) is None

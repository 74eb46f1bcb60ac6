"""Recurrent layers: torch's recorded values on sequences of unequal lengths, both ways."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "nn.npz")
LAYERS = {"rnn": nn.rnn, "lstm": nn.lstm, "gru": nn.gru}


def both_ways(name):
    layer = nn.parallel(LAYERS[name](5), LAYERS[name](5, reverse=True))
    names = ["kernel", "recurrent_kernel", "bias"] + ["recurrent_bias"] * (name == "gru")
    params = tuple(
        {field: jnp.asarray(GOLDEN[f"{name}/{way}/{field}"]) for field in names}
        for way in ("forward", "backward")
    )
    return layer, params


def padded():
    x, lengths = jnp.asarray(GOLDEN["recurrent/x"]), GOLDEN["recurrent/lengths"]
    return nn.Masked(x, jnp.arange(x.shape[1])[None, :] < lengths[:, None])


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_torchs(x64, name):
    layer, params = both_ways(name)
    x = padded()
    drawn, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)

    def run(params, values):
        return layer.apply(params, state, nn.Masked(values, x.mask))[0]

    no_mask = np.zeros(x.mask.shape, jax.dtypes.float0)

    @jax.jit
    def run_and_pull(params, values, cotangent):
        y, pull = jax.vjp(run, params, values)
        return y, pull(nn.Masked(cotangent, no_mask)), layer.apply(params, state, values)[0]

    y, (grads, dx), full = run_and_pull(params, x.values, GOLDEN[f"{name}/cotangent"])
    np.testing.assert_allclose(y.values, GOLDEN[f"{name}/y"], rtol=1e-10, atol=1e-12)
    assert (y.mask == x.mask).all()
    forward, backward = jnp.split(y.values, 2, axis=-1)
    final = [nn.last_step(nn.Masked(forward, y.mask)), nn.first_step(nn.Masked(backward, y.mask))]
    np.testing.assert_allclose(jnp.concatenate(final, -1), GOLDEN[f"{name}/final"], rtol=1e-10)
    np.testing.assert_allclose(dx, GOLDEN[f"{name}/dx"], rtol=1e-9, atol=1e-11)
    for field in ("kernel", "recurrent_kernel"):
        expected = GOLDEN[f"{name}/d{field}"]
        np.testing.assert_allclose(grads[0][field], expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(full, GOLDEN[f"{name}/full"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_what_stands_in_the_padding_changes_nothing(name):
    layer, params = both_ways(name)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    x = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype != bool else leaf, padded()
    )
    other = jnp.where(x.mask[..., None], x.values, 1e3)
    run = jax.jit(lambda values: layer.apply(params, ({}, {}), nn.Masked(values, x.mask))[0])
    assert (run(x.values).values == run(other).values).all()
    assert (jnp.where(x.mask[..., None], 0, run(other).values) == 0).all()


def test_rnn_takes_another_activation():
    layer = nn.rnn(1, activation=nn.relu)
    params = {
        "kernel": jnp.ones((1, 1)),
        "recurrent_kernel": jnp.array([[0.5]]),
        "bias": jnp.zeros(1),
    }
    y, _ = layer.apply(params, {}, jnp.array([[[1.0], [2.0], [-9.0]]]))
    assert y[0, :, 0].tolist() == [1.0, 2.5, 0.0]


def test_lstm_starts_with_its_forget_bias_in_the_second_quarter():
    x = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
    params, state = nn.lstm(3).init(jax.random.key(0), x)
    assert params["bias"].tolist() == [0] * 3 + [1] * 3 + [0] * 6
    assert state == {}
    params, _ = nn.lstm(3, forget_bias=0.0).init(jax.random.key(0), x)
    assert params["bias"].tolist() == [0] * 12


@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_each_gate_starts_as_a_kernel_of_its_own(name, gates):
    x = jax.ShapeDtypeStruct((2, 3, 400), jnp.float32)
    layer = LAYERS[name](40, kernel_init=nn.initializer.glorot_normal)
    params, _ = jax.jit(lambda key: layer.init(key, x))(jax.random.key(0))
    blocks = jnp.split(params["recurrent_kernel"], gates, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(40), atol=1e-5)
    assert len({float(block[0, 0]) for block in blocks}) == gates
    # 16000 draws a gate: the standard error of the variance is variance * sqrt(2/n).
    for block in jnp.split(params["kernel"], gates, axis=1):
        np.testing.assert_allclose(jnp.var(block), 2 / 440, rtol=5 * np.sqrt(2 / 16000))


def test_last_first_and_mean_step_by_hand():
    values = jnp.array([[[1.0], [2.0], [6.0]], [[4.0], [5.0], [9.0]], [[7.0], [8.0], [9.0]]])
    mask = jnp.array([[True, True, True], [True, False, False], [False, False, False]])
    x = nn.Masked(values, mask)
    assert nn.last_step(x)[:, 0].tolist() == [6, 4, 0]
    assert nn.first_step(x)[:, 0].tolist() == [1, 4, 0]
    assert nn.mean_step(x)[:, 0].tolist() == [3, 4, 0]
    assert nn.last_step(values)[:, 0].tolist() == [6, 9, 9]
    assert nn.first_step(values)[:, 0].tolist() == [1, 4, 7]
    assert nn.mean_step(values)[:, 0].tolist() == [3, 6, 8]


def test_recurrent_errors_name_the_argument():
    with pytest.raises(ValueError, match="`features` must be an integer of at least 1, got feat"):
        nn.gru(0)
    with pytest.raises(ValueError, match=r"`forget_bias` must be in \(-inf, inf\)"):
        nn.lstm(3, forget_bias=float("nan"))

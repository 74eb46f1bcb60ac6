"""Padding, whatever it holds, reaches no real step, no statistic and no gradient."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import losses, nn

LENGTHS = np.array([5, 2, 3])
MASK = np.arange(5)[None] < LENGTHS[:, None]
STEPS = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
TOKENS = np.random.default_rng(3).integers(0, 7, (3, 5)).astype(np.int32)
FEATURES = {
    "dense": nn.dense(3),
    "maxout": nn.maxout(3),
    "prelu": nn.prelu(0.3),
    "dropout": nn.dropout(0.4),
    "batch_norm": nn.batch_norm(),
    "layer_norm": nn.layer_norm(),
    "rms_norm": nn.rms_norm(),
    "rnn": nn.rnn(3),
    "lstm": nn.lstm(3),
    "lstm backwards": nn.lstm(3, reverse=True),
    "gru": nn.gru(3, reverse=True),
    "multi_head_attention": nn.multi_head_attention(2, rotary_base=30.0),
    "causal attention": nn.multi_head_attention(2, causal=True),
    "learned_positions": nn.learned_positions(6),
    "sinusoidal_positions": nn.sinusoidal_positions,
    "chain": nn.chain(nn.dense(3), nn.gelu),
    "residual": nn.residual(nn.layer_norm(), nn.dense(4)),
    "parallel": nn.parallel(nn.dense(3), nn.lstm(2)),
    "per_step": nn.per_step(nn.dense(3), lambda x: jnp.log(jnp.abs(x))),
    "with_policy": nn.with_policy(nn.dense(3), nn.Policy(compute=jnp.float32)),
    "last_step": nn.last_step,
    "first_step": nn.first_step,
    "mean_step": nn.mean_step,
    **{
        name: getattr(nn, name)
        for name in [
            *("elu", "gelu", "identity", "leaky_relu", "log_softmax", "relu", "selu"),
            *("sigmoid", "silu", "softmax", "softplus", "tanh"),
        ]
    },
}
OF_TOKENS = {
    "embedding": nn.embedding(7, 3),
    "embedding, attention": nn.chain(nn.embedding(7, 4), nn.multi_head_attention(2)),
    "embedding, lstm": nn.chain(nn.embedding(7, 3), nn.lstm(2), nn.dense(2)),
}
# Layers that mix steps and say in their docstrings that they take no `Masked`.
REFUSING = {
    "conv": nn.conv(3, 2),
    "max_pool": nn.max_pool(2),
    "avg_pool": nn.avg_pool(2),
    "global_avg_pool": nn.as_layer(nn.global_avg_pool),
    "global_max_pool": nn.as_layer(nn.global_max_pool),
    "group_norm": nn.group_norm(2),
    "flatten": nn.as_layer(nn.flatten),
}
OTHERS = {
    "Apply", "Call", "Layer", "Masked", "Policy", "Row", "Summary", "as_layer", "composed",
    "concatenate", "convolve", "flops", "initializer", "monte_carlo_prediction",
    "recompute_batch_stats", "record", "summary",
}  # fmt: skip


def test_every_layer_is_here():
    assert set(nn.__all__) - OTHERS - {*FEATURES, *OF_TOKENS, *REFUSING} == set()
    for name in REFUSING:
        assert "Masked" in inspect.getdoc(getattr(nn, name)), name


def padded(values, fill):
    real = MASK.reshape(MASK.shape + (1,) * (values.ndim - 2))
    return jnp.asarray(np.where(real, values, np.asarray(fill, values.dtype)))


@pytest.mark.parametrize("name", [*FEATURES, *OF_TOKENS])
def test_what_padding_holds_makes_no_difference(name):
    layer = nn.as_layer(FEATURES.get(name) or OF_TOKENS[name])
    values = STEPS if name in FEATURES else TOKENS
    mask = jnp.asarray(MASK)
    template = nn.Masked(jnp.asarray(values), mask)
    params, state = layer.init(jax.random.key(0), template)

    def run(params, values):
        x = nn.Masked(values, mask)
        y, after = layer.apply(params, state, x, key=jax.random.key(1), train=True)
        y = jnp.where(mask[..., None], y.values, 0) if isinstance(y, nn.Masked) else y
        return jnp.sum(jnp.sin(y)), (y, after)

    smooth = (0, 1) if name in FEATURES else 0
    gradient = jax.jit(jax.value_and_grad(run, argnums=smooth, has_aux=True))
    expected = gradient(params, padded(values, 3))
    for leaf in jax.tree.leaves(expected):
        assert np.isfinite(leaf).all()
    if name in FEATURES:
        assert (np.asarray(expected[1][1])[~MASK] == 0).all()
    for fill in (np.nan, np.inf, 1e30, 0) if name in FEATURES else (-1, 7, 10**9):
        got = gradient(params, padded(values, fill))
        jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    "name", [name for name in FEATURES if name not in ("dropout", "batch_norm")]
)
def test_a_padded_sequence_gives_what_it_gives_alone(name):
    layer = nn.as_layer(FEATURES[name])
    x = nn.Masked(padded(STEPS, np.nan), jnp.asarray(MASK))
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x)
    for row, length in enumerate(LENGTHS):
        alone, _ = layer.apply(params, state, jnp.asarray(STEPS[row : row + 1, :length]))
        if isinstance(y, nn.Masked):
            assert (y.mask == x.mask).all() and (np.asarray(y.values)[~MASK] == 0).all()
            got = y.values[row : row + 1, :length]
        else:
            got = y[row : row + 1]
        np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6)


def test_batch_norm_of_padded_steps_is_that_of_the_real_ones():
    layer = nn.batch_norm(momentum=0.3)
    x = nn.Masked(padded(STEPS, 7), jnp.asarray(MASK))
    params, state = layer.init(jax.random.key(0), x)
    real = jnp.asarray(STEPS[MASK])
    expected, after = layer.apply(params, state, real, train=True)
    y, got = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(np.asarray(y.values)[MASK], expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), got, after)
    expected, _ = layer.apply(params, after, real)
    y, _ = layer.apply(params, after, x)
    np.testing.assert_allclose(np.asarray(y.values)[MASK], expected, rtol=1e-5, atol=1e-6)


def test_an_empty_sequence_gives_nothing():
    x = nn.Masked(jnp.full((1, 3, 4), jnp.nan), jnp.zeros((1, 3), bool))
    for read in (nn.last_step, nn.first_step, nn.mean_step):
        assert (read(x) == 0).all()
    for layer in (nn.multi_head_attention(2), nn.lstm(4), nn.layer_norm(), nn.batch_norm()):
        params, state = layer.init(jax.random.key(0), x)
        y, after = layer.apply(params, state, x, train=True)
        assert (y.values == 0).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("name", REFUSING)
def test_layers_that_mix_steps_refuse_padded_ones(name):
    x = nn.Masked(jnp.asarray(STEPS), jnp.asarray(MASK))
    with pytest.raises(TypeError, match=rf"{name} takes arrays: it would mix padding"):
        params, state = REFUSING[name].init(jax.random.key(0), x)
        REFUSING[name].apply(params, state, x)


@pytest.mark.parametrize("fill", [jnp.nan, jnp.inf])
def test_a_loss_over_real_steps_sees_no_padding(fill):
    logits, mask = jnp.asarray(STEPS), jnp.asarray(MASK)
    probabilities = jax.nn.softmax(logits * 2)
    for targets in (jnp.asarray(TOKENS % 4), probabilities):
        run = lambda x, t=targets: losses.softmax_cross_entropy(x, t, 0.1, mask).sum()  # noqa: E731
        expected = jax.value_and_grad(run)(logits)
        got = jax.value_and_grad(run)(padded(STEPS, fill))
        jax.tree.map(np.testing.assert_array_equal, got, expected)
        assert (got[1][~MASK] == 0).all() and jnp.isfinite(got[1]).all()

"""Dropout: the three forms, its random numbers, and prediction over many masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdl import nn
from jdl.nn.dropout import _uniform

X = jnp.array([[1.0, -2.0, 0.5, 4.0]])


def run(layer, x, **keywords):
    return layer.apply({}, {}, x, **keywords)[0]


def test_a_mask_drops_the_rate_and_scales_what_it_keeps():
    x = jnp.full((400, 250), 2.0)
    y = run(nn.dropout(0.3), x, key=jax.random.key(0), train=True)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 2.0 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / x.size)
    vanilla = run(nn.dropout(0.3, "vanilla"), x, key=jax.random.key(0), train=True)
    assert (vanilla == jnp.where(kept, 2.0, 0)).all()
    assert (run(nn.dropout(0.3, "monte_carlo"), x, key=jax.random.key(0), train=True) == y).all()


def test_both_forms_agree_in_expectation():
    for index, form in enumerate(["inverted", "vanilla"]):
        keys = jax.random.split(jax.random.key(index), 4000)
        layer = nn.dropout(0.3, form)
        draws = jax.vmap(lambda key, f=layer: run(f, X, key=key, train=True))(keys)
        evaluated = run(layer, X)
        error = draws.std(0) / np.sqrt(len(keys))
        assert (jnp.abs(draws.mean(0) - evaluated) < 4 * error).all(), form


def test_evaluation():
    for key in (None, jax.random.key(0)):
        assert run(nn.dropout(0.3), X, key=key) is X
        np.testing.assert_allclose(run(nn.dropout(0.3, "vanilla"), X, key=key), 0.7 * X, rtol=1e-6)
    layer = nn.dropout(0.3, "monte_carlo")
    assert run(layer, X) is X
    drawn = run(layer, X, key=jax.random.key(0))
    assert (drawn == run(nn.dropout(0.3), X, key=jax.random.key(0), train=True)).all()


def test_rate_zero_is_off_bit_for_bit():
    x = jax.random.normal(jax.random.key(2), (64, 64))
    for form in ("inverted", "vanilla", "monte_carlo"):
        layer = nn.dropout(jnp.float32(0.0), form)
        assert (run(layer, x, key=jax.random.key(0), train=True) == x).all()
        assert (run(layer, x) == x).all()


@pytest.mark.parametrize("form", ["inverted", "vanilla", "monte_carlo"])
def test_a_traced_rate_of_one_gives_zeros_both_ways(form):
    def total(x, rate):
        return run(nn.dropout(rate, form), x, key=jax.random.key(0), train=True).sum()

    for x in (X, jnp.full_like(X, jnp.inf)):
        value, (by_x, by_rate) = jax.jit(jax.value_and_grad(total, (0, 1)))(x, 1.0)
        assert value == 0 and (by_x == 0).all() and by_rate == 0


def test_a_dropped_infinity_is_zero_and_the_gradient_is_the_mask():
    x = jnp.full((1, 1000), jnp.inf)
    y = run(nn.dropout(0.3), x, key=jax.random.key(0), train=True)
    assert set(np.unique(y)) == {0.0, np.inf}
    gradient = jax.grad(lambda x: run(nn.dropout(0.3), x, key=jax.random.key(0), train=True).sum())
    np.testing.assert_allclose(
        gradient(jnp.ones((1, 1000))), jnp.where(y > 0, 1 / 0.7, 0), rtol=1e-6
    )


def test_half_precision_stays_and_masks_do_not_depend_on_it():
    x = jnp.ones((8, 8), jnp.bfloat16)
    y = run(nn.dropout(0.3), x, key=jax.random.key(0), train=True)
    assert y.dtype == jnp.bfloat16
    assert run(nn.dropout(0.3, "vanilla"), x).dtype == jnp.bfloat16
    wide = run(nn.dropout(0.3), x.astype(jnp.float32), key=jax.random.key(0), train=True)
    assert ((y > 0) == (wide > 0)).all()


def test_training_without_a_key_is_an_error():
    with pytest.raises(ValueError, match="dropout needs a key in training: call apply"):
        run(nn.dropout(0.3), X, train=True)
    model = nn.chain(nn.dense(3), nn.dropout(0.0))
    params, state = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="dropout needs a key in training"):
        model.apply(params, state, X, train=True)


def test_ranges():
    with pytest.raises(
        ValueError, match=r"`rate` must be in \[0, 1\), got rate=1.0. It is the share"
    ):
        nn.dropout(1.0)
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\), got rate=-0.1"):
        nn.dropout(-0.1)
    with pytest.raises(ValueError, match="`form` must be one of 'inverted', 'vanilla', 'monte_car"):
        nn.dropout(0.1, "reversed")


@pytest.fixture(scope="module")
def numbers():
    """Uniform numbers of 2000 successive keys at 1024 positions each."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(jnp.arange(2000))
    return np.asarray(jax.jit(jax.vmap(lambda key: _uniform(key, (32, 32))))(keys), np.float64)


def test_the_random_numbers_are_uniform(numbers):
    flat = numbers.ravel()
    assert flat.min() >= 0 and flat.max() < 1
    for bins in (64, 4096):
        counts = np.bincount((flat * bins).astype(int), minlength=bins)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_the_random_numbers_are_independent_over_positions_and_keys(numbers):
    z = (numbers.reshape(2000, 1024) - 0.5) * np.sqrt(12)
    for lag in (1, 2, 3, 7, 32, 64, 256, 512):
        product = z[:, lag:] * z[:, :-lag]
        assert abs(product.mean()) < 4 / np.sqrt(product.size), f"positions {lag} apart"
    for lag in (1, 2, 5, 64):
        product = z[lag:] * z[:-lag]
        assert abs(product.mean()) < 4 / np.sqrt(product.size), f"keys {lag} apart"
    patterns = np.packbits(numbers.reshape(2000, -1, 8) < 0.5, axis=-1).ravel()
    assert stats.chisquare(np.bincount(patterns, minlength=256)).pvalue > 1e-3
    for axis in (0, 1):
        sums = z.sum(axis) / np.sqrt(z.shape[axis])
        assert stats.kstest(sums, "norm").pvalue > 1e-3


def test_layers_of_a_chain_and_lanes_of_a_sweep_draw_different_masks():
    model = nn.chain(nn.dropout(0.5), lambda x: x + 0.0, nn.dropout(0.5))
    x = jnp.ones((1, 256))
    key = jax.random.key(0)
    first = run(nn.dropout(0.5), x, key=jax.random.fold_in(key, 0), train=True) != 0
    third = run(nn.dropout(0.5), x, key=jax.random.fold_in(key, 2), train=True) != 0
    y, _ = model.apply(({}, {}, {}), ({}, {}, {}), x, key=key, train=True)
    assert ((y != 0) == (first & third)).all() and (first != third).any()
    lanes = jax.vmap(lambda k: run(nn.dropout(0.5), x, key=k, train=True))(jax.random.split(key, 3))
    assert len(np.unique(np.asarray(lanes) != 0, axis=0)) == 3


def test_monte_carlo_prediction_averages_over_masks():
    """Two equal inputs through `w . dropout(x)`: each draw is 0, 1/(1-p) or 2/(1-p) times w."""
    model = nn.chain(nn.dropout(0.25, "monte_carlo"), nn.batch_norm(), lambda x: x.sum(-1))
    x = jnp.ones((3, 2))
    params, state = model.init(jax.random.key(0), x)
    mean, spread = nn.monte_carlo_prediction(
        model, params, state, x, key=jax.random.key(1), samples=4000, output=nn.identity
    )
    assert mean.shape == spread.shape == (3,)
    # The variance of a kept-or-dropped 1/0.75 is p/(1-p), and there are two.
    expected = np.sqrt(2 * 0.25 / 0.75)
    np.testing.assert_allclose(mean, 2.0, atol=4 * expected / np.sqrt(4000))
    np.testing.assert_allclose(spread, expected, rtol=0.06)
    draws = jax.vmap(lambda key: model.apply(params, state, x, key=key)[0])(
        jax.random.split(jax.random.key(2), 3)
    )
    mean, spread = nn.monte_carlo_prediction(
        model, params, state, x, key=jax.random.key(2), samples=3, output=nn.identity
    )
    np.testing.assert_allclose(mean, draws.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, np.asarray(draws).std(0), rtol=1e-5)


def test_monte_carlo_prediction_gives_probabilities_and_refuses_other_forms():
    x = jnp.ones((2, 4))
    for form in ("inverted", "vanilla"):
        model = nn.chain(nn.chain(nn.dropout(0.25, form)), nn.dense(3))
        params, state = model.init(jax.random.key(0), x)
        with pytest.raises(ValueError, match="so that all draws would agree"):
            nn.monte_carlo_prediction(model, params, state, x, key=jax.random.key(1), samples=2)
    model = nn.chain(nn.chain(nn.dropout(0.25, "monte_carlo")), nn.dense(3))
    mean, _ = nn.monte_carlo_prediction(model, params, state, x, key=jax.random.key(1), samples=9)
    np.testing.assert_allclose(mean.sum(-1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="`samples` must be an integer of at least 1"):
        nn.monte_carlo_prediction(model, params, state, x, key=jax.random.key(1), samples=0)


def test_monte_carlo_prediction_of_a_model_without_dropout_or_with_one_that_draws():
    x = jnp.ones((2, 4))
    mixed = nn.chain(nn.dropout(0.25), nn.dropout(0.25, "monte_carlo"))
    for model, varies in ((nn.chain(nn.identity), False), (mixed, True)):
        params, state = model.init(jax.random.key(0), x)
        _, spread = nn.monte_carlo_prediction(
            model, params, state, x, key=jax.random.key(1), samples=5, output=nn.identity
        )
        assert bool((spread > 0).any()) == varies


def test_the_random_numbers_are_the_hash_that_is_stated():
    """Masks are the same in every version: the rounds in Python's integers, modulo 2**32."""
    key = jax.random.key(11)
    first, second = (int(word) for word in jax.random.bits(jax.random.clone(key), (2,), "uint32"))
    expected = []
    for position in range(6):
        h = (position * 0x9E3779B9 + first) % 2**32
        h = (h ^ (h >> 16)) * 0x21F0AAAD % 2**32 ^ second
        h = (h ^ (h >> 15)) * 0xD35A2D97 % 2**32
        expected.append((h ^ (h >> 15)) // 2**8 / 2**24)
    assert _uniform(key, (2, 3)).ravel().tolist() == expected

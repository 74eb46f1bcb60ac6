"""LSTM classifier, transformer, ViT: padding, causality, initial scale."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import models, nn

TOKENS = jnp.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 0, 0]])


@pytest.fixture(scope="module")
def classifier():
    model = models.lstm_classifier(7, 2, features=4, layers=2, bidirectional=True, padding=0)
    params, state = jax.jit(lambda key: model.init(key, TOKENS))(jax.random.key(0))
    return model, params, state


def test_padding_changes_no_output(classifier):
    model, params, state = classifier
    apply = jax.jit(lambda tokens: model.apply(params, state, tokens)[0])
    y = apply(TOKENS)
    assert y.shape == (3, 2) and bool(jnp.isfinite(y).all())
    np.testing.assert_allclose(apply(TOKENS[1:2, :2]), y[1:2], rtol=1e-5)
    np.testing.assert_allclose(apply(TOKENS[2:, :3]), y[2:], rtol=1e-5)
    assert not np.allclose(apply(TOKENS.at[0, 4].set(2))[0], y[0])


def test_lstm_classifier_is_its_layers_in_order():
    def names(**keywords):
        return [part.name for part in models.lstm_classifier(7, 2, **keywords).parts]

    assert names() == ["embedding", "chain", "dense"]
    assert names(layers=2, padding=0, dropout=0.0) == [
        "masked", "embedding", "per_step", "lstm", "per_step", "chain", "dropout", "dense",
    ]  # fmt: skip
    assert names(bidirectional=True, layers=2) == ["embedding", "parallel", "parallel", "dense"]
    both = models.lstm_classifier(7, 2, bidirectional=True).parts[1]
    assert [[part.name for part in way.parts] for way in both.parts] == [
        ["lstm", "last_step"],
        ["lstm", "first_step"],
    ]
    model = models.lstm_classifier(7, 2, features=3, forget_bias=-0.5)
    params, _ = jax.jit(model.init)(jax.random.key(0), TOKENS)
    assert params[0]["embedding"].shape == (7, 3)
    assert params[1][0]["bias"].tolist() == [0] * 3 + [-0.5] * 3 + [0] * 6


@pytest.fixture(scope="module")
def decoder():
    model = models.transformer(7, length=6, depth=2, features=8, heads=2, stddev=0.3)
    _, state = shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape)), shapes[0])
    return model, params, state


def test_transformer_predicts_from_the_past_alone(decoder):
    model, params, state = decoder
    apply = jax.jit(lambda tokens: model.apply(params, state, tokens)[0])
    y, changed = apply(TOKENS), apply(TOKENS.at[:, 3].set(6))
    assert y.shape == (3, 5, 7)
    np.testing.assert_allclose(y[:, :3], changed[:, :3], rtol=1e-6)
    assert not np.allclose(y[:, 3], changed[:, 3]) and not np.allclose(y[:, 4], changed[:, 4])
    assert not np.allclose(y[0, 1], y[0, 3])


def test_transformer_by_its_parts(decoder):
    """The blocks by hand from the layers, which are tested on their own."""
    model, params, state = decoder
    assert [part.name for part in model.parts] == [
        "embedding", "learned_positions",
        *["attention", "perceptron"] * 2, "layer_norm", "dense",
    ]  # fmt: skip
    norm = nn.layer_norm()
    attention = nn.multi_head_attention(2, causal=True)

    def expected(params, tokens):
        x = params[0]["embedding"][tokens] + params[1]["embedding"][None, :5]
        for block in range(2):
            norm_params, attention_params = params[2 + 2 * block][0]
            normed, _ = norm.apply(norm_params, {}, x)
            x = x + attention.apply(attention_params, {}, normed)[0]
            norm_params, first, _, second = params[3 + 2 * block][0]
            normed, _ = norm.apply(norm_params, {}, x)
            hidden = nn.gelu(normed @ first["kernel"] + first["bias"][None, None])
            x = x + hidden @ second["kernel"] + second["bias"][None, None]
        return norm.apply(params[6], {}, x)[0] @ params[7]["kernel"]

    y, _ = jax.jit(model.apply)(params, state, TOKENS)
    np.testing.assert_allclose(y, jax.jit(expected)(params, TOKENS), rtol=2e-4, atol=1e-5)


def test_transformer_starts_with_the_scales_stated():
    model = models.transformer(300, length=40, depth=2, features=64, heads=2, hidden=100)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    params, _ = jax.jit(lambda key: model.init(key, tokens))(jax.random.key(0))
    small = 0.02 / math.sqrt(4)
    attention, perceptron = params[2][0][1], params[3][0]
    assert perceptron[1]["kernel"].shape == (64, 100)
    for leaf, stddev in [
        (params[0]["embedding"], 0.02),
        (params[1]["embedding"], 0.02),
        (attention["qkv"]["kernel"], 0.02),
        (attention["out"]["kernel"], small),
        (perceptron[1]["kernel"], 0.02),
        (perceptron[3]["kernel"], small),
        (params[7]["kernel"], 0.02),
    ]:
        assert abs(jnp.std(leaf) / stddev - 1) < 4 / math.sqrt(2 * leaf.size)
    assert params[7].keys() == {"kernel"}


def test_dropout_stands_after_the_embedding_and_in_every_branch():
    plain = models.transformer(7, length=6, depth=2, features=8, heads=2)
    model = models.transformer(7, length=6, depth=2, features=8, heads=2, dropout=0.0)

    def count(layer):
        return (layer.name == "dropout") + sum(count(part) for part in layer.parts)

    assert (count(plain), count(model), model.parts[2].name) == (0, 5, "dropout")
    vit = models.vit(3, depth=2, features=8, heads=2, dropout=0.0)
    assert (count(models.vit(3, depth=2)), count(vit), vit.parts[3].name) == (0, 5, "dropout")


def test_the_perceptron_is_four_times_as_wide_unless_told():
    model = models.transformer(7, length=6, depth=1, features=6, heads=2)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    assert params[3][0][1]["kernel"].shape == (6, 24)

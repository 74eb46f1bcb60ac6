"""Families of tasks beside classification: text, autoencoding, regression, in sweeps and `fit`."""

from __future__ import annotations

import gzip

import jax
import numpy as np
import pytest

from jdl import data, models, nn, optim, sweep, train

LETTERS = b"abcd"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A text in which a letter is followed by the next of four 9 times in 10, else by itself.

    Its entropy is known: 0.325 nats a letter.
    """
    random, letter, text = np.random.default_rng(0), 0, []
    for stays in random.random(12_000) < 0.1:
        letter = letter if stays else (letter + 1) % 4
        text.append(letter)
    path = tmp_path_factory.mktemp("text") / "chain.txt.gz"
    path.write_bytes(gzip.compress(bytes(LETTERS[i] for i in text)))
    return path


def next_letter(rate):
    model = nn.chain(nn.embedding(256, 8), nn.lstm(16), nn.dense(256))
    return train.language_model(model, optim.adam(rate))


def test_text_in_three_stretches(tmp_path):
    content = bytes(range(100)) + bytes(range(50))
    (tmp_path / "text").write_bytes(content)
    splits = data.text(tmp_path / "text", 7, valid=0.2, test=0.1)
    for split, start, sequences in zip(splits, (0, 105, 135), (14, 4, 2)):
        x, y = split
        assert x.dtype == np.uint8 and x.shape == y.shape == (sequences, 7)
        assert x.tobytes() == content[start : start + 7 * sequences]
        assert y.tobytes() == content[start + 1 : start + 1 + 7 * sequences]
    assert data.text(tmp_path / "text", 7, valid=0, test=0)[1:] == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 20}, r"byte 108: valid has 12 of the 120 bytes: expected at least 21"),
        ({"length": 0}, "`length` must be an integer of at least 1, got length=0"),
        ({"valid": 1.0}, r"`valid` must be in \[0, 1\), got valid=1.0"),
        ({"max_bytes": 50}, "more content than max_bytes=50"),
    ],
)
def test_text_that_will_not_do(tmp_path, options, message):
    (tmp_path / "text").write_bytes(b"x" * 120)
    with pytest.raises(ValueError, match=message):
        data.text(tmp_path / "text", **{"length": 5, "test": 0.0, **options})


def test_perplexity_comes_near_the_entropy_of_the_text(chain):
    result = train.fit(
        next_letter(0.02),
        data.text(chain, 16),
        epochs=8,
        batch_size=25,
        metric="valid_loss",
        progress=False,
    )
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert entropy < result.metrics["test_loss"] < entropy + 0.1
    assert float(train.perplexity(entropy)) == pytest.approx(1.384, abs=1e-3)
    # The first letter of a sequence is a guess among four, the others 9 in 10.
    assert result.metrics["test_accuracy"] == pytest.approx(0.9, abs=0.04)


def test_the_rate_of_a_language_model_is_swept(chain):
    results = sweep.run(
        lambda hp: next_letter(hp["lr"]),
        {"lr": sweep.choice(1e-4, 0.02), "seed": sweep.seeds(1)},
        data.text(chain, 16),
        epochs=1,
        batch_size=25,
        progress=False,
    )
    assert results.programs == 1 and results.best.config["lr"] == 0.02


def coder(noise, rate=0.01):
    encoder = nn.chain(nn.flatten, nn.dense(24), nn.relu, nn.dense(6))
    return train.autoencoder(encoder, nn.dense(64), optim.adam(rate), noise=noise)


def test_reconstruction_by_hand():
    """A linear autoencoder's error is that of its two matrices, whatever the labels are."""
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    trial = train.autoencoder(nn.chain(nn.flatten, nn.dense(2)), nn.dense(6), optim.sgd(0.1))
    state = trial.init(jax.random.key(0), (x, None))
    (_, first), second = jax.tree.map(np.asarray, state.params)
    flat = x.reshape(7, 6)
    back = (flat @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]
    metrics = jax.jit(trial.evaluate)(state, (x, np.zeros(7, np.int32)))
    np.testing.assert_allclose(metrics["loss"], np.mean((back - flat) ** 2), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(trial.predict)(state, x), back, rtol=1e-4, atol=1e-5)


def test_noise_is_in_the_inputs_of_training_alone():
    x = np.zeros((400, 3), np.float32)
    still = nn.Layer(
        lambda key, x: ({"w": np.float32(1)}, {}), lambda p, s, x, **options: (x * p["w"], s)
    )
    trial = train.autoencoder(still, nn.identity, optim.sgd(1e-6), noise=0.5)
    state = jax.tree.map(jax.numpy.asarray, trial.init(jax.random.key(0), (x, x[:, 0])))
    _, metrics = jax.jit(trial.step)(state, (x, x[:, 0]), jax.random.key(1))
    # A mean of 1200 squares of N(0, 0.25): within four standard errors.
    assert float(metrics["loss"]) == pytest.approx(0.25, abs=4 * 0.25 * np.sqrt(2 / 1200))
    assert jax.jit(trial.evaluate)(state, (x, x[:, 0]))["loss"] == 0


def test_noise_of_an_autoencoder_is_swept():
    digits = data.digits()
    results = sweep.run(
        lambda hp: coder(hp["noise"]),
        {"noise": sweep.choice(0.0, 0.3, 3.0), "seed": sweep.seeds(1)},
        digits,
        epochs=5,
        progress=False,
    )
    off, some, much = (t.metrics["valid_loss"] for t in results.trials)
    variance = np.mean(digits.valid[0] ** 2)
    assert results.programs == 1
    assert max(off, some) < 0.7 * variance and much > 1.1 * off
    one = train.fit(coder(0.0), digits, epochs=5, keep="last", progress=False)
    assert one.metrics["valid_loss"] == pytest.approx(off, rel=1e-4)


def test_a_regression_in_fit():
    splits = data.synthetic.linear(300, features=4, noise=0.1)
    result = train.fit(
        train.regressor(models.mlp((1,)), optim.adam(0.05)), splits, epochs=20, progress=False
    )
    assert result.metrics["test_loss"] == pytest.approx(0.01, rel=0.5)


def test_errors():
    with pytest.raises(ValueError, match=r"`noise` must be in \[0, inf\), got noise=-1"):
        coder(-1.0)

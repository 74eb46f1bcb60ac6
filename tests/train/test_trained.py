"""What a trained network is for: evaluation, prediction, export; and how it may be trained."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data, models, nn, optim, train

DIGITS = data.digits()


def fitted(model=None, epochs=2):
    trial = train.classifier(model or models.mlp((16, 10)), optim.adam(3e-3))
    return trial, train.fit(trial, DIGITS, epochs=epochs, progress=False)


def test_evaluates_and_predicts_over_uneven_batches():
    trial, result = fitted()
    x, y = DIGITS.test
    metrics = train.evaluate(trial, result.state, (x, y), batch_size=100)
    assert metrics["accuracy"] == pytest.approx(result.metrics["test_accuracy"], abs=1e-6)
    assert metrics["loss"] == pytest.approx(result.metrics["test_loss"], rel=1e-5)
    said = train.predict(trial, result.state, x, batch_size=100)
    assert said.shape == (360, 10)
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)
    assert np.mean(said.argmax(1) == y) == pytest.approx(metrics["accuracy"], abs=1e-6)
    own = -np.log(said[np.arange(360), y]).mean()
    assert own == pytest.approx(metrics["loss"], rel=1e-4)


def test_predicts_with_dropout_masks():
    model = models.mlp((32, 10), dropout=0.4, dropout_form="monte_carlo")
    trial, result = fitted(model)
    x = DIGITS.test[0][:70]
    masks = [
        train.predict(trial, result.state, x, key=jax.random.key(seed), batch_size=32)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.abs(masks[0] - masks[2]).max() > 0.01


WRITER = """
import sys
import jax, numpy as np
from jdl import data, models, optim, train
x, y = data.digits(image=True).test
model = models.cnn(10, features=(4, 4), batch_norm=True)
trial = train.classifier(model, optim.adam(1e-3))
batch = x[:40], y[:40]
state, _ = jax.jit(trial.step)(trial.init(jax.random.key(0), batch), batch, jax.random.key(1))
train.export("network", trial, state, x)
np.savez("said.npz", x=x[:40], y=train.predict(trial, state, x[:40]))
"""
READER = """
import sys
import numpy as np
import jax.export
x = np.load("said.npz")["x"]
run = jax.export.deserialize(bytearray(open("network", "rb").read())).call
np.save("again.npy", np.concatenate([run(x[:3]), run(x[3:])]))
assert not [name for name in sys.modules if name.split(".")[0] == "jdl"]
"""


def test_an_exported_network_needs_no_code(tmp_path):
    """Convolution, pooling and batch norm, read by a process that never imports jdl."""
    pytest.importorskip("flatbuffers")
    for script in (WRITER, READER):
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    said = np.load(tmp_path / "said.npz")["y"]
    assert said.shape == (40, 10) and np.ptp(said) > 0.01
    np.testing.assert_allclose(np.load(tmp_path / "again.npy"), said, rtol=1e-5, atol=1e-6)


def test_an_exported_network_is_read_back(tmp_path):
    pytest.importorskip("flatbuffers")
    trial, result = fitted()
    x, path = DIGITS.test[0], tmp_path / "network"
    train.export(path, trial, result.state, x)
    said = train.predict(trial, result.state, x)
    np.testing.assert_allclose(train.load_exported(path)(x), said, rtol=1e-5, atol=1e-6)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(train.CheckpointError, match="holds no exported network"):
        train.load_exported(path)


def test_gradient_accumulation():
    """Four batches of 8 gather to the gradient of 32; dividing the epoch, the steps are as many."""
    splits = DIGITS._replace(train=tuple(a[:320] for a in DIGITS.train))
    trial = train.classifier(models.mlp((10,)), optim.accumulate(optim.sgd(0.1), 4))
    small = train.fit(
        trial, splits, steps=40, report_every=4, batch_size=8, keep="last", progress=False
    )
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), jnp.uint32(2**32 - 2))
    order = np.asarray(data.batch_indices(key, 0, 40, 8, 320)).reshape(10, 32)
    x, y = splits.train
    own = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), jnp.uint32(2**32 - 1))
    start = trial.init(own, (x, y))
    kernel, bias = (np.asarray(start.params[1][n], np.float64) for n in ("kernel", "bias"))
    for index in order:
        logits = x[index] @ kernel + bias
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(10)[y[index]]
        kernel, bias = kernel - 0.1 * x[index].T @ error / 32, bias - 0.1 * error.mean(0)
    np.testing.assert_allclose(small.params[1]["kernel"], kernel, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(small.params[1]["bias"], bias, rtol=1e-3, atol=1e-5)


def test_mixed_precision():
    model = lambda policy: nn.with_policy(models.mlp((32, 10), batch_norm=True), policy)  # noqa: E731
    half = fitted(model(nn.Policy()))[1]
    full = fitted(model(nn.Policy(compute=jnp.float32)))[1]
    assert {str(a.dtype) for a in jax.tree.leaves(half.params)} == {"float32"}
    differences = np.abs(half.curves["train_loss"] / full.curves["train_loss"] - 1)
    assert 1e-5 < differences.max() < 0.05
    assert half.metrics["test_accuracy"] > 0.75


def test_errors():
    bare = train.Trial(
        lambda key, batch: 0.0, lambda s, b, k: (s, {"loss": s}), lambda s, b: {"loss": s}
    )
    with pytest.raises(ValueError, match="This trial has no `predict`"):
        train.predict(bare, 0.0, DIGITS.test[0])
    with pytest.raises(ValueError, match="This trial has no `predict`"):
        train.export("nowhere", bare, 0.0, DIGITS.test[0])
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
        train.evaluate(bare, 0.0, DIGITS.test, batch_size=0)

"""A row of trials on one stream: each as if alone on the same batches."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jdl import data, models, optim, train

DIGITS = data.digits()
RATES = np.array([0.01, 0.1, 1e30], np.float32)


def make_trial(hp):
    return train.classifier(models.mlp((10,)), optim.sgd(hp["lr"]))


def test_each_member_trains_as_if_alone_and_one_that_diverges_ends_no_other():
    reads = []

    def source(step):
        for batch in data.batches(DIGITS.train, jax.random.key(0), 32, start=step):
            reads.append(step)
            yield batch

    stream = data.Stream(source)
    row = train.side_by_side(make_trial, {"lr": RATES})
    result = train.fit(
        row,
        (stream, DIGITS.valid, DIGITS.test),
        steps=30,
        report_every=15,
        keep="last",
        progress=False,
    )
    assert result.status == "done" and len(reads) <= 31 + 48  # a first look, and what is ahead
    kernels = np.asarray(result.state.params[1]["kernel"])
    biases = np.asarray(result.state.params[1]["bias"])
    x, y = DIGITS.valid
    for index, rate in enumerate(RATES[:2]):
        start = row.init(start_key(), (x, y))
        kernel = np.asarray(start.params[1]["kernel"][index], np.float64)
        bias = np.zeros(10)
        batches = data.batches(DIGITS.train, jax.random.key(0), 32, stop=30)
        for bx, by in batches:
            logits = bx @ kernel + bias
            logits -= logits.max(1, keepdims=True)
            said = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            error = (said - np.eye(10)[by]) / 32
            kernel, bias = kernel - rate * bx.T @ error, bias - rate * error.sum(0)
        np.testing.assert_allclose(kernels[index], kernel, rtol=1e-3, atol=1e-4)
        accuracy = np.mean((x @ kernels[index] + biases[index]).argmax(1) == y)
        assert result.metrics[f"valid_accuracy_{index}"] == pytest.approx(accuracy, abs=1e-6)
    assert np.isfinite(kernels).all()
    assert 0 < result.metrics["valid_accuracy_0"] < result.metrics["valid_accuracy_1"]
    said = train.predict(row, result.state, DIGITS.test[0], batch_size=100)
    assert said.shape == (360, 3, 10)
    right = np.mean(said[:, 1].argmax(1) == DIGITS.test[1])
    assert right == pytest.approx(result.metrics["test_accuracy_1"], abs=1e-6)


def start_key():
    from jdl.engine.keys import trial_keys

    return trial_keys(np.uint32(0), np.uint32(0)).init


@pytest.mark.parametrize("numbers", [{}, {"lr": np.ones(2), "l2": np.ones(3)}, {"lr": 0.1}])
def test_errors(numbers):
    with pytest.raises(ValueError, match="arrays of one axis and of equal lengths"):
        train.side_by_side(make_trial, numbers)

"""Metrics by hand and by loops; averages over uneven and padded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import metrics


def test_accuracy():
    logits = jnp.array([[0.1, 0.9, 0.0], [0.5, 0.5, 0.1], [3.0, 2.0, 1.0]])
    assert metrics.accuracy(logits, jnp.array([1, 1, 0])).tolist() == [1, 0, 1]
    steps = metrics.accuracy(logits[None], jnp.array([[1, 1, 2]]))
    np.testing.assert_allclose(steps, [1 / 3], rtol=1e-6)


def test_top_k_by_sorting():
    logits = np.round(np.random.default_rng(0).normal(size=(50, 6)), 1)
    targets = np.random.default_rng(1).integers(-1, 7, 50)
    for k in (1, 3, 6):
        order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        expected = [float(t in row) for t, row in zip(targets, order, strict=True)]
        got = metrics.top_k_accuracy(jnp.asarray(logits), jnp.asarray(targets), k)
        assert got.tolist() == expected
    assert expected != [1.0] * 50
    for k, match in ((7, r"in \[1, 6\].*"), (0, "an integer of at least 1, ")):
        with pytest.raises(ValueError, match=rf"`k` must be {match}got k={k}"):
            metrics.top_k_accuracy(jnp.zeros((1, 6)), jnp.array([0]), k)
    assert metrics.top_k_accuracy(jnp.arange(6.0)[None], jnp.array([1])).tolist() == [1]
    assert metrics.top_k_accuracy(jnp.arange(6.0)[None], jnp.array([0])).tolist() == [0]


def test_binary_accuracy():
    logits = jnp.array([[0.3, -0.1], [0.0, 2.0]])
    assert metrics.binary_accuracy(logits, jnp.array([[1, 1], [0, -1]])).tolist() == [0.5, 0.5]
    assert metrics.binary_accuracy(logits[:, :1], jnp.array([True, True])).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"`targets` must have the logits' shape \(2, 2\)"):
        metrics.binary_accuracy(logits, jnp.zeros(2))


def test_confusion_counts_rows_true_columns_predicted():
    logits = jnp.eye(3)[jnp.array([0, 2, 2, 1])]
    expected = [[1, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert metrics.confusion(logits, jnp.array([0, 1, 0, 2])).tolist() == expected


def test_averages_are_exact_over_uneven_batches():
    values = np.random.default_rng(0).normal(size=11).astype(np.float32)
    average = metrics.start()
    assert np.isnan(metrics.result(average))
    for part in np.split(values, [5, 10]):
        average = metrics.add(average, jnp.asarray(part))
    np.testing.assert_allclose(metrics.result(average), values.mean(), rtol=1e-5)
    assert average.weight == 11


def test_a_mask_leaves_padding_out_nan_included():
    values = jnp.array([1.0, 4.0, jnp.nan])
    average = metrics.add(metrics.start(), values, jnp.array([True, True, False]))
    assert metrics.result(average) == 2.5
    average = metrics.add(metrics.start(), values[:2], jnp.array([3.0, 1.0]))
    assert metrics.result(average) == 1.75
    lanes = jax.vmap(lambda v: metrics.result(metrics.add(metrics.start(), v)))(jnp.ones((3, 4)))
    assert lanes.tolist() == [1, 1, 1]


def test_half_precision_values_add_up_in_float32():
    ones = jnp.ones(1000, jnp.bfloat16)
    assert metrics.result(metrics.add(metrics.start(), ones)) == 1
    assert metrics.add(metrics.start(), ones).total.dtype == jnp.float32

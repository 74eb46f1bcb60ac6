"""Preprocessing: against NumPy in float64, inverted, saved, from the training split only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import data
from jdl.data import preprocess

X = np.random.default_rng(0).gamma(2.0, [1.0, 3.0, 0.2], (50, 4, 5, 3)) + np.array([0.5, -2, 7])
NEW = np.random.default_rng(1).normal(1, 2, (6, 4, 5, 3))

EXPECTED = {
    "zero_mean": lambda x: x - X.mean(0),
    "mean_image": lambda x: x - X.mean(0),
    "standardize": lambda x: (x - X.mean(0)) / X.std(0),
    "channel_mean": lambda x: x - X.mean((0, 1, 2)),
    "standardize_channels": lambda x: (x - X.mean((0, 1, 2))) / X.std((0, 1, 2)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_arithmetic(name):
    fitted = getattr(preprocess, name)(X)
    np.testing.assert_allclose(fitted.apply(NEW), EXPECTED[name](NEW), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*EXPECTED, "whiten"])
def test_inverse_and_files(tmp_path, name):
    fitted = getattr(preprocess, name)(X)
    y = fitted.apply(NEW)
    assert y.shape == NEW.shape and np.abs(y - NEW).max() > 0.1
    np.testing.assert_allclose(fitted.invert(y), NEW, rtol=1e-4, atol=1e-4)
    fitted.save(tmp_path / "fitted.safetensors")
    again = preprocess.load(tmp_path / "fitted.safetensors")
    np.testing.assert_array_equal(again.apply(NEW), y)
    assert (again.matrix is None) == (name != "whiten")


@pytest.mark.parametrize("form", ["zca", "pca"])
def test_whitening_decorrelates(form):
    x = X.reshape(50, -1)[:, :7]
    y = preprocess.whiten(x, 0.0, form=form).apply(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.T @ y / 50, np.eye(7), atol=1e-4)
    damped = preprocess.whiten(x, 0.3, form=form)
    variance, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    if form == "zca":
        expected = vectors @ np.diag((variance + 0.3) ** -0.5) @ vectors.T
        np.testing.assert_allclose(damped.matrix, expected, atol=1e-5)
    else:
        falling = damped.apply(x).var(0)
        np.testing.assert_allclose(falling, (variance / (variance + 0.3))[::-1], rtol=1e-4)


def test_whitening_of_fewer_examples_than_features_is_finite():
    x = np.random.default_rng(3).normal(size=(4, 9))
    fitted = preprocess.whiten(x, 0.0)
    assert np.isfinite(fitted.apply(x)).all()
    np.testing.assert_allclose(fitted.invert(fitted.apply(x)), x, atol=1e-3)


def test_whitening_of_a_constant_feature():
    """Its variance counts as a millionth of the largest; by default 1e-5 is added to each."""
    x = np.random.default_rng(4).normal(size=(60, 2)) * [3, 0] + [1, 5]
    new, largest = np.array([[1.0, 6.0]]), x[:, 0].var()
    floored = preprocess.whiten(x, 0.0).apply(new)[0, 1]
    np.testing.assert_allclose(floored, 1 / np.sqrt(1e-6 * largest), rtol=1e-4)
    np.testing.assert_allclose(preprocess.whiten(x).apply(new)[0, 1], 1e5**0.5, rtol=1e-4)


def test_blocks_are_no_larger_than_said(monkeypatch):
    monkeypatch.setattr(preprocess, "BLOCK", 60)
    for shape, count in (((40, 5, 4), 14), ((40, 50), 40), ((40, 200), 40), ((100,), 2)):
        blocks = list(preprocess._blocks(np.ones(shape)))
        assert len(blocks) == count and sum(len(block) for block in blocks) == shape[0]


def test_bytes_give_float32_and_blocks_give_the_same(monkeypatch):
    x = np.random.default_rng(2).integers(0, 256, (40, 3, 3, 2), np.uint8)
    whole = preprocess.standardize(x)
    assert whole.apply(x).dtype == np.float32
    monkeypatch.setattr(preprocess, "BLOCK", 60)
    for name in (*EXPECTED, "whiten"):
        parts = getattr(preprocess, name)(x)
        assert parts.apply(x).dtype == np.float32
    np.testing.assert_allclose(preprocess.standardize(x).scale, whole.scale, rtol=1e-6)
    np.testing.assert_allclose(whole.scale[0], x.std(0), rtol=1e-6)


def test_constant_features_are_centred():
    x = np.array([[1.0, 5.0], [3.0, 5.0]])
    new = np.array([[1.0, 5.0], [4.0, 8.0]])
    assert preprocess.standardize(x).apply(new).tolist() == [[-1, 0], [2, 3]]


def test_inside_a_compiled_program():
    fitted = preprocess.whiten(X)
    x = jnp.asarray(NEW, jnp.float32)
    y = jax.jit(lambda p, x: p.apply(x))(fitted, x)
    np.testing.assert_allclose(y, fitted.apply(NEW), rtol=1e-3, atol=1e-3)
    back = jax.jit(lambda p, y: p.invert(y))(fitted, y)
    np.testing.assert_allclose(back, NEW, rtol=1e-3, atol=1e-3)


def test_prepare_learns_from_the_training_split_only():
    splits = data.Dataset((X, np.zeros(50)), None, (NEW, np.zeros(6)))
    prepared, fitted = data.prepare(splits, preprocess.standardize_channels)
    np.testing.assert_allclose(prepared.train[0].mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_array_equal(prepared.test[0], fitted.apply(NEW))
    np.testing.assert_array_equal(fitted.mean, preprocess.standardize_channels(X).mean)
    assert prepared.valid is None and prepared.test[1] is splits.test[1]


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"images of shape .* got \(3, 2\)"):
        preprocess.mean_image(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`form` must be 'zca' or 'pca', got form='svd'"):
        preprocess.whiten(X, form="svd")
    with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, inf\), got epsilon=-1.0"):
        preprocess.whiten(X, -1.0)
    with pytest.raises(ValueError, match=r"shape \(examples, ...\), got shape \(0, 2\)"):
        preprocess.zero_mean(np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"shape \(examples, ...\), got shape \(\)"):
        preprocess.zero_mean(3.0)
    (tmp_path / "bad").write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="bad holds no preprocessing"):
        preprocess.load(tmp_path / "bad")

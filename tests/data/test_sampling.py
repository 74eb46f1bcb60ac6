"""Folds partition the examples; weighted draws follow their weights; synthetic sets are as said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdl import data
from jdl.data import synthetic


@pytest.mark.parametrize("labels", [None, np.arange(53) % 3])
def test_kfold(labels):
    folds = data.kfold(53, 5, seed=2, labels=labels)
    assert [len(valid) for _, valid in folds] == [11, 11, 11, 10, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate([v for _, v in folds])), np.arange(53))
    for train, valid in folds:
        np.testing.assert_array_equal(np.sort([*train, *valid]), np.arange(53))
        if labels is not None:
            assert np.ptp(np.bincount(labels[valid])) <= 2


def test_fold_indices_with_the_fold_traced():
    folds = jax.jit(jax.vmap(lambda fold: data.fold_indices(jax.random.key(1), fold, 4, 22)))
    train, valid = folds(jnp.arange(4))
    assert train.shape == (4, 17) and valid.shape == (4, 5)
    assert len(np.unique(valid)) == 20
    for rows in zip(train, valid, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(22))


def test_two_folds_of_two_examples():
    (train, valid), (again, _) = data.kfold(2, 2)
    assert [len(train), len(valid)] == [1, 1] and train[0] + again[0] == 1


@pytest.mark.parametrize("folds", [1, 11])
def test_a_number_of_folds_out_of_range(folds):
    for make in (
        lambda: data.kfold(10, folds),
        lambda: data.fold_indices(jax.random.key(0), 0, folds, 10),
    ):
        with pytest.raises(ValueError, match=rf"number of examples, 10, got folds={folds}\."):
            make()


WEIGHTS = np.array([0.5, 3, 0, 1, 0.01, 7, 0])


def test_the_alias_table_holds_the_weights():
    table = data.sampler(WEIGHTS)
    mass = np.bincount(table.alias, 1 - table.keep.astype(float), 7) + table.keep
    np.testing.assert_allclose(mass / 7, WEIGHTS / WEIGHTS.sum(), atol=1e-7)
    many = np.random.default_rng(0).gamma(0.1, 1, 999) * (np.arange(999) % 5 > 0)
    table = data.sampler(many)
    mass = np.bincount(table.alias, 1 - table.keep.astype(float), 999) + table.keep
    np.testing.assert_allclose(mass / 999, many / many.sum(), atol=1e-7)
    assert not np.any(table.keep[many == 0])


def test_weighted_indices():
    table, key = data.sampler(WEIGHTS), jax.random.key(4)
    draw = jax.jit(
        lambda step, steps: data.weighted_indices(key, step, steps, 50, table), static_argnums=1
    )
    drawn = np.asarray(draw(0, 400))
    assert drawn.shape == (400, 50) and drawn.dtype == np.int32
    counts = np.bincount(drawn.ravel(), minlength=7)
    assert counts[2] == counts[6] == 0
    positive = WEIGHTS > 0
    expected = WEIGHTS[positive] / WEIGHTS.sum() * drawn.size
    assert stats.chisquare(counts[positive], expected).pvalue > 1e-3
    np.testing.assert_array_equal(draw(37, 2), drawn[37:39])


def test_class_weights_balance():
    labels = np.repeat([0, 1, 4], [80, 15, 5])
    table = data.sampler(data.class_weights(labels))
    draw = jax.jit(lambda key: data.weighted_indices(key, 0, 1, 3000, table))
    drawn = labels[np.asarray(draw(jax.random.key(0)))]
    assert stats.chisquare(np.unique(drawn, return_counts=True)[1]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -2.0], r"weights\[1\]=-2.0"),
        ([np.nan], r"weights\[0\]=nan"),
        ([0.0, 0.0], "not all 0"),
        ([[1.0]], r"shape \(1, 1\)"),
    ],
)
def test_weights_out_of_range(weights, message):
    with pytest.raises(ValueError, match=message):
        data.sampler(np.array(weights))


def test_sparse_feature():
    splits = synthetic.sparse_feature(1000, sparsity=0.8, seed=3)
    x, y = splits.train
    assert splits.valid is None and x.shape == (1000, 2) and y.shape == (1000, 1)
    assert (x[:, 1] == 0).sum() == 800 and (x[:, 0] != 0).all()
    np.testing.assert_allclose(y[:, 0], 1 / (1 + np.exp(3 * x[:, 1] - 2 * x[:, 0])), rtol=1e-4)
    noisy = synthetic.sparse_feature(1000, noise=0.3, seed=3).train
    order, noisy_order = np.argsort(x[:, 0]), np.argsort(noisy[0][:, 0])
    gap = noisy[1][noisy_order] - y[order]
    assert abs(gap.std() - 0.3) < 0.03
    with pytest.raises(ValueError, match=r"`sparsity` must be in \[0, 1\], got sparsity=2"):
        synthetic.sparse_feature(sparsity=2)


def test_spirals_have_arms_that_no_line_separates():
    splits = synthetic.spirals(900, classes=3, noise=0.05)
    assert [len(s[1]) for s in splits] == [630, 90, 180]
    x, y = splits.train
    assert np.bincount(y).tolist() == [210, 210, 210]
    # Unwinding each arm brings back its angle.
    radius = np.hypot(*x.T)
    angle = np.arctan2(x[:, 1], x[:, 0]) - 2 * np.pi * (0.75 * radius + y / 3)
    assert abs(np.angle(np.exp(1j * angle)).std() - 0.05) < 0.01
    onto = np.linalg.lstsq(np.c_[x, np.ones(630)], np.eye(3)[y], rcond=None)[0]
    assert ((np.c_[x, np.ones(630)] @ onto).argmax(1) == y).mean() < 0.7


def test_blobs_and_linear():
    x, y = synthetic.blobs(600, features=4, classes=5, spread=0.5).train
    within = [x[y == c].std(0) for c in range(5)]
    np.testing.assert_allclose(within, 0.5, atol=0.12)
    x, y = synthetic.linear(4000, features=3, outputs=2, condition=100.0, noise=0.2, valid=0).train
    np.testing.assert_allclose(x.std(0), [1, 10**0.5, 10], rtol=0.08)
    residual = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[1] / len(x)
    np.testing.assert_allclose(residual, 0.04, rtol=0.1)

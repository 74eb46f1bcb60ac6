"""Data sets: splits, what `check` refuses, standardisation by the training split, digits."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdl import data

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_digits():
    splits = data.digits()
    assert [split[0].shape for split in splits] == [(1257, 64), (180, 64), (360, 64)]
    assert all(s[0].dtype == np.float32 and s[1].dtype == np.int32 for s in splits)
    np.testing.assert_allclose(splits.train[0].mean(0, float), 0, atol=1e-6)
    deviation = splits.train[0].std(0, float)
    np.testing.assert_allclose(deviation[deviation > 0], 1, atol=1e-6)
    # Statistics are the training split's alone: the others' are close and not equal.
    assert 1e-3 < abs(splits.test[0].mean(0)).max() < 0.5
    assert data.classes(splits) == 10
    data.check(splits, classes=10)
    for split in splits:
        share = np.bincount(split[1]) / len(split[1])
        assert share.min() > 0.09 and share.max() < 0.11


@pytest.mark.slow
def test_digits_are_the_published_ones():
    datasets = pytest.importorskip("sklearn.datasets")
    published = datasets.load_digits()
    splits = data.digits(standardize=False)
    x = np.concatenate([s[0] for s in splits]) * 16
    y = np.concatenate([s[1] for s in splits])
    ours = sorted((*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True))
    theirs = zip(published.data.tolist(), published.target.tolist(), strict=True)
    assert ours == sorted((*row, label) for row, label in theirs)


def test_digits_as_images_and_other_seeds():
    flat, images = data.digits(), data.digits(image=True)
    assert images.train[0].shape == (1257, 8, 8, 1)
    np.testing.assert_array_equal(images.test[0].reshape(-1, 64), flat.test[0])
    assert not np.array_equal(data.digits(seed=1).train[1], flat.train[1])
    np.testing.assert_array_equal(data.digits().train[1], flat.train[1])


def test_loading_starts_no_backend():
    code = (
        "from jdl import data; data.digits()\n"
        "from jax._src import xla_bridge as bridge\n"
        "assert not bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    shares=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 9),
)
def test_a_stratified_split_is_a_partition_in_proportion(labels, shares, seed):
    labels, count = np.array(labels), len(labels)
    sizes = [share * count // 100 for share in shares]
    sizes = (*sizes, count - sum(sizes))
    parts = data.split_indices(count, sizes, seed, labels)
    assert tuple(len(part) for part in parts) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    for part in parts[:2]:
        fair = np.bincount(labels, minlength=5) * len(part) / count
        assert np.all(abs(np.bincount(labels[part], minlength=5) - fair) < 3)


def test_from_arrays():
    x, y = np.random.default_rng(0).normal(3, 2, (100, 4)), np.arange(100) % 3
    splits = data.from_arrays(x, y, valid=15, test=0.25, seed=3)
    assert [len(s[1]) for s in splits] == [60, 15, 25]
    assert splits.train[0].dtype == np.float32 and splits.train[1].dtype == np.int32
    rows = np.concatenate([s[0] for s in splits])
    order = np.argsort(rows[:, 0])
    np.testing.assert_array_equal(rows[order], x[np.argsort(x[:, 0])].astype(np.float32))
    labels = np.concatenate([s[1] for s in splits])[order]
    np.testing.assert_array_equal(labels, y[np.argsort(x[:, 0])])
    scaled = data.from_arrays(x, y, valid=15, test=0.25, seed=3, standardize=True)
    expected = (splits.test[0] - splits.train[0].mean(0)) / splits.train[0].std(0)
    np.testing.assert_allclose(scaled.test[0], expected, atol=1e-5)
    alone = data.from_arrays(x, y, valid=0, test=0)
    assert alone.valid is None and alone.test is None and len(alone.train[1]) == 100


def test_from_arrays_of_a_regression():
    targets = np.linspace(0, 1, 20)
    splits = data.from_arrays(np.ones((20, 3), np.uint8), targets)
    assert splits.train[1].dtype == np.float32 and splits.train[0].dtype == np.uint8


def broken(name, value):
    splits = {"train": (X, Y), "valid": (X, Y), "test": None}
    return data.Dataset(**(splits | {name: value}))


NAN = X.copy()
NAN[4, 1] = np.nan
BIG = np.array([0, 1, 2, 0, 3, 2])


@pytest.mark.parametrize(
    ("dataset", "classes", "message"),
    [
        (broken("train", (NAN, Y)), None, r"train x\[4, 1\] is nan: every value must be finite"),
        (broken("train", (X, np.full(6, np.nan))), None, r"train y\[0\] is nan"),
        (broken("valid", (X, Y / 2)), None, r"valid y has dtype float64 \(y\[1\] is 0.5\)"),
        (broken("valid", (X, BIG)), 3, r"valid y\[4\] is 3: labels must be in \[0, 3\)\."),
        (broken("train", (X, BIG)), 3, r"train y\[4\] is 3: labels must be in \[0, 3\)\."),
        (broken("train", (X, Y - 1)), None, r"train y\[0\] is -1"),
        (broken("train", (X, Y + 0.5)), 3, r"dtype float64 \(y\[0\] is 0.5\): expected integer"),
        (broken("train", (X, Y > 1)), 3, "dtype bool: expected integer labels"),
        (broken("valid", (X[:5], Y)), None, "valid x has 5 examples and valid y has 6"),
        (broken("valid", (X[:0], Y[:0])), None, "valid x is empty"),
        (broken("valid", (X[:, :1], Y)), None, r"shape \(1,\) .* expected \(2,\)"),
        (broken("valid", (X.astype("f4"), Y)), None, "dtype float32: expected .* float64"),
        (broken("train", (X.astype(object), Y)), None, "dtype object: expected numbers"),
        (broken("train", (1.0, Y)), None, "must have an axis of examples"),
        (broken("train", (X, 2)), None, "must have an axis of examples"),
        (broken("train", None), None, r"train must be a pair of arrays \(x, y\), got NoneType"),
    ],
)
def test_check_refuses(dataset, classes, message):
    with pytest.raises(data.DataError, match=message):
        data.check(dataset, classes)


def test_check_accepts():
    data.check(data.Dataset((X, Y)), classes=3)
    data.check(broken("valid", (X, BIG)))
    assert data.classes(broken("valid", (X, BIG))) == 4  # of all splits
    data.check(data.Dataset((X.astype(np.uint8), Y), None, (X[:1].astype(np.uint8), Y[:1])))
    data.check(data.Dataset((X, X * -1)))
    data.check(data.Dataset((X.astype("f2"), Y.astype(np.uint8))), classes=9)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"valid": 50, "test": 50}, "leave none of 100 to train on"),
        ({"valid": -0.1}, r"`valid` must be a share in \[0, 1\) or a number, got -0.1"),
        ({"test": float("nan")}, "`test` must be"),
    ],
)
def test_from_arrays_refuses_sizes(sizes, message):
    with pytest.raises(data.DataError, match=message):
        data.from_arrays(np.ones((100, 2)), np.zeros(100, int), **sizes)

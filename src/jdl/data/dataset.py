"""A data set as plain NumPy arrays in three splits, how arrays are split, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jdl.data import preprocess
from jdl.data.arrays import as_arrays, check_held, device_dtype, length, named_arrays
from jdl.data.error import DataError
from jdl.data.split import split_indices

Arrays = tuple[Any, Any]
"""`(x, y)`: arrays, or trees of arrays, whose first axes run over the same examples."""


class Dataset(NamedTuple):
    """Three splits, each a pair `(x, y)` with examples along the first axis.

    `x` and `y` are arrays, or dicts and tuples of arrays. Loaders give NumPy
    arrays, so that loading starts no JAX backend; the training engine moves
    them to the device once.

    Attributes:
      train: what the parameters are fitted to, and every statistic of a
        preprocessing.
      valid: what hyperparameters are chosen by; None if there is none.
      test: what is reported once at the end; None if there is none.
    """

    train: Arrays
    valid: Arrays | None = None
    test: Arrays | None = None


def classes(dataset: Dataset) -> int:
    """The number of classes: one more than the largest label of all splits.

    >>> classes(Dataset(train=(np.zeros((3, 2)), np.array([0, 2, 1]))))
    3
    """
    splits = [split for split in dataset if split is not None]
    return 1 + max(int(np.max(np.asarray(y))) for _, y in splits)


def check(dataset: Dataset, classes: int | None = None) -> Dataset:
    """The data set as NumPy arrays; raises unless it can be trained on, before compilation.

    Integer targets of one axis are labels: they must be at least 0, and below
    `classes` if that is given. Floating-point targets are regression targets.
    What is returned is what to train on: lists have become arrays.

    Args:
      dataset: the splits; `valid` and `test` may be None.
      classes: the number of outputs of a classifier; None if unknown.

    Raises:
      DataError: a split that is empty, whose lengths differ, that holds NaN,
        infinity, a masked value or one that the device's type cannot hold, a
        label out of range or of a floating-point type, or whose examples have
        another structure, shape or dtype than the training split's. The message
        names the split, the array, the index and what was expected.

    >>> check(Dataset(train=(np.ones((3, 2)), np.array([0, 1, 7]))), classes=2)
    Traceback (most recent call last):
    ...
    jdl.data.error.DataError: train y[2] is 7: labels must be in [0, 2).
    """
    checked: list[Arrays | None] = []
    for name, split in zip(Dataset._fields, dataset, strict=True):
        if split is None and name != "train":
            checked.append(None)
            continue
        if not isinstance(split, tuple | list) or len(split) != 2:
            raise DataError(f"{name} must be a pair of arrays (x, y), got {type(split).__name__}.")
        x, y = check_arrays(f"{name} ", *split)
        train = (checked or [(x, y)])[0]
        assert train is not None
        _check_like(name, x, train[0])
        if (classes is not None or is_labels(train[1])) and not _whole(y):
            raise DataError(_not_integer(name, y))
        if classes is not None and is_labels(y) and (bad := y >= classes).any():
            index = int(np.argmax(bad))
            raise DataError(f"{name} y[{index}] is {y[index]}: labels must be in [0, {classes}).")
        checked.append((x, y))
    return Dataset(*checked)  # type: ignore[arg-type]


def check_arrays(name: str, x: Any, y: Any) -> Arrays:
    """`x` and `y` as trees of NumPy arrays; raises DataError unless each can be trained on.

    Args:
      name: what stands before "x" and "y" in a message.
      x: of examples.
      y: of targets.
    """
    x, y = as_arrays(f"{name}x", x), as_arrays(f"{name}y", y)
    arrays = [*named_arrays(f"{name}x", x), *named_arrays(f"{name}y", y)]
    if not jax.tree.leaves(x) or not jax.tree.leaves(y):
        raise DataError(f"{name}x and {name}y must each have an array.")
    for _, a in arrays:
        if a.ndim == 0:
            raise DataError(f"{name}x and y must have an axis of examples, got a scalar.")
    first, count = arrays[0][0], len(arrays[0][1])
    for what, a in arrays:
        if len(a) != count:
            raise DataError(
                f"{first} has {count} examples and {what} has {len(a)}: expected as many."
            )
        if a.size == 0:
            raise DataError(f"{what} is empty (shape {a.shape}): expected at least one example.")
    for what, a in arrays:
        check_held(what, a)
    if is_labels(y) and (bad := (y < 0) | (y >= 2**31)).any():
        index = int(np.argmax(bad))
        raise DataError(f"{name}y[{index}] is {y[index]}: labels must be in [0, 2**31).")
    return x, y


def is_labels(y: Any) -> bool:
    """Whether targets are labels: one array of integers, of one axis."""
    return _whole(y) and y.ndim == 1


def _whole(y: Any) -> bool:
    return isinstance(y, np.ndarray) and bool(np.issubdtype(y.dtype, np.integer))


def _check_like(name: str, x: Any, train: Any) -> None:
    """Raises DataError unless the examples of `x` are as those of the training split."""
    if jax.tree.structure(x) != jax.tree.structure(train):  # type: ignore[operator]
        raise DataError(
            f"{name} x is {jax.tree.structure(x)}: expected {jax.tree.structure(train)}, as in "
            "train x."
        )
    pairs = zip(named_arrays(f"{name} x", x), named_arrays("train x", train))
    for (what, a), (expected, b) in pairs:
        if (a.shape[1:], a.dtype) != (b.shape[1:], b.dtype):
            raise DataError(
                f"{what} has examples of shape {a.shape[1:]} and dtype {a.dtype}: expected "
                f"{b.shape[1:]} and {b.dtype}, as in {expected}."
            )


def _not_integer(name: str, y: Any) -> str:
    if not isinstance(y, np.ndarray):
        return f"{name} y is a tree of arrays: expected one array of integer labels."
    if np.issubdtype(y.dtype, np.floating):
        index = int(np.argmax(y.ravel() != np.round(y.ravel())))
        return (
            f"{name} y has dtype {y.dtype} (y[{index}] is {y.ravel()[index]}): expected integer "
            f"labels; convert with y.astype('int32') if they are whole."
        )
    return f"{name} y has dtype {y.dtype}: expected integer labels."


def from_arrays(
    x: Any,
    y: Any,
    *,
    valid: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    stratify: bool = True,
    standardize: bool = False,
) -> Dataset:
    """Splits two arrays at random into a checked `Dataset`.

    Args:
      x: (examples, ...) numbers: an array, nested lists, or a dict or tuple of
        arrays.
      y: (examples,) integer labels or booleans, or (examples, ...) targets.
      valid: the share of all examples in the validation split if below 1, else
        their number; 0 leaves that split None.
      test: likewise, the test split.
      seed: of the split.
      stratify: every class is spread over the splits in proportion, and has at
        least one training example. Ignored for targets that are not labels.
      standardize: each feature of `x`, which is one array, has zero mean and unit variance over the
        training split; a feature that is constant there is only centred.

    Returns:
      The splits; labels as int32, 64-bit numbers in the 32 bits of the device.

    Raises:
      DataError: the arrays cannot be trained on, the sizes do not fit, or there
        are too few training examples for every class to have one.

    >>> d = from_arrays(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)
    >>> [len(split[1]) for split in d]
    [7, 1, 2]
    """
    x, y = check_arrays("", x, y)
    x, y = as_trained(x, y)
    count = length(x)
    held = []
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < np.inf:
            raise DataError(f"`{name}` must be a share in [0, 1) or a number, got {share}.")
        held.append(round(share * count) if share < 1 else int(share))
    if sum(held) >= count:
        raise DataError(
            f"{held[0]} validation and {held[1]} test examples leave none of {count} to train on."
        )
    if standardize and not isinstance(x, np.ndarray):
        raise DataError("`standardize` takes an x of one array: preprocess each of these before.")
    labels = y if stratify and is_labels(y) else None
    sizes = (held[0], held[1], count - sum(held))
    at_valid, at_test, at_train = split_indices(count, sizes, seed, labels, first=2)

    def part(at: np.ndarray) -> Arrays | None:
        return jax.tree.map(lambda a: a[at], (x, y)) if len(at) else None

    train = part(at_train)
    assert train is not None
    dataset = Dataset(train, part(at_valid), part(at_test))
    return prepare(dataset, preprocess.standardize)[0] if standardize else dataset


def as_trained(x: Any, y: Any) -> Arrays:
    """Labels as int32, and the other numbers in the type that the device holds them in."""

    def leaf(a: np.ndarray) -> np.ndarray:
        dtype = np.dtype(np.float32) if a.dtype == np.float64 else device_dtype(a.dtype)
        return a.astype(dtype, copy=False)

    if isinstance(y, np.ndarray) and y.ndim == 1 and (_whole(y) or y.dtype == bool):
        return jax.tree.map(leaf, x), y.astype(np.int32)
    return jax.tree.map(leaf, x), jax.tree.map(leaf, y)


def prepare(
    dataset: Dataset, fit: Callable[[Any], preprocess.Preprocess]
) -> tuple[Dataset, preprocess.Preprocess]:
    """Preprocesses every split by what `fit` learns from the training split alone.

    Args:
      dataset: the splits.
      fit: as `preprocess.standardize`: from the training `x` to the fitted value.

    Returns:
      The splits with their `x` preprocessed, and the fitted value, for new data.

    >>> splits = Dataset(train=(np.array([[1.0], [3.0]]), np.array([0, 1])))
    >>> prepare(splits, preprocess.zero_mean)[0].train[0].tolist()
    [[-1.0], [1.0]]
    """
    fitted = fit(dataset.train[0])

    def apply(split: Arrays) -> Arrays:
        return fitted.apply(split[0]), split[1]

    train, valid, test = dataset
    return Dataset(apply(train), valid and apply(valid), test and apply(test)), fitted

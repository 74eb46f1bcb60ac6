"""A data set as plain NumPy arrays in three splits, how arrays are split, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdl.data import preprocess

Arrays = tuple[Any, Any]
"""`(x, y)`: two arrays whose first axes run over the same examples."""


class DataError(ValueError):
    """Data that cannot be trained on: the one error of every loader and check here.

    Attributes:
      path: the file, or None where the data did not come from one.
      byte: the offset in it (in the uncompressed content, if compressed) of
        what is wrong, or None.
    """

    def __init__(
        self, message: str, path: str | os.PathLike[str] | None = None, byte: int | None = None
    ):
        self.path = None if path is None else os.fspath(path)
        self.byte = byte
        where = [] if self.path is None else [self.path]
        where += [] if byte is None else [f"byte {byte}"]
        super().__init__(": ".join([*where, message]))


class Dataset(NamedTuple):
    """Three splits, each a pair `(x, y)` with examples along the first axis.

    Loaders give NumPy arrays, so that loading starts no JAX backend; the
    training engine moves them to the device once.

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
    """The number of classes: one more than the largest label of the training split.

    >>> classes(Dataset(train=(np.zeros((3, 2)), np.array([0, 2, 1]))))
    3
    """
    return int(np.max(np.asarray(dataset.train[1]))) + 1


def check(dataset: Dataset, classes: int | None = None) -> None:
    """Raises unless `dataset` can be trained on, before anything is compiled.

    Integer targets of one axis are labels: they must be at least 0, and below
    `classes` (below one more than the largest training label, if that is not
    given). Floating-point targets are regression targets and must be finite.

    Args:
      dataset: the splits; `valid` and `test` may be None.
      classes: the number of outputs of a classifier; None if unknown.

    Raises:
      DataError: a split that is empty, whose lengths differ, that holds NaN or
        infinity, a label out of range or of a floating-point type, or whose
        examples have another shape or dtype than the training split's. The
        message names the split, the array, the index and what was expected.

    >>> check(Dataset(train=(np.ones((3, 2)), np.array([0, 1, 7]))), classes=2)
    Traceback (most recent call last):
    ...
    jdl.data.dataset.DataError: train y[2] is 7: labels must be in [0, 2).
    """
    example: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    labelled_by = "classes" if classes is not None else "train"
    for name, split in zip(Dataset._fields, dataset, strict=True):
        if split is None and name != "train":
            continue
        if not isinstance(split, tuple | list) or len(split) != 2:
            raise DataError(f"{name} must be a pair of arrays (x, y), got {type(split).__name__}.")
        x, y = np.asarray(split[0]), np.asarray(split[1])
        _check_lengths(name, x, y)
        _check_finite(f"{name} x", x)
        if example is None:
            example = x.shape[1:], x.dtype
        elif example != (x.shape[1:], x.dtype):
            raise DataError(
                f"{name} x has examples of shape {x.shape[1:]} and dtype {x.dtype}: expected "
                f"{example[0]} and {example[1]}, as in train x."
            )
        if classes is not None and not np.issubdtype(y.dtype, np.integer):
            raise DataError(_not_integer(name, y))
        if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
            if classes is None:
                classes = int(y.max()) + 1
            bad = (y < 0) | (y >= classes)
            if bad.any():
                index = int(np.argmax(bad))
                why = "" if labelled_by == "classes" else " (one more than the largest of train y)"
                raise DataError(
                    f"{name} y[{index}] is {y[index]}: labels must be in [0, {classes}){why}."
                )
        else:
            _check_finite(f"{name} y", y)


def _check_lengths(name: str, x: np.ndarray, y: np.ndarray) -> None:
    name = f"{name} ".lstrip()
    if x.ndim == 0 or y.ndim == 0:
        raise DataError(f"{name}x and y must have an axis of examples, got a scalar.")
    if len(x) != len(y):
        raise DataError(
            f"{name}x has {len(x)} examples and {name}y has {len(y)}: expected as many."
        )
    if x.size == 0:
        raise DataError(f"{name}x is empty (shape {x.shape}): expected at least one example.")


def _check_finite(what: str, a: np.ndarray) -> None:
    if a.dtype == bool or np.issubdtype(a.dtype, np.integer):
        return
    if a.dtype.kind in "OSUMmV" and not str(a.dtype).startswith(("bfloat16", "float8")):
        raise DataError(f"{what} has dtype {a.dtype}: expected numbers.")
    # A block at a time: a mask of a memory-mapped array could exceed the memory.
    block = max(1, 2**24 // max(1, a[0].size))
    for start in range(0, len(a), block):
        finite = np.isfinite(a[start : start + block])
        if not finite.all():
            at = np.argwhere(~finite)[0]
            at[0] += start
            index = ", ".join(str(i) for i in at)
            raise DataError(f"{what}[{index}] is {a[tuple(at)]}: every value must be finite.")


def _not_integer(name: str, y: np.ndarray) -> str:
    if np.issubdtype(y.dtype, np.floating):
        index = int(np.argmax(y.ravel() != np.round(y.ravel())))
        return (
            f"{name} y has dtype {y.dtype} (y[{index}] is {y.ravel()[index]}): expected integer "
            f"labels; convert with y.astype('int32') if they are whole."
        )
    return f"{name} y has dtype {y.dtype}: expected integer labels."


def split_indices(
    length: int, sizes: tuple[int, ...], seed: int = 0, labels: Any = None
) -> list[np.ndarray]:
    """Disjoint random index arrays of the given sizes, in proportion to each class.

    Args:
      length: the number of examples.
      sizes: how many each part takes; their sum is at most `length`.
      seed: of NumPy's PCG64 generator.
      labels: integer labels; every part then holds each class in proportion,
        to within one example a part. None draws without regard to class.

    Returns:
      One shuffled int64 array for each size.
    """
    if min(sizes, default=0) < 0 or sum(sizes) > length:
        raise DataError(f"cannot take parts of {sizes} out of {length} examples.")
    random = np.random.default_rng(seed)
    left = random.permutation(length)
    if labels is not None:
        left = left[np.argsort(np.asarray(labels)[left], kind="stable")]
    parts = []
    for size in sizes:
        # Every (len/size)-th example of the order by class: exact counts, even over classes.
        steps = np.arange(1, len(left) + 1) * size // max(1, len(left))
        taken = np.diff(steps, prepend=0) > 0
        parts.append(random.permutation(left[taken]))
        left = left[~taken]
    return parts


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
      x: (examples, ...) numbers.
      y: (examples,) integer labels, or (examples, ...) floating-point targets.
      valid: the share of all examples in the validation split if below 1, else
        their number; 0 leaves that split None.
      test: likewise, the test split.
      seed: of the split.
      stratify: labels are spread evenly over the splits. Ignored for targets
        that are not labels.
      standardize: each feature of `x` has zero mean and unit variance over the
        training split; a feature that is constant there is only centred.

    Returns:
      The splits; labels as int32, 64-bit floats as float32.

    Raises:
      DataError: the arrays cannot be trained on, or the sizes do not fit.

    >>> d = from_arrays(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)
    >>> [len(split[1]) for split in d]
    [7, 1, 2]
    """
    x, y = np.asarray(x), np.asarray(y)
    _check_lengths("", x, y)
    held = []
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < np.inf:
            raise DataError(f"`{name}` must be a share in [0, 1) or a number, got {share}.")
        held.append(round(share * len(x)) if share < 1 else int(share))
    labelled = np.issubdtype(y.dtype, np.integer) and y.ndim == 1
    if sum(held) >= len(x):
        raise DataError(
            f"{held[0]} validation and {held[1]} test examples leave none of {len(x)} to train on."
        )
    at_valid, at_test, at_train = split_indices(
        len(x),
        (held[0], held[1], len(x) - sum(held)),
        seed,
        y if stratify and labelled else None,
    )
    dataset = Dataset(
        as_trained(x[at_train], y[at_train]),
        as_trained(x[at_valid], y[at_valid]) if held[0] else None,
        as_trained(x[at_test], y[at_test]) if held[1] else None,
    )
    check(dataset)
    return prepare(dataset, preprocess.standardize)[0] if standardize else dataset


def as_trained(x: np.ndarray, y: np.ndarray) -> Arrays:
    """Labels as int32 and 64-bit floats as float32: what the device computes in."""
    x = x.astype(np.float32) if x.dtype == np.float64 else x
    if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
        return x, y.astype(np.int32)
    return x, y.astype(np.float32) if y.dtype == np.float64 else y


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

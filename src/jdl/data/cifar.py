"""CIFAR-10 and CIFAR-100 from their binary files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdl.data.dataset import Arrays, Dataset
from jdl.data.error import DataError
from jdl.data.images import image_dataset
from jdl.data.reading import MAX_BYTES, Path, data_folders, find, read_text

FIX = "Give the folder of the unpacked binary version, or name it in JDL_DATA_DIR."


def cifar10(
    folder: Path | None = None,
    *,
    standardize: bool = True,
    flat: bool = False,
    dtype: Any = np.float32,
    valid: int = 5_000,
    seed: int = 0,
) -> Dataset:
    """CIFAR-10 from its binary version: 50,000 training and 10,000 test images of 32x32x3.

    Args:
      folder: where `data_batch_1.bin` to `data_batch_5.bin` and
        `test_batch.bin` lie, or its subfolder `cifar-10-batches-bin`; None looks
        in the folder `JDL_DATA_DIR` names.
      standardize: zero mean and unit variance of each channel over the training
        split; otherwise pixels are scaled to [0, 1].
      flat: x of shape (n, 3072) instead of (n, 32, 32, 3).
      dtype: of x; `numpy.uint8` keeps the bytes and needs `standardize=False`.
      valid: how many training images make the validation split; 0 for none.
      seed: of that split.

    Returns:
      x in `dtype`, y int32, as NumPy arrays.

    Raises:
      DataError: a file is missing or malformed; names the file and the byte.

    Source: A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    folders = data_folders(folder, ("cifar-10-batches-bin", "cifar-10"), ())
    *train, test = find(names, folders, "CIFAR-10", FIX)
    return image_dataset(
        _records(train, (10,)), _records([test], (10,)), valid, seed, standardize, flat, dtype
    )


def cifar100(
    folder: Path | None = None,
    *,
    coarse: bool = False,
    standardize: bool = True,
    flat: bool = False,
    dtype: Any = np.float32,
    valid: int = 5_000,
    seed: int = 0,
) -> Dataset:
    """CIFAR-100 from its binary version, `train.bin` and `test.bin`.

    As `cifar10`, the subfolder being `cifar-100-binary`; `coarse` takes the 20
    superclasses as labels instead of the 100 classes.
    """
    folders = data_folders(folder, ("cifar-100-binary", "cifar-100"), ())
    train, test = find(["train.bin", "test.bin"], folders, "CIFAR-100", FIX)
    label = 0 if coarse else 1
    return image_dataset(
        _records([train], (20, 100), label),
        _records([test], (20, 100), label),
        valid,
        seed,
        standardize,
        flat,
        dtype,
    )


def _records(paths: Sequence[Path], classes: tuple[int, ...], label: int = 0) -> Arrays:
    """Images (n, 32, 32, 3) and labels from files of records: the labels, then 3 planes of bytes.

    `classes` gives the number of classes of each label byte, `label` which one is wanted.
    """
    length = len(classes) + 3072
    images, labels = [], []
    for path in paths:
        content = read_text(path, MAX_BYTES)
        if not content or len(content) % length:
            whole = len(content) - len(content) % length
            raise DataError(
                f"expected records of {length} bytes, but the last one, from byte {whole}, has "
                f"{len(content) - whole}.",
                path,
                len(content),
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, length)
        for position, count in enumerate(classes):
            bad = records[:, position] >= count
            if bad.any():
                at = int(np.argmax(bad))
                raise DataError(
                    f"expected a label from 0 to {count - 1}, got {records[at, position]}.",
                    path,
                    at * length + position,
                )
        labels.append(records[:, label])
        images.append(records[:, len(classes) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.concatenate(images), np.concatenate(labels)

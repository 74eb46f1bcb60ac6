"""From bytes to an image `Dataset`: the validation split, scaling and shape that loaders share."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.data import preprocess
from jdl.data.dataset import Arrays, Dataset, prepare
from jdl.data.error import DataError
from jdl.data.split import split_indices


def image_dataset(
    train: Arrays,
    test: Arrays,
    valid: int,
    seed: int,
    standardize: bool,
    flat: bool,
    dtype: Any,
) -> Dataset:
    """The splits of NHWC images in bytes, with a stratified validation split taken from `train`."""
    dtype = np.dtype(dtype)
    whole = np.issubdtype(dtype, np.integer)
    if whole and (standardize or dtype != np.uint8):
        raise DataError(
            f"`dtype` must be a float, or uint8 with standardize=False; got dtype={dtype} and "
            f"standardize={standardize}."
        )
    x, y = train
    if not 0 <= valid < len(x):
        raise DataError(f"`valid` must be in [0, {len(x)}), got valid={valid}.")
    at_valid, at_train = split_indices(len(x), (valid, len(x) - valid), seed, y, first=1)
    dataset = Dataset(
        (x[at_train], y[at_train]), (x[at_valid], y[at_valid]) if valid else None, test
    )
    if standardize:
        dataset, _ = prepare(dataset, preprocess.standardize_channels)

    def finish(split: Arrays) -> Arrays:
        x, y = split
        if not whole:
            x = (x if standardize else x / np.float32(255)).astype(dtype, copy=False)
        return x.reshape(len(x), -1) if flat else x, y.astype(np.int32)

    first, second, last = dataset
    return Dataset(finish(first), second and finish(second), last and finish(last))

"""The UCI hand-written digits, 1,797 images of 8x8 that ship with the package."""

from __future__ import annotations

import pathlib

import numpy as np

from jdl.data import preprocess
from jdl.data.dataset import Dataset, prepare
from jdl.data.split import split_indices

SIZES = (1257, 180, 360)


def digits(*, standardize: bool = True, image: bool = False, seed: int = 0) -> Dataset:
    """Hand-written digits 0 to 9, in 1,257 training, 180 validation and 360 test images.

    Each pixel counts the ink in a 4x4 block of a scanned form, 0 to 16. The
    split is stratified: each class is spread over the splits in proportion.

    Args:
      standardize: each pixel has zero mean and unit variance over the training
        split (a pixel that is constant there is only centred); otherwise the
        pixels are divided by 16, into [0, 1].
      image: x of shape (n, 8, 8, 1) instead of (n, 64).
      seed: of the split; 0 is the one that published figures use.

    Returns:
      x float32, y int32, as NumPy arrays.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten
    Digits, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0: the
    1,797 images of its test part, those that scikit-learn also ships. They all
    come from writers that its training part has not seen; here they are split
    at random, so results compare with other random splits only.

    >>> [split[0].shape for split in digits()]
    [(1257, 64), (180, 64), (360, 64)]
    """
    with np.load(pathlib.Path(__file__).parent / "digits.npz") as file:
        x, y = file["x"].astype(np.float32) / 16, file["y"].astype(np.int32)
    at_train, at_valid, at_test = split_indices(len(x), SIZES, seed, y)
    if image:
        x = x.reshape(-1, 8, 8, 1)
    dataset = Dataset(*((x[at], y[at]) for at in (at_train, at_valid, at_test)))
    return prepare(dataset, preprocess.standardize)[0] if standardize else dataset

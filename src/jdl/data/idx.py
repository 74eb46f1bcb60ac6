"""IDX files, the format of MNIST and Fashion-MNIST, read in full or memory-mapped."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from jdl._paths import expanded
from jdl.data.dataset import Dataset
from jdl.data.error import DataError
from jdl.data.images import image_dataset
from jdl.data.reading import (
    MAX_BYTES,
    Path,
    as_native,
    data_folders,
    find,
    opened,
    read,
    read_array,
)

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"


def idx(path: Path, *, mmap: bool = False, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, gzipped or not.

    Args:
      path: the file; gzip is recognised by its content.
      mmap: map the file, which must not be gzipped, instead of reading it; it
        may then exceed the memory. Types wider than a byte keep the file's
        big-endian order, and are read as a whole where they are trained on.
      max_bytes: refuse a larger array before reading it.

    Returns:
      The array in the file's shape and dtype.

    Raises:
      DataError: not an IDX file, truncated, too long, corrupt, or over
        `max_bytes`; names the file and the byte.
    """
    with opened(path) as source:
        head = read(source, 0, 4, "the magic number")
        if head[:2] != b"\0\0" or head[2] not in DTYPES:
            kinds = ", ".join(f"{kind:02x}" for kind in DTYPES)
            raise DataError(
                "expected the magic number of an IDX file, 00 00, a type out of "
                f"{kinds}, and the number of axes; got {head.hex(' ')}.",
                path,
                0,
            )
        if not 1 <= head[3] <= 8:
            raise DataError(f"expected from 1 to 8 axes, got {head[3]}.", path, 3)
        dtype, start = np.dtype(DTYPES[head[2]]), 4 + 4 * head[3]
        shape = struct.unpack(f">{head[3]}I", read(source, 4, start - 4, "the sizes of the axes"))
        size, what = math.prod(shape) * dtype.itemsize, f"an array of shape {shape}"
        if not mmap:
            return as_native(read_array(source, start, size, what, max_bytes), dtype, shape)
        if source.zipped:
            raise DataError("a gzipped file cannot be memory-mapped: unpack it.", path, 0)
        if source.size != start + size:
            raise DataError(
                f"expected {start + size} bytes for {what}, got {source.size}.",
                path,
                min(source.size, start + size),
            )
        return np.memmap(expanded(path), dtype, "r", start, shape)


def mnist(
    folder: Path | None = None,
    *,
    standardize: bool = True,
    flat: bool = False,
    dtype: Any = np.float32,
    valid: int = 10_000,
    seed: int = 0,
) -> Dataset:
    """MNIST from its four IDX files: 60,000 training and 10,000 test images of 28x28.

    Args:
      folder: where the files lie, gzipped or not, or in its subfolder `mnist`
        or `MNIST/raw`, by their own names or by Kaggle's; None looks in the
        folder `JDL_DATA_DIR` names.
      standardize: zero mean and unit variance over all pixels of the training
        split together; otherwise pixels are scaled to [0, 1].
      flat: x of shape (n, 784) instead of (n, 28, 28, 1).
      dtype: of x. `numpy.uint8` keeps the bytes 0 to 255 (a quarter of the
        memory) and needs `standardize=False`.
      valid: how many training images, in proportion to the classes, make the
        validation split; 0 for none.
      seed: of that split.

    Returns:
      x in `dtype`, y int32, as NumPy arrays.

    Raises:
      DataError: the files are missing or malformed.

    Source: Y. LeCun, C. Cortes and C. J. C. Burges (1998), The MNIST database.
    """
    folders = data_folders(folder, ("mnist", "MNIST/raw"), ())
    fix = "Give the folder of the four IDX files, or name it in JDL_DATA_DIR."
    return _load(folders, "MNIST", fix, standardize, flat, dtype, valid, seed)


def fashion_mnist(
    folder: Path | None = None,
    *,
    standardize: bool = True,
    flat: bool = False,
    dtype: Any = np.float32,
    valid: int = 10_000,
    seed: int = 0,
) -> Dataset:
    """Fashion-MNIST from its four IDX files: clothes in ten classes, in MNIST's shapes.

    As `mnist`, but the subfolders are `fashion-mnist` and `FashionMNIST/raw`,
    and the last place looked in is where Debian's package
    `dataset-fashion-mnist` installs the files.

    Source: H. Xiao, K. Rasul and R. Vollgraf (2017), Fashion-MNIST: a Novel
    Image Dataset for Benchmarking Machine Learning Algorithms.
    """
    folders = data_folders(folder, ("fashion-mnist", "FashionMNIST/raw"), (FASHION_FOLDER,))
    fix = (
        "Give the folder of the four IDX files, name it in JDL_DATA_DIR, or install Debian's "
        "package dataset-fashion-mnist."
    )
    return _load(folders, "Fashion-MNIST", fix, standardize, flat, dtype, valid, seed)


def _load(
    folders: list[Path],
    what: str,
    fix: str,
    standardize: bool,
    flat: bool,
    dtype: Any,
    valid: int,
    seed: int,
) -> Dataset:
    paths = find(FILES, folders, what, fix)
    x, y, x_test, y_test = (
        _expect(idx(path), path, axes) for path, axes in zip(paths, (3, 1, 3, 1), strict=True)
    )
    for path, images, labels in ((paths[1], x, y), (paths[3], x_test, y_test)):
        if len(images) != len(labels):
            raise DataError(f"{len(labels)} labels for {len(images)} images.", path, 4)
        if labels.max(initial=0) > 9:
            at = int(np.argmax(labels > 9))
            raise DataError(f"expected a label from 0 to 9, got {labels[at]}.", path, 8 + at)
    return image_dataset(
        (x[..., None], y), (x_test[..., None], y_test), valid, seed, standardize, flat, dtype
    )


def _expect(array: np.ndarray, path: Path, axes: int) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != axes or array.size == 0:
        raise DataError(
            f"expected bytes in {axes} axes, got {array.dtype} of shape {array.shape}.", path, 2
        )
    return array

"""Arrays from `.npz` and `.npy` files, checked before memory is taken for them."""

from __future__ import annotations

import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from jdl._paths import expanded
from jdl.data import preprocess
from jdl.data.dataset import Dataset, as_trained, check, check_arrays, from_arrays, prepare
from jdl.data.error import DataError
from jdl.data.reading import (
    MAX_BYTES,
    MOST_COMPRESSION,
    Path,
    Source,
    as_native,
    opened,
    read_array,
)

SPLITS = ("train", "valid", "test")


def npz(
    path: Path,
    *,
    valid: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    stratify: bool = True,
    standardize: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """A `Dataset` from an `.npz` file of `x` and `y`, or of `x_train`, `y_train`, `x_test`, ...

    Args:
      path: the file, compressed or not; objects (pickles) are refused.
      valid: as in `from_arrays`; unused where the file holds `x_valid`.
      test: likewise, unused where the file holds `x_test`.
      seed: of the split.
      stratify: as in `from_arrays`.
      standardize: as in `from_arrays`.
      max_bytes: refuse a larger array before reading it.

    Raises:
      DataError: malformed, an array missing, or the arrays cannot be trained on.
    """
    arrays = _npz_arrays(path, max_bytes)
    names = sorted(arrays)
    if {"x", "y"} <= arrays.keys():
        train = arrays["x"], arrays["y"]
    elif {"x_train", "y_train"} <= arrays.keys():
        train = arrays["x_train"], arrays["y_train"]
    else:
        raise DataError(f"expected arrays x and y, or x_train and y_train; got {names}.", path)
    given = {}
    for name in SPLITS[1:]:
        pair = arrays.get(f"x_{name}"), arrays.get(f"y_{name}")
        if (pair[0] is None) != (pair[1] is None):
            raise DataError(f"expected both x_{name} and y_{name} or neither; got {names}.", path)
        if pair[0] is not None and pair[1] is not None:
            given[name] = pair
    dataset = _split(
        path,
        *train,
        0 if "valid" in given else valid,
        0 if "test" in given else test,
        seed,
        stratify,
    )
    try:
        given = {n: as_trained(*check_arrays(f"{n} ", *pair)) for n, pair in given.items()}
        dataset = check(dataset._replace(**given))
    except DataError as error:
        raise DataError(str(error), path) from error
    return prepare(dataset, preprocess.standardize)[0] if standardize else dataset


def npy(path: Path, *, mmap: bool = False, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in a `.npy` file.

    Args:
      path: the file, gzipped or not; objects (pickles) are refused.
      mmap: map the file, which must not be gzipped, instead of reading it; it
        may then exceed the memory.
      max_bytes: refuse a larger array before reading it.

    Raises:
      DataError: malformed; names the file and the byte.
    """
    with opened(path) as source:
        shape, fortran, dtype, start = _npy_header(source.content, path, 0)
        size, what = math.prod(shape) * dtype.itemsize, f"an array of shape {shape}"
        if mmap:
            if source.zipped:
                raise DataError("a gzipped file cannot be memory-mapped: unpack it.", path, 0)
            if source.size != start + size:
                at = min(source.size, start + size)
                raise DataError(
                    f"expected {start + size} bytes for {what}, got {source.size}.", path, at
                )
            return np.memmap(expanded(path), dtype, "r", start, shape, "F" if fortran else "C")
        return _shaped(read_array(source, start, size, what, max_bytes), dtype, shape, fortran)


def _split(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    valid: float | int,
    test: float | int,
    seed: int,
    stratify: bool,
) -> Dataset:
    try:
        return from_arrays(x, y, valid=valid, test=test, seed=seed, stratify=stratify)
    except DataError as error:
        raise DataError(str(error), path) from error


def _npz_arrays(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    wanted = {f"{a}{s}.npy" for a in "xy" for s in ("", *(f"_{split}" for split in SPLITS))}
    arrays: dict[str, np.ndarray] = {}
    with opened(path) as source:
        if source.zipped:
            raise DataError("expected an .npz (zip) file, got a gzip stream.", path, 0)
        byte = 0
        try:
            with zipfile.ZipFile(source.content) as archive:
                for info in archive.infolist():
                    byte = info.header_offset
                    if info.filename not in wanted:
                        continue
                    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise DataError(f"{info.filename} is not stored or deflated.", path, byte)
                    with archive.open(info) as member:
                        arrays[info.filename[:-4]] = _member(member, info, path, max_bytes)
                if not arrays:
                    found = ", ".join(info.filename for info in archive.infolist()) or "nothing"
                    raise DataError(
                        f"expected arrays x and y, or x_train and y_train; got {found}.", path
                    )
        except DataError:
            raise
        # A broken archive makes zipfile raise half a dozen unrelated types.
        except Exception as error:
            raise DataError(f"not a readable .npz file ({error}).", path, byte) from error
    return arrays


def _member(member: Any, info: zipfile.ZipInfo, path: Path, max_bytes: int) -> np.ndarray:
    shape, fortran, dtype, start = _npy_header(member, path, info.header_offset, info.filename)
    size = math.prod(shape) * dtype.itemsize
    # What this member says of itself, held against the archive's own figures: nothing is
    # allocated for an array that its bytes cannot be.
    if start + size != info.file_size or info.file_size > MOST_COMPRESSION * info.compress_size:
        raise DataError(
            f"{info.filename}: expected {start + size} bytes for an array of shape {shape}, the "
            f"archive holds {info.file_size} ({info.compress_size} compressed).",
            path,
            info.header_offset,
        )
    source = Source(member, path, start + size, False)
    what = f"the array of shape {shape} in {info.filename}"
    return _shaped(read_array(source, start, size, what, max_bytes), dtype, shape, fortran)


def _npy_header(
    file: Any, path: Path, byte: int, name: str = "the file"
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype and length of the header of a `.npy` stream."""
    try:
        version = npy_format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} is unknown")
        first = version == (1, 0)
        reader = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
        start = file.tell()
    # The header is a Python literal: what a broken one makes the parser raise is open-ended.
    except Exception as error:
        raise DataError(f"{name} has no valid .npy header ({error}).", path, byte) from error
    if dtype.kind not in "biuf" or any(length < 0 for length in shape):
        raise DataError(
            f"{name}: expected an array of numbers, got {dtype} of shape {shape}.", path, byte
        )
    return shape, fortran, dtype, start


def _shaped(
    content: bytearray, dtype: np.dtype, shape: tuple[int, ...], fortran: bool
) -> np.ndarray:
    array = as_native(content, dtype, shape[::-1] if fortran else shape)
    return array.T if fortran else array

"""A text file as sequences of bytes, each with the bytes that follow."""

from __future__ import annotations

import numpy as np

from jdl._checks import check_count
from jdl.data.dataset import Dataset
from jdl.data.error import DataError
from jdl.data.reading import MAX_BYTES, Path, read_text

VOCABULARY = 256


def text(
    path: Path,
    length: int = 128,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    max_bytes: int = MAX_BYTES,
) -> Dataset:
    """The bytes of a file, gzipped or not, cut into sequences; `y` is `x` one byte further.

    A token is a byte, so that any language and any file will do and nothing has
    to be fitted: the vocabulary is 256. The splits are three stretches of the
    file, in the order training, validation, test; what is left over of each
    makes no sequence.

    Args:
      path: the file.
      length: tokens in a sequence.
      valid: the share of the file in the validation split, in [0, 1).
      test: the share in the test split.
      max_bytes: refuse more content than this.

    Returns:
      x and y of shape (sequences, length), uint8.

    Raises:
      DataError: the file cannot be read, or is too short for one sequence in
        each split; a share is out of range.
    """
    length = check_count("length", length)
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < 1:
            raise DataError(f"`{name}` must be in [0, 1), got {name}={share}.")
    tokens = np.frombuffer(read_text(path, max_bytes), np.uint8)
    held = [int(share * len(tokens)) for share in (valid, test)]
    first = len(tokens) - sum(held)
    ends = (0, first, first + held[0], len(tokens))
    splits = []
    for name, share, start, stop in zip(Dataset._fields, (1, valid, test), ends, ends[1:]):
        sequences = max(0, stop - start - 1) // length
        if share and not sequences:
            raise DataError(
                f"{name} has {max(0, stop - start)} of the {len(tokens)} bytes: expected at least "
                f"{length + 1}, a sequence of length={length} and what follows.",
                path,
                start,
            )
        x, y = (
            tokens[start + shift : start + shift + sequences * length].reshape(sequences, length)
            for shift in (0, 1)
        )
        splits.append((x, y) if share else None)
    train, *others = splits
    if train is None or first <= length:
        raise DataError(f"`valid` and `test` leave nothing to train on, got {valid} and {test}.")
    return Dataset(train, *others)

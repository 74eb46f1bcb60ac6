"""The error of all that reads or checks data."""

from __future__ import annotations

import os


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

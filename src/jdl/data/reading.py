"""Reading files that may be anything: bounded, gzip or not, every failure a `DataError`."""

from __future__ import annotations

import contextlib
import gzip
import os
import pathlib
import stat
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from jdl._paths import expanded
from jdl.data.error import DataError

Path = str | os.PathLike[str]

MAX_BYTES = 2**32
"""The most content that a reader takes from one file unless told otherwise: 4 GiB."""

# Deflate spends at least 2 bits on at most 258 bytes.
MOST_COMPRESSION = 1032
CHUNK = 2**20


class Source(NamedTuple):
    """An open file: `content` gives its bytes uncompressed, `size` counts them as they lie."""

    content: BinaryIO
    path: Path
    size: int
    zipped: bool


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file at `path`; gzip is recognised by its first two bytes, not by its name."""
    with contextlib.ExitStack() as stack:
        try:
            # A pipe or a device could block for ever.
            place = expanded(path)
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):
                raise DataError("expected a file, got a folder or a device.", path)
            raw = stack.enter_context(open(place, "rb"))
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"cannot be opened: {reason}.", path) from error
        content = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw))) if zipped else raw
        yield Source(content, path, status.st_size, zipped)


def read(source: Source, start: int, size: int, what: str) -> bytearray:
    """Exactly the next `size` bytes, of which the first is byte `start` of the content."""
    got = bytearray()
    while len(got) < size:
        try:
            chunk = source.content.read(min(CHUNK, size - len(got)))
        except (OSError, EOFError, zlib.error) as error:
            message = f"the compressed stream breaks off or is corrupt ({error}) inside {what}."
            raise DataError(message, source.path, start + len(got)) from error
        if not chunk:
            message = f"the file ends inside {what}: expected {size - len(got)} bytes more."
            raise DataError(message, source.path, start + len(got))
        got += chunk
    return got


def read_array(
    source: Source, start: int, size: int, what: str, max_bytes: int = MAX_BYTES
) -> bytearray:
    """The `size` bytes from `start` to what must be the end of the file.

    What cannot be there is refused before it is read or memory is taken for it.
    """
    if size > max_bytes:
        raise DataError(
            f"{what} takes {size} bytes, more than max_bytes={max_bytes}.", source.path, start
        )
    holds = source.size * MOST_COMPRESSION if source.zipped else source.size - start
    if size > holds:
        at = start if source.zipped else source.size
        raise DataError(
            f"the file is too short for {what}: expected {size} bytes from byte {start}, and the "
            f"{source.size} bytes of the file hold at most {max(0, holds)}.",
            source.path,
            at,
        )
    content = read(source, start, size, what)
    expect_end(source, start + size, what)
    return content


def expect_end(source: Source, end: int, what: str) -> None:
    """Raises unless the content ends at byte `end`; checks the checksum of a gzip stream."""
    try:
        more = source.content.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the compressed stream ends badly after {what} ({error}).", source.path, end
        ) from error
    if more:
        raise DataError(f"expected the end of the file after {what}.", source.path, end)


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """All of a file whose length nothing announces, up to `max_bytes`."""
    got = bytearray()
    with opened(path) as source:
        while True:
            try:
                chunk = source.content.read(CHUNK)
            except (OSError, EOFError, zlib.error) as error:
                message = f"the compressed stream breaks off or is corrupt ({error})."
                raise DataError(message, path, len(got)) from error
            if not chunk:
                return bytes(got)
            got += chunk
            if len(got) > max_bytes:
                raise DataError(f"more content than max_bytes={max_bytes}.", path, max_bytes)


def find(names: Sequence[str], folders: Sequence[Path], what: str, fix: str) -> list[pathlib.Path]:
    """The files `names`, gzipped or not, in the first of `folders` that has the first of them."""
    for folder in folders:
        found = [_first(expanded(folder), name) for name in names]
        if found[0] is not None:
            for name, path in zip(names, found, strict=True):
                if path is None:
                    raise DataError(f"{name} (or {name}.gz) of {what} is missing.", folder)
            return [path for path in found if path is not None]
    looked = ", ".join(os.fspath(folder) for folder in folders) or "no folder"
    raise DataError(f"{what} was not found: looked for {names[0]} (or .gz) in {looked}. {fix}")


def _first(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    # Kaggle's copy of MNIST has a point for the second hyphen, or a folder around each file.
    pointed = name.replace("-idx", ".idx")
    candidates = (name, f"{name}.gz", pointed, f"{pointed}.gz", f"{name}/{name}")
    return next((folder / path for path in candidates if (folder / path).is_file()), None)


def data_folders(folder: Path | None, inside: Sequence[str], system: Sequence[str]) -> list[Path]:
    """Where to look: `folder` alone if given, else `JDL_DATA_DIR`, then the `system` folders;
    the first two themselves and their subfolders `inside`.

    Raises:
      DataError: `JDL_DATA_DIR` is asked for and names no folder.
    """
    root = folder if folder is not None else os.environ.get("JDL_DATA_DIR") or None
    if folder is None and root is not None and not expanded(root).is_dir():
        raise DataError(f"JDL_DATA_DIR must name a folder, got {root!r}, which is none.")
    own: list[Path] = [] if root is None else [os.path.join(root, sub) for sub in (*inside, "")]
    return own if folder is not None else [*own, *system]


def as_native(content: bytearray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array that `content` holds, writable and in this machine's byte order."""
    array = np.frombuffer(content, dtype).reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))

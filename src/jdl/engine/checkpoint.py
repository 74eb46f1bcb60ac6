"""Checkpoints: a pytree of arrays as one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from jdl import tree


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit what it is read into."""


def to_bytes(arrays: PyTree, notes: Mapping[str, Any] | None = None) -> bytes:
    """The leaves of `arrays` by path, with `notes` (JSON) and a checksum of each leaf."""
    leaves = {path: np.asarray(leaf) for path, leaf in tree.named_leaves(arrays).items()}
    # safetensors' NumPy reader knows no bfloat16: what NumPy does not know travels as words.
    plain = {path: _words(leaf) for path, leaf in leaves.items()}
    body = json.dumps(
        {
            "notes": notes or {},
            "dtypes": {path: str(leaf.dtype) for path, leaf in leaves.items()},
            "crc32": {path: zlib.crc32(leaf.tobytes()) for path, leaf in plain.items()},
        }
    )
    return safetensors.numpy.save(plain, {"jdl": body, "crc32": str(zlib.crc32(body.encode()))})


def _words(leaf: np.ndarray) -> np.ndarray:
    leaf = np.ascontiguousarray(leaf).reshape(leaf.shape)
    return leaf.view(f"u{leaf.dtype.itemsize}") if leaf.dtype.kind == "V" else leaf


def from_bytes(blob: bytes, source: str = "checkpoint") -> tuple[dict[str, np.ndarray], Any]:
    """The leaves by path and the notes that `to_bytes` was given.

    Raises:
      CheckpointError: the bytes are no checkpoint, or a checksum does not match.
    """
    try:
        leaves = safetensors.numpy.load(blob)
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])["__metadata__"]
        if str(zlib.crc32(header["jdl"].encode())) != header["crc32"]:
            raise ValueError("the checksum of its header does not match")
        body = json.loads(header["jdl"])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source} is not a readable checkpoint: {error}") from error
    if leaves.keys() != body["dtypes"].keys():
        raise CheckpointError(f"{source} is corrupt: its leaves are not those it was written with.")
    for path, leaf in leaves.items():
        if zlib.crc32(np.ascontiguousarray(leaf).tobytes()) != body["crc32"][path]:
            raise CheckpointError(f"{source} is corrupt: the checksum of {path!r} does not match.")
        wanted = body["dtypes"][path]
        if str(leaf.dtype) != wanted:
            leaves[path] = leaf.view(getattr(ml_dtypes, wanted, None) or np.dtype(wanted))
    return leaves, body["notes"]


def fill(like: PyTree, leaves: Mapping[str, np.ndarray], source: str = "checkpoint") -> PyTree:
    """`leaves` in the structure of `like`, whose leaves have shapes and dtypes.

    Raises:
      CheckpointError: a leaf is missing, left over, or of another shape or dtype.
    """
    wanted = tree.named_leaves(like)
    for path in sorted({*wanted, *leaves}):
        have, want = leaves.get(path), wanted.get(path)
        if have is None or want is None:
            raise CheckpointError(
                f"{source} does not fit: {path!r} is {'missing' if have is None else 'unexpected'}."
            )
        if have.shape != want.shape or have.dtype != want.dtype:
            raise CheckpointError(
                f"{source} does not fit: {path!r} is {have.dtype}{list(have.shape)}, expected "
                f"{want.dtype}{list(want.shape)}."
            )
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in wanted])


def write_atomically(path: pathlib.Path, blob: bytes) -> None:
    """Writes to a temporary name, syncs and renames: at any moment `path` is whole.

    Raises:
      OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def save(path: str | os.PathLike[str], arrays: PyTree, notes: Any = None) -> None:
    """Saves a pytree of arrays to `path` as safetensors, atomically."""
    write_atomically(pathlib.Path(path), to_bytes(jax.device_get(arrays), notes))


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """The pytree that `save` wrote to `path`, in the structure of `like`.

    Raises:
      FileNotFoundError: there is no such file.
      CheckpointError: the file is damaged or does not fit `like`.
    """
    leaves, _ = from_bytes(pathlib.Path(path).read_bytes(), str(path))
    return fill(like, leaves, str(path))

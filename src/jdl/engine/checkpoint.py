"""A checkpoint is a pytree of arrays in one safetensors file, written atomically."""

from __future__ import annotations

import json
import os
import pathlib
import uuid
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
from jdl._paths import expanded
from jdl.engine.keys import to_keys, to_words


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read, or does not fit the structure it is loaded into."""


def to_bytes(arrays: PyTree, notes: Mapping[str, Any] | None = None) -> bytes:
    """Serialises the leaves of `arrays` by path, with `notes` (JSON) and their checksums.

    Raises:
      CheckpointError: a leaf is not an array or a number, or a path cannot be stored.
    """
    try:
        named = tree.named_leaves(arrays)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    leaves = {path: _native(path, leaf) for path, leaf in named.items()}
    plain = {path: _words(leaf) for path, leaf in leaves.items()}
    body = json.dumps(
        {
            "notes": notes or {},
            "dtypes": {path: str(leaf.dtype) for path, leaf in leaves.items()},
            "crc32": {path: zlib.crc32(leaf.tobytes()) for path, leaf in plain.items()},
        }
    )
    return safetensors.numpy.save(plain, {"jdl": body, "crc32": str(zlib.crc32(body.encode()))})


def _native(path: str, leaf: Any) -> np.ndarray:
    """`leaf` as a contiguous array in this machine's byte order."""
    # The format reserves this name, and JSON needs names in UTF-8.
    if path == "__metadata__" or path.encode(errors="replace").decode() != path:
        raise CheckpointError(f"A leaf cannot have the path {path!r}. Rename the key.")
    array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
    if not _storable(array.dtype) or isinstance(array, np.ma.MaskedArray):
        raise CheckpointError(
            f"The leaf {path!r} must be an array of numbers or booleans, got "
            f"{type(leaf).__name__} of dtype {array.dtype}."
        )
    # `ascontiguousarray` gives a scalar an axis.
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def _storable(dtype: np.dtype[Any]) -> bool:
    """Whether `str(dtype)` names the dtype and its values fit words of up to 64 bits."""
    if dtype.kind in "biufc":
        return dtype.itemsize // (2 if dtype.kind == "c" else 1) <= 8
    return getattr(ml_dtypes, str(dtype), None) is dtype.type


def _words(leaf: np.ndarray) -> np.ndarray:
    """`leaf` as safetensors takes it from NumPy; dtypes unknown to NumPy are stored as integers."""
    if leaf.dtype == np.complex128:
        return leaf[..., None].view(np.float64)
    return leaf if leaf.dtype.isbuiltin == 1 else leaf.view(f"u{leaf.dtype.itemsize}")


def from_bytes(blob: bytes, source: str = "checkpoint") -> tuple[dict[str, np.ndarray], Any]:
    """Gives back the leaves by path and the notes passed to `to_bytes`.

    Raises:
      CheckpointError: the bytes are not a checkpoint, or a checksum does not match.
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
        raise CheckpointError(f"{source} is corrupt: its leaves are not those that were written.")
    for path, leaf in leaves.items():
        if zlib.crc32(np.ascontiguousarray(leaf).tobytes()) != body["crc32"][path]:
            raise CheckpointError(f"{source} is corrupt: the checksum of {path!r} does not match.")
        wanted = body["dtypes"][path]
        if str(leaf.dtype) != wanted:
            dtype = np.dtype(getattr(ml_dtypes, wanted, wanted))
            shape = leaf.shape[:-1] if dtype == np.complex128 else leaf.shape
            leaves[path] = leaf.view(dtype).reshape(shape)
    return leaves, body["notes"]


def fill(like: PyTree, leaves: Mapping[str, np.ndarray], source: str = "checkpoint") -> PyTree:
    """`leaves` in the structure of `like`, whose leaves have shapes and dtypes or are numbers.

    Raises:
      CheckpointError: a leaf is missing, left over, or of another shape or dtype.
    """
    wanted = tree.named_leaves(like)
    filled = {}
    for path in sorted({*wanted, *leaves}):
        have, want = leaves.get(path), wanted.get(path)
        if have is None or want is None:
            raise CheckpointError(
                f"{source} does not fit: {path!r} is {'missing' if have is None else 'unexpected'}."
            )
        shaped = want if hasattr(want, "dtype") else np.asarray(want)
        if have.shape != shaped.shape or have.dtype != _native_dtype(shaped.dtype):
            raise CheckpointError(
                f"{source} does not fit: {path!r} is {have.dtype}{list(have.shape)}, expected "
                f"{shaped.dtype}{list(shaped.shape)}."
            )
        filled[path] = have.astype(shaped.dtype, copy=False) if shaped is want else have.item()
    return jax.tree.unflatten(jax.tree.structure(like), [filled[path] for path in wanted])


def _native_dtype(dtype: Any) -> Any:
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def write_atomically(path: pathlib.Path, blob: bytes) -> None:
    """Writes to a temporary name, syncs and renames, so `path` is complete at any moment.

    Raises:
      OSError: the folder cannot be written or the disk is full; `path` is unchanged.
    """
    # This replaces the file that a link points to, not the link.
    target = pathlib.Path(os.path.realpath(path))
    # Each write has its own name, so that two writes to one path do not mix.
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename is not None:
            error.filename = os.fspath(path)
        raise


def save(path: str | os.PathLike[str], arrays: PyTree, notes: Any = None) -> None:
    """Saves a pytree of arrays, typed keys and numbers to `path` as safetensors, atomically.

    Raises:
      CheckpointError: a leaf is something else, or two leaves have one path.
      OSError: `path` cannot be written, and is unchanged.
    """
    write_atomically(expanded(path), to_bytes(to_words(arrays), notes))


def load(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """The pytree that `save` wrote to `path`, in the structure of `like`.

    Raises:
      FileNotFoundError: there is no such file.
      CheckpointError: the file is damaged or does not fit `like`.
    """
    leaves, _ = from_bytes(expanded(path).read_bytes(), os.fspath(path))
    return to_keys(fill(jax.tree.map(_words_like, like), leaves, os.fspath(path)))


def _words_like(leaf: Any) -> Any:
    """`leaf`, or the shapes of its words if it is a typed key."""
    typed = jax.dtypes.issubdtype(getattr(leaf, "dtype", bool), jax.dtypes.prng_key)
    return jax.eval_shape(to_words, leaf) if typed else leaf

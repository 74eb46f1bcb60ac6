"""What makes two runs the same: fingerprints of data and of functions."""

from __future__ import annotations

import functools
import hashlib
import inspect
import zlib
from typing import Any

import jax
import numpy as np

from jdl.data.dataset import Dataset


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Shapes and a checksum of each split, by which a resumed run knows its data."""
    prints = {}
    for name, split in zip(Dataset._fields, dataset):
        if split is not None:
            leaves = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(split)]
            crc = functools.reduce(lambda c, a: zlib.crc32(a.data, c), leaves, 0)
            prints[name] = {"shapes": [list(a.shape) for a in leaves], "crc32": crc}
    return prints


def identity(function: Any) -> str:
    """The name of a function and a hash of its source, if there is one to read."""
    target = function.func if isinstance(function, functools.partial) else function
    name = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', repr(target))}"
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError):
        return name
    return f"{name}#{hashlib.sha256(source.encode()).hexdigest()[:12]}"

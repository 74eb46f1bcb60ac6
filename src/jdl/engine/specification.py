"""What makes two runs the same: fingerprints of data and of traced programs."""

from __future__ import annotations

import functools
import hashlib
import re
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


def trace_hash(traced: Any) -> str:
    """A hash of a traced computation, by which a resumed run knows its program.

    Other code that computes the same is the same; another rate, layer or loss
    is not, wherever it is written.
    """
    # Functions inside a jaxpr print with their addresses, which differ between processes.
    text = re.sub(r" at 0x[0-9a-f]+", "", str(traced.jaxpr))
    digest = hashlib.sha256(text.encode())
    for constant in traced.consts:
        if not jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
            digest.update(np.ascontiguousarray(constant).tobytes())
    return digest.hexdigest()[:12]

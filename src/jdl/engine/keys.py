"""The random keys of a trial, and typed keys as words that the host can store."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree, UInt32

# A step's stream is its number, so the two other streams sit at the far end of uint32.
_INIT_STREAM = 2**32 - 1
_DATA_STREAM = 2**32 - 2


class Keys(NamedTuple):
    """The keys of one trial, each the root of its own stream."""

    init: jax.Array
    data: jax.Array
    trial: jax.Array


def trial_keys(root: Any, stream: Any) -> Keys:
    """The keys of the trial numbered `stream` under the run's `root` seed.

    A trial's key is `fold_in(key(root), stream)` and a step's
    `fold_in(trial_key, step)`, so neither depends on how many lanes, devices
    or other trials there are. Threefry is explicit because under `vmap` the
    hardware generators ignore all keys but the first.
    """
    trial = jax.random.fold_in(jax.random.key(root, impl="threefry2x32"), stream)
    return Keys(
        init=jax.random.fold_in(trial, np.uint32(_INIT_STREAM)),
        data=jax.random.fold_in(trial, np.uint32(_DATA_STREAM)),
        trial=trial,
    )


def trial_words(root: int, streams: UInt32[np.ndarray, " lanes"]) -> UInt32[Any, "lanes 3 2"]:
    """What `trial_keys` gives for each of `streams`, as words, computed by the host.

    On the devices it would be a tenth of what a lane program takes to compile.
    """
    blocks = [_block(int(root), int(stream) // _BLOCK) for stream in streams]
    return np.stack([block[int(s) % _BLOCK] for block, s in zip(blocks, streams, strict=True)])


def keys_of(words: UInt32[Any, "3 2"]) -> Keys:
    """The typed keys of a trial from its words."""
    return Keys(*(jax.random.wrap_key_data(words[i], impl="threefry2x32") for i in range(3)))


_BLOCK = 256


@functools.lru_cache(maxsize=64)
def _block(root: int, number: int) -> UInt32[np.ndarray, "streams 3 2"]:
    """The words of neighbouring streams, because NumPy takes as long for one as for all."""
    streams = np.arange(number * _BLOCK, (number + 1) * _BLOCK, dtype=np.uint64)
    trial = _fold_in((np.uint32(0), np.uint32(root)), streams.astype(np.uint32))
    ends = [_fold_in(trial, np.uint32(end)) for end in (_INIT_STREAM, _DATA_STREAM)]
    return np.stack([np.stack(key, -1) for key in (*ends, trial)], 1)


def _fold_in(key: tuple[Any, Any], data: Any) -> tuple[Any, Any]:
    """`jax.random.fold_in` of Threefry-2x32 (Salmon et al., 2011), in NumPy."""
    with np.errstate(over="ignore"):
        schedule = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
        x, y = schedule[0] + np.zeros_like(data), data + schedule[1]
        for turn in range(5):
            for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[turn % 2]:
                x = x + y
                y = x ^ ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation)))
            x = x + schedule[(turn + 1) % 3]
            y = y + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Words:
    """A typed key as plain words, which can be selected, stored and donated."""

    words: Any
    generator: str = dataclasses.field(metadata={"static": True})


def to_words(tree: PyTree) -> PyTree:
    """`tree` with every typed key as `Words`."""

    def leaf(a: Any) -> Any:
        if not (hasattr(a, "dtype") and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)):
            return a
        return Words(jax.random.key_data(a), str(jax.random.key_impl(a)))

    return jax.tree.map(leaf, tree)


def to_keys(tree: PyTree) -> PyTree:
    """The inverse of `to_words`."""

    def leaf(a: Any) -> Any:
        if not isinstance(a, Words):
            return a
        return jax.random.wrap_key_data(a.words, impl=a.generator)

    return jax.tree.map(leaf, tree, is_leaf=lambda a: isinstance(a, Words))

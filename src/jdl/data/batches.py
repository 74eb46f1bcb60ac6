"""Batches drawn inside the compiled program: an epoch is a permutation, computed index by index."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PyTree, UInt32

from jdl._promotion import promoting

Key = Any


def rounds(length: int) -> int:
    """How many rounds shuffle `length`: a pair of neighbours survives one with probability 1/2,
    so this many leave far less than one more such pair in an epoch than chance would; the
    orders of a very short length need the minimum of 20 to become equally likely.

    >>> rounds(1257), rounds(60_000)
    (20, 22)
    """
    return max(20, length.bit_length() + 6)


def round_keys(key: Key, length: int) -> UInt32[Array, "rounds 3"]:
    """The random numbers of one permutation: for each round a pivot and two terms of the hash.

    They are the key's own words, mixed with a counter (the finalizer of MurmurHash3, once for
    each word): a key made by `fold_in` is already random, and drawing them from it with
    `jax.random.bits` took as long as the permutation itself.
    """
    mixed = jnp.arange(3 * (1 + rounds(length)), dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    words = jax.random.key_data(key).reshape(-1)
    for position in range(words.size):
        mixed = mixed ^ words[position]
        mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
        mixed = mixed ^ (mixed >> 16)
    bits = mixed.reshape(-1, 3)
    return jnp.concatenate([bits[:, :1] % jnp.uint32(length), bits[:, 1:]], 1)


def _permute(index: Array, length: int, keys: Array) -> Array:
    """`keys` is (rounds, 3, ...), its trailing axes broadcasting with `index`."""

    def reflect(x: Array, pivot: Array) -> Array:
        # pivot - x modulo length: of the two candidates the wrong one wraps to a larger number.
        y = pivot - x
        return jnp.minimum(y, y + jnp.uint32(length))

    def swap_or_not(x: Array, key: Array) -> tuple[Array, None]:
        pivot, add, flip = key
        partner = reflect(x, pivot)
        larger = jnp.maximum(x, partner)
        return jnp.where((larger + add) * (larger ^ flip) >> 31 == 0, x, partner), None

    # The reflection makes the image of any one index exactly uniform. The rounds are a loop, and
    # not one long expression, because the latter is bound by the latency of its chain on a CPU.
    x = reflect(index.astype(jnp.uint32), keys[0, 0])
    return jax.lax.scan(swap_or_not, x, keys[1:], unroll=2)[0].astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=1, inline=True)
def permute(index: Integer[Array, "*shape"], length: int, key: Key) -> Integer[Array, "*shape"]:
    """Where `index` goes in the random permutation of `range(length)` that `key` names.

    The swap-or-not shuffle: in each round `x` is paired with
    `pivot - x (mod length)`, and a hash of the pair, the same from both sides,
    decides whether the two change places. Every round is a bijection of any
    `length`, so nothing is sorted, nothing is stored and nothing loops until it
    fits. The hash is not cryptographic.

    Args:
      index: integers in [0, length).
      length: static, from 1 to 2**31 - 1.
      key: one key per permutation.

    Returns:
      int32 of the shape of `index`.

    Source: Hoang, Morris and Rogaway (2012), An Enciphering Scheme Based on a
    Card Shuffle.

    >>> sorted(permute(jnp.arange(5), 5, jax.random.key(0)).tolist())
    [0, 1, 2, 3, 4]
    """
    _check_length(length)
    keys = round_keys(key, length)
    return _permute(index, length, keys.reshape(*keys.shape, *(1,) * jnp.ndim(index)))


@functools.partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
@promoting
def batch_indices(
    key: Key, step: Any, steps: int, batch_size: int, length: int
) -> Integer[Array, "steps batch"]:
    """The examples in the batches of training steps `step` to `step + steps - 1`.

    Step `t` belongs to epoch `t // (length // batch_size)`; each epoch is a
    fresh permutation, keyed by `fold_in(key, epoch)`, of which the remainder
    that does not fill a batch is dropped. The indices depend on the key and the
    step alone: not on `steps`, on where a segment begins, or on other lanes.

    Args:
      key: the trial's key for data; used up by `fold_in` only.
      step: the first step, counted from 0; may be traced.
      steps: how many, static.
      batch_size: static, at most `length`.
      length: the number of examples in the training split, static.

    Returns:
      int32 indices in [0, length).

    Raises:
      ValueError: the batch is larger than the data set, or a size is below 1.

    >>> batch_indices(jax.random.key(0), 0, 3, 2, 6).shape
    (3, 2)
    """
    per_epoch = steps_per_epoch(length, batch_size)
    step = jnp.asarray(step, jnp.int32)
    # A window of `steps` steps touches at most this many epochs, wherever it begins.
    # Divisions of what is not negative, which take fewer operations than Python's.
    first = jax.lax.div(step, jnp.int32(per_epoch))
    epochs = first + jnp.arange((steps - 2) // per_epoch + 2)
    keys = jax.vmap(lambda epoch: round_keys(jax.random.fold_in(key, epoch), length))(epochs)
    at = step + jnp.arange(steps, dtype=jnp.int32)
    epoch = jax.lax.div(at, jnp.int32(per_epoch))
    row_keys = jnp.moveaxis(keys[epoch - first], 0, -1)[..., None]
    index = ((at - epoch * per_epoch) * batch_size)[:, None] + jnp.arange(batch_size)[None, :]
    return _permute(index, length, row_keys)


def steps_per_epoch(length: int, batch_size: int) -> int:
    """How many whole batches `length` examples fill.

    >>> steps_per_epoch(1257, 32)
    39
    """
    _check_length(length)
    if not 1 <= batch_size <= length:
        raise ValueError(
            f"`batch_size` must be from 1 to the number of training examples, {length}, "
            f"got batch_size={batch_size}."
        )
    return length // batch_size


def take(arrays: PyTree, indices: Integer[Array, "*shape"]) -> PyTree:
    """The examples at `indices`, which must be in range, from every array of a tree.

    >>> take((jnp.arange(6).reshape(3, 2),), jnp.array([2, 0]))[0].tolist()
    [[4, 5], [0, 1]]
    """
    return jax.tree.map(lambda a: a.at[indices].get(mode="promise_in_bounds"), arrays)


def _check_length(length: int) -> None:
    if not 1 <= length < 2**31:
        raise ValueError(f"`length` must be from 1 to 2**31 - 1, got length={length}.")

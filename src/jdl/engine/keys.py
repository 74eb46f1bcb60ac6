"""The random keys of a trial, and typed keys as words that the host can store."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

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
        init=jax.random.fold_in(trial, jnp.uint32(_INIT_STREAM)),
        data=jax.random.fold_in(trial, jnp.uint32(_DATA_STREAM)),
        trial=trial,
    )


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

"""Layers on a mesh whose axes are explicit, as those of `jax.make_mesh` are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P


def along_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(x, ...)`, whose result is sharded along its first axis as `x` is.

    On explicit axes every operation must say how its result is sharded; a
    reshape, a gather or a scan cannot. Inside of `function` XLA finds it out.
    """

    @functools.wraps(function)
    def wrapped(x: Any, *rest: Any) -> Any:
        if not jax.sharding.get_abstract_mesh().explicit_axes:
            return function(x, *rest)
        batch, *_ = jax.typeof(jnp.asarray(x)).sharding.spec
        return jax.sharding.auto_axes(function, out_sharding=P(batch))(x, *rest)

    return wrapped

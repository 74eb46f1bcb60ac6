"""Layers on a mesh: explicit axes, as those of `jax.make_mesh` are, and those of `shard_map`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P


def along_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(x, ...)`, whose result is sharded along its first axis as `x` is.

    On explicit axes every operation must say how its result is sharded; a
    reshape, a gather or a scan cannot. Inside of `function` XLA finds it out.
    """

    @functools.wraps(function)
    def wrapped(x: Any, *rest: Any) -> Any:
        axes = jax.sharding.get_abstract_mesh().explicit_axes
        if not axes:
            return function(x, *rest)
        batch, *_ = jax.typeof(jnp.asarray(x)).sharding.spec
        return jax.sharding.auto_axes(function, axes=axes, out_sharding=P(batch))(x, *rest)

    return wrapped


def varying(x: Any) -> frozenset[Any]:
    """The names of the `shard_map` axes along which `x` differs, by its type."""
    aval = jax.typeof(x)
    manual = getattr(aval, "manual_axis_type", None)
    return aval.vma if manual is None else manual.varying


def vary_over(axes: frozenset[Any], x: Any) -> Any:
    """`x`, typed as varying over `axes` too, as every operation with two operands types them."""
    missing = tuple(axes - varying(x))
    return lax.pcast(x, missing, to="varying") if missing else x

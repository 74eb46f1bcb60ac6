"""A while loop for solvers whose lanes, under `vmap`, end at different turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl._promotion import widest


def loop_lanes(running: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
    """`while running(carry): carry = body(carry)`, cheap for many small lanes.

    Under `vmap` an ordinary `while_loop` selects every carried array from old
    and new each turn, so that ended lanes stay as they are. Here the loop goes
    on while any lane runs, and `body` itself must keep what an ended lane
    reports (its work arrays may change). The scalars of `carry` travel as one
    array for each kind, since XLA moves each carried array by itself: at 100
    unknowns that took a fifth off the time of a turn.
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, carry))
    dtypes = [x.dtype for x in leaves]
    floats: list[int] = []
    wholes: list[int] = []
    arrays: list[int] = []
    for i, x in enumerate(leaves):
        small = x.dtype in (jnp.bool_, jnp.int32, jnp.uint32)
        real = jnp.issubdtype(x.dtype, jnp.floating)
        (arrays if x.ndim or not (small or real) else floats if real else wholes).append(i)
    wide = widest(*(dtypes[i] for i in floats)) if floats else None

    def pack(carry: Any) -> Any:
        now = jax.tree.leaves(carry)
        return (
            [now[i] for i in arrays],
            jnp.stack([jnp.asarray(now[i], wide) for i in floats]) if floats else None,
            jnp.stack([jnp.asarray(now[i], jnp.int32) for i in wholes]) if wholes else None,
        )

    def unpack(packed: Any) -> Any:
        now: list[Any] = [None] * len(leaves)
        for places, column in zip((arrays, floats, wholes), packed, strict=True):
            for row, i in enumerate(places):
                now[i] = column[row].astype(dtypes[i]) if places is not arrays else column[row]
        return jax.tree.unflatten(structure, now)

    end = jax.lax.while_loop(
        lambda packed: any_lane(running(unpack(packed))),
        lambda packed: pack(body(unpack(packed))),
        pack(carry),
    )
    return unpack(end)


@jax.custom_batching.custom_vmap
def any_lane(running: Any) -> Any:
    """`running`; under `vmap`, whether it holds in any lane, the same for all of them."""
    return running


@any_lane.def_vmap
def _(axis_size: int, in_batched: list[bool], running: Any) -> tuple[Any, bool]:
    return any_lane(jnp.any(running, 0) if in_batched[0] else running), False

"""Lanes that change places on the devices: a population's copies, and a program grown narrower."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding


def move_lanes(lanes: Any, source: np.ndarray, sharding: NamedSharding) -> Any:
    """Lane `i` of the result is lane `source[i]` of `lanes`, to the bit, wherever it lies.

    Args:
      lanes: a pytree whose every leaf has a leading lane axis; it is given away.
      source: as many lanes as the result has.
      sharding: of the lane axis of the result.
    """
    return _gather(sharding)(lanes, jnp.asarray(source, jnp.int32))


@functools.lru_cache(maxsize=8)
def _gather(sharding: NamedSharding) -> Any:
    def gather(lanes: Any, source: Any) -> Any:
        return jax.tree.map(lambda a: jnp.take(a, source, axis=0), lanes)

    return jax.jit(gather, out_shardings=sharding)

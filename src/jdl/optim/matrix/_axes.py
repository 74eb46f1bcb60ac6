"""Matrices that act on one axis of a tensor, from which Shampoo and SOAP are made."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def gram(g: Array, axis: int) -> Array:
    """`G G'` of the unfolding of `g` along `axis`: sums over every other axis."""
    rest = [other for other in range(g.ndim) if other != axis]
    return jnp.tensordot(g, g, axes=(rest, rest))


def along(matrix: Array, g: Array, axis: int) -> Array:
    """`g` with `matrix` applied to `axis`: `matrix @ G` of its unfolding."""
    return jnp.moveaxis(jnp.tensordot(matrix, g, axes=(1, axis)), 0, axis)

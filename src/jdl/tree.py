"""Arithmetic on pytrees: each function moves every leaf in the one way that its name says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Scalar

from jdl import _promotion
from jdl._promotion import promoting


@promoting
def add(a: PyTree, b: PyTree) -> PyTree:
    """`a + b`, leaf by leaf."""
    return jax.tree.map(lambda x, y: x + y, a, b)


@promoting
def subtract(a: PyTree, b: PyTree) -> PyTree:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(lambda x, y: x - y, a, b)


@promoting
def scale(factor: Any, a: PyTree) -> PyTree:
    """`factor * a` for a scalar `factor`; each leaf keeps its dtype."""
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), a)


@promoting
def add_scaled(a: PyTree, factor: Any, b: PyTree) -> PyTree:
    """`a + factor * b` for a scalar `factor`; each leaf keeps the dtype of `a`."""
    return jax.tree.map(lambda x, y: (x + factor * y).astype(x.dtype), a, b)


@promoting
def where(condition: Any, a: PyTree, b: PyTree) -> PyTree:
    """`a` where the scalar `condition` holds, else `b`: a select, never a branch."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def zeros_like(a: PyTree, dtype: Any = None) -> PyTree:
    """Zeros of the shapes of `a`, in `dtype` or each leaf's own."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), a)


def cast_like(a: PyTree, like: PyTree) -> PyTree:
    """`a` with each leaf in the dtype of the same leaf of `like`."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), a, like)


def dot(a: PyTree, b: PyTree) -> Scalar:
    """The real inner product over all leaves, accumulated in float32 or wider.

    >>> import jax.numpy as jnp
    >>> float(dot({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}))
    11.0
    """

    def leaf(x: Any, y: Any) -> Scalar:
        x, y = jnp.asarray(x), jnp.asarray(y)
        wide = _promotion.widest(x.dtype, y.dtype, jnp.float32)
        return jnp.sum(jnp.real(jnp.conj(x.astype(wide)) * y.astype(wide)))

    with jax.numpy_dtype_promotion("standard"):
        return sum(jax.tree.leaves(jax.tree.map(leaf, a, b)), start=jnp.zeros((), jnp.float32))


@jax.custom_jvp
def root(x: Array) -> Array:
    """The square root, whose derivative is 0 instead of infinite at 0.

    Gradients that are exactly 0 (a dead unit, an unused embedding, a solved problem) make
    sums of squares 0; a derivative through them, as a hypergradient takes, must not be NaN.
    """
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals: Any, tangents: Any) -> Any:
    y = jnp.sqrt(primals[0])
    slope = jnp.where(y > 0, 0.5 / jnp.where(y > 0, y, 1), 0)
    return y, slope * tangents[0]


def reciprocal_root(x: Array) -> Array:
    """`1 / sqrt(x)`, and 0 with derivative 0 where `x` is 0."""
    length = root(x)
    return 1 / jnp.where(length > 0, length, jnp.inf)


def norm(a: PyTree) -> Float[Array, ""]:
    """The Euclidean norm over all leaves, in float32 or wider, whose derivative at 0 is 0."""
    return root(dot(a, a))


def all_finite(a: PyTree) -> Scalar:
    """Whether every element of every inexact leaf is finite, as a boolean scalar."""
    leaves = [x for x in jax.tree.leaves(a) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return (
        jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
        if leaves
        else jnp.array(True)
    )


def size(a: PyTree) -> int:
    """The number of elements over all leaves; shapes alone are enough."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(a))


def nbytes(a: PyTree) -> int:
    """The number of bytes over all leaves; shapes and dtypes alone are enough."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(a))


def named_leaves(a: PyTree) -> dict[str, Any]:
    """The leaves by their path, as in `{"0/kernel": ...}`.

    Raises:
      ValueError: two leaves have one path, because a key has a "/".

    >>> named_leaves(({"kernel": 1.0}, {"bias": 2.0}))
    {'0/kernel': 1.0, '1/bias': 2.0}
    """
    named: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(a)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in named:
            raise ValueError(
                f"Two leaves have the path {path!r}, because a key has a '/'. Rename it."
            )
        named[path] = leaf
    return named

"""Host arrays as a device takes them: trees of arrays, in native byte order, of values it holds."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdl.data.error import DataError


def as_arrays(what: str, tree: Any) -> Any:
    """`tree` with NumPy arrays for leaves, in this machine's byte order.

    A list is one array, and so is a tuple of numbers or lists; dicts and tuples
    of arrays are trees. A memory-mapped array stays one, unless its byte order
    is another: then it is read.

    Raises:
      DataError: a masked array has masked values.
    """

    def leaf(path: Any, a: Any) -> np.ndarray:
        if isinstance(a, np.ma.MaskedArray) and np.ma.is_masked(a):
            index = ", ".join(map(str, np.argwhere(np.ma.getmaskarray(a))[0]))
            name = named(what, path)
            raise DataError(
                f"{name}[{index}] is masked: fill in the {np.ma.count_masked(a)} masked values of "
                f"{name}, or leave these examples out."
            )
        a = np.asarray(a)
        if a.dtype.kind == "f" and a.dtype.itemsize > 8:  # a long double, which JAX has not
            with np.errstate(over="ignore"):
                return a.astype(np.float64)
        return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))

    return jax.tree_util.tree_map_with_path(leaf, tree, is_leaf=_is_array)


def _is_array(node: Any) -> bool:
    if isinstance(node, tuple) and not hasattr(node, "_fields"):
        return not any(isinstance(n, dict) or hasattr(n, "__array__") for n in node)
    return isinstance(node, list)


def named_arrays(what: str, tree: Any) -> list[tuple[str, np.ndarray]]:
    """The arrays of a tree with their names, as in `x['image']`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(named(what, path), leaf) for path, leaf in leaves]


def named(what: str, path: Any) -> str:
    """The name of the leaf at `path` of the tree that is called `what`."""
    return f"{what}{jax.tree_util.keystr(path)}"


def length(tree: Any) -> int:
    """The number of examples in a tree of arrays.

    >>> length({"image": np.zeros((3, 4, 4)), "age": np.zeros(3)})
    3
    """
    return len(jax.tree.leaves(tree)[0])


def device_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a device holds arrays of `dtype` in: 32 bits, unless JAX is set to 64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def check_held(what: str, a: np.ndarray) -> None:
    """Raises DataError unless `a` holds finite numbers that keep their values on a device."""
    if a.dtype.kind in "OSUMmV" and not str(a.dtype).startswith(("bfloat16", "float8")):
        raise DataError(f"{what} has dtype {a.dtype}: expected numbers.")
    held = device_dtype(a.dtype)
    whole = a.dtype.kind in "biu"
    if whole and held == a.dtype:
        return
    limits: Any = np.iinfo(held) if whole else jax.numpy.finfo(held)
    # A block at a time: a mask of a memory-mapped array could exceed the memory.
    block = max(1, 2**24 // max(1, a[0].size))
    for start in range(0, len(a), block):
        part = a[start : start + block]
        if whole:
            good = (part >= limits.min) & (part <= limits.max)
        elif held == a.dtype:
            good = np.isfinite(part)
        else:
            good = np.abs(part) <= float(limits.max)
        if not good.all():
            at = np.argwhere(~good)[0]
            at[0] += start
            value, index = a[tuple(at)], ", ".join(str(i) for i in at)
            if not np.isfinite(value):
                raise DataError(f"{what}[{index}] is {value}: every value must be finite.")
            raise DataError(
                f"{what}[{index}] is {value}, which does not fit {held}, the type that the device "
                f"holds {a.dtype} in: at most {limits.max}. Take away an offset, or scale it."
            )

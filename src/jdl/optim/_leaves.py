"""How a rule written for one leaf moves a whole tree: widened inputs, outputs in their dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jdl import _promotion, tree
from jdl._promotion import at_least_float32
from jdl.optim.base import Number, at_step

Mask = Any
"""Which leaves a rule applies to: a tree of booleans (or a prefix of one), a
function of the parameters that gives it, or `None` for all of them."""


def wide(x: Any) -> Array:
    """`x` in float32 or wider (complex64 or wider where complex), in which rules are computed."""
    return jnp.asarray(x, at_least_float32(jnp.asarray(x)))


def square(x: Array) -> Array:
    """`|x|**2`, real also where `x` is complex."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x**2


def over(x: Array, y: Array) -> Array:
    """`x / y`, and 0 where `y` is 0: a rule with eps off must not turn 0 / 0 into NaN."""
    return x / jnp.where(y > 0, y, jnp.inf)


def moments(params: PyTree, dtype: Any = None) -> PyTree:
    """Zeros of the parameters' shapes, in `dtype` or else in float32 or wider."""
    return jax.tree.map(lambda w: jnp.zeros_like(wide(w), dtype=dtype), params)


def square_moments(params: PyTree, value: Any = 0.0) -> PyTree:
    """As `moments`, filled with `value` and real also where a parameter is complex."""
    start = at_step(value, 0)
    return jax.tree.map(lambda w: jnp.full_like(jnp.real(wide(w)), start), params)


def check_real(params: PyTree, name: str) -> None:
    """Raises TypeError where a parameter is complex, for rules that have no such form."""
    for path, w in tree.named_leaves(params).items():
        if jnp.iscomplexobj(w):
            raise TypeError(f"{name} is for real parameters, got {jnp.result_type(w)} at {path!r}.")


def copies(params: PyTree) -> PyTree:
    """The parameters in float32 or wider, in buffers of their own so that both may be donated."""
    return jax.tree.map(lambda w: jnp.copy(wide(w)), params)


def values_at(step: Any, *numbers: Number) -> list[Any]:
    """The value of each of `numbers` at `step`."""
    return [at_step(number, step) for number in numbers]


def widest(params: PyTree) -> Any:
    """The dtype of a number kept for the whole tree: float32, or the widest leaf's if wider."""
    return _promotion.widest(jnp.float32, *(jnp.real(wide(w)) for w in jax.tree.leaves(params)))


def given(params: PyTree | None, name: str) -> PyTree:
    """The parameters; raises ValueError where the caller passed none and they are needed."""
    if params is None:
        raise ValueError(
            f"{name} needs the parameters: call `update(grads, state, params)`, got params=None."
        )
    return params


def is_function(x: Any) -> bool:
    """Whether `x` is a function, and not a tree that can be called too, as some modules can."""
    leaf = jax.tree_util.all_leaves([x])
    return callable(x) and (leaf or isinstance(x, jax.tree_util.Partial))


def resolve_mask(mask: Mask, params: PyTree) -> PyTree:
    """One Python boolean for each leaf of `params`."""
    chosen: Any = mask(params) if is_function(mask) else mask
    return jax.tree.broadcast(True if chosen is None else chosen, params)


def leafwise(
    rule: Callable[..., tuple[Any, ...]], like: tuple[PyTree, ...], tree: PyTree, *rest: PyTree
) -> tuple[PyTree, ...]:
    """Applies `rule` to the leaves of `tree` and the matching parts of `rest`.

    Args:
      rule: takes one leaf of each tree and returns a tuple, one output for each
        tree of `like`. Where a tree of `rest` has a tuple in the place of a leaf,
        the rule is given the tuple.
      like: each output takes the structure and the dtype of its tree here, so
        that a state keeps its type whatever numbers went in.
      tree: the tree whose leaves are visited, usually the gradients.
      rest: trees of the same structure.

    Returns:
      As many trees as `like` has.
    """
    structure: Any = jax.tree.structure(tree)
    leaves = jax.tree.leaves(tree)
    columns = [_flatten_as(structure, other) for other in rest]
    rows = [rule(*row) for row in zip(leaves, *columns, strict=True)]
    outputs = zip(*rows, strict=True) if rows else ((),) * len(like)
    return tuple(
        jax.tree.map(
            lambda x, y: jnp.asarray(x, jnp.result_type(y)), structure.unflatten(column), model
        )
        for column, model in zip(outputs, like, strict=True)
    )


def _flatten_as(structure: Any, other: PyTree) -> list[Any]:
    try:
        return structure.flatten_up_to(other)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            "The gradients, the parameters and the optimizer's state must be trees of one "
            f"structure, got {structure} and {jax.tree.structure(other)}."
        ) from error


def per_leaf(
    rule: Callable[..., tuple[Any, ...]], grads: PyTree, params: PyTree | None, *trees: PyTree
) -> tuple[PyTree, ...]:
    """Runs `rule(g, w, *moments) -> (update, *moments)` on each leaf, in one pass.

    The rule sees float32 or wider; the update is given the parameter's dtype (the
    gradient's where `params` is None, and then `w` is None), each new moment the
    dtype of the one it replaces.

    Returns:
      The tree of updates and the trees of new moments.
    """
    if params is None:
        return leafwise(
            lambda g, *row: rule(wide(g), None, *map(wide, row)), (grads, *trees), grads, *trees
        )
    return leafwise(
        lambda g, *row: rule(wide(g), *map(wide, row)), (params, *trees), grads, params, *trees
    )

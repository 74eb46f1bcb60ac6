"""Different treatment of different parameters: groups by label or path, masks, freezing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl import tree
from jdl._promotion import promoting
from jdl.optim._leaves import Mask, is_function, resolve_mask
from jdl.optim.base import Optimizer, Params, State, Updates
from jdl.optim.transforms.gradient import identity


def by_path(label: Callable[[str], Any]) -> Callable[[Params], Any]:
    """Labels parameters by their path, for `partition` or as a mask.

    Args:
      label: from a path such as "0/kernel" to the label.

    Returns:
      A function from the parameters to the tree of their labels.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> by_path(lambda path: path.endswith("kernel"))(params)
    {'bias': False, 'kernel': True}
    """

    def labels(params: Params) -> Any:
        structure = jax.tree.structure(params)
        return jax.tree.unflatten(structure, [label(path) for path in tree.named_leaves(params)])

    return labels


class PartitionState(NamedTuple):
    """The state of `partition`: for each label in sorted order, its optimizer's state."""

    inner: tuple[State, ...]


def partition(transforms: Mapping[Any, Optimizer], param_labels: Any) -> Optimizer:
    """An optimizer for each group of parameters.

    The optimizer of a label sees the trees with every other leaf gone (None in its
    place), so that what it keeps is as large as its group; a `value_fn` is passed
    on as a function of that group, the other parameters held fixed.

    Args:
      transforms: an optimizer for each label.
      param_labels: a tree of labels (or a prefix of the parameters' tree), or a
        function from the parameters to one, such as `by_path(...)`.

    Returns:
      An `Optimizer`.

    Raises:
      ValueError: a parameter has a label without an optimizer; the message names both.

    As optax's `partition`.
    """
    names = sorted(transforms, key=str)

    def labelled(params: Params) -> list[Hashable]:
        labels = param_labels(params) if is_function(param_labels) else param_labels
        found = jax.tree.leaves(jax.tree.broadcast(labels, params))
        for path, label in zip(tree.named_leaves(params), found, strict=True):
            if label not in transforms:
                known = ", ".join(repr(name) for name in names)
                raise ValueError(
                    f"Parameter '{path}' has the label {label!r}, expected one of {known}."
                )
        return found

    def part(whole: Any, labels: list[Hashable], name: Any) -> Any:
        leaves, structure = jax.tree.flatten(whole)
        kept = [x if label == name else None for x, label in zip(leaves, labels, strict=True)]
        return jax.tree.unflatten(structure, kept)

    def put(whole: Any, labels: list[Hashable], name: Any, new: Any) -> Any:
        leaves, structure = jax.tree.flatten(whole)
        rest = iter(jax.tree.leaves(new))
        merged = [next(rest) if label == name else x for x, label in zip(leaves, labels)]
        return jax.tree.unflatten(structure, merged)

    @promoting
    def init(params: Params) -> PartitionState:
        labels = labelled(params)
        states = (transforms[name].init(part(params, labels, name)) for name in names)
        return PartitionState(tuple(states))

    @promoting
    def update(
        grads: Updates,
        state: PartitionState,
        params: Params | None = None,
        *,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Updates, PartitionState]:
        labels = labelled(grads if params is None else params)
        updates, states = grads, []
        for name, before in zip(names, state.inner, strict=True):
            own = None if params is None else part(params, labels, name)
            if value_fn is not None and params is not None:
                extra["value_fn"] = lambda w, name=name: value_fn(put(params, labels, name, w))
            new, after = transforms[name].update(part(grads, labels, name), before, own, **extra)
            updates = put(updates, labels, name, new)
            states.append(after)
        return updates, PartitionState(tuple(states))

    return Optimizer(init, update)


def masked(inner: Optimizer, mask: Mask) -> Optimizer:
    """`inner` for the parameters where `mask` holds; the gradients of the others pass as they are.

    Args:
      inner: the optimizer or transform.
      mask: a tree of booleans (or a prefix), or a function from the parameters to one.

    Returns:
      An `Optimizer`. As optax's.
    """
    return partition({True: inner, False: identity()}, lambda params: resolve_mask(mask, params))


def freeze(mask: Mask) -> Optimizer:
    """Zeroes the updates of the parameters where `mask` holds: at the end of a `chain`, they stay.

    An optimizer before it still keeps their moments; `partition` with
    `set_to_zero()` saves that memory.

    Args:
      mask: a tree of booleans (or a prefix), or a function from the parameters to
        one; None freezes everything.

    Returns:
      An `Optimizer` without state. As optax's.

    >>> from jdl import optim
    >>> still = optim.freeze(optim.by_path(lambda path: path.startswith("0/")))
    >>> optimizer = optim.chain(optim.adam(1e-3), still)
    """

    @promoting
    def update(
        grads: Updates, state: tuple[()], params: Params | None = None, **extra: Any
    ) -> tuple[Updates, tuple[()]]:
        frozen = resolve_mask(mask, grads if params is None else params)
        return jax.tree.map(lambda f, g: jnp.where(f, jnp.zeros_like(g), g), frozen, grads), ()

    return Optimizer(lambda params: (), update)

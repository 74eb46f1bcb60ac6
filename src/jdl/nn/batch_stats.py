"""Running statistics of batch norms, recomputed for parameters that no training step has seen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jdl._promotion import promoting
from jdl.nn.base import Key, Layer, Params, State, part_key


@promoting
def recompute_batch_stats(
    layer: Layer,
    params: Params,
    state: State,
    batches: Iterable[Any],
    *,
    key: Key | None = None,
) -> State:
    """`state` with every batch norm's running statistics replaced by plain averages over `batches`.

    For parameters that were averaged after training, whose statistics no step
    of the training has seen. The mean and (unbiased) variance of each batch are
    averaged, weighted by the batch's size, whatever the momentum, as torch's `update_bn` does for
    equal batches. Other entries of the state stay as they are.

    Args:
      layer: the model.
      params: its parameters, as averaged.
      state: its state.
      batches: inputs `x`, batch axis first; the training data once is right.
      key: needed if the model has dropout, which stays on as in training.

    Raises:
      ValueError: `batches` is empty.

    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018, section 3.2.
    """
    total: State = None
    count = 0

    @jax.jit
    def of_batch(params: Params, state: State, x: Any, key: Key | None) -> State:
        def after(before: State) -> State:
            return layer.apply(params, before, x, key=key, train=True)[1]

        # A running statistic moves to (1 - momentum) * old + momentum * batch. From old = 0
        # that is momentum * batch, and its derivative in old is 1 - momentum. Of 0, which
        # freezes it, that says nothing; a norm that reads `momentum` in its state takes 1.
        empty = _each_norm(lambda s: jax.tree.map(jnp.zeros_like, s) | {"momentum": 1.0}, state)
        direction = _each_norm(
            lambda s: jax.tree.map(jnp.ones_like, s) | {"momentum": 0.0},
            jax.tree.map(_no_tangent, state),
        )
        weighted, past = jax.jvp(after, (empty,), (direction,))
        return _each_norm(
            lambda w, p: {name: w[name] / (1 - p[name]) for name in STATISTICS}, weighted, past
        )

    for index, x in enumerate(batches):
        size = jax.tree.leaves(x)[0].shape[0]
        statistics = of_batch(params, state, x, part_key(key, index))
        scaled = _over_batch_norms(lambda new, size=size: size * new, statistics)
        total = scaled if total is None else _over_batch_norms(lambda a, b: a + b, total, scaled)
        count += size
    if not count:
        raise ValueError("`batches` must hold at least one batch, got none.")
    return _over_batch_norms(lambda old, summed: (summed / count).astype(old.dtype), state, total)


STATISTICS = ("mean", "var")


def _is_running(state: Any) -> bool:
    return isinstance(state, dict) and set(state) - {"momentum"} == set(STATISTICS)


def _each_norm(function: Callable[..., Any], state: State, *others: State) -> State:
    def node(first: Any, *rest: Any) -> Any:
        return function(first, *rest) if _is_running(first) else first

    return jax.tree.map(node, state, *others, is_leaf=_is_running)


def _over_batch_norms(function: Callable[..., Any], state: State, *others: State) -> State:
    return _each_norm(functools.partial(jax.tree.map, function), state, *others)


def _no_tangent(leaf: Any) -> Any:
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.zeros(leaf.shape, leaf.dtype if inexact else jax.dtypes.float0)

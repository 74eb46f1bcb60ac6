"""Gradient descent whose rate is the distance come over the gradients met: DoG and DoWG."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdl import tree
from jdl._checks import check_choice, check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    Mask,
    copies,
    given,
    over,
    per_leaf,
    resolve_mask,
    values_at,
    wide,
    widest,
)
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    at_step,
    check_learning_rate,
    next_count,
)
from jdl.tree import root


class DistanceState(NamedTuple):
    """The state of `dog` and `dowg`.

    Attributes:
      step: the number of updates made.
      start: the parameters at the start.
      distance: the largest distance from it so far (`dowg`: squared).
      gradient_sum: sum of squared gradient norms (`dowg`: weighted by the squared distance).
    """

    step: Int[Array, ""]
    start: Params
    distance: Float[Array, ""]
    gradient_sum: Float[Array, ""]


def dog(
    learning_rate: Number = 1.0,
    init_step: tuple[str, Number] = ("heuristic", 1e-6),
    eps: Number = 1e-8,
    weight_decay: Number | None = None,
    mask: Mask = None,
) -> Optimizer:
    """DoG: gradient descent at the rate (largest distance from the start) / |all gradients|.

        r = max(r, |w - w0|);    s = s + |g|**2;    w -= lr * r / sqrt(s + eps) * g

    Keep an average of the iterates with it: the last one is noisy.

    Args:
      learning_rate: factor of the rate, in (0, inf): leave it 1.
      init_step: a name and a number in (0, inf). "distance": `r` at the start;
        "heuristic": `r` is the number times `1 + |w0|`; "learning_rate": the rate of
        the first update.
      eps: in [0, inf).
      weight_decay: coupled decay, in [0, inf); 0 and `None` are off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Ivgi, Hinder and Carmon, DoG is SGD's best friend (2023). As optax.contrib's `dog`.
    """
    kind, first = init_step
    _check(learning_rate, weight_decay)
    check_number("eps", eps, "[0, inf)")
    check_choice("init_step", kind, ["heuristic", "distance", "learning_rate"])
    check_number("init_step", first, "(0, inf)")

    @promoting
    def init(params: Params) -> DistanceState:
        step = jnp.zeros((), jnp.int32)
        r = at_step(first, step)
        if kind == "heuristic":
            r = r * (1 + tree.norm(params))
        elif kind == "learning_rate":
            r = jnp.zeros_like(r)
        r = r.astype(widest(params))
        return DistanceState(step, copies(params), r, jnp.zeros_like(r))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, DistanceState]:
        params = given(params, "dog")
        lr, e = values_at(state.step, learning_rate, eps)
        grads = _decayed(grads, params, weight_decay, mask, state.step)
        r = jnp.maximum(state.distance, root(_squared_distance(params, state.start)))
        s = state.gradient_sum + tree.dot(grads, grads)
        rate = over(r, root(s + e))
        if kind == "learning_rate":
            rate = jnp.where(state.step == 0, at_step(first, state.step), rate)
        return _descend(grads, params, state, lr * rate, r, s)

    return Optimizer(init, update)


def dowg(
    learning_rate: Number = 1.0,
    init_estim_sq_dist: Number | None = None,
    eps: Number = 1e-4,
    weight_decay: Number | None = None,
    mask: Mask = None,
) -> Optimizer:
    """DoWG: as DoG, each gradient weighted by the distance at which it was met.

        r2 = max(r2, |w - w0|**2);    s = s + r2*|g|**2;    w -= lr * r2 / (sqrt(s) + eps) * g

    Args:
      learning_rate: factor of the rate, in (0, inf): leave it 1.
      init_estim_sq_dist: `r2` at the start, in (0, inf); `None` is `eps`.
      eps: in (0, inf).
      weight_decay: coupled decay, in [0, inf); 0 and `None` are off.
      mask: which parameters decay: a tree of booleans, a function that gives one, `None` for all.

    Returns:
      An `Optimizer` whose state is one number per parameter.

    Raises:
      ValueError: a number out of range, or `update` without the parameters.

    Khaled, Mishchenko and Jin, DoWG unleashed: an efficient universal
    parameter-free gradient descent method (2023). As optax.contrib's `dowg`.
    """
    _check(learning_rate, weight_decay)
    check_number("eps", eps, "(0, inf)")
    start = eps if init_estim_sq_dist is None else init_estim_sq_dist
    check_number("init_estim_sq_dist", start, "(0, inf)")

    @promoting
    def init(params: Params) -> DistanceState:
        step = jnp.zeros((), jnp.int32)
        r2 = at_step(start, step).astype(widest(params))
        return DistanceState(step, copies(params), r2, jnp.zeros_like(r2))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, DistanceState]:
        params = given(params, "dowg")
        lr, e = values_at(state.step, learning_rate, eps)
        grads = _decayed(grads, params, weight_decay, mask, state.step)
        r2 = jnp.maximum(state.distance, _squared_distance(params, state.start))
        s = state.gradient_sum + r2 * tree.dot(grads, grads)
        return _descend(grads, params, state, lr * over(r2, root(s) + e), r2, s)

    return Optimizer(init, update)


def _check(learning_rate: Number, weight_decay: Number | None) -> None:
    check_learning_rate(learning_rate)
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, "[0, inf)")


def _decayed(
    grads: Updates, params: Params, weight_decay: Number | None, mask: Mask, step: Array
) -> Updates:
    if weight_decay is None:
        return grads
    wd = at_step(weight_decay, step)
    return jax.tree.map(
        lambda g, w, decays: wide(g) + wd * wide(w) if decays else wide(g),
        grads,
        params,
        resolve_mask(mask, params),
    )


def _squared_distance(params: Params, start: Params) -> Array:
    gone = jax.tree.map(lambda w, w0: wide(w) - w0, params, start)
    return tree.dot(gone, gone)


def _descend(
    grads: Updates, params: Params, state: DistanceState, rate: Array, r: Array, s: Array
) -> tuple[Updates, DistanceState]:
    (updates,) = per_leaf(lambda g, w: (-rate * g,), grads, params)
    dtype = state.distance.dtype
    kept = DistanceState(next_count(state.step), state.start, r.astype(dtype), s.astype(dtype))
    return updates, kept

"""Sophia: a clipped Newton step with an average of the Hessian's diagonal."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import (
    Mask,
    check_real,
    given,
    leafwise,
    moments,
    over,
    resolve_mask,
    values_at,
    wide,
)
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.optim.elementwise.adam import check_betas


class HutchinsonState(NamedTuple):
    """The state of `hutchinson_estimator_diag_hessian`: `step`, the estimates made."""

    step: Int[Array, ""]


def hutchinson_estimator_diag_hessian(key: Any) -> Optimizer:
    """An unbiased estimate of the Hessian's diagonal: `z * (H z)` for random signs `z`.

    Its `update` ignores the gradients and needs `value_fn`, the loss as a function
    of the parameters. The key of estimate n is `fold_in(key, n)`.

    Args:
      key: a key from `jax.random.key`.
    """
    # As plain numbers, since `vmap` of `cond` selects among a branch's inputs, which
    # counts as using a key.
    data, implementation = jax.random.key_data(key), jax.random.key_impl(key)

    @promoting
    def init(params: Params) -> HutchinsonState:
        return HutchinsonState(jnp.zeros((), jnp.int32))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, HutchinsonState]:
        params = given(params, "hutchinson_estimator_diag_hessian")
        value_fn = extra.get("value_fn")
        if value_fn is None:
            raise ValueError(
                "hutchinson_estimator_diag_hessian needs the loss: call "
                "`update(grads, state, params, value_fn=loss)`, got value_fn=None."
            )
        structure: Any = jax.tree.structure(params)
        leaves = jax.tree.leaves(params)
        now = jax.random.fold_in(jax.random.wrap_key_data(data, impl=implementation), state.step)
        keys = jax.random.split(now, len(leaves))
        signs = structure.unflatten(
            [
                jax.random.rademacher(k, jnp.shape(w), jnp.result_type(w))
                for k, w in zip(keys, leaves, strict=True)
            ]
        )
        product = jax.jvp(jax.grad(value_fn), (params,), (signs,))[1]
        return jax.tree.map(jnp.multiply, signs, product), HutchinsonState(next_count(state.step))

    return Optimizer(init, update)


class SophiaState(NamedTuple):
    """The state of `sophia`.

    Attributes:
      step: the number of updates made.
      momentum: average of gradients, shaped as the parameters.
      curvature: average of the Hessian's diagonal, likewise.
      estimator: state of the estimator of that diagonal.
    """

    step: Int[Array, ""]
    momentum: Updates
    curvature: Updates
    estimator: State


def sophia(
    learning_rate: Number,
    b1: Number = 0.965,
    b2: Number = 0.99,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: Number = 0.01,
    clip_threshold: Number | None = 1.0,
    update_interval: Number = 10,
    hessian_diagonal_fn: Optimizer | None = None,
    mu_dtype: Any = None,
    *,
    key: Any = None,
) -> Optimizer:
    """Sophia: momentum over the Hessian's diagonal, each element of the step clipped.

        m = b1*m + (1-b1)*g;    every k updates: h = b2*h + (1-b2)*diagonal(H)
        u = clip((m/(1-b1**t)) / max(gamma*h, eps), -c, c);    w -= lr * (u + weight_decay*w)

    `update` needs the loss as `value_fn`. For real parameters.

    Args:
      learning_rate: in (0, inf).
      b1: decay of the momentum, in [0, 1).
      b2: decay of the curvature, in [0, 1).
      eps: least curvature, in [0, inf); where it is 0 and the curvature too, the step is 0.
      weight_decay: decoupled decay, scaled by the rate, in [0, inf); 0 is off.
      weight_decay_mask: which parameters decay.
      gamma: factor of the curvature, in (0, inf): larger clips less.
      clip_threshold: `c`, in (0, inf]; inf and `None` are off.
      update_interval: `k`, in [1, inf). Where the step is batched by `vmap` the
        curvature is estimated at every update and used at these.
      hessian_diagonal_fn: a pair whose `update` gives an estimate of the diagonal;
        `None` is `hutchinson_estimator_diag_hessian(key)`.
      mu_dtype: dtype of the momentum; `None` is float32 or wider.
      key: for the estimator where none is given; required then.

    Returns:
      An `Optimizer` whose state is two numbers per parameter.

    Raises:
      ValueError: a number out of range, no key, or `update` without the parameters.

    Liu et al., Sophia: a scalable stochastic second-order optimizer for language
    model pre-training (2023), algorithm 3. As optax.contrib's `sophia`, but that
    it takes the loss as `obj_fn` and hides a fixed key: both correct the momentum for
    bias, which the paper does not, and use a new estimate from the next update on,
    where the paper uses it at once; so the first update is a step of signs.
    """
    check_learning_rate(learning_rate)
    check_betas(b1=b1, b2=b2)
    check_number("eps", eps, "[0, inf)")
    check_number("weight_decay", weight_decay, "[0, inf)")
    check_number("gamma", gamma, "(0, inf)")
    check_number("update_interval", update_interval, "[1, inf)")
    if clip_threshold is not None:
        check_number("clip_threshold", clip_threshold, "(0, inf]")
    if hessian_diagonal_fn is None and key is None:
        raise ValueError("sophia needs a key for its estimator: `key=jax.random.key(0)`, got None.")
    estimator = hessian_diagonal_fn or hutchinson_estimator_diag_hessian(key)

    @promoting
    def init(params: Params) -> SophiaState:
        check_real(params, "sophia")
        return SophiaState(
            jnp.zeros((), jnp.int32),
            moments(params, mu_dtype),
            moments(params),
            estimator.init(params),
        )

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SophiaState]:
        params = given(params, "sophia")
        lr, c1, c2, e, decay, factor, bound, every = values_at(
            state.step,
            learning_rate,
            b1,
            b2,
            eps,
            weight_decay,
            gamma,
            jnp.inf if clip_threshold is None else clip_threshold,
            update_interval,
        )
        t = next_count(state.step)
        debias = 1 - c1**t

        def rule(g: Any, m: Any, h: Any, w: Any, decays: bool) -> tuple[Any, Any]:
            m = c1 * wide(m) + (1 - c1) * wide(g)
            u = jnp.clip(over(m / debias, jnp.maximum(factor * h, e)), -bound, bound)
            return -lr * (u + decay * wide(w) if decays else u), m

        updates, momentum = leafwise(
            rule,
            (params, state.momentum),
            grads,
            state.momentum,
            state.curvature,
            params,
            resolve_mask(weight_decay_mask, params),
        )

        def estimate(curvature: Updates, inner: State) -> tuple[Updates, State]:
            diagonal, inner = estimator.update(grads, inner, params, **extra)
            (curvature,) = leafwise(
                lambda d, h: (c2 * h + (1 - c2) * wide(d),), (curvature,), diagonal, curvature
            )
            return curvature, inner

        curvature, inner = jax.lax.cond(
            state.step % every.astype(jnp.int32) == 0,
            estimate,
            lambda *kept: kept,
            state.curvature,
            state.estimator,
        )
        return updates, SophiaState(t, momentum, curvature, inner)

    return Optimizer(init, update)

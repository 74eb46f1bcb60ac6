"""Gradient descent with noise: annealed noise on the gradient, and Langevin dynamics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim._leaves import leafwise, values_at, wide
from jdl.optim.base import (
    Number,
    Optimizer,
    Params,
    State,
    Updates,
    check_learning_rate,
    next_count,
)
from jdl.tree import root


class NoisyState(NamedTuple):
    """The state of `noisy_sgd` and `sgld`: `step`, the number of updates made."""

    step: Int[Array, ""]


def noisy_sgd(
    learning_rate: Number, eta: Number = 0.01, gamma: Number = 0.55, key: Any = None
) -> Optimizer:
    """Gradient descent with Gaussian noise on the gradient, whose variance dies out.

        w -= lr * (g + sqrt(eta / t**gamma) * normal)

    The noise of update t, from 0, comes from `fold_in(key, t)`.

    Args:
      learning_rate: in (0, inf).
      eta: variance at the first update, in [0, inf); 0 is off.
      gamma: how fast it dies out, in [0, inf); 0 keeps it.
      key: a key from `jax.random.key`; required.

    Returns:
      An `Optimizer` whose state is the step.

    Raises:
      ValueError: a number out of range, or no key.

    Neelakantan et al., Adding gradient noise improves learning for very deep
    networks (2015), equation 1 with t counted from 1. As optax, whose draws differ.
    """
    check_learning_rate(learning_rate)
    check_number("eta", eta, "[0, inf)")
    check_number("gamma", gamma, "[0, inf)")

    def scales(step: Array) -> tuple[Any, Any]:
        lr, variance, power = values_at(step, learning_rate, eta, gamma)
        return lr, lr * root(variance / next_count(step) ** power)

    return _descent_with_noise(scales, key, "noisy_sgd")


def sgld(learning_rate: Number, temperature: Number = 1.0, key: Any = None) -> Optimizer:
    """Stochastic gradient Langevin dynamics: descent and noise in equilibrium.

        w -= lr * g + sqrt(2 * lr * temperature) * normal

    With the exact gradient of a loss f and a small rate, the iterates become samples
    of the density proportional to `exp(-f(w) / temperature)`. Give it the sum of
    the losses, not their mean, for a posterior. The noise of update t, from 0,
    comes from `fold_in(key, t)`.

    Args:
      learning_rate: in (0, inf).
      temperature: in [0, inf); 0 is gradient descent.
      key: a key from `jax.random.key`; required.

    Returns:
      An `Optimizer` whose state is the step.

    Raises:
      ValueError: a number out of range, or no key.

    Welling and Teh, Bayesian learning via stochastic gradient Langevin dynamics
    (2011), where the rate is written `epsilon / 2`.
    """
    check_learning_rate(learning_rate)
    check_number("temperature", temperature, "[0, inf)")

    def scales(step: Array) -> tuple[Any, Any]:
        lr, heat = values_at(step, learning_rate, temperature)
        return lr, root(2 * lr * heat)

    return _descent_with_noise(scales, key, "sgld")


def _descent_with_noise(scales: Any, key: Any, name: str) -> Optimizer:
    """`w -= lr*g + deviation*normal`, where `scales(step)` is `(lr, deviation)`."""
    if key is None:
        raise ValueError(f"{name} needs a key: `key=jax.random.key(0)`, got key=None.")

    @promoting
    def init(params: Params) -> NoisyState:
        return NoisyState(jnp.zeros((), jnp.int32))

    @promoting
    def update(
        grads: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, NoisyState]:
        lr, deviation = scales(state.step)
        structure: Any = jax.tree.structure(grads)
        keys = jax.random.split(jax.random.fold_in(key, state.step), structure.num_leaves)

        def rule(g: Any, k: Array) -> tuple[Any]:
            g = wide(g)
            return (-(lr * g + deviation * jax.random.normal(k, g.shape, g.dtype)),)

        like = grads if params is None else params
        (updates,) = leafwise(rule, (like,), grads, structure.unflatten(list(keys)))
        return updates, NoisyState(next_count(state.step))

    return Optimizer(init, update)

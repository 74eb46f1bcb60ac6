"""Transforms of gradients to chain with an optimizer: decay, scaling, noise, centring, averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jdl import tree
from jdl._checks import check_number
from jdl._promotion import at_least_float32, promoting
from jdl.optim._leaves import Mask, given, moments, per_leaf, resolve_mask
from jdl.optim.base import Number, Optimizer, Params, Updates, at_step, next_count


class StepState(NamedTuple):
    """The state of a transform that only knows the step: `step`, the updates made."""

    step: Int[Array, ""]


def from_rule(rule: Callable[[Updates, Params | None, Array], Updates]) -> Optimizer:
    """The transform whose update is `rule(grads, params, step)` and which keeps nothing else."""

    @promoting
    def init(params: Params) -> StepState:
        return StepState(jnp.zeros((), jnp.int32))

    @promoting
    def update(
        grads: Updates, state: StepState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, StepState]:
        return rule(grads, params, state.step), StepState(next_count(state.step))

    return Optimizer(init, update)


def identity() -> Optimizer:
    """Gives the gradients back as they are."""
    return from_rule(lambda grads, params, step: grads)


def set_to_zero() -> Optimizer:
    """Gives zeros: in a `partition`, the parameters of that label stay as they are."""
    return from_rule(lambda grads, params, step: tree.zeros_like(grads))


def scale(step_size: Number) -> Optimizer:
    """Multiplies the gradients by `step_size`; a schedule is called with the step."""
    return from_rule(lambda grads, params, step: tree.scale(at_step(step_size, step), grads))


def select(mask: Mask, params: Params) -> Params:
    """`params` where `mask` holds, else 0."""
    if mask is None:
        return params
    keeps = resolve_mask(mask, params)
    return jax.tree.map(lambda keep, w: jnp.where(keep, w, jnp.zeros_like(w)), keeps, params)


def add_decayed_weights(weight_decay: Number = 0.0, mask: Mask = None) -> Optimizer:
    """Adds `weight_decay * w` to each gradient.

    Before an optimizer in a `chain` this is the gradient of an L2 term (coupled);
    between its scaling and its rate it is decoupled, as `adamw` has it.

    Args:
      weight_decay: in [0, inf), 0 is off.
      mask: which parameters decay: None for all, a tree of booleans (or a prefix
        of the parameters' tree), or a function from the parameters to one, as in
        `lambda params: jax.tree.map(lambda w: w.ndim > 1, params)`.

    Returns:
      An `Optimizer` whose state is the step.
    """
    check_number("weight_decay", weight_decay, "[0, inf)")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        wd = at_step(weight_decay, step)
        decaying = select(mask, given(params, "add_decayed_weights"))
        return per_leaf(lambda g, w: (g + wd * w,), grads, decaying)[0]

    return from_rule(rule)


def normalize_by_update_norm(scale_factor: Number = 1.0, eps: Number = 1e-6) -> Optimizer:
    """Divides all gradients together by their joint norm.

        g *= scale_factor / (norm(all g) + eps)

    Args:
      scale_factor: the norm that comes out, in (0, inf).
      eps: in [0, inf), 0 is off.

    Returns:
      An `Optimizer` whose state is the step. As optax's.
    """
    check_number("scale_factor", scale_factor, "(0, inf)")
    check_number("eps", eps, "[0, inf)")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        length = tree.norm(grads) + at_step(eps, step)
        some = length > 0
        factor = jnp.where(some, at_step(scale_factor, step) / jnp.where(some, length, 1), 0)
        return tree.scale(factor, grads)

    return from_rule(rule)


def centralize(output_axis: int = 0) -> Optimizer:
    """Subtracts from the gradient of each output of a matrix or kernel its mean over the inputs.

        g -= mean(g over every axis but output_axis)      where g has 2 axes or more

    Args:
      output_axis: 0 as in optax, whose kernels would be [outputs, inputs]; give -1
        for kernels whose last axis is the outputs, such as those of `jdl.nn`.

    Returns:
      An `Optimizer` whose state is the step. Yong et al. 2020.
    """

    def leaf(g: Array, w: Any) -> tuple[Array]:
        if g.ndim < 2:
            return (g,)
        axes = tuple(axis for axis in range(g.ndim) if axis != output_axis % g.ndim)
        return (g - jnp.mean(g, axes, keepdims=True),)

    return from_rule(lambda grads, params, step: per_leaf(leaf, grads, None)[0])


def add_noise(eta: Number, gamma: Number, key: Any) -> Optimizer:
    """Adds Gaussian noise of variance `eta / t**gamma` to the gradients.

    The noise of a step depends on the key and the step alone, so that a run that
    is stopped and resumed draws what it would have drawn.

    Args:
      eta: the variance at the first step, in [0, inf), 0 is off.
      gamma: in [0, inf), 0 keeps the variance.
      key: a typed key, `jax.random.key(seed)`.

    Returns:
      An `Optimizer` whose state is the step. Neelakantan et al. 2015; optax's
      differs in the numbers that it draws.
    """
    check_number("eta", eta, "[0, inf)")
    check_number("gamma", gamma, "[0, inf)")

    def rule(grads: Updates, params: Params | None, step: Array) -> Updates:
        variance = at_step(eta, step) / (step + 1.0) ** at_step(gamma, step)
        leaves, structure = jax.tree.flatten(grads)
        keys = jax.random.split(jax.random.fold_in(key, step), max(len(leaves), 1))
        noises = [
            jax.random.normal(k, g.shape, at_least_float32(g))
            for k, g in zip(keys, leaves, strict=False)
        ]
        noise = jax.tree.unflatten(structure, noises)
        return tree.add_scaled(grads, tree.root(variance), noise)

    return from_rule(rule)


class EmaState(NamedTuple):
    """The state of `ema`.

    Attributes:
      step: the number of updates made.
      average: exponential average of the updates, shaped as the parameters.
    """

    step: Int[Array, ""]
    average: PyTree


def ema(decay: Number, debias: bool = True, accumulator_dtype: Any = None) -> Optimizer:
    """Replaces the gradients by their exponential moving average.

        a = decay * a + (1 - decay) * g;    g = a / (1 - decay**t) if debias else a

    For averages of the parameters see `parameter_ema`.

    Args:
      decay: in [0, 1), 0 is off.
      debias: whether the average is corrected for its start at 0.
      accumulator_dtype: the average's dtype; float32 or the parameter's if wider.

    Returns:
      An `Optimizer` whose state is one number per parameter. As optax's.
    """
    check_number("decay", decay, "[0, 1)")

    @promoting
    def init(params: Params) -> EmaState:
        return EmaState(jnp.zeros((), jnp.int32), moments(params, accumulator_dtype))

    @promoting
    def update(
        grads: Updates, state: EmaState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, EmaState]:
        t = next_count(state.step)
        rho = at_step(decay, state.step)
        correction = 1 - rho**t if debias else 1

        def rule(g: Array, w: Any, a: Array) -> tuple[Array, Array]:
            a = rho * a + (1 - rho) * g
            return a / correction, a

        updates, average = per_leaf(rule, grads, None, state.average)
        return updates, EmaState(t, average)

    return Optimizer(init, update)

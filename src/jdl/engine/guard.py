"""A training step that is undone where it fails, at no cost to the state's memory traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Bool

from jdl._operation import evaluated
from jdl.engine.trial import Metrics, State


def guarded(
    step: Callable[..., tuple[State, Metrics]],
    sound: Callable[[Metrics], Bool[Array, ""]],
    state: State,
    *args: Any,
) -> tuple[State, Metrics, Bool[Array, ""]]:
    """`step(state, *args)`, whose new state is taken only if its metrics are `sound`.

    What the metrics need is computed first. Then each leaf of the new state is
    selected as soon as it is known, so that what depends on it (an update on its
    moments) reads the selected leaf. With all selections at the end the compiler
    keeps, and copies, the old moments until the update is done: a step of an
    MLP 64-64-10 with Adam takes 1.2 times as long. A step with effects (callbacks,
    references that it writes) keeps its own order, with all selections at the end.

    Args:
      step: gives the new state, of the structure of the old one, and metrics.
      sound: says of the metrics whether the step counts.
      state: before the step.
      args: the other arguments of `step`.

    Returns:
      The state after the step, or before it if it is not sound; the metrics; and
      whether they are sound.
    """
    closed, (_, metrics) = jax.make_jaxpr(step, return_shape=True)(state, *args)
    jaxpr = closed.jaxpr
    old, structure = jax.tree.flatten(state)
    new, told = jaxpr.outvars[: len(old)], jaxpr.outvars[len(old) :]
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, jax.tree.leaves((state, args)), strict=True)

    def read(v: Any) -> Any:
        return values[v] if _is_var(v) else v.val

    ordered = any(equation.effects for equation in jaxpr.eqns)
    first, later = (jaxpr.eqns, []) if ordered else _split(jaxpr.eqns, told)
    for equation in first:
        values |= zip(equation.outvars, evaluated(jaxpr, equation, read), strict=True)
    metrics = jax.tree.unflatten(jax.tree.structure(metrics), map(read, told))
    ok = sound(metrics)
    computed = {v for equation in later for v in equation.outvars}
    # The old leaf that each new one falls back to: where two leaves share a value, the last one's.
    fallback = {v: leaf for v, leaf in zip(new, old) if _is_var(v) and v in computed}
    for equation in later:
        for v, value in zip(equation.outvars, evaluated(jaxpr, equation, read), strict=True):
            values[v] = jnp.where(ok, value, fallback[v]) if v in fallback else value

    def taken(v: Any, leaf: Any) -> Any:
        selected = _is_var(v) and fallback.get(v) is leaf
        return read(v) if selected else jnp.where(ok, read(v), leaf)

    leaves = [taken(v, leaf) for v, leaf in zip(new, old, strict=True)]
    return jax.tree.unflatten(structure, leaves), metrics, ok


def _split(equations: Any, wanted: Any) -> tuple[list[Any], list[Any]]:
    """The equations on which `wanted` depends, and the others."""
    needed, first, later = {*filter(_is_var, wanted)}, [], []
    for equation in reversed(equations):
        if needed.isdisjoint(equation.outvars):
            later.append(equation)
        else:
            first.append(equation)
            needed |= {*filter(_is_var, equation.invars)}
    return first[::-1], later[::-1]


def _is_var(v: Any) -> bool:
    return not isinstance(v, core.Literal)

"""Schedules of one cycle or many: one-cycle, SGDR, warm restarts, triangles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim.base import Schedule
from jdl.optim.schedules.decay import Value, minus, phase, real
from jdl.optim.schedules.join import (
    join_schedules,
    piecewise_interpolate_schedule,
    warmup_cosine_decay_schedule,
)


def linear_onecycle_schedule(
    transition_steps: Value,
    peak_value: Value,
    pct_start: Value = 0.3,
    pct_final: Value = 0.85,
    div_factor: Value = 25.0,
    final_div_factor: Value = 1e4,
) -> Schedule:
    """One cycle in straight lines: up to the peak, down to the start, and further down.

    Args:
      transition_steps: steps in all, in (0, inf).
      peak_value: the value at `floor(pct_start * transition_steps)`.
      pct_start: share of the steps that rise, in [0, 1].
      pct_final: share after which the start is reached again, in [0, 1].
      div_factor: the start is `peak_value / div_factor`.
      final_div_factor: the end is the start divided by it.

    As optax's. Smith and Topin 2018.
    """
    check_number("transition_steps", transition_steps, "(0, inf)")
    check_number("pct_start", pct_start, "[0, 1]")
    check_number("pct_final", pct_final, "[0, 1]")
    steps, div = real(transition_steps), real(div_factor)
    return piecewise_interpolate_schedule(
        "linear",
        peak_value / div,
        [
            (jnp.floor(pct_start * steps), div),
            (jnp.floor(pct_final * steps), 1 / div),
            (steps, 1 / real(final_div_factor)),
        ],
    )


def cosine_onecycle_schedule(
    transition_steps: Value,
    peak_value: Value,
    pct_start: Value = 0.3,
    div_factor: Value = 25.0,
    final_div_factor: Value = 1e4,
) -> Schedule:
    """One cycle of half cosines: up to the peak and down to far below the start.

    Args:
      transition_steps: steps in all, in (0, inf).
      peak_value: the value at `floor(pct_start * transition_steps)`.
      pct_start: share of the steps that rise, in [0, 1].
      div_factor: the start is `peak_value / div_factor`.
      final_div_factor: the end is the start divided by it.

    As optax's and torch's `OneCycleLR`, which ends one step earlier.
    """
    check_number("transition_steps", transition_steps, "(0, inf)")
    check_number("pct_start", pct_start, "[0, 1]")
    steps, div = real(transition_steps), real(div_factor)
    return piecewise_interpolate_schedule(
        "cosine",
        peak_value / div,
        [(jnp.floor(pct_start * steps), div), (steps, 1 / (div * real(final_div_factor)))],
    )


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Value]]) -> Schedule:
    """Cosine cycles with warm restarts, each with its own numbers.

    Args:
      cosine_kwargs: for each cycle the arguments of `warmup_cosine_decay_schedule`.

    As optax's. Loshchilov and Hutter 2017; for cycles by rule see `cosine_restarts`.
    """
    cycles = list(cosine_kwargs)
    boundaries: list[Value] = []
    for cycle in cycles[:-1]:
        boundaries.append((boundaries[-1] if boundaries else 0) + cycle["decay_steps"])
    return join_schedules([warmup_cosine_decay_schedule(**cycle) for cycle in cycles], boundaries)


def cosine_restarts(
    init_value: Value, first_steps: Value, multiplier: Value = 1.0, end_value: Value = 0.0
) -> Schedule:
    """Half cosines from `init_value` to `end_value`, each `multiplier` times as long as the last.

        end_value + (init_value - end_value) * (1 + cos(pi * since / length)) / 2

    Each start is rounded to a whole step.

    Args:
      init_value: the value at each start.
      first_steps: length of the first cycle, in (0, inf).
      multiplier: in [1, inf), 1 is off.
      end_value: the value towards which each cycle falls.

    As torch's `CosineAnnealingWarmRestarts`. Loshchilov and Hutter 2017.
    """
    check_number("first_steps", first_steps, "(0, inf)")
    check_number("multiplier", multiplier, "[1, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        t, first, ratio = real(step), real(first_steps), real(multiplier)
        equal = ratio <= 1
        safe = jnp.where(equal, 2, ratio)

        def start(cycle: Array) -> Array:
            grown = (safe**cycle - 1) / (safe - 1)
            return jnp.floor(first * grown + 0.5)

        cycle = jnp.floor(jnp.log1p(t / first * (safe - 1)) / jnp.log(safe))
        # At a start the quotient of logarithms may round to either side of it.
        cycle = cycle - (minus(step, start(cycle)) < 0) + (minus(step, start(cycle + 1)) >= 0)
        since, length = minus(step, start(cycle)), start(cycle + 1) - start(cycle)
        since = jnp.where(equal, phase(step, first_steps)[1], since)
        length = jnp.where(equal, first, jnp.maximum(length, 1))
        cosine = (1 + jnp.cos(jnp.pi * since / length)) / 2
        return end_value + (real(init_value) - end_value) * cosine

    return schedule


def cyclic_schedule(
    low_value: Value,
    high_value: Value,
    up_steps: Value,
    down_steps: Value | None = None,
    cycle_decay: Value = 1.0,
    step_decay: Value = 1.0,
) -> Schedule:
    """A triangle wave between two values, whose height may fall.

        low_value + (high_value - low_value) * height * cycle_decay**cycle * step_decay**step

    Args:
      low_value: the value at each start.
      high_value: the value `up_steps` later.
      up_steps: in (0, inf).
      down_steps: in (0, inf); None is `up_steps`.
      cycle_decay: in (0, 1], 1 is off; 0.5 is torch's "triangular2".
      step_decay: in (0, 1], 1 is off; torch's "exp_range".

    As torch's `CyclicLR`. Smith 2017.
    """
    down_steps = up_steps if down_steps is None else down_steps
    check_number("up_steps", up_steps, "(0, inf)")
    check_number("down_steps", down_steps, "(0, inf)")
    check_number("cycle_decay", cycle_decay, "(0, 1]")
    check_number("step_decay", step_decay, "(0, 1]")

    @promoting
    def schedule(step: Any) -> Array:
        t, up, down = real(step), real(up_steps), real(down_steps)
        cycle, since = phase(step, jnp.asarray(up_steps) + down_steps)
        height = jnp.where(since <= up, since / up, (up + down - since) / down)
        shrunk = height * real(cycle_decay) ** cycle * real(step_decay) ** t
        return low_value + (real(high_value) - low_value) * shrunk

    return schedule

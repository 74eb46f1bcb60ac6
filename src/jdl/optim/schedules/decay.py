"""Schedules by formula: functions of the step, counted from 0, whose every number may be traced."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_number
from jdl._promotion import promoting
from jdl.optim.base import Schedule, at_step

Value = Any
"""A Python number or a traced scalar."""


@promoting
def real(value: Value) -> Array:
    """`value`, a step or an argument, in float32 or wider."""
    return at_step(value, 0)


@promoting
def minus(step: Any, start: Value) -> Array:
    """`step - start`, where steps beyond 2**24 have no exact float32.

    An integer if both are; else in float32 or wider, rounded once.
    """
    step, start = jnp.asarray(step), jnp.asarray(start)
    if _whole(step) and _whole(start):
        return step - start
    (a, b), (c, d) = _two_parts(step), _two_parts(start)
    return (a - c) + (b - d)


@promoting
def phase(step: Any, period: Value) -> tuple[Array, Array]:
    """How many periods of the steps are over, and how far the step is into the next one."""
    step, period = jnp.asarray(step), jnp.asarray(period)
    if _whole(step) and _whole(period):
        cycle, since = jnp.divmod(step, period)
        return real(cycle), real(since)
    coarse, fine = _two_parts(step)
    length = real(period)
    rest = jnp.mod(coarse, length)
    more = rest + fine
    cycle = jnp.round((coarse - rest) / length) + jnp.floor(more / length)
    return cycle, jnp.mod(more, length)


def _whole(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def _two_parts(x: Array) -> tuple[Array, Array]:
    """An integer as a sum of two floating-point numbers that are both exact."""
    if not _whole(x):
        return real(x), jnp.zeros(())
    coarse = (x >> 12) << 12
    return real(coarse), real(x - coarse)


def constant_schedule(value: Value) -> Schedule:
    """`value` at every step."""
    return lambda step: real(value)


def polynomial_schedule(
    init_value: Value,
    end_value: Value,
    power: Value,
    transition_steps: Value,
    transition_begin: Value = 0,
) -> Schedule:
    """From `init_value` to `end_value` as a power of the share of steps left.

        (init_value - end_value) * (1 - s)**power + end_value
        with s = clip((step - transition_begin) / transition_steps, 0, 1)

    With `transition_steps` 0 the value is `end_value` from `transition_begin` on
    (in optax it stays at `init_value` for ever).
    """
    check_number("transition_steps", transition_steps, "[0, inf)")
    check_number("transition_begin", transition_begin, "[0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        done = share(minus(step, transition_begin), transition_steps)
        return (real(init_value) - end_value) * (1 - done) ** real(power) + end_value

    return schedule


@promoting
def share(step: Any, steps: Value) -> Array:
    """`step / steps` held in [0, 1]; 1 from step 0 on where `steps` is 0."""
    step, steps = real(step), real(steps)
    none = steps <= 0
    return jnp.where(none, step >= 0, jnp.clip(step / jnp.where(none, 1, steps), 0, 1))


def linear_schedule(
    init_value: Value, end_value: Value, transition_steps: Value, transition_begin: Value = 0
) -> Schedule:
    """From `init_value` to `end_value` in equal steps, as in annealing momentum 0.5 to 0.99.

    >>> schedule = linear_schedule(0.5, 0.9, transition_steps=4)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 4, 9)]
    [0.5, 0.6, 0.9, 0.9]
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def step_decay(init_value: Value, transition_steps: Value, decay_rate: Value = 0.5) -> Schedule:
    """Halves (or multiplies by any factor) every `transition_steps` steps.

    init_value * decay_rate**floor(step / transition_steps)
    """
    return exponential_decay(init_value, transition_steps, decay_rate, staircase=True)


def exponential_decay(
    init_value: Value,
    transition_steps: Value,
    decay_rate: Value,
    transition_begin: Value = 0,
    staircase: bool = False,
    end_value: Value | None = None,
) -> Schedule:
    """Multiplies by `decay_rate` every `transition_steps` steps, smoothly or in stairs.

        init_value * decay_rate**p,   p = max(step - transition_begin, 0) / transition_steps

    `p` is rounded down in stairs, and the value goes no further than `end_value`.
    As optax's, but that a `decay_rate` of 0 is no special case.
    """
    check_number("transition_steps", transition_steps, "(0, inf)")
    check_number("decay_rate", decay_rate, "(0, inf)")
    check_number("transition_begin", transition_begin, "[0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        rate, since = real(decay_rate), jnp.maximum(minus(step, transition_begin), 0)
        p = phase(since, transition_steps)[0] if staircase else real(since) / transition_steps
        value = real(init_value) * rate**p
        if end_value is None:
            return value
        return jnp.where(rate < 1, jnp.maximum(value, end_value), jnp.minimum(value, end_value))

    return schedule


def natural_exponential_decay(init_value: Value, decay_rate: Value) -> Schedule:
    """`init_value * exp(-decay_rate * step)`; 0 is off.

    The form `init_value**(-decay_rate * step)` of some texts is a misprint.
    """
    check_number("decay_rate", decay_rate, "[0, inf)")
    return promoting(lambda step: real(init_value) * jnp.exp(-real(decay_rate) * step))


def inverse_time_decay(init_value: Value, decay_rate: Value) -> Schedule:
    """The 1/t decay `init_value / (1 + decay_rate * step)`; 0 is off."""
    check_number("decay_rate", decay_rate, "[0, inf)")
    return promoting(lambda step: real(init_value) / (1 + real(decay_rate) * step))


def cosine_decay_schedule(
    init_value: Value, decay_steps: Value, alpha: Value = 0.0, exponent: Value = 1.0
) -> Schedule:
    """From `init_value` to `alpha * init_value` along half a cosine.

        init_value * ((1 - alpha) * (0.5 * (1 + cos(pi * s)))**exponent + alpha)
        with s = min(step / decay_steps, 1)

    As optax's. Loshchilov and Hutter 2017.
    """
    check_number("decay_steps", decay_steps, "(0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * share(step, decay_steps)))
        return real(init_value) * ((1 - real(alpha)) * cosine ** real(exponent) + alpha)

    return schedule


def inverse_sqrt_schedule(peak_value: Value, warmup_steps: Value) -> Schedule:
    """A straight line up to `peak_value`, then the inverse square root of the step.

        peak_value * min(t / warmup_steps, sqrt(warmup_steps / t)),   t = step + 1

    Vaswani et al. 2017, whose peak is `(width * warmup_steps)**-0.5`.
    """
    check_number("warmup_steps", warmup_steps, "[1, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        t, steps = real(step) + 1, real(warmup_steps)
        return real(peak_value) * jnp.minimum(t / steps, jnp.sqrt(steps / t))

    return schedule


def sutskever_momentum(max_value: Value = 0.99, period: Value = 250) -> Schedule:
    """The momentum that rises to `max_value` as the step grows.

        min(1 - 2**(-1 - log2(floor(step / period) + 1)), max_value)

    Args:
      max_value: in [0, 1]; the paper tries 0.999, 0.995, 0.99, 0.9 and 0 (off).
      period: steps between rises, in (0, inf).

    Sutskever et al. 2013, section 3, for Nesterov's momentum.
    """
    check_number("max_value", max_value, "[0, 1]")
    check_number("period", period, "(0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        rises = phase(step, period)[0] + 1
        return jnp.minimum(1 - 2 ** (-1 - jnp.log2(rises)), max_value)

    return schedule

"""Schedules made of pieces: joined, with a warm-up, piecewise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jdl._checks import check_choice, check_number
from jdl._promotion import promoting
from jdl.optim.base import Schedule
from jdl.optim.schedules.decay import (
    Value,
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    linear_schedule,
    minus,
    real,
    share,
)


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[Value]) -> Schedule:
    """One schedule after another, each counting from its own start.

    Args:
      schedules: one more than there are boundaries.
      boundaries: the steps at which the next one takes over, rising; may be traced.

    As optax's.
    """
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            "`schedules` must be one more than `boundaries`, "
            f"got {len(schedules)} schedules and {len(boundaries)} boundaries."
        )

    @promoting
    def schedule(step: Any) -> Array:
        value = schedules[0](step)
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            since = minus(step, boundary)
            value = jnp.where(since < 0, value, following(jnp.maximum(since, 0)))
        return value

    return schedule


def warmup(schedule: Any, warmup_steps: Value, init_value: Value = 0.0) -> Schedule:
    """A straight line from `init_value` to where `schedule` starts, and then `schedule`.

        init_value + (schedule(0) - init_value) * step / warmup_steps    step < warmup_steps
        schedule(step - warmup_steps)                                    from there on

    Args:
      schedule: a schedule, or a number held after the warm-up.
      warmup_steps: in [0, inf), 0 is off.
      init_value: the value at step 0; a rate of 0 there wastes the first update,
        and `peak / (warmup_steps + 1)` does not.
    """
    check_number("warmup_steps", warmup_steps, "[0, inf)")
    following = schedule if callable(schedule) else constant_schedule(schedule)

    @promoting
    def rising(step: Any) -> Array:
        peak = following(jnp.zeros_like(step))
        return real(init_value) + (peak - init_value) * share(step, warmup_steps)

    return join_schedules([rising, following], [warmup_steps])


def warmup_constant_schedule(init_value: Value, peak_value: Value, warmup_steps: Value) -> Schedule:
    """A straight line from `init_value` to `peak_value`, which is held. As optax's."""
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: Value,
    peak_value: Value,
    warmup_steps: Value,
    decay_steps: Value,
    end_value: Value = 0.0,
    exponent: Value = 1.0,
) -> Schedule:
    """A straight line up to `peak_value`, then half a cosine (to a power) to `end_value`.

        (peak_value - end_value) * (0.5 * (1 + cos(pi * s)))**exponent + end_value
        with s = (step - warmup_steps) / (decay_steps - warmup_steps)

    `decay_steps` counts the whole, warm-up included, as in optax.
    """
    check_number("warmup_steps", warmup_steps, "[0, inf)")
    if not any(isinstance(steps, jax.core.Tracer) for steps in (warmup_steps, decay_steps)):
        warmed = f"({float(warmup_steps)}, inf)"
        check_number("decay_steps", decay_steps, warmed, "It counts the steps of the warm-up too.")
    shape = cosine_decay_schedule(1.0, decay_steps - warmup_steps, 0.0, exponent)

    @promoting
    def falling(step: Any) -> Array:
        return (real(peak_value) - end_value) * shape(step) + end_value

    return warmup(falling, warmup_steps, init_value)


def warmup_exponential_decay_schedule(
    init_value: Value,
    peak_value: Value,
    warmup_steps: Value,
    transition_steps: Value,
    decay_rate: Value,
    transition_begin: Value = 0,
    staircase: bool = False,
    end_value: Value | None = None,
) -> Schedule:
    """A straight line up to `peak_value`, then `exponential_decay` from there. As optax's."""
    falling = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    rising = linear_schedule(init_value, peak_value, warmup_steps)
    return join_schedules([rising, falling], [warmup_steps])


def wsd_schedule(
    peak_value: Value,
    warmup_steps: Value,
    stable_steps: Value,
    decay_steps: Value,
    init_value: Value = 0.0,
    end_value: Value = 0.0,
) -> Schedule:
    """Warm-up, stable, decay: straight up to `peak_value`, held, and straight to `end_value`.

    Args:
      peak_value: the value held.
      warmup_steps: in [0, inf), 0 is off.
      stable_steps: in [0, inf).
      decay_steps: in [0, inf); after them the value stays at `end_value`.
      init_value: the value at step 0.
      end_value: the last value.

    Hu et al. 2024 (MiniCPM).
    """
    check_number("stable_steps", stable_steps, "[0, inf)")
    return join_schedules(
        [
            linear_schedule(init_value, peak_value, warmup_steps),
            linear_schedule(peak_value, end_value, decay_steps, stable_steps),
        ],
        [warmup_steps],
    )


def _pairs(boundaries_and_scales: Any) -> list[tuple[Value, Value]]:
    if isinstance(boundaries_and_scales, Mapping):
        return list(boundaries_and_scales.items())
    return list(boundaries_and_scales or [])


def piecewise_constant_schedule(
    init_value: Value, boundaries_and_scales: Mapping[Any, Value] | Iterable[Any] | None = None
) -> Schedule:
    """Multiplied by a scale at each boundary: step decay at steps of one's own choice.

    Args:
      init_value: the value before the first boundary.
      boundaries_and_scales: from the step to the factor from that step on; or, for
        boundaries that are traced, which cannot be keys, pairs of them.

    As optax's.
    """
    pairs = _pairs(boundaries_and_scales)
    for _, scale in pairs:
        check_number("boundaries_and_scales", scale, "[0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        value = real(init_value)
        for boundary, scale in pairs:
            value = value * jnp.where(minus(step, boundary) >= 0, scale, 1)
        return value

    return schedule


def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: Value,
    boundaries_and_scales: Mapping[Any, Value] | Iterable[Any] | None = None,
) -> Schedule:
    """Multiplied by a scale on the way from one boundary to the next.

    Args:
      interpolate_type: "linear" or "cosine".
      init_value: the value at step 0.
      boundaries_and_scales: from the step to the factor that is reached there; or
        pairs of them, in rising order of the steps.

    As optax's.
    """
    check_choice("interpolate_type", interpolate_type, ["linear", "cosine"])
    pairs = _pairs(boundaries_and_scales)
    if isinstance(boundaries_and_scales, Mapping):
        pairs = sorted(pairs)
    for _, scale in pairs:
        check_number("boundaries_and_scales", scale, "[0, inf)")

    @promoting
    def schedule(step: Any) -> Array:
        value, start, before = real(init_value), 0, real(init_value)
        for boundary, scale in pairs:
            after = before * scale
            done = share(minus(step, start), minus(boundary, start))
            if interpolate_type == "cosine":
                done = (1 - jnp.cos(jnp.pi * done)) / 2
            # Both products, so that a far smaller end is reached exactly.
            value = jnp.where(minus(step, start) >= 0, (1 - done) * before + done * after, value)
            start, before = boundary, after
        return value

    return schedule

"""Schedules beyond 2**24 steps, where float32 has no longer a number for each step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim
from jdl.optim.schedules.decay import minus, phase

LATE = 2**24 + 1
LATER = 2**30 + 3
LAST = 2**31 - 2

# Schedules that still change at the steps given, from one step to the next.
SCHEDULES = {
    "cyclic": (lambda: optim.cyclic_schedule(0.1, 1.0, 3, 4), [LATE, LATER, LAST]),
    "restarts": (lambda: optim.cosine_restarts(1.0, 7, 1.0, 0.1), [LATE, LATER, LAST]),
    "growing restarts": (lambda: optim.cosine_restarts(1.0, LATE, 1.0), [LATE, 2 * LATE]),
    "stairs": (
        lambda: optim.step_decay(1.0, LATE // 3, 0.3),
        [LATE // 3 * 3, LATE // 3 * 4, LATE // 3 * 5],
    ),
    "exponential": (lambda: optim.exponential_decay(1.0, 5, 0.3, LATE), [LATE, LATE + 6]),
    "polynomial": (lambda: optim.linear_schedule(1.0, 0.2, 10, LATER), [LATER, LATER + 5]),
    "warmup": (
        lambda: optim.warmup_exponential_decay_schedule(0.1, 1.0, LATE, 5, 0.5),
        [LATE, LATE + 4],
    ),
    "stable": (lambda: optim.wsd_schedule(1.0, 5, LATE, 9, 0.1), [LATE + 5, LATE + 10]),
    "joined": (
        lambda: optim.join_schedules([optim.constant_schedule(0.3), lambda s: 0.1 * s], [LATER]),
        [LATER, LATER + 9],
    ),
    "constant pieces": (
        lambda: optim.piecewise_constant_schedule(1.0, {LATE: 0.5, LATER: 0.1}),
        [LATE, LATER],
    ),
    "interpolated": (
        lambda: optim.piecewise_interpolate_schedule("linear", 1.0, {LATE: 0.5, LATE + 9: 0.1}),
        [LATE, LATE + 5],
    ),
    "sgdr": (
        lambda: optim.sgdr_schedule(
            [
                {"init_value": 0.1, "peak_value": 1, "warmup_steps": 3, "decay_steps": LATE},
                {"init_value": 0.2, "peak_value": 1, "warmup_steps": 3, "decay_steps": 20},
            ]
        ),
        [LATE, LATE + 9],
    ),
    "sutskever": (lambda: optim.sutskever_momentum(0.99, LATE // 2), [LATE // 2 * 2, LATE]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_late_steps_are_those_of_double_precision(name):
    make, around = SCHEDULES[name]
    steps = np.unique([step + shift for step in around for shift in range(-9, 10)])
    steps = steps[steps <= LAST].astype(np.int32)
    found = jax.jit(jax.vmap(lambda step: make()(step)))(jnp.asarray(steps))
    with jax.enable_x64(True):
        expected = np.array([make()(int(step)) for step in steps])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    assert np.ptp(expected) > 0.01


@pytest.mark.parametrize("period", [7, 2.5, 1000.0, 12_345_678])
@pytest.mark.parametrize("kind", [lambda x: x, jnp.float32, np.int32], ids=["plain", "f32", "i32"])
def test_a_phase_is_pythons_remainder(period, kind):
    period = period if kind is not np.int32 else round(period)
    steps = [0, 3, 6, 7, 1000, 4095, 4096, LATE, LATE + 1, LATER, LAST]
    cycle, since = jax.vmap(lambda step: phase(step, kind(period)))(jnp.asarray(steps, jnp.int32))
    expected = np.array([divmod(step, period) for step in steps])
    np.testing.assert_allclose(since, expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(cycle, expected[:, 0], rtol=1e-6)


def test_a_difference_of_steps_is_exact():
    for start in (LATE, jnp.int32(LATE), np.int64(LATE), jnp.float32(2**24)):
        for step in (LATE - 1, LATE, LATE + 1, LATE + 2):
            assert float(minus(jnp.int32(step), start)) == step - int(start)


def test_a_triangle_stays_in_its_band_for_ever():
    schedule = jax.jit(jax.vmap(optim.cyclic_schedule(0.1, 1.0, jnp.float32(3.5), jnp.float32(6))))
    steps = np.random.default_rng(0).integers(0, LAST, 2000).astype(np.int32)
    since = steps % 9.5
    height = np.where(since <= 3.5, since / 3.5, (9.5 - since) / 6)
    np.testing.assert_allclose(schedule(jnp.asarray(steps)), 0.1 + 0.9 * height, atol=3e-4)


def test_every_restart_is_met():
    """Lengths 1000, 1100, 1210, 1331, 1464.1, ...: each start, rounded, has the first value."""
    for first, ratio in ((1000, 1.1), (7, 1.5), (300, 1.7), (50, 2.0)):
        schedule = jax.jit(jax.vmap(optim.cosine_restarts(1.0, first, ratio)))
        lengths = first * ratio ** np.arange(12)
        starts = np.floor(np.cumsum(np.r_[0, lengths]) + 0.5 + 1e-6).astype(int)
        np.testing.assert_allclose(schedule(jnp.asarray(starts)), 1, atol=1e-6)
        assert (np.asarray(schedule(jnp.asarray(starts[1:] - 1))) < 0.1).all()
    met = optim.cosine_restarts(1, 1000, 1.1)
    assert [float(met(step)) for step in (1000, 2100, 3310, 4641)] == [1, 1, 1, 1]


def test_weights_are_averaged_every_period_however_late():
    average = optim.swa(LATE, 3)
    state = average.init(jnp.zeros(()))
    for shift, counted in ((-1, 0), (0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (6, 3)):
        state = state._replace(step=jnp.int32(LATE + shift))
        _, state = average.update(jnp.ones(()), state, jnp.zeros(()))
        assert int(state.weight) == counted

"""Averages of the parameters against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

START = np.array([1.0, -2.0, 0.5])


def path(average, steps=7):
    """The parameters after each of some noisy steps, and the average after each."""
    optimizer = optim.chain(optim.sgd(0.3), average)
    rng = np.random.default_rng(2)
    w = jnp.asarray(START)
    state, samples, averages = optimizer.init(w), [], []
    for _ in range(steps):
        updates, state = optimizer.update(jnp.asarray(rng.normal(size=3)), state, w)
        w = optim.apply_updates(w, updates)
        samples.append(np.asarray(w))
        averages.append(np.asarray(optim.averaged_params(state)))
    return np.array(samples), np.array(averages)


def test_the_debiased_average_is_the_weighted_mean_of_the_samples(x64):
    samples, averages = path(optim.parameter_ema(0.7))
    np.testing.assert_array_equal(averages[0], samples[0])
    for t in range(1, 8):
        weights = 0.7 ** np.arange(t)[::-1]
        np.testing.assert_allclose(
            averages[t - 1], weights @ samples[:t] / weights.sum(), rtol=1e-12
        )


def test_the_plain_average_starts_at_the_initial_parameters(x64):
    samples, averages = path(optim.parameter_ema(0.7, debias=False))
    a = START
    for sample, found in zip(samples, averages, strict=True):
        a = 0.7 * a + (1 - 0.7) * sample
        np.testing.assert_allclose(found, a, rtol=1e-12)


def test_the_debiased_average_is_exact_under_a_schedule(x64):
    samples, averages = path(optim.parameter_ema(lambda step: 0.3 + 0.1 * step))
    total, weight = 0.0, 0.0
    for t, (sample, found) in enumerate(zip(samples, averages, strict=True)):
        d = 0.3 + 0.1 * t
        total, weight = d * total + (1 - d) * sample, d * weight + (1 - d)
        np.testing.assert_allclose(found, total / weight, rtol=1e-12)


def test_no_decay_is_the_last_parameters_and_full_decay_the_first(x64):
    samples, averages = path(optim.parameter_ema(0.0))
    np.testing.assert_array_equal(averages, samples)
    for debias in (False, True):
        _, averages = path(optim.parameter_ema(1.0, debias))
        np.testing.assert_array_equal(averages, np.tile(START, (7, 1)))


def test_swa_averages_every_period_from_its_start(x64):
    samples, averages = path(optim.swa(start=2, period=2))
    np.testing.assert_array_equal(averages[:3], samples[:3])
    for t in (3, 4, 5, 6):
        np.testing.assert_allclose(averages[t], samples[2 : t + 1 : 2].mean(0), rtol=1e-12)


def test_polyak_averages_all(x64):
    samples, averages = path(optim.polyak_average())
    for t in range(7):
        np.testing.assert_allclose(averages[t], samples[: t + 1].mean(0), rtol=1e-12)
    _, late = path(optim.polyak_average(4))
    np.testing.assert_allclose(late[6], samples[4:7].mean(0), rtol=1e-12)


def test_lanes_have_their_own_numbers():
    def last(decay, start, period):
        optimizer = optim.chain(optim.sgd(0.3), optim.parameter_ema(decay))
        other = optim.chain(optim.sgd(0.3), optim.swa(start, period))
        w = jnp.asarray(START, jnp.float32)

        def averaged(optimizer):
            def body(carry, _):
                w, state = carry
                updates, state = optimizer.update(w, state, w)
                return (optim.apply_updates(w, updates), state), None

            carry, _ = jax.lax.scan(body, (w, optimizer.init(w)), length=5)
            return optim.averaged_params(carry[1])

        return averaged(optimizer), averaged(other)

    lanes = [(0.0, 0, 1), (0.5, 2, 2), (1.0, 9, 1)]
    ema, swa = jax.jit(jax.vmap(last))(*(jnp.array(x) for x in zip(*lanes, strict=True)))
    w = np.array([START * 0.7**t for t in range(6)])
    weights = 0.5 ** np.arange(5)[::-1]
    np.testing.assert_allclose(ema, [w[5], weights @ w[1:] / weights.sum(), w[0]], rtol=1e-6)
    np.testing.assert_allclose(swa, [w[1:].mean(0), w[[3, 5]].mean(0), w[5]], rtol=1e-6)


def test_the_last_sample_replaces_an_average_that_is_far_larger():
    optimizer = optim.parameter_ema(0.0)
    state = optimizer.init(jnp.array([1e20]))
    _, state = optimizer.update(jnp.array([-2.0]), state, jnp.array([3.0]))
    assert state.average.tolist() == [1.0]


def test_the_sample_is_rounded_as_the_parameter_is():
    w, u = jnp.array([1.0], jnp.bfloat16), jnp.array([1e-3], jnp.float32)
    for optimizer in (optim.parameter_ema(0.0), optim.swa()):
        _, state = optimizer.update(u, optimizer.init(w), w)
        assert state.average.tolist() == [1.0]


def test_is_float32_for_bfloat16_and_sees_the_rounded_parameters():
    optimizer = optim.parameter_ema(0.0)
    w = jnp.array([1.0], jnp.bfloat16)
    state = optimizer.init(w)
    updates, state = optimizer.update(jnp.array([1e-4], jnp.bfloat16), state, w)
    assert state.average.dtype == jnp.float32 and state.average.tolist() == [1.0]
    assert updates.dtype == jnp.bfloat16 and int(state.step) == 1


def test_a_state_without_one_average_says_so():
    w = jnp.ones(2)
    two = optim.chain(optim.swa(), optim.polyak_average())
    for optimizer, count in ((optim.adam(0.1), 0), (two, 2)):
        with pytest.raises(ValueError, match=f"Expected one average in the state, got {count}"):
            optim.averaged_params(optimizer.init(w))


def test_needs_the_parameters():
    for optimizer, name in ((optim.parameter_ema(0.5), "parameter_ema"), (optim.swa(), "swa")):
        with pytest.raises(ValueError, match=f"{name} needs the parameters"):
            optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.parameter_ema(1.5), r"`decay` must be in \[0, 1\]"),
        (lambda: optim.swa(-1), r"`start` must be in \[0, inf\]"),
        (lambda: optim.swa(0, 0), r"`period` must be in \[1, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()

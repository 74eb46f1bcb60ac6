"""Hypergradients against closed forms and against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

CURVATURE = np.array([0.5, 2.0, 1.3])
W = np.array([1.0, -2.0, 0.7])
SHIFT = np.array([0.1, 0.2, -0.3])


def loss(w, batch):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE) * w**2) + 0.0 * batch


def valid_loss(w):
    return 0.5 * jnp.sum((w - jnp.asarray(SHIFT)) ** 2)


def closed_form(rates):
    """For `w *= 1 - rate_t * c` at each step: the value, and its derivative by each rate."""
    factors = 1 - np.asarray(rates)[:, None] * CURVATURE
    end = W * factors.prod(0)
    gradient = [
        np.sum((end - SHIFT) * W * -CURVATURE * np.delete(factors, t, 0).prod(0))
        for t in range(len(rates))
    ]
    return 0.5 * np.sum((end - SHIFT) ** 2), np.array(gradient), end


def test_both_modes_and_every_segment_equal_the_closed_form(x64):
    """A rate for each of seven steps: whole and ragged segments, none, and forward."""
    rates = np.array([0.1, 0.3, 0.05, 0.2, 0.4, 0.15, 0.25])
    value, gradient, end = closed_form(rates)

    def make(rates):
        return optim.sgd(lambda t: rates[t])

    def every(rates):
        call = lambda **k: optim.hypergradient(  # noqa: E731
            make, rates, loss, valid_loss, jnp.array(W), jnp.arange(7), **k
        )
        segments = [call(segment=size) for size in (0, 1, 3, 7, 9)]
        return [call(), *segments, call(mode="forward")]

    for ours in jax.jit(every)(jnp.array(rates)):
        np.testing.assert_allclose(ours.value, value, rtol=1e-12)
        np.testing.assert_allclose(ours.gradient, gradient, rtol=1e-11)
        np.testing.assert_allclose(ours.params, end, rtol=1e-12)


def test_any_number_of_adam_on_its_own_batches_equals_central_differences(x64):
    """Rate, both decays and eps at once, with a batch for each step."""
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    numbers = {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-2}

    def fit(w, batch):
        return jnp.mean((batch @ w - 1.0) ** 2)

    def held_out(w):
        return jnp.sum(w**2) + jnp.mean((jnp.asarray(x[0]) @ w - 0.5) ** 2)

    def run(numbers, mode):
        make = lambda n: optim.adam(**n)  # noqa: E731
        return optim.hypergradient(
            make, numbers, fit, held_out, jnp.array(W), jnp.array(x), mode=mode
        )

    forward, reverse = jax.jit(lambda n: (run(n, "forward"), run(n, "reverse")))(numbers)

    def trained(numbers):
        w = optim.unroll(lambda n: optim.adam(**n), numbers, fit, jnp.array(W), jnp.array(x))
        return held_out(w)

    value = jax.jit(trained)
    for name, number in numbers.items():
        h = 1e-5 * number
        slope = (value({**numbers, name: number + h}) - value({**numbers, name: number - h})) / (
            2 * h
        )
        np.testing.assert_allclose(forward.gradient[name], slope, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(reverse.gradient[name], slope, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(forward.value, value(numbers), rtol=1e-12)


def test_optimizers_that_look_at_the_objective_are_given_it(x64):
    """The value, the gradient and the function of the step's own batch reach the optimizer."""

    def init(params):
        return jnp.zeros(())

    def update(grads, state, params, *, value, grad, value_fn, **extra):
        same = (value == value_fn(params)) & jnp.all(grad == grads)
        return -0.1 * grads, state + jnp.where(same, 0, jnp.nan)

    seen = optim.unroll(
        lambda n: optim.chain(optim.Optimizer(init, update), optim.Optimizer(init, update)),
        None,
        lambda w, b: jnp.sum(b * w**2),
        jnp.array([1.0, 2.0]),
        jnp.array([[1.0, 2.0], [3.0, 0.5]]),
        segment=0,
    )
    assert seen.shape == (2,)


def test_a_rate_is_tuned_by_its_gradient(x64):
    """From a hundredth of it, gradient descent on the logarithm finds the best constant rate."""

    def objective(log_rate):
        return optim.hypergradient(
            lambda h: optim.sgd(jnp.exp(h)),
            log_rate,
            loss,
            lambda w: 0.5 * jnp.sum(jnp.asarray(CURVATURE) * w**2),
            jnp.array(W),
            jnp.arange(10),
            mode="forward",
        )

    def step(log_rate, _):
        h = objective(log_rate)
        return log_rate - 0.05 * jnp.clip(h.gradient / h.value, -1, 1), h.value

    tuned, values = jax.jit(lambda: jax.lax.scan(step, jnp.log(0.01), None, length=150))()
    grid = jnp.linspace(0.05, 1.2, 400)
    best = jax.jit(jax.vmap(lambda r: objective(jnp.log(r)).value))(grid)
    assert float(values[-1]) < 0.01 * float(values[0])
    assert abs(float(jnp.exp(tuned)) - float(grid[jnp.argmin(best)])) < 0.05


def test_lanes_of_hypergradients(x64):
    """Under `vmap` over rates and starts, each as in the closed form."""
    rates = np.array([0.1, 0.35])
    lanes = jax.jit(
        jax.vmap(
            lambda r: optim.hypergradient(
                optim.sgd, r, loss, valid_loss, jnp.array(W), jnp.arange(4)
            )
        )
    )(jnp.array(rates))
    for lane, rate in enumerate(rates):
        value, gradient, _ = closed_form([rate] * 4)
        np.testing.assert_allclose(lanes.value[lane], value, rtol=1e-12)
        np.testing.assert_allclose(lanes.gradient[lane], gradient.sum(), rtol=1e-11)


def test_misuse_is_named():
    call = lambda batches, **k: optim.hypergradient(  # noqa: E731
        optim.sgd, 0.1, loss, valid_loss, jnp.array(W), batches, **k
    )
    with pytest.raises(
        ValueError, match="`mode` must be one of 'reverse', 'forward', got mode='b'"
    ):
        call(jnp.arange(3), mode="b")
    with pytest.raises(ValueError, match=r"leading axis, the steps.* got leading sizes \[3, 4\]"):
        call((jnp.arange(3), jnp.arange(4)))
    with pytest.raises(ValueError, match=r"got leading sizes \[0\]"):
        call(jnp.zeros((0, 2)))
    with pytest.raises(ValueError, match="`segment` must be an integer of at least 0, got"):
        call(jnp.arange(3), segment=-1)


def test_reverse_mode_alone_recomputes_its_steps():
    """What it is asked to keep, it keeps; forward mode has nothing to recompute."""

    def recomputes(**keywords):
        def value(rate):
            h = optim.hypergradient(
                optim.sgd, rate, loss, valid_loss, jnp.array(W), jnp.arange(4), **keywords
            )
            return h.gradient

        return "remat" in str(jax.make_jaxpr(value)(0.1))

    assert recomputes() and recomputes(segment=2)
    assert not recomputes(segment=0)
    assert not recomputes(mode="forward", segment=2)

"""What every optimizer is built on: numbers at a step, chains, counts, a root with a slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim
from jdl.optim.base import check_learning_rate, next_count
from jdl.tree import root


def test_a_number_at_a_step_is_float32_or_wider():
    for number, dtype in (
        (3, jnp.float32),
        (0.25, jnp.float32),
        (True, jnp.float32),
        (jnp.bfloat16(0.25), jnp.float32),
        (jnp.int32(3), jnp.float32),
        (lambda step: 2 * step, jnp.float32),
    ):
        found = optim.at_step(number, 4)
        assert found.dtype == dtype and found.shape == ()
    assert optim.at_step(0.3, 4) == np.float32(0.3)
    assert optim.at_step(lambda step: 2 * step, 4) == 8
    with jax.enable_x64(True):
        assert optim.at_step(3, 4).dtype == jnp.float64
        assert optim.at_step(jnp.float64(0.3), 4) == 0.3
        assert optim.at_step(jnp.float32(0.3), 4).dtype == jnp.float32


def test_updates_are_added_in_the_dtype_of_the_parameter():
    params = {"a": jnp.array([1.0, 2.0], jnp.bfloat16), "b": jnp.array([3.0])}
    moved = optim.apply_updates(params, {"a": jnp.array([0.5, -0.5]), "b": jnp.array([0.25])})
    assert moved["a"].dtype == jnp.bfloat16 and moved["a"].tolist() == [1.5, 1.5]
    assert moved["b"].tolist() == [3.25]


def test_a_chain_passes_gradients_in_order_and_keywords_to_all():
    seen = []

    def told(factor):
        def update(grads, state, params=None, **extra):
            seen.append((factor, float(grads), float(params), extra))
            return factor * grads + 1, state + factor

        return optim.Optimizer(lambda params: params * factor, update)

    chained = optim.chain(told(2.0), told(5.0))
    state = chained.init(jnp.float32(3.0))
    assert [float(x) for x in state] == [6.0, 15.0]
    updates, state = chained.update(jnp.float32(1.0), state, jnp.float32(7.0), value=4)
    assert float(updates) == 5 * (2 * 1 + 1) + 1
    assert [float(x) for x in state] == [8.0, 20.0]
    assert seen == [(2.0, 1.0, 7.0, {"value": 4}), (5.0, 3.0, 7.0, {"value": 4})]
    assert optim.chain().update(3.0, optim.chain().init(1.0)) == (3.0, ())


def test_a_count_stays_at_the_largest_integer():
    top = np.iinfo(np.int32).max
    found = [int(next_count(jnp.int32(n))) for n in (0, 7, top - 1, top)]
    assert found == [1, 8, top, top]


def test_the_root_has_a_slope_of_zero_at_zero(x64):
    x = jnp.array([0.0, 4.0, 0.09])
    np.testing.assert_allclose(root(x), [0, 2, 0.3], rtol=1e-15)
    y, slope = jax.jvp(root, (x,), (jnp.array([7.0, 3.0, 0.6]),))
    np.testing.assert_allclose(y, [0, 2, 0.3], rtol=1e-15)
    np.testing.assert_allclose(slope, [0, 3 / (2 * 2), 0.6 / (2 * 0.3)], rtol=1e-15)


def test_a_rate_is_positive_and_freezing_is_pointed_at():
    check_learning_rate(1e-30)
    for value in (0.0, -1.0, float("inf")):
        match = r"`learning_rate` must be in \(0, inf\).*optim\.freeze"
        with pytest.raises(ValueError, match=match):
            check_learning_rate(value)

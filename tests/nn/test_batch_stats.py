"""Recomputed statistics: those of torch's own routine, by hand, and what stays as it is."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "nn.npz")


def two_norms(first=0.1, second=0.1):
    return nn.chain(
        nn.dense(5),
        nn.batch_norm(momentum=first),
        nn.relu,
        nn.dense(3),
        nn.batch_norm(momentum=second),
    )


def test_recomputed_statistics_are_those_of_torchs_update_bn(x64):
    model = two_norms(0.37, 0.002)
    batches = jnp.asarray(GOLDEN["update_bn/batches"])
    params, state = model.init(jax.random.key(0), batches[0])
    params = list(params)
    for index in (0, 3):
        params[index] = {k: GOLDEN[f"update_bn/{index}/{k}"] for k in ("kernel", "bias")}
    stale = jax.tree.map(lambda leaf: leaf + 7.0, state)
    after = nn.recompute_batch_stats(model, tuple(params), stale, batches)
    for index in (1, 4):
        for name in ("mean", "var"):
            expected = GOLDEN[f"update_bn/{index}/{name}"]
            np.testing.assert_allclose(after[index][name], expected, rtol=1e-9)
            assert stale[index][name].shape == after[index][name].shape


def test_recomputed_statistics_weigh_batches_by_size_and_leave_other_state_alone():
    def count(key, x):
        return {}, {"calls": jnp.zeros((), jnp.int32)}

    def counted(params, state, x, *, key=None, train=False):
        return x, {"calls": state["calls"] + train}

    model = nn.chain(nn.Layer(count, counted), nn.dropout(0.0), nn.batch_norm(momentum=0.2))
    batches = [jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [3.0], [6.0], [3.0]])]
    params, state = model.init(jax.random.key(0), batches[0])
    after = nn.recompute_batch_stats(model, params, state, batches, key=jax.random.key(3))
    assert after[0]["calls"] == 0
    np.testing.assert_allclose(after[2]["mean"], (2 * 2 + 4 * 3) / 6, rtol=1e-6)
    np.testing.assert_allclose(after[2]["var"], (2 * 2 + 4 * 6) / 6, rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 1.0, jnp.float32(0.0)])
def test_recomputed_statistics_do_not_depend_on_the_momentum(momentum):
    batches = [jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [3.0], [6.0], [3.0]])]
    model = nn.chain(nn.batch_norm(momentum=momentum), nn.dense(2), nn.batch_norm(momentum=0.3))
    params, state = model.init(jax.random.key(0), batches[0])
    after = nn.recompute_batch_stats(model, params, state, batches)
    np.testing.assert_allclose(after[0]["mean"], (2 * 2 + 4 * 3) / 6, rtol=1e-6)
    np.testing.assert_allclose(after[0]["var"], (2 * 2 + 4 * 6) / 6, rtol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_allclose(after[2]["mean"], 0, atol=1e-6)


def test_state_before_a_norm_is_held_as_it_is():
    """A factor kept in another layer's state: the norm sees twice its input, no more."""
    factor = nn.Layer(lambda key, x: ({}, {"factor": jnp.array(2.0)}), scaled)
    model = nn.chain(factor, nn.batch_norm(momentum=0.2))
    batches = [jnp.array([[1.0], [3.0]])]
    params, state = model.init(jax.random.key(0), batches[0])
    after = nn.recompute_batch_stats(model, params, state, batches)
    assert after[0]["factor"] == 2
    np.testing.assert_allclose(after[1]["mean"], 4, rtol=1e-6)
    np.testing.assert_allclose(after[1]["var"], 8, rtol=1e-6)


def scaled(params, state, x, *, key=None, train=False):
    return state["factor"] * x, state


def test_recomputing_over_nothing_is_an_error():
    model = nn.batch_norm()
    params, state = model.init(jax.random.key(0), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="`batches` must hold at least one batch"):
        nn.recompute_batch_stats(model, params, state, [])

"""Groups, masks and freezing against each optimizer alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.loops import PARAMS, close, draw, initial, updates_of

from jdl import optim, tree


def test_off_is_a_value(x64):
    (g,) = draw(1)
    for off in (optim.masked(optim.set_to_zero(), {"kernel": False, "bias": False}),):
        close(updates_of(off, [g])[0][0], g)


def test_each_group_is_moved_by_its_own_optimizer(x64):
    grads = draw(4)
    groups = {"k": optim.adam(0.1, 0.6, 0.7), "b": optim.momentum(0.3, 0.8)}
    labels = {"kernel": "k", "bias": "b"}
    updates, _, state = updates_of(optim.partition(groups, labels), grads)
    for name, label in labels.items():
        alone = updates_of(
            groups[label], [{name: g[name]} for g in grads], {name: initial()[name]}
        )[0]
        close([{name: u[name]} for u in updates], alone)
    momentum_state, adam_state = state.inner
    assert tree.size(adam_state.first_moment) == 6 and tree.size(momentum_state.velocity) == 2


def test_labels_by_path_and_by_prefix():
    params = ({"kernel": jnp.ones(2), "bias": jnp.ones(1)}, {"kernel": jnp.ones(3)})
    labels = optim.by_path(lambda path: path.startswith("0/"))(params)
    assert labels == ({"kernel": True, "bias": True}, {"kernel": False})
    groups = {True: optim.sgd(1.0), False: optim.set_to_zero()}
    for given in (optim.by_path(lambda path: path.startswith("0/")), (True, False)):
        updates, _, _ = updates_of(optim.partition(groups, given), [params], params)
        assert updates[0][0]["kernel"].tolist() == [-1.0, -1.0]
        assert updates[0][1]["kernel"].tolist() == [0.0, 0.0, 0.0]


def test_an_unknown_label_is_named_with_its_parameter():
    optimizer = optim.partition(
        {"a": optim.sgd(0.1), "b": optim.sgd(0.1)}, {"kernel": "a", "bias": "c"}
    )
    with pytest.raises(ValueError, match=r"'bias' has the label 'c', expected one of 'a', 'b'"):
        optimizer.init(initial())


def test_a_group_is_given_the_loss_as_a_function_of_itself(x64):
    def loss(w):
        return jnp.sum(w["kernel"] ** 2) * jnp.sum(w["bias"] ** 2)

    optimizer = optim.partition(
        {"k": optim.sgd(0.1), "b": optim.sam(optim.sgd(0.1), 0.3)}, {"kernel": "k", "bias": "b"}
    )
    w = initial()
    grads = jax.grad(loss)(w)
    updates, _ = optimizer.update(grads, optimizer.init(w), w, value_fn=loss)
    bias = PARAMS["bias"]
    ahead = bias + 0.3 * bias / np.linalg.norm(bias)
    expected = -0.1 * 2 * ahead * np.sum(PARAMS["kernel"] ** 2)
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-12)


def test_groups_work_without_parameters():
    optimizer = optim.partition({0: optim.sgd(0.1), 1: optim.sgd(0.2)}, {"kernel": 0, "bias": 1})
    ones = jax.tree.map(jnp.ones_like, initial())
    updates, _ = optimizer.update(ones, optimizer.init(ones))
    assert updates["bias"].tolist() == pytest.approx([-0.2, -0.2])
    assert updates["kernel"][0].tolist() == pytest.approx([-0.1, -0.1])


def test_masked_passes_the_rest_and_freeze_stops_it(x64):
    (g,) = draw(1)
    mask = {"kernel": True, "bias": False}
    updates = updates_of(optim.masked(optim.scale(-2.0), mask), [g])[0][0]
    close(updates, {"kernel": -2.0 * g["kernel"], "bias": g["bias"]})
    updates = updates_of(optim.freeze(mask), [g])[0][0]
    close(updates, {"kernel": jnp.zeros((3, 2)), "bias": g["bias"]})
    updates = updates_of(
        optim.freeze(lambda params: jax.tree.map(lambda w: w.ndim < 2, params)), [g]
    )[0][0]
    close(updates, {"kernel": g["kernel"], "bias": jnp.zeros(2)})


def loss(w):
    return jnp.sum(jnp.cos(w["kernel"]) @ w["bias"]) + jnp.sum(w["bias"] ** 4)


def test_gradients_of_another_structure_are_refused():
    optimizer = optim.partition({"x": optim.sgd(0.1)}, "x")
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(ValueError, match="longer than"):
        optimizer.update({"b": jnp.ones(3)}, optimizer.init(params), params)

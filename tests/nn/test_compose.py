"""Composition: keys by position, state in its place, shortcuts, merges, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

X = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])


def counter(name="counter"):
    """A layer that adds its parameter, counts its training steps and draws one number."""

    def init(key, x):
        return {"w": jax.random.normal(key, ())}, {"count": jnp.zeros((), jnp.int32)}

    def apply(params, state, x, *, key=None, train=False):
        noise = 0.0 if key is None else jax.random.normal(key, ())
        return x + params["w"] + noise, {"count": state["count"] + train}

    return nn.Layer(init, apply, name)


def drawn(key, *path):
    for index in path:
        key = jax.random.fold_in(key, index)
    return jax.random.normal(key, ())


def test_chain_folds_each_position_into_the_key():
    model = nn.chain(counter(), jnp.tanh, counter())
    key, other = jax.random.key(3), jax.random.key(4)
    params, state = model.init(key, X)
    assert params == ({"w": drawn(key, 0)}, {}, {"w": drawn(key, 2)})
    y, after = model.apply(params, state, X, key=other, train=True)
    inner = jnp.tanh(X + params[0]["w"] + drawn(other, 0))
    np.testing.assert_allclose(y, inner + params[2]["w"] + drawn(other, 2), rtol=1e-6)
    assert after == ({"count": 1}, {}, {"count": 1})
    y, after = model.apply(params, state, X)
    np.testing.assert_allclose(y, jnp.tanh(X + params[0]["w"]) + params[2]["w"], rtol=1e-6)
    assert after == ({"count": 0}, {}, {"count": 0})


def test_chain_gives_each_layer_the_shape_before_it():
    shapes = []

    def init(key, x):
        shapes.append((x.shape, x.dtype))
        return {}, {}

    watch = nn.Layer(init, lambda params, state, x, *, key=None, train=False: (x, state))
    model = nn.chain(watch, nn.flatten, watch, nn.dense(4), watch)
    model.init(jax.random.key(0), jax.ShapeDtypeStruct((5, 2, 3), jnp.bfloat16))
    assert shapes == [((5, 2, 3), jnp.bfloat16), ((5, 6), jnp.bfloat16), ((5, 4), jnp.float32)]


def test_the_empty_chain_is_the_identity():
    params, state = nn.chain().init(jax.random.key(0), X)
    assert (params, state) == ((), ())
    assert nn.chain().apply(params, state, X)[0] is X


def test_residual_adds_its_body_to_its_shortcut():
    model = nn.residual(counter(), lambda x: 2 * x)
    key = jax.random.key(3)
    params, state = model.init(key, X)
    assert params == (({"w": drawn(key, 0, 0)}, {}),)
    y, after = model.apply(params, state, X, key=key, train=True)
    body = 2 * (X + params[0][0]["w"] + drawn(key, 0, 0))
    np.testing.assert_allclose(y, X + body, rtol=1e-6)
    assert after == (({"count": 1}, {}),)
    assert (model.name, [part.name for part in model.parts]) == ("residual", ["body"])
    model = nn.residual(jnp.exp, shortcut=counter(), name="block")
    assert (model.name, len(model.parts)) == ("block", 2)
    params, state = model.init(key, X)
    y, after = model.apply(params, state, X, train=True)
    np.testing.assert_allclose(y, jnp.exp(X) + X + drawn(key, 1), rtol=1e-6)
    assert after == (({},), {"count": 1})


def test_residual_refuses_to_broadcast():
    model = nn.residual(nn.dense(1), name="block")
    params, state = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"`block` adds .* shape \(2, 1\) .* shape \(2, 3\)"):
        model.apply(params, state, X)


def test_parallel_merges_in_order():
    model = nn.parallel(counter(), jnp.negative, counter())
    assert (model.name, len(model.parts)) == ("parallel", 3)
    key = jax.random.key(3)
    params, state = model.init(key, X)
    y, after = model.apply(params, state, X, key=key, train=True)
    first, third = (X + 2 * drawn(key, index) for index in (0, 2))
    np.testing.assert_allclose(y, jnp.concatenate([first, -X, third], 1), rtol=1e-6)
    assert after == ({"count": 1}, {}, {"count": 1})
    model = nn.parallel(jnp.negative, jnp.exp, merge=jnp.subtract)
    np.testing.assert_allclose(model.apply(({}, {}), ({}, {}), X)[0], -X - jnp.exp(X))


def test_per_step_leaves_the_mask_alone():
    mask = jnp.array([[True, False], [True, True]])
    x = nn.Masked(jnp.arange(12.0).reshape(2, 2, 3), mask)
    model = nn.per_step(counter(), jnp.negative)
    key = jax.random.key(3)
    params, state = model.init(key, x)
    assert params == ({"w": drawn(key, 0)}, {})
    y, after = model.apply(params, state, x, key=key, train=True)
    expected = jnp.where(mask[..., None], -(x.values + 2 * drawn(key, 0)), 0)
    np.testing.assert_allclose(y.values, expected, rtol=1e-6)
    assert (y.mask == mask).all() and after == ({"count": 1}, {})
    plain, _ = model.apply(params, state, x.values, key=key, train=True)
    assert (plain[mask] == y.values[mask]).all()
    assert (nn.concatenate(x, y).values == jnp.concatenate([x.values, y.values], -1)).all()
    other = nn.Masked(y.values, ~mask)
    assert (nn.concatenate(x, other).mask == mask).all()
    calls = nn.record(model, params, state, x)[2]
    assert [call.path for call in calls] == [(), (0,), (0, 0), (0, 1)]


def test_flatten_is_row_major():
    x = jnp.arange(24).reshape(2, 3, 4)
    assert nn.flatten(x).tolist() == [list(range(12)), list(range(12, 24))]


def test_plain_functions_are_named():
    assert nn.as_layer(nn.relu).name == "relu"
    assert nn.as_layer(functools.partial(nn.elu, alpha=0.5)).name == "elu"

    class Doubler:
        def __call__(self, x):
            return 2 * x

    assert nn.as_layer(Doubler()).name == "Doubler"
    layer = nn.dense(3)
    assert nn.as_layer(layer) is layer
    assert nn.chain(nn.relu, name="model").name == "model"
    assert [part.name for part in nn.chain(nn.relu, nn.dense(2)).parts] == ["relu", "dense"]


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="must be a Layer or a function of x, got 3"):
        nn.chain(nn.relu, 3)
    with pytest.raises(TypeError, match=r"`dropout` makes a layer .* call it, as in `dropout\(\)`"):
        nn.chain(nn.dropout).apply(({},), ({},), jnp.float32(0.5))


def test_params_of_another_model_are_an_error():
    model = nn.chain(nn.dense(3), nn.relu)
    params, state = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="zip"):
        model.apply(params[:1], state, X)
    model = nn.parallel(nn.dense(3), nn.relu)
    params, state = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="zip"):
        model.apply(params[:1], state, X)

"""What every layer is built with: dtypes of numbers and parameters, keys, shapes."""

import jax
import jax.numpy as jnp
import numpy as np

from jdl import nn
from jdl.nn import base


def test_parameters_are_float32_or_wider():
    wanted = {"int32": "float32", "bfloat16": "float32", "float16": "float32", "float32": "float32"}
    for dtype, expected in wanted.items():
        x = jax.ShapeDtypeStruct((2,), dtype)
        assert base.parameter_dtype(x) == expected
    assert base.parameter_dtype(np.zeros(2)) == "float32"
    with jax.enable_x64(True):
        wide = {**wanted, "int32": "float64", "float64": "float64", "complex64": "complex64"}
        for dtype, expected in wide.items():
            assert base.parameter_dtype(jax.ShapeDtypeStruct((2,), dtype)) == expected


def test_numbers_meet_an_input_in_float32_or_wider(x64):
    for dtype, expected in [("bfloat16", "float32"), ("float32", "float32"), ("float64",) * 2]:
        for number in (0.1, jnp.asarray(0.1, "float64")):
            met = base.in_float32(number, jnp.ones(2, dtype))
            assert met.dtype == expected
            assert float(met) == float(np.asarray(0.1, expected))


def test_a_vector_meets_the_last_axis():
    vector = jnp.arange(3.0)
    assert base.over_features(vector, jnp.ones((5, 4, 3))).shape == (1, 1, 3)
    assert base.over_features(vector, jnp.ones(3)).shape == (3,)


def test_the_key_of_a_part_is_its_position_folded_in():
    key = jax.random.key(3)
    for index in (0, 2):
        ours = jax.random.key_data(base.part_key(key, index))
        assert (ours == jax.random.key_data(jax.random.fold_in(key, index))).all()
    assert base.part_key(None, 1) is None


def test_the_shape_of_an_output_is_that_in_evaluation():
    layer = nn.chain(nn.dense(4), nn.dropout(0.5))
    x = jax.ShapeDtypeStruct((5, 3), "float32")
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    out = base.output_shape(layer, params, state, x)
    assert (out.shape, out.dtype) == ((5, 4), "float32")


def test_a_composed_layer_goes_its_flow_and_hands_on_what_it_was_given():
    """The two parts backwards, each with its own params, state, key, and whether it trains."""
    seen = []

    def recorder(name):
        def apply(params, state, x, *, key=None, train=False):
            seen.append((name, params, state, key, train))
            return x + params, state + 1

        return nn.Layer(lambda key, x: (0, 0), apply, name)

    parts = (recorder("first"), recorder("second"))

    def flow(call, params, state, x, *, key, train):
        x, second = call(1, parts[1], params[1], state[1], x, key=key, train=train)
        x, first = call(0, parts[0], params[0], state[0], x, key=None, train=False)
        return x, (first, second)

    layer = nn.composed(lambda key, x: ((0, 0), (0, 0)), flow, "both", parts)
    assert (layer.name, layer.parts, layer.flow) == ("both", parts, flow)
    y, state = layer.apply((1, 10), (5, 7), 100, key="key", train=True)
    assert (y, state) == (111, (6, 8))
    assert seen == [("second", 10, 7, "key", True), ("first", 1, 5, None, False)]
    assert layer.apply((1, 10), (5, 7), 100)[0] == 111
    assert seen[2][3:] == (None, False)


def test_names_and_parts_are_absent_unless_given():
    layer = nn.Layer(lambda key, x: ({}, {}), lambda params, state, x, **keywords: (x, state))
    assert layer[2:] == ("layer", (), None)

"""Dense, embedding, maxout, PReLU: their formulas in NumPy, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.nn import initializer


def test_dense_by_a_loop(x64):
    kernel = np.arange(6.0).reshape(2, 3) - 1.7
    bias = np.array([0.5, -0.25, 3.0])
    x = np.array([[[1.0, -2.0], [0.3, 0.7]]])
    expected = np.zeros((1, 2, 3))
    for t in range(2):
        for j in range(3):
            expected[0, t, j] = sum(x[0, t, i] * kernel[i, j] for i in range(2)) + bias[j]
    layer = nn.dense(3)
    y, state = layer.apply({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}, {}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    assert state == {}
    y, _ = nn.dense(3, use_bias=False).apply({"kernel": jnp.asarray(kernel)}, {}, x)
    np.testing.assert_allclose(y, expected - bias, rtol=1e-13)


def test_dense_draws_kernel_and_bias_apart():
    layer = nn.dense(400, bias_init=initializer.normal(0.5))
    x = jax.ShapeDtypeStruct((2, 300), jnp.float32)
    params, state = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == {"kernel": (300, 400), "bias": (400,)}
    assert state == {}
    np.testing.assert_allclose(jnp.var(params["kernel"]), 1 / 300, rtol=5 * np.sqrt(2 / 120000))
    np.testing.assert_allclose(jnp.std(params["bias"]), 0.5, rtol=5 / np.sqrt(800))
    bare, _ = nn.dense(4, use_bias=False).init(jax.random.key(0), x)
    assert bare.keys() == {"kernel"}
    assert (nn.dense(4).init(jax.random.key(0), x)[0]["bias"] == 0).all()


def test_parameters_are_float32_or_wider(x64):
    for dtype, expected in [
        (jnp.bfloat16, "float32"),
        (jnp.float32, "float32"),
        (jnp.float64, "float64"),
        (jnp.uint8, "float64"),
    ]:
        x = jax.ShapeDtypeStruct((2, 3), dtype)
        params, _ = jax.eval_shape(nn.dense(4).init, jax.random.key(0), x)
        assert params["kernel"].dtype == params["bias"].dtype == expected
    # NumPy's float64 is float32 to JAX outside x64.
    with jax.enable_x64(False):
        x = np.ones((2, 3))
        params, _ = jax.eval_shape(lambda k: nn.dense(4).init(k, x), jax.random.key(0))
        assert params["kernel"].dtype == jnp.float32


def test_embedding_looks_rows_up():
    layer = nn.embedding(50, 400)
    tokens = jnp.array([[3, 0], [49, 3]])
    params, state = layer.init(jax.random.key(0), tokens)
    table = params["embedding"]
    assert table.shape == (50, 400) and table.dtype == jnp.float32 and state == {}
    np.testing.assert_allclose(jnp.std(table), 1.0, rtol=5 / np.sqrt(2 * 20000))
    y, _ = layer.apply(params, state, tokens)
    assert (y == np.asarray(table)[np.asarray(tokens)]).all()
    mask = jnp.array([[True, False], [True, True]])
    masked, _ = layer.apply(params, state, nn.Masked(tokens, mask))
    assert (masked.values == jnp.where(mask[..., None], y, 0)).all()
    assert (masked.mask == mask).all()


def test_embedding_of_a_token_outside_the_table_is_nan():
    layer = nn.embedding(3, 2)
    params, state = layer.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    y, _ = layer.apply(params, state, jnp.array([-1, 0, 2, 3]))
    assert jnp.isnan(y).all(-1).tolist() == [True, False, False, True]
    with pytest.raises(TypeError, match="embedding needs integer tokens, got float32"):
        layer.apply(params, state, jnp.zeros((2, 2)))


def test_maxout_is_the_largest_of_its_maps(x64):
    layer = nn.maxout(
        4, 3, kernel_init=initializer.glorot_normal, bias_init=initializer.normal(1.0)
    )
    x = jax.random.normal(jax.random.key(1), (5, 2))
    params, state = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == {"kernel": (2, 12), "bias": (12,)}
    maps = [
        x @ params["kernel"][:, 4 * k : 4 * k + 4] + params["bias"][None, 4 * k : 4 * k + 4]
        for k in range(3)
    ]
    y, _ = layer.apply(params, state, x)
    np.testing.assert_allclose(y, np.max(maps, axis=0), rtol=1e-12)
    wide, _ = nn.maxout(300, kernel_init=initializer.glorot_normal).init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, 100), jnp.float64)
    )
    assert wide["kernel"].shape == (100, 600) and (wide["bias"] == 0).all()
    np.testing.assert_allclose(jnp.var(wide["kernel"]), 2 / 400, rtol=5 * np.sqrt(2 / 60000))


def test_prelu_learns_one_slope_or_one_each():
    x = jnp.array([[-2.0, 3.0], [4.0, -6.0]])
    layer = nn.prelu()
    params, state = layer.init(jax.random.key(0), x)
    assert params["slope"].shape == () and state == {}
    assert layer.apply(params, state, x)[0].tolist() == [[-0.5, 3.0], [4.0, -1.5]]
    gradient = jax.grad(lambda p: layer.apply(p, state, x)[0].sum())(params)
    assert gradient["slope"] == -8.0
    layer = nn.prelu(0.5, shared=False)
    params, state = layer.init(jax.random.key(0), x)
    assert params["slope"].tolist() == [0.5, 0.5]
    assert layer.init(jax.random.key(0), jnp.ones((4, 3, 2)))[0]["slope"].shape == (2,)
    gradient = jax.grad(lambda p: layer.apply(p, state, x)[0].sum())(params)
    assert gradient["slope"].tolist() == [-2.0, -6.0]


def test_prelu_slope_must_be_a_number():
    with pytest.raises(ValueError, match=r"`slope` must be in \(-inf, inf\), got slope=inf"):
        nn.prelu(float("inf"))
    for wrong in (lambda: nn.embedding(0, 3), lambda: nn.maxout(3, 0)):
        with pytest.raises(ValueError, match="must be an integer of at least 1"):
            wrong()

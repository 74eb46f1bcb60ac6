"""Initialisers: moments, bounds and shapes of the distributions that they claim."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdl.nn import initializer as init

SHAPE = (3, 4, 25, 40)  # a convolution's kernel: fan-in 300, fan-out 480, 12000 draws
SIZE = math.prod(SHAPE)
NORMALS = {
    "normal": (init.normal(0.3), 0.3**2),
    "lecun_normal": (init.lecun_normal, 1 / 300),
    "glorot_normal": (init.glorot_normal, 2 / 780),
    "he_normal": (init.he_normal, 2 / 300),
    "fan_out": (init.variance_scaling(1.7, "out"), 1.7 / 480),
}
UNIFORMS = {
    "uniform": (init.uniform(0.3), -0.3, 0.3),
    "lecun_uniform": (init.lecun_uniform, -math.sqrt(3 / 300), math.sqrt(3 / 300)),
    "glorot_uniform": (init.glorot_uniform, -math.sqrt(6 / 780), math.sqrt(6 / 780)),
    "he_uniform": (init.he_uniform, -math.sqrt(6 / 300), math.sqrt(6 / 300)),
    "fan_uniform": (init.fan_uniform, -1 / math.sqrt(300), 1 / math.sqrt(480)),
}
TRUNCATED = {
    "truncated_normal": (init.truncated_normal(0.3), 0.3),
    "scaled": (init.variance_scaling(1.7, "average", "truncated"), math.sqrt(1.7 / 390)),
}


@pytest.fixture(scope="module")
def draws():
    table = NORMALS | UNIFORMS | TRUNCATED

    @jax.jit
    def draw(key):
        return {
            name: entry[0](jax.random.fold_in(key, i), SHAPE, jnp.float32)
            for i, (name, entry) in enumerate(table.items())
        }

    return {name: np.asarray(a, np.float64).ravel() for name, a in draw(jax.random.key(0)).items()}


@pytest.mark.parametrize("name", NORMALS)
def test_normals(draws, name):
    draw, variance = draws[name], NORMALS[name][1]
    assert abs(draw.mean()) < 4 * math.sqrt(variance / SIZE)
    assert abs(draw.var() / variance - 1) < 4 * math.sqrt(2 / SIZE)
    assert stats.kstest(draw / math.sqrt(variance), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", UNIFORMS)
def test_uniforms(draws, name):
    draw, (_, low, high) = draws[name], UNIFORMS[name]
    assert draw.min() >= low and draw.max() <= high
    assert stats.kstest(draw, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_normals_have_the_standard_deviation_asked_for(draws, name):
    draw, stddev = draws[name], TRUNCATED[name][1]
    natural = stats.truncnorm(-2, 2)
    sigma = stddev / natural.std()
    assert abs(draw).max() <= 2 * sigma * (1 + 1e-6)
    assert abs(draw.std() / stddev - 1) < 4 / math.sqrt(2 * SIZE)
    assert stats.kstest(draw / sigma, natural.cdf).pvalue > 1e-3


def test_orthogonal_rows_or_columns():
    tall = init.orthogonal(1.5)(jax.random.key(0), (7, 4))
    np.testing.assert_allclose(tall.T @ tall, 2.25 * np.eye(4), atol=2e-6)
    flat = init.orthogonal(0.5)(jax.random.key(0), (4, 7))
    np.testing.assert_allclose(flat @ flat.T, 0.25 * np.eye(4), atol=1e-6)
    kernel = init.orthogonal()(jax.random.key(0), (3, 2, 5, 6)).reshape(30, 6)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(6), atol=1e-6)


def test_orthogonal_is_uniform_over_the_group(x64):
    """The trace of a uniform orthogonal matrix has mean 0 and variance 1; QR alone has not."""
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.vmap(lambda key: init.orthogonal()(key, (3, 3), jnp.float64))(keys)
    traces = np.trace(np.asarray(draws), axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 / math.sqrt(2000)
    assert abs(traces.var() - 1) < 4 * math.sqrt(2 / 2000)


def test_blocks_are_drawn_apart_each_with_its_own_fans():
    kernel = init.blocks(init.glorot_normal, 3)(jax.random.key(0), (100, 150))
    blocks = np.split(np.asarray(kernel), 3, axis=1)
    for block in blocks:
        assert abs(block.var() / (2 / 150) - 1) < 4 * math.sqrt(2 / 5000)
    assert len({float(block[0, 0]) for block in blocks}) == 3
    window = init.blocks(init.orthogonal(), 2)(jax.random.key(0), (3, 2, 4, 6))
    for block in np.split(np.asarray(window), 2, axis=-1):
        flat = block.reshape(24, 3)
        np.testing.assert_allclose(flat.T @ flat, np.eye(3), atol=1e-6)


def test_zeros_ones_constant_and_dtypes():
    key = jax.random.key(0)
    assert (init.zeros(key, (2, 3)) == 0).all() and (init.ones(key, (2,)) == 1).all()
    assert (init.constant(0.25)(key, (3,)) == 0.25).all()
    for name, entry in (NORMALS | UNIFORMS | TRUNCATED).items():
        out = jax.eval_shape(lambda k, f=entry[0]: f(k, (4, 3), jnp.bfloat16), key)
        assert (out.shape, out.dtype) == ((4, 3), jnp.bfloat16), name
    for f in (init.zeros, init.ones, init.constant(1.0), init.orthogonal(), init.fan_uniform):
        half = jax.eval_shape(lambda k, f=f: f(k, (4, 3), jnp.float16), key)
        assert half.dtype == jnp.float16
        assert jax.eval_shape(lambda k, f=f: f(k, (4, 3)), key).dtype == jnp.float32


def test_fans_of_a_dense_and_of_a_convolution_kernel():
    assert init.fans((20, 30)) == (20, 30)
    assert init.fans((3, 5, 20, 30)) == (300, 450)


def test_errors_name_the_argument():
    key = jax.random.key(0)
    for wrong, match in [
        (lambda: init.normal(-1.0), r"`stddev` must be in \[0, inf\), got stddev=-1"),
        (lambda: init.truncated_normal(-1.0), r"`stddev` must be in \[0, inf\)"),
        (lambda: init.uniform(-1.0), r"`bound` must be in \[0, inf\)"),
        (lambda: init.constant(float("nan")), r"`value` must be in \(-inf, inf\)"),
        (lambda: init.orthogonal(-1.0), r"`gain` must be in \[0, inf\)"),
        (lambda: init.variance_scaling(-1.0, "in"), r"`scale` must be in \[0, inf\)"),
        (lambda: init.variance_scaling(1.0, "both"), "`fan` must be one of 'in', 'out', 'average'"),
        (
            lambda: init.variance_scaling(1.0, "in", "flat"),
            "`distribution` must be one of 'normal'",
        ),
        (lambda: init.he_normal(key, (8,)), r"needs a shape \(..., in, out\), got shape=\(8,\)"),
        (lambda: init.orthogonal()(key, (8,)), r"needs a shape \(..., in, out\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            wrong()

"""Activations: torch's recorded values and gradients; dtypes and ranges."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "nn.npz")
FUNCTIONS = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "relu": nn.relu,
    "leaky_relu": functools.partial(nn.leaky_relu, slope=0.17),
    "elu": functools.partial(nn.elu, alpha=0.6),
    "selu": nn.selu,
    "softplus": nn.softplus,
    "gelu_exact": functools.partial(nn.gelu, approximate=False),
    "gelu": nn.gelu,
    "silu": nn.silu,
    "softmax": lambda x: nn.softmax(x / 8),
    "log_softmax": lambda x: nn.log_softmax(x / 8),
}


def test_values_and_gradients_are_torchs(x64):
    @jax.jit
    def run(x):
        pulled = {name: jax.vjp(function, x) for name, function in FUNCTIONS.items()}
        return {name: (y, pull(jnp.cos(x))[0]) for name, (y, pull) in pulled.items()}

    for name, (y, gradient) in run(GOLDEN["activation/x"]).items():
        np.testing.assert_allclose(
            y, GOLDEN[f"activation/{name}"], rtol=1e-11, atol=1e-15, err_msg=name
        )
        np.testing.assert_allclose(
            gradient, GOLDEN[f"activation/{name}/gradient"], rtol=1e-9, atol=1e-14, err_msg=name
        )


def test_defaults_and_the_other_axis():
    x = jnp.array([[-2.0, 3.0], [1.0, -1.0]])
    np.testing.assert_allclose(nn.leaky_relu(x), [[-0.02, 3], [1, -0.01]], rtol=1e-6)
    np.testing.assert_allclose(nn.elu(x)[0, 0], np.expm1(-2), rtol=1e-6)
    np.testing.assert_allclose(nn.softmax(x, axis=0).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(nn.log_softmax(x, axis=0)).sum(0), 1, rtol=1e-6)
    assert nn.identity(x) is x


def test_gradients_stay_finite_far_out():
    x = jnp.array([-1e4, -200.0, 0.0, 200.0, 1e4])

    @jax.jit
    def gradients(x):
        return [jax.grad(lambda x, f=f: f(x).sum())(x) for f in FUNCTIONS.values()]

    for name, gradient in zip(FUNCTIONS, gradients(x), strict=True):
        assert jnp.isfinite(gradient).all(), name


def test_numbers_meet_half_precision_in_float32():
    x = jnp.array([-3.0, 2.0], jnp.bfloat16)
    for function in (nn.leaky_relu, nn.elu):
        constant = jax.jit(lambda x, f=function: f(x, 0.3))(x)
        traced = jax.jit(function)(x, jnp.float32(0.3))
        assert constant.dtype == traced.dtype == jnp.bfloat16
        assert (constant == traced).all()
    assert nn.leaky_relu(x, 0.3)[0] == jnp.asarray(-0.9, jnp.bfloat16)


def test_ranges():
    x = jnp.ones(1)
    with pytest.raises(ValueError, match=r"`slope` must be in \(-inf, inf\), got slope=nan"):
        nn.leaky_relu(x, float("nan"))
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, inf\), got alpha=-1"):
        nn.elu(x, -1.0)

"""The bytes that products write, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from jdl import nn
from jdl.engine.products import product_bytes

X, W = jnp.ones((4, 8)), jnp.ones((8, 8))


def loop(x):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ W), None), x, None, length=5)[0]


def branch(x):
    return jax.lax.cond(x.sum() > 0, lambda: x @ W, lambda: (x @ W) @ W)


@pytest.mark.parametrize(
    ("function", "floats"),
    [
        (lambda x: x @ W, 4 * 8),
        (lambda x: jax.nn.relu(x) + 1, 0),
        (jax.jit(lambda x: (x @ W) @ W), 2 * 4 * 8),
        (loop, 5 * 4 * 8),
        (branch, 2 * 4 * 8),  # of the larger branch
        # Forward, and backward the gradients of x and of W.
        (lambda x: jax.grad(lambda x, w: jnp.sum((x @ w) ** 2), (0, 1))(x, W), 2 * 32 + 64),
        (lambda x: x.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16), 4 * 8 / 2),
    ],
)
def test_counts_by_hand(function, floats):
    assert product_bytes(jax.make_jaxpr(function)(X).jaxpr) == 4 * floats


def test_a_convolution_is_a_product():
    model = nn.conv(6, 3)
    x = jnp.ones((2, 5, 5, 3))
    params, state = model.init(jax.random.key(0), x)
    program = jax.make_jaxpr(lambda p, x: model.apply(p, state, x)[0])(params, x)
    assert product_bytes(program.jaxpr) == 4 * 2 * 5 * 5 * 6

"""Derivatives through an optimizer, as a hypergradient takes them, where gradients are 0."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg
from tests.optim.table import ROWS

from jdl import nn, optim, tree

# Numbers that are counts or that choose when something happens: nothing is smooth in them.
COUNTS = {"every", "sync_period", "precondition_frequency", "update_interval", "warmup_steps"}
COUNTS |= {"decay_offset"}
KERNEL = np.array([[0.4, -1.2, 0.0], [2.0, 0.3, 0.0], [0.0, 0.0, 0.0], [-0.7, 0.9, 0.0]])
PULL = np.array([[1.0, 0.7, 0.0], [-0.6, 1.3, 0.0], [0.0, 0.0, 0.0], [0.4, -0.8, 0.0]])
START = ({"kernel": KERNEL, "gain": np.zeros((3, 2))}, {"bias": np.array([1.1, 0.0])})


def loss(params):
    """A row and a column of the kernel, half of the bias and one whole leaf move nothing."""
    kernel, bias = params[0]["kernel"], params[1]["bias"]
    return jnp.sum(jnp.sin(kernel * PULL.astype(kernel.dtype))) + jnp.sin(bias[:1]).sum()


def trained(row, fixed, smooth, start):
    """The squared length of the parameters after two updates."""
    optimizer = row.make(**smooth, **fixed, **row.fixed)
    params, state = start, optimizer.init(start)
    for _ in range(2):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(
            grads, state, params, value=value, grad=grads, value_fn=loss
        )
        params = optim.apply_updates(params, updates)
    return sum(jnp.sum(w**2) + jnp.sum(w) for w in jax.tree.leaves(params))


def case(row, dtype):
    numbers = {name: values[1] for name, values in row.numbers.items()}
    fixed = {name: value for name, value in numbers.items() if name in COUNTS}
    smooth = {n: jnp.asarray(v, dtype) for n, v in numbers.items() if n not in COUNTS}
    start = jax.tree.map(lambda w: jnp.asarray(w, dtype), START)
    return jax.jit(lambda smooth, start: trained(row, fixed, smooth, start)), smooth, start


def named(row):
    return f"{row.make.__name__} {row.label}".strip()


# One row of each constructor; of those with several ways through, each.
SEVERAL = {optim.shampoo, optim.muon, optim.adagrad, optim.rmsprop, optim.sam}
CHOSEN = [
    row
    for at, row in enumerate(ROWS)
    if (row.make in SEVERAL or row.make not in [before.make for before in ROWS[:at]])
]


@pytest.mark.parametrize("row", CHOSEN, ids=named)
def test_derivatives_are_finite_where_gradients_are_zero(row):
    run, *point = case(row, "float32")
    value, gradient = jax.jit(jax.value_and_grad(run, argnums=(0, 1)))(*point)
    assert np.isfinite(value)
    for path, slope in tree.named_leaves(gradient).items():
        assert np.isfinite(slope).all(), path


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "schatten", "aol"])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_nothing_made_orthogonal_is_nothing_and_so_is_its_derivative(preconditioning, eps):
    def size(x):
        return optim.orthogonalize(x, preconditioning=preconditioning, eps=eps).sum()

    for x in (jnp.zeros((3, 2)), jnp.array([[1.0, 2.0], [0.0, 0.0]])):
        value, slope = jax.value_and_grad(size)(x)
        assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize("layer", [nn.layer_norm, nn.rms_norm, functools.partial(nn.group_norm, 1)])
@pytest.mark.parametrize("eps", [0.0, 1e-30])
def test_a_norm_of_nothing_is_nothing_without_eps(layer, eps):
    layer, x = layer(eps=eps), jnp.zeros((2, 3))
    params, state = layer.init(jax.random.key(0), x)
    y, slope = jax.value_and_grad(lambda x: layer.apply(params, state, x)[0].sum())(x)
    assert y == 0 and np.isfinite(slope).all()


def test_batch_norm_of_a_constant_feature_is_nothing_without_eps():
    layer, x = nn.batch_norm(eps=0.0), jnp.array([[2.0, 1.0], [2.0, 3.0]])
    params, state = layer.init(jax.random.key(0), x)
    run = lambda x: layer.apply(params, state, x, train=True)[0]  # noqa: E731
    np.testing.assert_allclose(run(x), [[0, -1], [0, 1]], atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: (run(x) ** 2).sum())(x)).all()


def test_roots_and_norms_at_zero_and_beside_it(x64):
    assert jax.grad(tree.norm)([jnp.zeros(2)])[0].tolist() == [0, 0]
    assert jax.grad(lambda x: tree.norm([x]))(jnp.array([3.0, 4.0])) == pytest.approx([0.6, 0.8])
    assert jax.grad(tree.root)(0.0) == 0 and jax.grad(tree.root)(0.25) == 1
    assert tree.reciprocal_root(jnp.array([0.0, 4.0])).tolist() == [0, 0.5]
    assert jax.vmap(jax.grad(tree.reciprocal_root))(jnp.array([0.0, 0.25])).tolist() == [0, -4]
    assert (
        jax.grad(lambda x: optim.clip_by_global_norm(1.0).update(x, optim.scale(1).init(x))[0])(0.0)
        == 1
    )


MATRICES = {
    "distinct": np.diag([3.0, 1.0, 0.2]),
    "equal": np.diag([2.0, 2.0, 2.0]),
    "with a null space": np.diag([5.0, 0.0, 0.0]),
    "nothing": np.zeros((3, 3)),
    "nearly equal": np.diag([2.0, 2.0 + 1e-9, 1.0]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_derivative_of_an_inverse_root_is_that_of_scipys(x64, name):
    """By differences of SciPy's powers, in an arbitrary basis, in all three arguments."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = basis @ MATRICES[name] @ basis.T
    # Within the cone: at its edge an eigenvalue below 0 counts as 0.
    change = rng.normal(size=(3, 3))
    change = change @ change.T
    exponent, eps, h = 0.3, 0.4, 1e-6

    def power(t):
        inner = matrix + t * change + (eps + 0.7 * t) * np.eye(3)
        return np.real(linalg.fractional_matrix_power(inner, -(exponent + 0.5 * t)))

    expected = (power(h) - power(0)) / h - ((power(2 * h) - 2 * power(h) + power(0)) / h) / 2
    _, got = jax.jvp(optim.inverse_root, (matrix, exponent, eps), (change, 0.5, 0.7))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

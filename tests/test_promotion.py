"""Under strict promotion, by which users find mixed types of their own, jdl does what it does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.nn.test_layer_conformance import LAYERS, PLAIN
from tests.optim.schedules.test_schedules import TRACED
from tests.optim.table import ROWS

from jdl import losses, metrics, nn, optim, tree

PARAMS = ({"kernel": np.ones((3, 2), np.float32)}, {"bias": np.ones(2, np.float32)})


def both(run, *args):
    """What `run` gives under standard and under strict promotion, compiled or not."""
    expected = jax.jit(run)(*args)
    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(run)(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-6, atol=1e-6
        )


def quadratic(params):
    return sum(jnp.sum((w - jnp.asarray(0.3, w.dtype)) ** 2) for w in jax.tree.leaves(params))


def updated(row, numbers, params):
    optimizer = row.make(**numbers, **row.fixed)
    state = optimizer.init(params)
    for _ in range(2):
        value, grads = jax.value_and_grad(quadratic)(params)
        updates, state = optimizer.update(
            grads, state, params, value=value, grad=grads, value_fn=quadratic
        )
        params = optim.apply_updates(params, updates)
    return params, jax.tree.map(lambda s: s, jax.tree.leaves(state)[0])


def shapes(run, *args):
    """As `both`, but only whether it traces and to which types: compiling takes long."""
    expected = jax.eval_shape(run, *args)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(run, *args) == expected


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.make.__name__} {r.label}".strip())
def test_optimizers(row, wide):
    """Python numbers with float32; traced float32 numbers with bfloat16 where float64 is on."""
    numbers = {name: values[1] for name, values in row.numbers.items()}
    if wide:
        numbers = {name: jnp.float32(value) for name, value in numbers.items()}
    with jax.enable_x64(wide):
        params = jax.tree.map(lambda w: jnp.asarray(w, "bfloat16" if wide else "float32"), PARAMS)
        shapes(lambda w: updated(row, numbers, w), params)


@pytest.mark.parametrize(("make", "numbers"), TRACED, ids=lambda x: getattr(x, "__name__", ""))
def test_schedules(make, numbers):
    plain = {name: pair[0] for name, pair in numbers.items()}
    traced = {name: jnp.float32(value) for name, value in plain.items()}
    for step in (jnp.int32(5), 5, jnp.float32(5)):
        with jax.numpy_dtype_promotion("strict"):
            got = [make(**plain)(step), make(**traced)(step)]
        np.testing.assert_allclose(got, make(**plain)(step), rtol=1e-5)


@pytest.mark.parametrize("name", sorted({*LAYERS, *PLAIN}))
def test_layers(name):
    if name in PLAIN:
        make, numbers, x = lambda: PLAIN[name][0], {}, PLAIN[name][1]
    else:
        make, numbers, x = LAYERS[name]
    numbers = {key: jnp.float32(values[1]) for key, values in numbers.items()}

    def run(numbers, x):
        layer = make(**numbers)
        params, state = layer.init(jax.random.key(0), x)

        def loss(params):
            y, after = layer.apply(params, state, x, key=jax.random.key(1), train=True)
            return tree.norm(y.values if isinstance(y, nn.Masked) else y), after

        evaluated = layer.apply(params, state, x)[0]
        return jax.value_and_grad(loss, has_aux=True)(params), evaluated

    x = jax.tree.map(jnp.asarray, x)
    half = jax.tree.map(
        lambda v: v.astype(jnp.bfloat16) if jnp.issubdtype(v.dtype, jnp.floating) else v, x
    )
    for inputs in (x, half):
        shapes(run, numbers, inputs)


def test_losses_and_metrics():
    logits = jax.random.normal(jax.random.key(0), (4, 3)).astype(jnp.bfloat16)
    labels, mask = jnp.array([0, 2, 1, 1], jnp.uint8), jnp.ones((2, 2), bool)
    n = jnp.float32(0.3)

    def run(x, y):
        column = x[:, 0]
        average = metrics.add(metrics.start(), column, y)
        return [
            losses.softmax_cross_entropy(x, y, n),
            losses.softmax_cross_entropy(x, jax.nn.softmax(x), n),
            losses.softmax_cross_entropy(x.reshape(2, 2, 3), y.reshape(2, 2), n, mask),
            losses.sigmoid_cross_entropy(column, y > 1, n),
            losses.squared_error(column, y),
            losses.absolute_error(column, y),
            losses.huber(column, y, n),
            losses.hinge(column, y, n),
            losses.multiclass_hinge(x, y, n),
            losses.kl_divergence(x, jax.nn.softmax(x)),
            metrics.accuracy(x, y),
            metrics.top_k_accuracy(x, y, 2),
            metrics.binary_accuracy(column, y),
            metrics.confusion(x, y),
            metrics.result(average),
        ]

    both(run, logits, labels)


@pytest.mark.parametrize(
    "method", ["lbfgs", "bfgs", "newton", "newton_cg", "gauss_newton", "levenberg_marquardt"]
)
def test_solvers(method):
    def run(x):
        fun = lambda w: (w - 3) * jnp.arange(1.0, 3.0)  # noqa: E731
        square = lambda w: jnp.sum(fun(w) ** 2)  # noqa: E731
        squares = method in ("gauss_newton", "levenberg_marquardt")
        return optim.minimize(fun if squares else square, x, method)

    both(run, jnp.array([1.0, -2.0]))


def test_trees():
    a, b = {"x": jnp.ones(2, jnp.bfloat16)}, {"x": jnp.ones(2)}
    both(lambda a, b: [tree.add(a, b), tree.subtract(a, b), tree.dot(a, b), tree.norm(a)], a, b)
    both(lambda a, b: [tree.scale(jnp.float32(2), a), tree.add_scaled(a, jnp.float32(2), b)], a, b)
    both(lambda a, b: tree.where(True, a, b), a, b)

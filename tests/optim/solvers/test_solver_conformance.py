"""What the pairs that look at the objective keep to: every number traced, compiled once."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.table import Row

from jdl import optim

X = np.random.default_rng(8).normal(size=(6, 3))
START = np.array([0.9, -1.4, 0.6])
STEPS = 4
RATE = {"learning_rate": (0.05, 0.2, 0.6)}
DAMPING = {"damping": (0.0, 0.3, 2.0)}
PLAIN = {"linesearch": None}


def rates(rate):
    return optim.line_search_descent([0.01, rate])


ROWS = [
    Row(optim.lbfgs, RATE, {**PLAIN, "memory_size": 2}),
    Row(optim.bfgs, RATE, PLAIN),
    Row(optim.newton, {**RATE, **DAMPING}, PLAIN),
    Row(optim.newton, DAMPING, {}, "searching"),
    Row(optim.newton_cg, {**RATE, **DAMPING}, PLAIN),
    Row(optim.gauss_newton, RATE, PLAIN),
    Row(optim.levenberg_marquardt, {"radius": (1e-3, 0.1, 100.0)}),
    Row(rates, {"rate": (0.0, 0.1, 0.4)}),
    Row(
        optim.scale_by_linesearch,
        {"increase_factor": (1.0, 1.3, 2.0), "max_learning_rate": (0.15, float("inf"), 0.04)},
        {"linesearch": optim.backtracking_linesearch()},
    ),
]


def residuals(w):
    return jnp.concatenate([jnp.tanh(jnp.asarray(X) @ w) - 0.3, 0.4 * (w - 1) ** 2])


def objective(w):
    return 0.5 * jnp.sum(residuals(w) ** 2)


def path(row, numbers):
    """The parameters after each step."""
    optimizer = row.make(**numbers, **row.fixed)
    if row.make is optim.scale_by_linesearch:
        optimizer = optim.chain(optim.scale(-1.0), optimizer)

    def step(carry, _):
        w, state = carry
        value, grads = jax.value_and_grad(objective)(w)
        known = {"value": value, "grad": grads, "unknown": 1}
        updates, state = optimizer.update(
            grads, state, w, value_fn=objective, residual_fn=residuals, **known
        )
        w = optim.apply_updates(w, updates)
        return (w, state), w

    w = jnp.array(START)
    return jax.lax.scan(step, (w, optimizer.init(w)), length=STEPS)[1]


@pytest.mark.parametrize("row", ROWS, ids=[f"{r.make.__name__} {r.label}".strip() for r in ROWS])
def test_each_lane_equals_the_run_with_a_python_number_and_two_values_compile_once(row, x64):
    base = {name: values[1] for name, values in row.numbers.items()}
    lanes = [base]
    for name, (first, _, third) in row.numbers.items():
        lanes += [base | {name: first}, base | {name: third}]
    stacked = {name: jnp.array([lane[name] for lane in lanes]) for name in base}
    found = jax.jit(jax.vmap(lambda numbers: path(row, numbers)))(stacked)
    assert np.all(np.isfinite(found))
    traces = []

    @jax.jit
    def traced(numbers):
        traces.append(1)
        return path(row, numbers)

    alone = [jax.jit(lambda: path(row, base))(), *map(traced, lanes[1:])]
    assert len(traces) == 1
    np.testing.assert_allclose(found, alone, rtol=1e-7, atol=1e-9)
    for i, name in enumerate(row.numbers):
        first, second, third = found[1 + 2 * i], found[0], found[2 + 2 * i]
        for a, b in ((first, second), (second, third), (first, third)):
            assert np.max(np.abs(a - b)) > 1e-4, f"{name} makes no difference"


def test_every_number_of_every_pair_is_swept():
    swept = {}
    for row in ROWS:
        swept.setdefault(row.make, set()).update(row.numbers)
    for make in swept.keys() - {rates}:
        numbers = inspect.signature(make).parameters.values()
        named = {p.name for p in numbers if "Number" in str(p.annotation)}
        # Its lanes are in test_newton.py, beside the loop that it bounds.
        assert named - {"max_cg_steps"} == swept[make]

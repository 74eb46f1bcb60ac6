"""Time for L-BFGS to reach the minimum, beside optax, jaxopt, optimistix and SciPy: `--help`.

Each solver runs at the loosest tolerance of a ladder that ends within 1e-6 of the
lowest value found by any (relative where that is above 1), since their stopping
rules differ; the time is that of the compiled solve from start to blocked result.
The runs are interleaved, so that drift of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import optimistix
import scipy.optimize

import harness
from jdl import data, optim

TOLERANCES = [10.0 ** (-k / 8) for k in range(8, 80)]
MOST = 4000


def rosenbrock(x: jax.Array) -> jax.Array:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def valleys(x: jax.Array) -> jax.Array:
    """Many two-dimensional valleys of different steepness: large and badly conditioned."""
    a, b = x[::2], x[1::2]
    return jnp.sum(jnp.linspace(1, 100, a.size) * (b - a**2) ** 2 + (1 - a) ** 2)


def logistic() -> Callable[[jax.Array], jax.Array]:
    train = data.digits().train
    x, y = jnp.asarray(train[0], float), jnp.asarray(train[1])

    def fun(w: jax.Array) -> jax.Array:
        w = w.reshape(x.shape[1] + 1, 10)
        logits = x @ w[:-1] + w[-1:]
        right = jnp.take_along_axis(logits, y[:, None], 1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, 1) - right) + 1e-3 * jnp.sum(w[:-1] ** 2)

    return fun


Solve = Callable[[Any, Any], Any]


def ours(fun: Any) -> Solve:
    return lambda x, tolerance: (
        optim.minimize(fun, x, "lbfgs", gradient_tolerance=tolerance, max_iterations=MOST).params
    )


def by_optax(fun: Any) -> Solve:
    """The loop of optax's documentation, with its reuse of value and gradient."""
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(fun)

    def step(carry: Any) -> Any:
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(params, updates), state

    def solve(x: Any, tolerance: Any) -> Any:
        def going(carry: Any) -> Any:
            count = optax.tree.get(carry[1], "count")
            grad = optax.tree.get(carry[1], "grad")
            return (count == 0) | ((count < MOST) & (jnp.max(jnp.abs(grad)) > tolerance))

        return jax.lax.while_loop(going, step, (x, solver.init(x)))[0]

    return solve


def by_jaxopt(fun: Any) -> Solve:
    return lambda x, tolerance: jaxopt.LBFGS(fun, maxiter=MOST, tol=tolerance).run(x).params


def by_optimistix(fun: Any) -> Solve:
    def solve(x: Any, tolerance: Any) -> Any:
        solver = optimistix.LBFGS(rtol=tolerance, atol=tolerance)
        end = optimistix.minimise(lambda x, _: fun(x), solver, x, max_steps=MOST, throw=False)
        return end.value

    return solve


def by_scipy(fun: Any) -> Solve:
    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def evaluate(x: np.ndarray) -> Any:
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad)

    def solve(x: Any, tolerance: Any) -> Any:
        options = {"gtol": tolerance, "ftol": 0.0, "maxiter": MOST, "maxfun": 2 * MOST}
        x = np.asarray(x)
        return scipy.optimize.minimize(evaluate, x, jac=True, method="L-BFGS-B", options=options).x

    return solve


SOLVERS = {
    "jdl": ours,
    "optax": by_optax,
    "jaxopt": by_jaxopt,
    "optimistix": by_optimistix,
    "scipy": by_scipy,
}


def compiled(name: str, fun: Any, start: Any, lanes: bool) -> Callable[[float], Any]:
    """The solve as a function of the tolerance; SciPy's lanes are a loop in Python."""
    solve = SOLVERS[name](fun)
    if name == "scipy":
        return lambda tolerance: (
            np.stack([solve(x, tolerance) for x in start]) if lanes else solve(start, tolerance)
        )
    run = jax.jit(jax.vmap(solve, (0, None)) if lanes else solve)
    return lambda tolerance: run(start, tolerance)


def compare(fun: Any, start: Any, lanes: bool, repeats: int) -> dict[str, Any]:
    """One problem: the loosest tolerance of each solver that reaches the value, then the times."""
    value = jax.jit(jax.vmap(fun) if lanes else fun)
    solvers = {name: compiled(name, fun, start, lanes) for name in SOLVERS}
    lowest = np.asarray(value(solvers["jdl"](1e-9)))
    chosen: dict[str, Any] = {}
    for name, solve in solvers.items():
        for tolerance in TOLERANCES:
            end = np.asarray(value(jnp.asarray(solve(tolerance))))
            chosen[name] = (tolerance, end, partial(solve, tolerance))
            # Lanes may end in another local minimum than ours did; any of them will do.
            if np.all(near(end, lowest)):
                break
    times: dict[str, list[float]] = {name: [] for name in SOLVERS}
    for _ in range(repeats):
        for name, (_, _, run) in chosen.items():
            # One call uncounted: who follows SciPy finds the caches full of Python.
            times[name] += harness.seconds(run, repeats=1, warmup=1)
    return {
        name: {
            "tolerance": chosen[name][0],
            "value": float(np.max(chosen[name][1])),
            "reached": bool(np.all(near(chosen[name][1], lowest))),
            "milliseconds": [round(1e3 * t, 4) for t in times[name]],
            "median_ms": round(1e3 * statistics.median(times[name]), 4),
            "best_ms": round(1e3 * min(times[name]), 4),
            "jdl_over_it": [round(r, 3) for r in harness.median_ratio(times["jdl"], times[name])],
        }
        for name in SOLVERS
    }


def near(end: np.ndarray, lowest: np.ndarray) -> Any:
    """Whether each value is within 1e-6 of one of the minima that the tightest solve ended in."""
    minima = np.atleast_1d(lowest)[None]
    gaps = np.abs(np.atleast_1d(end)[:, None] - minima) / np.maximum(1, np.abs(minima))
    return gaps.min(1) <= 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--only",
        nargs="*",
        default=None,
        help="words of the names of problems; the others keep their recorded results",
    )
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    classic = jnp.tile(jnp.array([-1.2, 1.0]), 50)
    key = jax.random.key(0)
    problems = {
        "rosenbrock, 100 parameters": (rosenbrock, classic, False),
        "logistic regression on digits, 650 parameters": (logistic(), jnp.zeros(650), False),
        "valleys, 20000 parameters": (valleys, jnp.tile(jnp.array([-1.2, 1.0]), 10_000), False),
        "rosenbrock, 64 starts of 10 parameters": (
            rosenbrock,
            jax.random.uniform(key, (64, 10), minval=-2.0, maxval=2.0),
            True,
        ),
    }
    results = {}
    before = harness.RESULTS / "minimize.json"
    if arguments.only and before.exists():
        results = json.loads(before.read_text())["problems"]
    for name, (fun, start, lanes) in problems.items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        results[name] = compare(fun, start, lanes, arguments.repeats)
        print(name)
        for solver, row in results[name].items():
            print(
                f"  {solver:11s} {row['median_ms']:10.3f} ms (best {row['best_ms']:.3f})"
                f"  tolerance {row['tolerance']:.0e}  value {row['value']:.9g}"
                f"  jdl / it {row['jdl_over_it'][1]:.2f}"
                f" [{row['jdl_over_it'][0]:.2f}, {row['jdl_over_it'][2]:.2f}]"
                + ("" if row["reached"] else "  did not reach the minimum")
            )
    machine = harness.machine("optax", "jaxopt", "optimistix", "scipy")
    path = harness.record("minimize", {**machine, "dtype": "float64", "problems": results})
    print(path)


if __name__ == "__main__":
    main()

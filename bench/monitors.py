"""What monitors cost a sweep: an epoch of steps and its report, with and without: `--help`.

An epoch of training and the report at its end, for the lanes of one device side
by side, as the engine runs them; once plain, once with each monitor alone, once with
all. They take turns. Monitors run at reports alone, so their share depends on
how often one reports: the JSON has the milliseconds of a report as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import harness
from jdl import diagnose, models, optim, train
from jdl.engine.trial import evaluate_split

BATCH, EXAMPLES, HELD = 32, 1257, 180  # of the digits
CASES = {
    "MLP 64-32-10, 8 lanes": (lambda: models.mlp((32, 10)), (64,), 8, 60),
    "CNN 28x28, 16 and 32 features, 1 lane": (lambda: models.cnn(10), (28, 28, 1), 1, 3),
}


def epochs(
    model: Callable[[], Any], shape: tuple[int, ...], lanes: int, count: int, monitors: Any
) -> Callable[[], Any]:
    """A function that trains all lanes for an epoch and reports, `count` times."""
    random = np.random.default_rng(0)
    x = random.normal(size=(EXAMPLES + HELD, *shape)).astype(np.float32)
    y = random.integers(0, 10, EXAMPLES + HELD).astype(np.int32)
    shown = jnp.asarray(x[:EXAMPLES]), jnp.asarray(y[:EXAMPLES])
    held = jnp.asarray(x[EXAMPLES:]), jnp.asarray(y[EXAMPLES:])
    indices = random.permutation(EXAMPLES)[: EXAMPLES // BATCH * BATCH].reshape(-1, BATCH)

    def lane(state: Any, rate: Any, words: Any) -> Any:
        trial = train.classifier(model(), optim.adam(rate))
        trial = diagnose.monitored(trial, monitors) if monitors else trial

        def step(state: Any, index: Any) -> Any:
            batch = jax.tree.map(lambda a: a[index], shown)
            return trial.step(state, batch, jax.random.wrap_key_data(words))

        state, metrics = jax.lax.scan(step, state, indices)
        return state, jax.tree.map(jnp.mean, metrics), evaluate_split(trial, state, held, 1024)

    trial = train.classifier(model(), optim.adam(1e-3))
    keys = jax.random.split(jax.random.key(1), lanes)
    states = jax.vmap(lambda key: trial.init(key, shown))(keys)
    rates = jnp.geomspace(1e-4, 1e-2, lanes)
    compiled = jax.jit(jax.vmap(lane)).lower(states, rates, jax.random.key_data(keys)).compile()

    def run() -> Any:
        after = states
        for _ in range(count):
            after, *reports = compiled(after, rates, jax.random.key_data(keys))
        return after, reports

    return run


def measure(case: str, repeats: int, each: bool) -> dict[str, Any]:
    model, shape, lanes, count = CASES[case]
    chosen = {"plain": (), "all": tuple(diagnose.MONITORS)}
    chosen |= {name: (name,) for name in diagnose.MONITORS} if each else {}
    runs = {name: epochs(model, shape, lanes, count, names) for name, names in chosen.items()}
    times = harness.interleaved(runs, repeats=repeats, warmup=2)
    steps = EXAMPLES // BATCH
    rows = {}
    for name, seconds in times.items():
        least, median, most = harness.median_ratio(seconds, times["plain"])
        rows[name] = {
            "seconds": seconds,
            "cost": {"min": least - 1, "median": median - 1, "max": most - 1},
            "ms_a_report": 1e3 * (np.median(seconds) - np.median(times["plain"])) / count,
        }
        print(f"{case:<40} {name:<16} {1e6 * np.median(seconds) / steps / lanes / count:8.1f} us a "
              f"trial-step, {100 * (median - 1):+5.1f} % ({100 * (least - 1):+.1f} to "
              f"{100 * (most - 1):+.1f})")  # fmt: skip
    return {"steps_a_report": steps, "lanes": lanes, "epochs_a_timing": count, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--each", action="store_true", help="each monitor alone as well")
    options = parser.parse_args()
    cases = {case: measure(case, options.repeats, options.each) for case in CASES}
    print(harness.record("monitors", {"machine": harness.machine(), "cases": cases}))


if __name__ == "__main__":
    main()

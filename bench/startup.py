"""The README's main job as whole processes: start, import, compilation and training.

720 trials: six optimizers, 30 rates and 4 seeds of an MLP 64-64-10 on the digits, batch 32,
20 epochs, training loss and validation metrics after each, test metrics at the end.

    python bench/startup.py            # jdl cold and warm, beside optax by hand; a few minutes
    python bench/startup.py --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
EPOCHS, BATCH, SEEDS = 20, 32, 4
TITLES = {
    "cold": "jdl, no program in the cache",
    "warm": "jdl, the same again in a new process",
    "optax": "optax, one jit of vmap(scan) an optimizer",
}


def jdl_job() -> dict[str, Any]:
    """The main job by `sweep.run`."""
    import jax

    from jdl import data, models, optim, sweep, train

    jax.config.update("jax_num_cpu_devices", os.cpu_count())

    def make_trial(hp: dict[str, Any]) -> train.Trial:
        return train.classifier(models.mlp((64, 10)), optim.by_name(hp["optimizer"])(hp["lr"]))

    space = {
        "optimizer": sweep.choice(*OPTIMIZERS),
        "lr": sweep.log_grid(1e-5, 10.0, 30),
        "seed": sweep.seeds(SEEDS),
    }
    results = sweep.run(make_trial, space, data.digits(), epochs=EPOCHS, progress=False)
    return {
        "best": results.best.metrics["valid_accuracy"],
        "programs": results.programs,
        "compile_seconds": results.stats["compile_seconds"],
    }


def optax_job() -> dict[str, Any]:
    """The same work as a researcher writes it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jdl import data  # the same split of the same file

    splits = jax.tree.map(jnp.asarray, data.digits())
    (x, y), valid, test = splits
    steps = len(x) // BATCH

    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        return {
            "a": jax.random.normal(first, (64, 64)) * (2 / 64) ** 0.5,
            "b": jnp.zeros(64),
            "c": jax.random.normal(second, (64, 10)) * (2 / 64) ** 0.5,
            "d": jnp.zeros(10),
        }

    def scores(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["a"] + params["b"]) @ params["c"] + params["d"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        both = optax.softmax_cross_entropy_with_integer_labels(scores(params, x), y)
        return both.mean()

    def accuracy(params: Any, x: Any, y: Any) -> Any:
        return (scores(params, x).argmax(-1) == y).mean()

    def trial(make: Any, rate: Any, key: Any) -> Any:
        optimizer = make(rate)
        key, start = jax.random.split(key)
        params = init(start)

        def step(carry: Any, index: Any) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, x[index], y[index])
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        def epoch(carry: Any, key: Any) -> Any:
            order = jax.random.permutation(key, len(x))[: steps * BATCH].reshape(steps, BATCH)
            carry, values = jax.lax.scan(step, carry, order)
            return carry, (values.mean(), loss(carry[0], *valid), accuracy(carry[0], *valid))

        keys = jax.random.split(key, EPOCHS)
        (params, _), curves = jax.lax.scan(epoch, (params, optimizer.init(params)), keys)
        return curves, loss(params, *test), accuracy(params, *test)

    makers = {
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(rate, 0.9),
        "nesterov": lambda rate: optax.sgd(rate, 0.9, nesterov=True),
        "adagrad": optax.adagrad,
        "rmsprop": optax.rmsprop,
        "adam": optax.adam,
    }
    rates = jnp.repeat(jnp.asarray(np.geomspace(1e-5, 10.0, 30), jnp.float32), SEEDS)
    keys = jax.random.split(jax.random.key(0), len(rates))
    best, compiling = 0.0, []
    for make in makers.values():
        begun = time.perf_counter()
        run = jax.jit(jax.vmap(lambda rate, key, make=make: trial(make, rate, key)))
        program = run.lower(rates, keys).compile()
        compiling.append(time.perf_counter() - begun)
        (_, _, curve), *_ = jax.device_get(program(rates, keys))
        best = max(best, float(np.nanmax(curve[:, -1])))
    return {"best": best, "programs": len(makers), "compile_seconds": compiling}


def turn(job: str, cache: str) -> dict[str, Any]:
    """Wall and processor seconds of one process, and what it said."""
    import resource

    def used() -> float:
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        return now.ru_utime + now.ru_stime

    before, begun = used(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--job", job],
        env=os.environ | {"JDL_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    said = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": seconds, "processor_seconds": used() - before, **said}


def main() -> None:
    """Runs the processes in turn, prints the medians and records them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=("jdl", "optax"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(jdl_job() if options.job == "jdl" else optax_job()))
        return
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for name in TITLES:
                turns[name].append(turn("optax" if name == "optax" else "jdl", cache))
                last = turns[name][-1]
                print(f"{TITLES[name]}: {last['seconds']:.1f} s", file=sys.stderr, flush=True)
    import harness

    by_hand = [t["seconds"] for t in turns["optax"]]
    rows = {}
    for name, taken in turns.items():
        times = [t["seconds"] for t in taken]
        low, middle, high = harness.median_ratio(by_hand, times)
        rows[name] = {
            "title": TITLES[name],
            "seconds": times,
            "processor_seconds": [t["processor_seconds"] for t in taken],
            "times_faster_than_by_hand": {"min": low, "median": middle, "max": high},
            "best_valid_accuracy": taken[0]["best"],
            "compile_seconds": taken[0]["compile_seconds"],
        }
        print(f"{TITLES[name]:45} {statistics.median(times):6.1f} s   {middle:.2f} times by hand")
    result = {"machine": harness.machine("optax"), "rounds": options.rounds, "rows": rows}
    if options.rounds > 1:
        print(harness.record("startup", result))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()

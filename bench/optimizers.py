"""One update of every optimizer that optax has too, beside optax's, in one run.

`python bench/optimizers.py [name ...]` prints a table and writes the rows that it ran
into results/optimizers.json. An update is the gradients in, the new parameters and state
out, jitted, parameters and state donated; jdl's and optax's take turns. Three trees:
`large`, ten million parameters in matrices and vectors; `small`, two hundred leaves of
16 to 256 elements; `matrices`, for the optimizers whose work is matrix products and
decompositions, which are no bargain to compare with a copy. `floor` is the time in
which a copy moves the bytes that an update has to move (gradients and parameters in,
parameters out, the state both ways).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import harness
from jdl import optim, tree
from jdl.bench import ceilings
from jdl.bench.updates import normal, updater
from jdl.optim.base import Optimizer

LR = 1e-3
Maker = Callable[[], Any]


def squared(update: Any) -> Any:
    """An estimate of the curvature that costs next to nothing, so that Sophia's own work shows."""
    return update(
        lambda params: (),
        lambda grads, state, params=None, **_: (jax.tree.map(jnp.square, grads), state),
    )


ELEMENTWISE: dict[str, tuple[Maker, Maker]] = {
    "sgd": (lambda: optim.sgd(LR), lambda: optax.sgd(LR)),
    "momentum": (lambda: optim.sgd(LR, 0.9), lambda: optax.sgd(LR, 0.9)),
    "nesterov": (
        lambda: optim.sgd(LR, 0.9, nesterov=True),
        lambda: optax.sgd(LR, 0.9, nesterov=True),
    ),
    "noisy_sgd": (
        lambda: optim.noisy_sgd(LR, key=jax.random.key(0)),
        lambda: optax.noisy_sgd(LR, key=jax.random.key(0)),
    ),
    "sign_sgd": (lambda: optim.sign_sgd(LR), lambda: optax.sign_sgd(LR)),
    "signum": (lambda: optim.signum(LR), lambda: optax.signum(LR)),
    "lion": (lambda: optim.lion(LR), lambda: optax.lion(LR)),
    "rprop": (lambda: optim.rprop(LR), lambda: optax.rprop(LR)),
    "adagrad": (lambda: optim.adagrad(LR), lambda: optax.adagrad(LR)),
    "adadelta": (lambda: optim.adadelta(LR), lambda: optax.adadelta(LR)),
    "rmsprop": (lambda: optim.rmsprop(LR), lambda: optax.rmsprop(LR)),
    "adam": (lambda: optim.adam(LR), lambda: optax.adam(LR)),
    "adamw": (lambda: optim.adamw(LR), lambda: optax.adamw(LR)),
    "nadam": (lambda: optim.nadam(LR), lambda: optax.nadam(LR)),
    "nadamw": (lambda: optim.nadamw(LR), lambda: optax.nadamw(LR)),
    "amsgrad": (lambda: optim.amsgrad(LR), lambda: optax.amsgrad(LR)),
    "adamax": (lambda: optim.adamax(LR), lambda: optax.adamax(LR)),
    "adamaxw": (lambda: optim.adamaxw(LR), lambda: optax.adamaxw(LR)),
    "radam": (lambda: optim.radam(LR), lambda: optax.radam(LR)),
    "adan": (lambda: optim.adan(LR), lambda: optax.adan(LR)),
    "adabelief": (lambda: optim.adabelief(LR), lambda: optax.adabelief(LR)),
    "yogi": (lambda: optim.yogi(LR), lambda: optax.yogi(LR)),
    "ademamix": (lambda: optim.ademamix(LR), lambda: contrib.ademamix(LR)),
    "adopt": (lambda: optim.adopt(LR), lambda: contrib.adopt(LR)),
    "sophia": (
        lambda: optim.sophia(LR, hessian_diagonal_fn=squared(Optimizer)),
        lambda: contrib.sophia(LR, hessian_diagonal_fn=squared(optax.GradientTransformation)),
    ),
    "lars": (lambda: optim.lars(LR), lambda: optax.lars(LR)),
    "lamb": (lambda: optim.lamb(LR), lambda: optax.lamb(LR)),
    "adafactor": (lambda: optim.adafactor(LR), lambda: optax.adafactor(LR)),
    "polyak_sgd": (lambda: optim.polyak_sgd(), lambda: optax.polyak_sgd()),
    "schedule_free_sgd": (
        lambda: optim.schedule_free_sgd(LR),
        lambda: contrib.schedule_free_sgd(LR),
    ),
    "schedule_free_adamw": (
        lambda: optim.schedule_free_adamw(LR),
        lambda: contrib.schedule_free_adamw(LR),
    ),
    "prodigy": (lambda: optim.prodigy(), lambda: contrib.prodigy()),
    "dadapt_adamw": (lambda: optim.dadapt_adamw(), lambda: contrib.dadapt_adamw()),
    "dog": (lambda: optim.dog(), lambda: contrib.dog()),
    "dowg": (lambda: optim.dowg(), lambda: contrib.dowg()),
}
# Rules made of matrix work, beside the same rule with that work left out.
MATRIX: dict[str, dict[str, Maker]] = {
    "muon": {
        "jdl": lambda: optim.muon(LR),
        "optax": lambda: contrib.muon(LR),
        "jdl, no iterations": lambda: optim.muon(LR, ns_steps=0),
    },
    "shampoo": {
        "jdl": lambda: optim.shampoo(LR),
        "jdl, newton": lambda: optim.shampoo(LR, method="newton"),
        "jdl, roots every 10": lambda: optim.shampoo(LR, precondition_frequency=10),
        "jdl, diagonal": lambda: optim.shampoo(LR, max_precond_dim=0),
    },
    "soap": {
        "jdl": lambda: optim.soap(LR),
        "jdl, basis every update": lambda: optim.soap(LR, precondition_frequency=1),
        "jdl, no basis": lambda: optim.soap(LR, max_precond_dim=0),
    },
}


def large() -> Any:
    """10,010,624 parameters."""
    layers = [{"kernel": (1024, 1024), "bias": (1024,)} for _ in range(9)]
    return [*layers, {"kernel": (1024, 550), "bias": (550,)}]


def small() -> Any:
    """200 leaves, 27,200 parameters."""
    return [{"kernel": (16, 16), "bias": (16,)} for _ in range(100)]


def matrices() -> Any:
    """16 matrices of 256 x 256, 1,048,576 parameters."""
    return [(256, 256)] * 16


def runner(optimizer: Any, shapes: Any, calls: int) -> tuple[Callable[[], Any], int]:
    """A function that makes `calls` updates, and the bytes that one has to move."""
    if not isinstance(optimizer, Optimizer):
        optimizer = optax.with_extra_args_support(optimizer)
    params, grads = normal(shapes, 0, 0.1), normal(shapes, 1, 1e-2)
    update, _, moved = updater(optimizer, params, grads)

    def run() -> Any:
        return [update() for _ in range(calls)][-1]

    return run, moved


def compare(
    makers: dict[str, Maker], shapes: Any, calls: int, repeats: int, bandwidth: float | None
) -> dict[str, Any]:
    made = {name: runner(maker(), shapes, calls) for name, maker in makers.items()}
    times = harness.interleaved({name: run for name, (run, _) in made.items()}, repeats, 2)
    row: dict[str, Any] = {
        name: {"ms": 1e3 * statistics.median(seconds) / calls} for name, seconds in times.items()
    }
    if "optax" in times:
        low, middle, high = harness.median_ratio(times["jdl"], times["optax"])
        quarters = statistics.quantiles(
            [a / b for a, b in zip(times["jdl"], times["optax"], strict=True)], n=4
        )
        row["ratio"] = {"min": low, "median": middle, "max": high, "quartiles": quarters}
    if bandwidth:
        row["floor_ms"] = 1e3 * made["jdl"][1] / bandwidth
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these optimizers")
    parser.add_argument("--trees", nargs="*", default=["large", "small", "matrices"])
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    wanted = lambda name: not options.names or name in options.names  # noqa: E731
    copied = ceilings.copy(10_000_000, jax.devices()[:1], length=0.05)
    bandwidth = copied.bytes / min(copied.seconds)
    print(f"a copy of 40 MB moves {bandwidth / 1e9:.1f} GB/s, read and written")
    result: dict[str, Any] = {"copy_bytes_per_second": bandwidth}
    for name, shapes, calls in (("large", large(), 1), ("small", small(), 20)):
        if name not in options.trees:
            continue
        rows = result[name] = {}
        print(f"\n{name}: {tree.size(normal(shapes, 0, 1.0)):,} parameters")
        print(f"{'':22}{'jdl ms':>9}{'optax ms':>10}{'floor':>8}{'ratio':>8}  quartiles")
        for optimizer, (ours, theirs) in ELEMENTWISE.items():
            if not wanted(optimizer):
                continue
            row = rows[optimizer] = compare(
                {"jdl": ours, "optax": theirs},
                shapes,
                calls,
                options.repeats,
                bandwidth if name == "large" else None,
            )
            ratio = row["ratio"]
            print(
                f"{optimizer:22}{row['jdl']['ms']:9.3f}{row['optax']['ms']:10.3f}"
                f"{row.get('floor_ms', 0):8.2f}{ratio['median']:8.3f}"
                f"  {ratio['quartiles'][0]:.3f} to {ratio['quartiles'][2]:.3f}",
                flush=True,
            )
        if rows:
            ratios = [row["ratio"]["median"] for row in rows.values()]
            print(f"median ratio {statistics.median(ratios):.3f}, worst {max(ratios):.3f}")
    if "matrices" in options.trees:
        result["matrices"] = {}
        print(f"\nmatrices: {tree.size(normal(matrices(), 0, 1.0)):,} parameters")
        for optimizer, makers in MATRIX.items():
            if not wanted(optimizer):
                continue
            # Ten updates, so that what is done at every tenth is in each measurement.
            row = compare(makers, matrices(), 10, max(3, options.repeats // 4), None)
            result["matrices"][optimizer] = row
            for name in makers:
                print(f"{optimizer:10}{name:28}{row[name]['ms']:9.3f} ms", flush=True)
            if "ratio" in row:
                print(f"{optimizer:10}{'ratio':28}{row['ratio']['median']:9.3f}")
    path = harness.RESULTS / "optimizers.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    for name in ("large", "small", "matrices"):
        result[name] = before.get(name, {}) | result.get(name, {})
    harness.record("optimizers", result | {"machine": harness.machine("optax", "jdl")})


if __name__ == "__main__":
    sys.exit(main())

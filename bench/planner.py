"""The planner's width beside the best of all widths, and its account of memory beside the peak.

`python bench/planner.py` prints a table and writes results/planner.json. For each workload every
width that is a power of two is compiled and timed (`jdl.engine.tune.step_seconds`: seconds of a
training step of one lane), all of them in turns, of which each width's least time counts;
`reckoned` is the width that `make_plan` takes without timing, `tuned` the one that
`lanes="tune"` finds. Memory is that of a program of so many lanes that it is worth measuring: the
compiler's account against the growth of the process to its peak while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

WIDTHS = [1, 2, 4, 8, 16, 32, 64]
# name: shape of an example, batch, steps of a report, the widest, lanes to measure memory with
WORKLOADS = {
    "MLP 64-32-10": ((64,), 32, 45, 64, 2048),
    "MLP 784-512-512-10": ((784,), 64, 10, 32, 16),
    "CNN 16-32": ((28, 28, 1), 32, 10, 32, 16),
    "ResNet-20": ((32, 32, 3), 32, 2, 8, 4),
    "transformer, 2 layers of 64": ((64,), 16, 5, 16, 8),
}
ROUNDS = 3


def workload(name: str) -> Any:
    """What the trials of `name` run, on made-up data."""
    import jax

    from jdl import data, models, nn, optim, train
    from jdl.engine.workload import make_workload, splits_of

    shape, batch, every, *_ = WORKLOADS[name]
    rng = np.random.default_rng(0)

    def make(numbers: Any) -> Any:
        optimizer = optim.adam(numbers["lr"])
        if name.startswith("transformer"):
            return train.language_model(
                models.transformer(65, features=64, depth=2, heads=4, length=64), optimizer
            )
        if name.startswith("MLP"):
            sizes = [int(size) for size in name.split()[1].split("-")[1:-1]]
            layers = [layer for size in sizes for layer in (nn.dense(size), nn.relu)]
            return train.classifier(nn.chain(*layers, nn.dense(10)), optimizer)
        if name.startswith("CNN"):
            layers = [
                layer for size in (16, 32) for layer in (nn.conv(size, 3), nn.relu, nn.max_pool(2))
            ]
            return train.classifier(nn.chain(*layers, nn.flatten, nn.dense(10)), optimizer)
        return train.classifier(models.resnet(10), optimizer)

    def split(count: int) -> Any:
        if name.startswith("transformer"):
            text = rng.integers(0, 65, (count, shape[0] + 1)).astype(np.int32)
            return text[:, :-1], text[:, 1:]
        x = rng.normal(size=(count, *shape)).astype(np.float32)
        return x, rng.integers(0, 10, count).astype(np.int32)

    dataset = data.Dataset(split(max(4 * batch, 256)), split(batch), split(batch))
    del jax
    work = make_workload(
        make, dataset, epochs=None, steps=100 * every, batch_size=batch, report_every=every,
        eval_batch_size=batch, diverged_above=float("inf"),
    )  # fmt: skip
    return work, splits_of(dataset)


def measure(name: str) -> dict[str, Any]:
    from jdl.engine.devices import use_all_cores

    use_all_cores()
    from jdl.engine.contract import trace_shapes
    from jdl.engine.devices import lane_mesh
    from jdl.engine.memory import program_bytes
    from jdl.engine.plan import make_plan
    from jdl.engine.program import compile_lanes
    from jdl.engine.tune import step_seconds, tuned

    numbers = {"lr": np.float32(1e-3)}
    (work, splits), mesh = workload(name), lane_mesh()
    shapes = trace_shapes(work, numbers)
    _, _, _, widest, many = WORKLOADS[name]

    def build(width: int) -> Any:
        return compile_lanes(work, shapes, mesh, width, 1)

    program = build(many)
    account, before = program_bytes(program) * mesh.size, reset_peak()
    step_seconds(program, work, numbers, splits)
    peak = status("VmHWM") - before
    del program
    plan = make_plan(work, shapes, 10**6, mesh)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        found = tuned(work, shapes, plan, 10**6, mesh, numbers, splits, lambda words: None).lanes
    chosen = {"reckoned": plan.lanes, "tuned": found}
    tried = sorted({width for width in WIDTHS if width <= widest} | set(chosen.values()))
    programs = {width: build(width) for width in tried}
    seconds = dict.fromkeys(tried, float("inf"))
    for _ in range(ROUNDS):
        for width, program in programs.items():
            seconds[width] = min(seconds[width], step_seconds(program, work, numbers, splits))
            print(f"  {name}: {width} lanes a device, {1e6 * seconds[width]:.3g} us", flush=True)
    best = min(seconds.values())
    return {
        "microseconds": {width: 1e6 * s for width, s in seconds.items()},
        **{how: {"lanes": w, "over_best": seconds[w] / best} for how, w in chosen.items()},
        "account": account,
        "peak": peak,
    }


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def reset_peak() -> int:
    """What the process holds now; its peak is counted from here."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", metavar="NAME", help="what a process of its own measures")
    parser.add_argument("--only", nargs="*", help="workloads; writes nothing")
    args = parser.parse_args()
    if args.work:
        print(json.dumps(measure(args.work)))
        return
    results = {}
    for name in args.only or WORKLOADS:
        command = [sys.executable, __file__, "--work", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = results[name] = json.loads(output.splitlines()[-1])
        times = ", ".join(f"{width}: {us:.3g}" for width, us in row["microseconds"].items())
        print(f"{name}: us a step of a lane by lanes a device: {times}")
        for how in ("reckoned", "tuned"):
            print(f"  {how:9} {row[how]['lanes']:3} lanes, {row[how]['over_best']:.2f} of the best")
        share = row["account"] / max(1, row["peak"])
        print(f"  account {row['account'] / 2**20:.1f} MiB, {share:.2f} of the peak's growth")
    if not args.only:
        import harness

        print(harness.record("planner", {"machine": harness.machine(), "workloads": results}))


if __name__ == "__main__":
    main()

"""What streaming costs: a CNN's training step on streamed batches beside resident data.

`python bench/streaming.py` prints a table and writes results/streaming.json. A step is forward,
backward and Adam of conv3x3(16)-pool-conv3x3(32)-pool-dense(10) on 28x28x1, in `train.fit`'s own
compiled programs. `resident` draws its batches on the device; `streamed` gathers the same batches
on the host, stacks up to 16 of them, and a thread moves them to the device ahead of their use;
`mapped` reads them from a memory-mapped file; `no prefetch` does what `streamed` does, but waits
for every step to be over before it makes the next chunk. They take turns, in rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import harness
from jdl import data, models, optim, train
from jdl.data.source import Reader, Stream, chunks
from jdl.data.stream import batches, prefetch
from jdl.engine.contract import trace_shapes
from jdl.engine.keys import trial_keys
from jdl.engine.workload import make_workload
from jdl.train.layout import make_layout
from jdl.train.programs import make_programs

EXAMPLES, LIMIT = 20_000, 1.10


def contestants(batch_size: int, steps: int, folder: Path, wait: float) -> dict[str, Any]:
    """Functions that each train `steps` steps; a streamed batch is `wait` seconds in the making."""
    random = np.random.default_rng(0)
    x = random.normal(size=(EXAMPLES, 28, 28, 1)).astype(np.float32)
    y = random.integers(0, 10, EXAMPLES).astype(np.int32)
    np.save(folder / "x.npy", x)
    mapped = data.npy(folder / "x.npy", mmap=True)
    work = make_workload(
        lambda numbers: train.classifier(models.cnn(10), optim.adam(1e-3)),
        data=data.Dataset((x, y)),
        epochs=None,
        steps=steps,
        batch_size=batch_size,
        report_every=steps,
        eval_batch_size=1024,
        diverged_above=1e6,
    )
    layout = make_layout(1, False, batch_size)
    programs = make_programs(work, trace_shapes(work, {}), layout)
    root = jax.device_put(np.uint32(0), layout.everywhere)
    split = jax.device_put((x, y), layout.everywhere)
    key = trial_keys(np.uint32(0), np.uint32(0)).data
    zeros = {"loss": np.float32(0), "accuracy": np.float32(0)}

    def resident() -> Any:
        lane, means = programs.resident(programs.start(root), root, split)
        return jax.block_until_ready((lane.step, means["loss"]))

    def streamed(arrays: Any, ahead: bool) -> Any:
        def waiting(step: int) -> Iterator[Any]:
            for batch in batches(arrays, key, batch_size, start=step):
                time.sleep(wait)
                yield batch

        source = Stream(waiting)
        reader = Reader(source, batch_size)
        made = chunks(reader, 0, steps, programs.chunk, steps, lambda position: None)
        ready = prefetch(made) if ahead else iter(made)
        lane, sums = programs.start(root), jax.device_put(zeros, layout.everywhere)
        for done in range(0, steps, programs.chunk):
            count = np.int32(min(programs.chunk, steps - done))
            chunk = next(ready)
            lane, sums = programs.streamed(lane, sums, root, chunk, count)
            if not ahead:
                jax.block_until_ready(lane.step)
        ready.close()
        return jax.block_until_ready((lane.step, sums["loss"] / steps))

    return {
        "resident": resident,
        "streamed": lambda: streamed((x, y), True),
        "mapped": lambda: streamed((mapped, y), True),
        "no prefetch": lambda: streamed((x, y), False),
    }


def main() -> None:
    """Runs the turns, prints the table, records it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait-ms", type=float, default=0.0, help="for every batch")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = contestants(options.batch_size, options.steps, Path(folder), options.wait_ms / 1000)
        losses = {name: float(run()[1]) for name, run in runs.items()}
        assert np.allclose(list(losses.values()), losses["resident"], rtol=1e-4), losses
        start = time.perf_counter()
        seconds = harness.interleaved(runs, repeats=options.rounds)
    rows = {}
    for name, times in seconds.items():
        least, median, most = harness.median_ratio(times, seconds["resident"])
        step = statistics.median(times) / options.steps
        rows[name] = {"ms": 1e3 * step, "ratio": [least, median, most], "seconds": times}
        ratio = f"{median:.3f} ({least:.3f}-{most:.3f})"
        print(f"{name:12} {1e3 * step:7.3f} ms a step   {ratio} of resident")
    print(f"limit {LIMIT}: {'kept' if rows['streamed']['ratio'][1] <= LIMIT else 'missed'}")
    if not options.no_record and not options.wait_ms:
        result = {
            "machine": harness.machine(),
            "batch_size": options.batch_size,
            "steps": options.steps,
            "losses": losses,
            "took": time.perf_counter() - start,
            "rows": rows,
        }
        print(harness.record("streaming", result))


if __name__ == "__main__":
    main()

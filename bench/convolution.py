"""Training steps of convolutional networks beside PyTorch and plain JAX, in one run.

`python bench/convolution.py` prints a table and writes results/convolution.json. A step is
forward, backward and Adam on a batch of 32; jdl's and plain JAX's run inside `lax.scan`. `cnn` is
conv3x3(16)-pool-conv3x3(32)-pool-dense(10) on 28x28x1, `resnet` ResNet-20 on 32x32x3. The others
are two convolutions, the mean over space and dense(10): `sequence` 1-D, 5 wide, of 128 steps with
32 channels, `depthwise` and `grouped` (4 groups) 3x3, of 16x16 pixels with 64 channels. Plain JAX
is the same model with `lax.conv_general_dilated` and `lax.reduce_window`. `a batch on 2 devices`
is one trial whose batch two JAX devices share, as in `train.fit(devices=2)`; `lanes` are so many
trials, vmapped on each of two JAX devices as the sweep engine runs them; the time is per
trial-step. Contestants have a process each and take turns; `others` is how many cores other
processes used meanwhile, and `cpu_ms` the processor time of a trial-step, which depends on that
less than its wall time does.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from typing import Any
from unittest import mock

BATCH = 32
IMAGES = {
    "cnn": (28, 28, 1), "resnet": (32, 32, 3), "vgg": (32, 32, 3),
    "sequence": (128, 32), "depthwise": (16, 16, 64), "grouped": (16, 16, 64),
}  # fmt: skip
# Window and groups of the models of two convolutions.
PAIRS = {"sequence": (5, 1), "depthwise": (3, 64), "grouped": (3, 4)}
# model, implementation, lanes (0: one trial on one device with all cores), steps a turn.
CONTESTANTS = {
    "cnn jdl": ("cnn", "jdl", 0, 100),
    "cnn jdl, 2 lanes": ("cnn", "jdl", 2, 50),
    "cnn jdl, 8 lanes": ("cnn", "jdl", 8, 20),
    "cnn plain JAX": ("cnn", "plain", 0, 20),
    "cnn plain JAX, vmap of 8": ("cnn", "plain vmap", 8, 1),
    "cnn PyTorch": ("cnn", "torch", 0, 100),
    "cnn PyTorch, channels last": ("cnn", "torch last", 0, 100),
    "resnet jdl": ("resnet", "jdl", 0, 8),
    "resnet jdl, a batch on 2 devices": ("resnet", "jdl split", 0, 8),
    "resnet jdl, 2 lanes": ("resnet", "jdl", 2, 4),
    "resnet plain JAX": ("resnet", "plain", 0, 1),
    "resnet PyTorch": ("resnet", "torch", 0, 8),
    "resnet PyTorch, channels last": ("resnet", "torch last", 0, 8),
}
for _name in PAIRS:
    CONTESTANTS |= {
        f"{_name} jdl": (_name, "jdl", 0, 40),
        f"{_name} jdl, 8 lanes": (_name, "jdl", 8, 8),
        f"{_name} plain JAX": (_name, "plain", 0, 1),
        f"{_name} PyTorch": (_name, "torch", 0, 40),
    }
    if len(IMAGES[_name]) == 3:
        CONTESTANTS[f"{_name} PyTorch, channels last"] = (_name, "torch last", 0, 40)
# What is compared with what: theirs / ours, and the target.
RATIOS = {
    "cnn: plain JAX / jdl": (["cnn plain JAX"], "cnn jdl", 12.0),
    "cnn: PyTorch / jdl": (["cnn PyTorch", "cnn PyTorch, channels last"], "cnn jdl", 1.3),
    "cnn: jdl alone / 8 lanes": (["cnn jdl"], "cnn jdl, 8 lanes", 1.0),
    "cnn: vmap of plain JAX / 8 lanes": (["cnn plain JAX, vmap of 8"], "cnn jdl, 8 lanes", 10.0),
    "resnet: plain JAX / jdl": (["resnet plain JAX"], "resnet jdl", 3.0),
    "resnet: PyTorch / jdl": (
        ["resnet PyTorch", "resnet PyTorch, channels last"], "resnet jdl", 1.0,
    ),
    "resnet: PyTorch / jdl, a batch on 2 devices": (
        ["resnet PyTorch", "resnet PyTorch, channels last"],
        "resnet jdl, a batch on 2 devices", 1.0,
    ),
    "resnet: PyTorch / 2 lanes": (
        ["resnet PyTorch", "resnet PyTorch, channels last"], "resnet jdl, 2 lanes", 1.0,
    ),
}  # fmt: skip
for _name in PAIRS:
    _torch = [name for name in CONTESTANTS if name.startswith(f"{_name} PyTorch")]
    for _ours in (f"{_name} jdl", f"{_name} jdl, 8 lanes"):
        RATIOS[f"PyTorch / {_ours}"] = (_torch, _ours, 1.0)
        RATIOS[f"plain JAX / {_ours}"] = ([f"{_name} plain JAX"], _ours, 1.0)


def jax_program(model_name: str, implementation: str, lanes: int, steps: int) -> Any:
    """`(run, compile seconds)`: `run()` does `steps` steps in every lane and waits for them."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType

    split = implementation == "jdl split"
    devices = 2 if split or (lanes and implementation == "jdl") else 1
    jax.config.update("jax_num_cpu_devices", devices)
    model = build(model_name, plain=implementation.startswith("plain"))
    from jdl import optim

    optimizer = optim.adam(1e-3)
    x = jax.random.normal(jax.random.key(0), (BATCH, *IMAGES[model_name]))
    y = jax.random.randint(jax.random.key(1), (BATCH,), 0, 10)

    def init(key: Any) -> Any:
        params, state = model.init(key, x)
        return params, state, optimizer.init(params)

    def train(carry: Any, batch: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state, slots = carry

            def loss(params: Any) -> Any:
                scores, after = model.apply(params, state, batch[0], train=True)
                picked = jnp.take_along_axis(jax.nn.log_softmax(scores), batch[1][:, None], 1)
                return -picked.mean(), after

            (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, slots = optimizer.update(grads, slots, params)
            return (optim.apply_updates(params, updates), state, slots), value

        return jax.lax.scan(step, carry, None, length=steps)

    batch = (x, y)
    if not lanes:
        carry, function = jax.jit(init)(jax.random.key(2)), train
        if split:
            mesh = jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,))
            carry = jax.device_put(carry, jax.NamedSharding(mesh, jax.P()))
            batch = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("batch")))
    else:
        carry = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(2), lanes))
        batch = jax.tree.map(lambda v: jnp.broadcast_to(v, (lanes, *v.shape)), batch)
        function = jax.vmap(train)
        if devices > 1:
            mesh = jax.make_mesh((devices,), ("lane",))
            specs = jax.P("lane")
            carry, batch = jax.device_put((carry, batch), jax.NamedSharding(mesh, specs))
            function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs)
    start = time.process_time()
    compiled = jax.jit(function).lower(carry, batch).compile()
    return lambda: jax.block_until_ready(compiled(carry, batch)), time.process_time() - start


def build(name: str, plain: bool) -> Any:
    """The model; if `plain`, of the convolution and the pool that jax offers."""
    import jax.numpy as jnp
    from jax import lax

    from jdl import models, nn

    def convolve(
        x: Any, kernel: Any, *, stride: Any, padding: Any, groups: int = 1, **_: Any
    ) -> Any:
        rank = x.ndim - 2
        edges = padding if isinstance(padding, str) else [(padding, padding)] * rank
        layout = ("NHWC", "HWIO", "NHWC") if rank == 2 else ("NWC", "WIO", "NWC")
        return lax.conv_general_dilated(
            x, kernel, (stride,) * rank, edges,
            feature_group_count=groups, dimension_numbers=layout,
        )  # fmt: skip

    def max_pool(window: int) -> Any:
        size = (1, window, window, 1)
        return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")

    def pair(classes: int) -> Any:
        (window, groups), channels = PAIRS[name], IMAGES[name][-1]
        convs = [nn.conv(channels, window, groups=groups) for _ in range(2)]
        return nn.chain(convs[0], nn.relu, convs[1], nn.relu, nn.global_avg_pool, nn.dense(classes))

    make = {"cnn": models.cnn, "resnet": models.resnet, "vgg": models.vgg}.get(name, pair)
    if not plain:
        return make(10)
    # For good: the layers look these names up when they are applied.
    mock.patch("jdl.nn.convolution.convolve", convolve).start()
    with mock.patch.object(nn, "max_pool", max_pool):
        return make(10)


def torch_program(model_name: str, channels_last: bool, steps: int) -> Any:
    """As `jax_program`, with two threads and torch's default (for-each) Adam."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(2)

    class Block(nn.Module):
        def __init__(self, channels: int, features: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(channels, features, 3, stride, 1, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
                nn.Conv2d(features, features, 3, 1, 1, bias=False),
                nn.BatchNorm2d(features),
            )
            self.stride, self.more = stride, features - channels

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            if self.more:
                x = functional.pad(
                    x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
                )
            return functional.relu(x + y)

    if model_name == "cnn":
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
        )  # fmt: skip
    elif model_name in PAIRS:
        (window, groups), channels = PAIRS[model_name], IMAGES[model_name][-1]
        flat = len(IMAGES[model_name]) == 2
        conv = functools.partial(
            nn.Conv1d if flat else nn.Conv2d,
            channels, channels, window, padding=window // 2, groups=groups,
        )  # fmt: skip
        mean = nn.AdaptiveAvgPool1d(1) if flat else nn.AdaptiveAvgPool2d(1)
        model = nn.Sequential(
            conv(), nn.ReLU(inplace=True), conv(), nn.ReLU(inplace=True),
            mean, nn.Flatten(), nn.Linear(channels, 10),
        )  # fmt: skip
    else:
        first = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)]
        blocks = [Block(*size) for size in [*sizes, *[(64, 64, 1)] * 2]]
        model = nn.Sequential(
            *first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
        )
    *space, channels = IMAGES[model_name]
    x, y = torch.randn(BATCH, channels, *space), torch.randint(0, 10, (BATCH,))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run, 0.0


def busy() -> float:
    """Processor seconds that all processes together have used."""
    with open("/proc/stat") as file:
        fields = [int(v) for v in file.readline().split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / 100


def work(name: str) -> None:
    """A contestant's process: says how long it compiled, then runs a turn for each line read."""
    model, implementation, lanes, steps = CONTESTANTS[name]
    if implementation.startswith("torch"):
        run, compiling = torch_program(model, implementation == "torch last", steps)
    else:
        run, compiling = jax_program(model, implementation, lanes, steps)
    run()
    print(json.dumps({"compile": compiling}), flush=True)
    trial_steps = steps * max(lanes, 1)
    for _ in sys.stdin:
        all_before, cpu, start = busy(), time.process_time(), time.perf_counter()
        run()
        wall, mine = time.perf_counter() - start, time.process_time() - cpu
        turn = {
            "ms": 1e3 * wall / trial_steps,
            "cpu_ms": 1e3 * mine / trial_steps,
            "others": max(0.0, (busy() - all_before - mine) / wall),
        }
        print(json.dumps(turn), flush=True)


def compile_seconds(model: str, lanes: int) -> float:
    """Processor seconds to compile two steps of so many lanes, vmapped on one device."""
    code = (
        "import sys; sys.path.insert(0, 'bench'); import convolution as c;"
        f"print(c.jax_program({model!r}, 'jdl on one', {lanes}, 2)[1])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return float(output.stdout)


def contest(names: list[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Every contestant's turns: round by round, one after another."""
    command = [sys.executable, __file__, "--work"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers: dict[str, Any] = {}
    for name in names:
        workers[name] = subprocess.Popen([*command, name], **pipes)
    for worker in workers.values():
        worker.stdout.readline()
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            turns[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return turns


def ratio(turns: dict[str, Any], theirs: list[str], ours: str, field: str) -> list[float]:
    """Least, median and most, over the rounds, of the best of theirs through ours."""
    best = [min(turn[field] for turn in row) for row in zip(*(turns[name] for name in theirs))]
    ratios = sorted(a / turn[field] for a, turn in zip(best, turns[ours]))
    return [ratios[0], statistics.median(ratios), ratios[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", metavar="NAME", help="what a contestant's process runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="contestants; writes nothing")
    args = parser.parse_args()
    if args.work:
        return work(args.work)
    turns = contest(args.only or list(CONTESTANTS), args.rounds)
    print(f"{'ms a trial-step':32}  wall   least    cpu  others")
    for name, row in turns.items():
        wall, cpu, others = (
            statistics.median(t[f] for t in row) for f in ("ms", "cpu_ms", "others")
        )
        least = min(t["ms"] for t in row)
        print(f"{name:32} {wall:6.2f} {least:6.2f} {cpu:6.2f}  {others:6.2f}")
    if args.only:
        return None
    ratios = {
        name: {
            "wall": ratio(turns, theirs, ours, "ms"),
            "cpu": ratio(turns, theirs, ours, "cpu_ms"),
            "target": target,
        }
        for name, (theirs, ours, target) in RATIOS.items()
    }
    for name, found in ratios.items():
        least, middle, most = found["wall"]
        print(
            f"{name:44} {middle:6.2f} ({least:.2f} to {most:.2f}), processor time "
            f"{found['cpu'][1]:.2f}, target {found['target']}"
        )
    compiling = {}
    for model in ("cnn", "resnet", "vgg"):
        seconds = {lanes: compile_seconds(model, lanes) for lanes in (4, 64)}
        compiling[model] = seconds
        print(f"{model}: compiles 64 lanes in {seconds[64] / seconds[4]:.2f} times 4 lanes' time")
    import harness

    result = {
        "machine": harness.machine("torch"),
        "turns": turns,
        "ratios": ratios,
        "compile_seconds": compiling,
    }
    print(harness.record("convolution", result))
    return None


if __name__ == "__main__":
    main()

"""The contestants of sweep.py: each trains the same trials, in a process of its own.

`python sweep_contestants.py NAME` takes one JSON request a line ({"rates": [...]}) and answers one
line each, so that the processes of all contestants can be alive and take turns.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

BATCH, HIDDEN, CLASSES = 32, 32, 10
LOW, HIGH = 1e-4, 1e-1  # learning rates


class Round(NamedTuple):
    """What one turn brought."""

    accuracy: list[float]  # on the validation split at the end, by trial
    compile_seconds: float = 0.0  # of the turn's wall time, spent compiling
    notes: Any = None


class Ready(NamedTuple):
    """A contestant that has compiled what can be compiled before its first turn."""

    turn: Callable[[Sequence[float]], Round]  # trains one trial for each learning rate
    compile_seconds: float = 0.0


def _arrays() -> tuple[np.ndarray, ...]:
    from jdl import data

    digits = data.digits()
    assert digits.valid is not None
    return (*digits.train, *digits.valid)


# jdl --------------------------------------------------------------------------------------------


def _make_trial(hp: dict[str, Any]) -> Any:
    from jdl import nn, optim, train

    model = nn.chain(nn.dense(HIDDEN), nn.relu, nn.dense(CLASSES))
    return train.classifier(model, optim.adam(hp["lr"]))


def _splits() -> Any:
    from jdl import data

    # The peers evaluate the validation split only, so there is no test split to evaluate here.
    return data.digits()._replace(test=None)


def jdl_sweep(steps: int, folder: str | None = None) -> Ready:
    """`sweep.run`, as a user calls it; it compiles in every call."""
    from jdl import sweep

    splits = _splits()

    def turn(rates: Sequence[float]) -> Round:
        configs = iter([{"lr": rate} for rate in rates])
        given = sweep.Search(
            lambda n: [c for _, c in zip(range(n), configs)], lambda *_: None, "given"
        )
        results = sweep.run(
            _make_trial,
            {"lr": sweep.log_uniform(LOW, HIGH)},
            splits,
            trials=len(rates),
            steps=steps,
            report_every=steps,
            batch_size=BATCH,
            search=given,
            out=tempfile.mkdtemp(dir=folder) if folder else None,
            progress=False,
        )
        accuracy = [trial.metrics["valid_accuracy"] for trial in results.trials]
        return Round(accuracy, results.stats["compile_seconds"], results.plans)

    return Ready(turn)


def jdl_folder(steps: int) -> Ready:
    """The same with a run's folder on disk."""
    return jdl_sweep(steps, tempfile.mkdtemp())


def jdl_program(steps: int) -> Ready:
    """The engine's compiled segment, called without its host's loop, at the width of the plan."""
    import jax

    from jdl.engine.plan import lane_mesh, make_plan, use_all_cores
    from jdl.engine.program import Assignment, LaneProgram, compile_lanes, trace_shapes
    from jdl.engine.workload import make_workload

    use_all_cores()
    work = make_workload(
        _make_trial,
        _splits(),
        epochs=None,
        steps=steps,
        batch_size=BATCH,
        report_every=steps,
        eval_batch_size=1024,
        diverged_above=1e6,
    )
    mesh, example = lane_mesh(), {"lr": np.float32(LOW)}
    shapes = trace_shapes(work, example)
    programs: dict[int, LaneProgram] = {}  # by width, which depends on the number of trials

    def turn(rates: Sequence[float]) -> Round:
        plan = make_plan(work, shapes, len(rates), mesh)
        compile_seconds = 0.0
        start = time.perf_counter()
        if plan.lanes not in programs:
            programs[plan.lanes] = compile_lanes(work, example, mesh, plan.lanes, plan.unroll)
            compile_seconds = time.perf_counter() - start
        program = programs[plan.lanes]
        width, every = program.width, np.ones(program.width, bool)
        segments = math.ceil(len(rates) / width)
        padded = np.resize(np.asarray(rates, np.float32), segments * width).reshape(-1, width)
        streams = np.arange(segments * width, dtype=np.uint32).reshape(-1, width)
        data = jax.device_put(work.data, program.replicated)
        root, count = jax.device_put((np.uint32(0), np.int32(1)), program.replicated)
        lanes, outcomes = program.empty(), []
        for rate, stream in zip(padded, streams):
            assignment = jax.device_put(
                Assignment({"lr": rate}, stream, every, every), program.sharding
            )
            lanes, outcome = program.run(lanes, assignment, root, count, data)
            outcomes.append(outcome.reports)
        column = sorted(shapes.reports).index("valid_accuracy")
        accuracy = np.concatenate([np.asarray(reports)[:, 0, column] for reports in outcomes])
        return Round(accuracy[: len(rates)].tolist(), compile_seconds, {"lanes": plan.lanes})

    return Ready(turn)


# jax and optax ----------------------------------------------------------------------------------


class _Optax(NamedTuple):
    """The trial as a user of jax and optax writes it."""

    init: Callable[..., Any]  # (key, rate) -> parameters, optimizer's state
    step: Callable[..., Any]  # (both, indices, rate) -> both
    accuracy: Callable[..., Any]
    examples: int


def _optax() -> _Optax:
    import jax
    import jax.numpy as jnp
    import optax

    x, y, x_valid, y_valid = map(jnp.asarray, _arrays())

    def init(key: Any, rate: Any) -> Any:
        keys = jax.random.split(key)
        normal = jax.nn.initializers.lecun_normal()
        params = {
            "w1": normal(keys[0], (x.shape[1], HIDDEN)),
            "b1": jnp.zeros(HIDDEN),
            "w2": normal(keys[1], (HIDDEN, CLASSES)),
            "b2": jnp.zeros(CLASSES),
        }
        return params, optax.adam(rate).init(params)

    def logits(params: Any, x: Any) -> Any:
        return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    def loss(params: Any, x: Any, y: Any) -> Any:
        # One-hot labels: with integer ones, a gather, every form below is slower.
        return optax.softmax_cross_entropy(logits(params, x), jax.nn.one_hot(y, CLASSES)).mean()

    def step(carry: Any, index: Any, rate: Any) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, x[index], y[index])
        updates, state = optax.adam(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def accuracy(params: Any) -> Any:
        return jnp.mean(jnp.argmax(logits(params, x_valid), -1) == y_valid)

    return _Optax(init, step, accuracy, len(x))


def optax_step(steps: int) -> Ready:
    """A Python loop over a jitted step, one trial after another; indices drawn by NumPy."""
    import jax
    import jax.numpy as jnp

    trial = _optax()
    start = time.perf_counter()
    init = jax.jit(trial.init)
    step = jax.jit(trial.step, donate_argnums=0)
    accuracy = jax.jit(trial.accuracy)
    carry = step(init(jax.random.key(0), jnp.float32(LOW)), np.zeros(BATCH, np.int32), LOW)
    jax.block_until_ready(accuracy(carry[0]))
    compile_seconds = time.perf_counter() - start

    def turn(rates: Sequence[float]) -> Round:
        scores = []
        for number, rate in enumerate(rates):
            indices = _permuted(np.random.default_rng(number), steps, trial.examples)
            rate = jnp.float32(rate)
            carry = init(jax.random.key(number), rate)
            for index in indices:
                carry = step(carry, index, rate)
            scores.append(accuracy(carry[0]))
        return Round(np.array(scores).tolist())

    return Ready(turn, compile_seconds)


def _permuted(rng: np.random.Generator, steps: int, examples: int) -> np.ndarray:
    """Indices of shape (steps, batch): every epoch a permutation, its remainder dropped."""
    per_epoch = examples // BATCH
    epochs = [rng.permutation(examples)[: per_epoch * BATCH] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(epochs).astype(np.int32).reshape(-1, BATCH)[:steps]


def _whole_trial(steps: int, replace: bool) -> Callable[[Any, Any], Any]:
    """`(key, rate) -> accuracy`: one trial as a scan, its batches drawn inside."""
    import jax

    trial = _optax()
    per_epoch = trial.examples // BATCH

    def run(key: Any, rate: Any) -> Any:
        init_key, data_key = jax.random.split(key)
        if replace:
            indices = jax.random.randint(data_key, (steps, BATCH), 0, trial.examples)
        else:
            keys = jax.random.split(data_key, -(-steps // per_epoch))
            order = jax.vmap(lambda key: jax.random.permutation(key, trial.examples))(keys)
            indices = order[:, : per_epoch * BATCH].reshape(-1, BATCH)[:steps]
        carry, _ = jax.lax.scan(
            lambda carry, index: (trial.step(carry, index, rate), None),
            trial.init(init_key, rate),
            indices,
        )
        return trial.accuracy(carry[0])

    return run


def optax_scan(steps: int) -> Ready:
    """One jitted scan per trial, the learning rate traced."""
    import jax
    import jax.numpy as jnp

    start = time.perf_counter()
    run = jax.jit(_whole_trial(steps, False)).lower(jax.random.key(0), jnp.float32(LOW)).compile()
    compile_seconds = time.perf_counter() - start

    def turn(rates: Sequence[float]) -> Round:
        keys = list(jax.random.split(jax.random.key(0), len(rates)))
        # Dispatch does not wait, so a trial's launch hides behind the one before.
        scores = [run(key, jnp.float32(rate)) for key, rate in zip(keys, rates)]
        return Round(np.array(scores).tolist())

    return Ready(turn, compile_seconds)


def optax_vmap(steps: int, replace: bool = False, cores: int = 1) -> Ready:
    """The scan vmapped over all trials at once, on `cores` JAX devices."""
    import jax

    jax.config.update("jax_num_cpu_devices", cores)
    mesh = jax.make_mesh((cores,), ("trials",), axis_types=(jax.sharding.AxisType.Auto,))
    by_trial = jax.sharding.PartitionSpec("trials")
    sharding = jax.sharding.NamedSharding(mesh, by_trial)
    every = jax.vmap(_whole_trial(steps, replace))
    if cores > 1:
        every = jax.shard_map(
            every, mesh=mesh, in_specs=by_trial, out_specs=by_trial, check_vma=False
        )
    jitted = jax.jit(every)
    compiled: dict[int, Any] = {}

    def turn(rates: Sequence[float]) -> Round:
        keys = jax.random.split(jax.random.key(0), len(rates))
        arguments = (keys, np.asarray(rates, np.float32))
        if cores > 1:
            arguments = jax.device_put(arguments, sharding)
        compile_seconds = 0.0
        if len(rates) not in compiled:
            start = time.perf_counter()
            compiled[len(rates)] = jitted.lower(*arguments).compile()
            compile_seconds = time.perf_counter() - start
        return Round(np.asarray(compiled[len(rates)](*arguments)).tolist(), compile_seconds)

    return Ready(turn)


# PyTorch ----------------------------------------------------------------------------------------


def _torch_trial(steps: int, threads: int = 1) -> Callable[[int, float], float]:
    """`(number, rate) -> accuracy` with modules, autograd and the fused Adam.

    Measured faster than foreach or the default Adam, and one thread faster than
    two. The batches are gathered before the loop.
    """
    import torch

    torch.set_num_threads(threads)
    x, y, x_valid, y_valid = map(torch.from_numpy, _arrays())
    y, y_valid = y.long(), y_valid.long()
    loss_of = torch.nn.functional.cross_entropy

    def run(number: int, rate: float) -> float:
        torch.manual_seed(number)
        first, last = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
        for layer in (first, last):
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            torch.nn.init.zeros_(layer.bias)
        model = torch.nn.Sequential(first, torch.nn.ReLU(), last)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
        indices = torch.from_numpy(_permuted(np.random.default_rng(number), steps, len(x))).long()
        for batch, labels in zip(x[indices], y[indices]):
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(batch), labels).backward()
            optimizer.step()
        with torch.no_grad():
            return (model(x_valid).argmax(-1) == y_valid).float().mean().item()

    return run


def _torch_compiled_trial(steps: int) -> Callable[[int, float], float]:
    """The same with the whole step, gradient and Adam by hand, as one `torch.compile`d function."""
    import torch

    torch.set_num_threads(1)
    x, y, x_valid, y_valid = map(torch.from_numpy, _arrays())
    y, y_valid = y.long(), y_valid.long()

    def logits(params: Any, x: Any) -> Any:
        w1, b1, w2, b2 = params
        return torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2)

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits(params, x), y)

    @torch.compile
    def step(carry: Any, rate: Any, x: Any, y: Any) -> Any:
        params, firsts, seconds, t = carry
        grads = torch.func.grad(loss_of)(params, x, y)
        t = t + 1
        firsts = [0.9 * m + 0.1 * g for m, g in zip(firsts, grads)]
        seconds = [0.999 * v + 0.001 * g * g for v, g in zip(seconds, grads)]
        scale, correction = rate / (1 - 0.9**t), 1 - 0.999**t
        params = [
            p - scale * m / ((v / correction).sqrt() + 1e-8)
            for p, m, v in zip(params, firsts, seconds)
        ]
        return params, firsts, seconds, t

    @torch.no_grad()
    def run(number: int, rate: float) -> float:
        torch.manual_seed(number)
        params = [
            torch.randn(x.shape[1], HIDDEN) / x.shape[1] ** 0.5,
            torch.zeros(HIDDEN),
            torch.randn(HIDDEN, CLASSES) / HIDDEN**0.5,
            torch.zeros(CLASSES),
        ]
        zeros = [torch.zeros_like(p) for p in params]
        carry = (params, zeros, zeros, torch.zeros(()))
        lr = torch.tensor(rate)
        indices = torch.from_numpy(_permuted(np.random.default_rng(number), steps, len(x))).long()
        for batch, labels in zip(x[indices], y[indices]):
            carry = step(carry, lr, batch, labels)
        return (logits(carry[0], x_valid).argmax(-1) == y_valid).float().mean().item()

    return run


def torch_loop(steps: int, compiled: bool = False) -> Ready:
    """One trial after another."""
    run = _torch_compiled_trial(steps) if compiled else _torch_trial(steps)
    start = time.perf_counter()
    run(0, 1e-3)
    first = time.perf_counter() - start
    start = time.perf_counter()
    run(0, 1e-3)
    compile_seconds = max(0.0, first - (time.perf_counter() - start))
    return Ready(
        lambda rates: Round([run(number, rate) for number, rate in enumerate(rates)]),
        compile_seconds if compiled else 0.0,
    )


def _study_worker(pipe: Any, steps: int, path: str, compiled: bool) -> None:
    """A process of the Optuna contestant: runs its share of a study's trials when told to."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = _torch_compiled_trial(steps) if compiled else _torch_trial(steps)
    start = time.perf_counter()
    run(0, 1e-3)
    pipe.send(time.perf_counter() - start)
    while (request := pipe.recv()) is not None:
        name, seed, trials = request
        study = optuna.load_study(
            study_name=name, storage=_journal(path), sampler=optuna.samplers.RandomSampler(seed)
        )
        study.optimize(
            lambda trial: run(trial.number, trial.suggest_float("lr", LOW, HIGH, log=True)),
            n_trials=trials,
        )
        pipe.send(None)


def _journal(path: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(path))


def optuna_torch(steps: int, compiled: bool = False) -> Ready:
    """Optuna's random sampler over the PyTorch loop, in one process a core, one thread each."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = os.path.join(tempfile.mkdtemp(), "journal")
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(len(os.sched_getaffinity(0))):
        ours, theirs = context.Pipe()
        arguments = (theirs, steps, path, compiled)
        context.Process(target=_study_worker, args=arguments, daemon=True).start()
        pipes.append(ours)
    compile_seconds = max(pipe.recv() for pipe in pipes) if compiled else 0.0
    if not compiled:
        [pipe.recv() for pipe in pipes]
    turns = iter(range(2**31))

    def turn(rates: Sequence[float]) -> Round:
        name = f"turn {next(turns)}"
        study = optuna.create_study(study_name=name, storage=_journal(path), direction="maximize")
        share = -(-len(rates) // len(pipes))
        for seed, pipe in enumerate(pipes):
            pipe.send((name, seed, share))
        for pipe in pipes:
            pipe.recv()
        return Round([trial.values[0] for trial in study.trials])

    return Ready(turn, compile_seconds)


CONTESTANTS: dict[str, Callable[[int], Ready]] = {
    "jdl": jdl_sweep,
    "jdl-folder": jdl_folder,
    "jdl-program": jdl_program,
    "step": optax_step,
    "scan": optax_scan,
    "vmap": optax_vmap,
    "vmap-replace": lambda steps: optax_vmap(steps, replace=True),
    "vmap-2": lambda steps: optax_vmap(steps, cores=len(os.sched_getaffinity(0))),
    "torch": torch_loop,
    "torch-compiled": lambda steps: torch_loop(steps, compiled=True),
    "optuna": optuna_torch,
    "optuna-compiled": lambda steps: optuna_torch(steps, compiled=True),
}


def main(name: str, steps: int) -> None:
    """Answers requests on standard input until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not mix with the answers
    ready = CONTESTANTS[name](steps)
    print(json.dumps({"compile_seconds": ready.compile_seconds}), file=answers, flush=True)
    for line in sys.stdin:
        rates = json.loads(line)["rates"]
        start = time.perf_counter()
        done = ready.turn(rates)
        seconds = time.perf_counter() - start - done.compile_seconds
        answer = {"seconds": seconds, **done._asdict(), "trials": len(done.accuracy)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main(sys.argv[1], int(sys.argv[2]))

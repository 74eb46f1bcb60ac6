"""PyTorch, alone and under Optuna."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sweep_contestants.base import CLASSES, HIDDEN, HIGH, LOW, Ready, Round, arrays, permuted


def _torch_trial(steps: int, threads: int = 1) -> Callable[[int, float], float]:
    """`(number, rate) -> accuracy` with modules, autograd and the fused Adam.

    Measured faster than foreach or the default Adam, and one thread faster than
    two. The batches are gathered before the loop.
    """
    import torch

    torch.set_num_threads(threads)
    x, y, x_valid, y_valid = map(torch.from_numpy, arrays())
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
        indices = torch.from_numpy(permuted(np.random.default_rng(number), steps, len(x))).long()
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
    x, y, x_valid, y_valid = map(torch.from_numpy, arrays())
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
        indices = torch.from_numpy(permuted(np.random.default_rng(number), steps, len(x))).long()
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
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "journal")
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(len(os.sched_getaffinity(0))):
        ours, theirs = context.Pipe()
        arguments = (theirs, steps, path, compiled)
        processes.append(context.Process(target=_study_worker, args=arguments, daemon=True))
        processes[-1].start()
        pipes.append(ours)
    first = max(pipe.recv() for pipe in pipes)
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

    def close() -> None:
        for pipe, process in zip(pipes, processes):
            pipe.send(None)
            process.join()
        folder.cleanup()

    return Ready(turn, first if compiled else 0.0, close)

"""Time of an early-stopped search to the same best validation accuracy: jdl, Optuna, Ray Tune.

`python bench/search.py` prints a table and writes results/search.json. The search: an MLP
196-32-10 on 6,000 examples of Fashion-MNIST, means over 2x2 pixels taken, 2,000 to validate; batch
32, Adam, up to 10 epochs with four reports each; seven numbers drawn at random from ranges so wide
that most draws fail; asynchronous successive halving by 4 from the first report on. jdl searches
1,000 configurations twice, and 10,000; the best validation accuracy that it finds is the
target, its time that of a second run of the same search, in a new process, which ends there,
compilation and imports included, the reading of the data not. Optuna (two processes, one thread
each) and Ray Tune (two workers, one thread each) train with PyTorch until they reach the target or
the time is over; their time starts when their imports are done. How soon random draws reach a
target is luck, so beside it stands how many configurations each searched a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

REPORTS, EVERY, HIDDEN, BATCH, REDUCTION = 40, 47, 32, 32, 4  # a report every 47 steps
LOG_UNIFORM = {
    "lr": (1e-6, 10.0),
    "1 - b1": (1e-3, 1.0),
    "1 - b2": (1e-4, 1.0),
    "eps": (1e-8, 1.0),
    "l2": (1e-6, 1.0),
    "variance": (1e-2, 1e2),  # of the first weights, times their number of inputs
}
UNIFORM = {"dropout": (0.0, 0.9)}


def dataset() -> Any:
    """Arrays, so that no peer needs jdl for them."""
    import asha

    train, valid, _ = asha.dataset("fashion-mnist")
    return train, valid


def jdl_search(trials: int, target: float | None, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    from jdl import data, nn, optim, sweep, train

    importing = time.perf_counter() - start
    splits = data.Dataset(*dataset())
    start = time.perf_counter() - importing

    def make_trial(hp: dict[str, Any]) -> train.Trial:
        init = nn.initializer.variance_scaling(hp["variance"], "in")
        hidden, head = (nn.dense(size, kernel_init=init) for size in (HIDDEN, 10))
        adam = optim.adam(hp["lr"], b1=1 - hp["1 - b1"], b2=1 - hp["1 - b2"], eps=hp["eps"])
        model = nn.chain(hidden, nn.relu, nn.dropout(hp["dropout"]), head)
        return train.classifier(model, adam, l2=hp["l2"])

    space = {name: sweep.log_uniform(*ends) for name, ends in LOG_UNIFORM.items()}
    space |= {name: sweep.uniform(*ends) for name, ends in UNIFORM.items()}
    results = sweep.run(
        make_trial, space, splits, trials=trials, steps=REPORTS * EVERY, report_every=EVERY,
        batch_size=BATCH,
        stopping=sweep.asha(reduction=REDUCTION), target=target, seed=seed, progress=False,
    )  # fmt: skip
    curves = results.curves("valid_accuracy")
    return {
        "seconds": time.perf_counter() - start,
        "accuracy": float(np.nanmax(curves)),
        "examples": len(splits.valid[0]),
        "trials": int(np.sum(~np.all(np.isnan(curves), 1))),
        "reports": int(np.sum(~np.isnan(curves))),
    }


def torch_trial(
    splits: Any,
) -> Callable[[dict[str, float], Callable[[int, float], bool]], None]:
    """`(numbers, report)`: trains, and ends early where `report(number, accuracy)` says so."""
    import torch

    torch.set_num_threads(1)
    (x, y), (x_valid, y_valid) = ([torch.from_numpy(np.array(a)) for a in s] for s in splits)
    y, y_valid = y.long(), y_valid.long()

    def run(numbers: dict[str, float], report: Callable[[int, float], bool]) -> None:
        layers = [
            torch.nn.Linear(x.shape[1], HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Dropout(numbers["dropout"]),
        ]
        model = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, 10))
        with torch.no_grad():
            for layer in (model[0], model[-1]):
                layer.weight.normal_(0, (numbers["variance"] / layer.in_features) ** 0.5)
                layer.bias.zero_()
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=numbers["lr"],
            betas=(1 - numbers["1 - b1"], 1 - numbers["1 - b2"]),
            eps=numbers["eps"],
            weight_decay=numbers["l2"],
            fused=True,
        )
        order = torch.empty(0, BATCH, dtype=torch.int64)
        for number in range(1, REPORTS + 1):
            model.train()
            while len(order) < EVERY:
                shuffled = torch.randperm(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)
                order = torch.cat([order, shuffled])
            for batch, labels in zip(x[order[:EVERY]], y[order[:EVERY]]):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(batch), labels).backward()
                optimizer.step()
            order = order[EVERY:]
            model.eval()
            with torch.no_grad():
                accuracy = (model(x_valid).argmax(-1) == y_valid).float().mean().item()
            if report(number, accuracy):
                return

    return run


def _optuna_worker(path: str, target: float, end: float, seed: int, ready: Any, go: Any) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = torch_trial(dataset())
    study = _study(path, seed)
    ready.release()
    go.wait()

    def objective(trial: Any) -> float:
        numbers = {n: trial.suggest_float(n, *e, log=True) for n, e in LOG_UNIFORM.items()}
        numbers |= {n: trial.suggest_float(n, *e) for n, e in UNIFORM.items()}
        best = 0.0
        pruned = False

        def report(number: int, accuracy: float) -> bool:
            nonlocal best, pruned
            best = max(best, accuracy)
            trial.report(accuracy, number)
            if accuracy >= target or time.time() > end:
                pathlib.Path(path + ".over").touch()
            pruned = trial.should_prune()
            return pruned or os.path.exists(path + ".over")

        run(numbers, report)
        if os.path.exists(path + ".over"):
            study.stop()
        if pruned:
            raise optuna.TrialPruned
        return best

    study.optimize(objective)


def _study(path: str, seed: int | None = None) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(path))
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )


def optuna_search(target: float, cap: float, seed: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "journal")
        _study(path)
        ready, go = context.Semaphore(0), context.Event()
        workers = [
            context.Process(
                target=_optuna_worker,
                args=(path, target, time.time() + 60 + cap, 2 * seed + i, ready, go),
            )
            for i in range(2)
        ]
        for worker in workers:
            worker.start()
        for _ in workers:
            ready.acquire()
        start = time.perf_counter()
        go.set()
        while not os.path.exists(path + ".over") and time.perf_counter() - start < cap:
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        pathlib.Path(path + ".over").touch()
        for worker in workers:
            worker.join()
        trials = _study(path).get_trials(deepcopy=False)
        values = [v for trial in trials for v in trial.intermediate_values.values()]
    return {
        "seconds": seconds,
        "accuracy": max(values),
        "trials": len(trials),
        "reports": len(values),
    }


def ray_search(target: float, cap: float, seed: int) -> dict[str, Any]:
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_DEDUP_LOGS": "0", "OMP_NUM_THREADS": "1"}
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    def trainable(numbers: dict[str, float], splits: Any) -> None:
        def report(number: int, accuracy: float) -> bool:
            tune.report({"accuracy": accuracy, "number": number})
            return accuracy >= target

        torch_trial(splits)(numbers, report)

    best = {"accuracy": 0.0, "trials": 0, "reports": 0}
    start = time.perf_counter()

    class Stop(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            best["accuracy"] = max(best["accuracy"], result["accuracy"])
            best["trials"] += result["number"] == 1
            best["reports"] += 1
            return False

        def stop_all(self) -> bool:
            return best["accuracy"] >= target or time.perf_counter() - start > cap

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_parameters(trainable, splits=dataset()),
            param_space={name: tune.loguniform(*ends) for name, ends in LOG_UNIFORM.items()}
            | {name: tune.uniform(*ends) for name, ends in UNIFORM.items()},
            tune_config=tune.TuneConfig(
                num_samples=-1,
                metric="accuracy",
                mode="max",
                scheduler=ASHAScheduler(
                    time_attr="number", max_t=REPORTS, grace_period=1, reduction_factor=REDUCTION
                ),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(stop=Stop(), storage_path=folder, verbose=0),
        )
        tuner.fit()
        seconds = time.perf_counter() - start
    ray.shutdown()
    return {"seconds": seconds, **best}


SEARCHES = {"optuna": optuna_search, "ray": ray_search}


def rate(row: dict[str, Any]) -> float:
    """Configurations a second."""
    return float(row["trials"] / row["seconds"])


def alone(*arguments: Any) -> dict[str, Any]:
    """Runs this file in a process of its own, and reads the last line that it prints."""
    command = [sys.executable, __file__, "--work", json.dumps(arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help="what a process of its own runs, as JSON")
    parser.add_argument(
        "--trials", type=int, nargs="*", default=[1000, 1000, 10000],
        help="configurations of each of jdl's searches",
    )  # fmt: skip
    parser.add_argument("--cap", type=float, default=200.0, help="seconds that a peer may take")
    parser.add_argument("--only", nargs="*", default=list(SEARCHES), help="peers")
    args = parser.parse_args()
    if args.work:
        name, *rest = json.loads(args.work)
        search = jdl_search if name == "jdl" else SEARCHES[name]
        print(json.dumps(search(*rest)))
        return
    rounds = []
    for seed, trials in enumerate(args.trials):
        found = alone("jdl", trials, None, seed)
        # Half an example less, so that the rounding of a mean in float32 does not decide.
        target = found["accuracy"] - 0.5 / found["examples"]
        row = {"target": target, "whole": found, "jdl": alone("jdl", trials, target, seed)}
        print(
            f"seed {seed}: jdl finds {found['accuracy']:.4f} in {row['jdl']['seconds']:.1f} s; all "
            f"{found['trials']} trials take {found['seconds']:.1f} s, {rate(found):.0f} a second",
            flush=True,
        )
        for name in args.only:
            row[name] = alone(name, target, args.cap, seed)
            reached = row[name]["accuracy"] >= target
            times = row[name]["seconds"] / row["jdl"]["seconds"]
            end = "reached" if reached else f"not reached: {row[name]['accuracy']:.4f}"
            print(
                f"  {name:7} {row[name]['seconds']:6.1f} s, {row[name]['trials']} trials, "
                f"{rate(row[name]):.1f} a second, {end}; "
                f"{'' if reached else 'more than '}{times:.1f} times jdl's time",
                flush=True,
            )
        rounds.append(row)
    import harness

    result = {"machine": harness.machine("torch", "optuna", "ray"), "cap": args.cap}
    print(harness.record("search", {**result, "rounds": rounds}))


if __name__ == "__main__":
    main()

"""Time of an early-stopped search to the same best validation accuracy: jdl, Optuna, Ray Tune.

`python bench/search.py` prints a table and writes results/search.json. The search: an MLP
64-64-10 on the digits, batch 32, Adam, up to 20 epochs with a report each; rate, dropout and L2
penalty drawn at random; asynchronous successive halving by 4 from the first epoch on. jdl
searches 1,000 configurations; the best validation accuracy that it finds is the target, its time
that of a second run of the same search, in a new process, which ends there, compilation and
imports included. Optuna (two processes, one thread each) and Ray Tune (two workers, one thread
each) train with PyTorch until they reach the target or the time is over; their time starts when
their imports are done.
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

EPOCHS, HIDDEN, BATCH, REDUCTION = 20, 64, 32, 4
RATES, PENALTIES, DROPOUTS = (1e-5, 1.0), (1e-6, 1e-2), (0.0, 0.5)


def jdl_search(trials: int, target: float | None, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    from jdl import data, nn, optim, sweep, train

    def make_trial(hp: dict[str, Any]) -> train.Trial:
        model = nn.chain(nn.dense(HIDDEN), nn.relu, nn.dropout(hp["dropout"]), nn.dense(10))
        return train.classifier(model, optim.adam(hp["lr"]), l2=hp["l2"])

    space = {
        "lr": sweep.log_uniform(*RATES),
        "dropout": sweep.uniform(*DROPOUTS),
        "l2": sweep.log_uniform(*PENALTIES),
    }
    results = sweep.run(
        make_trial, space, data.digits(), trials=trials, epochs=EPOCHS, batch_size=BATCH,
        stopping=sweep.asha(reduction=REDUCTION), target=target, seed=seed, progress=False,
    )  # fmt: skip
    curves = results.curves("valid_accuracy")
    return {
        "seconds": time.perf_counter() - start,
        "accuracy": float(np.nanmax(curves)),
        "trials": int(np.sum(~np.all(np.isnan(curves), 1))),
        "reports": int(np.sum(~np.isnan(curves))),
    }


def torch_trial() -> Callable[[dict[str, float], Callable[[int, float], bool]], None]:
    """`(numbers, report)`: trains, and ends early where `report(epoch, accuracy)` says so."""
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from jdl import data

    torch.set_num_threads(1)
    digits = data.digits()
    x, y = (torch.from_numpy(np.array(a)) for a in digits.train)
    x_valid, y_valid = (torch.from_numpy(np.array(a)) for a in digits.valid)
    y, y_valid = y.long(), y_valid.long()

    def run(numbers: dict[str, float], report: Callable[[int, float], bool]) -> None:
        layers = [
            torch.nn.Linear(64, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Dropout(numbers["dropout"]),
        ]
        model = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, 10))
        optimizer = torch.optim.Adam(
            model.parameters(), lr=numbers["lr"], weight_decay=numbers["l2"], fused=True
        )
        for epoch in range(EPOCHS):
            model.train()
            order = torch.randperm(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)
            for batch, labels in zip(x[order], y[order]):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(batch), labels).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                accuracy = (model(x_valid).argmax(-1) == y_valid).float().mean().item()
            if report(epoch + 1, accuracy):
                return

    return run


def _optuna_worker(path: str, target: float, end: float, seed: int, ready: Any, go: Any) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = torch_trial()
    study = _study(path, seed)
    ready.release()
    go.wait()

    def objective(trial: Any) -> float:
        numbers = {
            "lr": trial.suggest_float("lr", *RATES, log=True),
            "l2": trial.suggest_float("l2", *PENALTIES, log=True),
            "dropout": trial.suggest_float("dropout", *DROPOUTS),
        }
        best = 0.0
        pruned = False

        def report(epoch: int, accuracy: float) -> bool:
            nonlocal best, pruned
            best = max(best, accuracy)
            trial.report(accuracy, epoch)
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

    def trainable(numbers: dict[str, float]) -> None:
        def report(epoch: int, accuracy: float) -> bool:
            tune.report({"accuracy": accuracy, "epoch": epoch})
            return accuracy >= target

        torch_trial()(numbers, report)

    best = {"accuracy": 0.0, "trials": 0, "reports": 0}
    start = time.perf_counter()

    class Stop(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            best["accuracy"] = max(best["accuracy"], result["accuracy"])
            best["trials"] += result["epoch"] == 1
            best["reports"] += 1
            return False

        def stop_all(self) -> bool:
            return best["accuracy"] >= target or time.perf_counter() - start > cap

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trainable,
            param_space={
                "lr": tune.loguniform(*RATES),
                "l2": tune.loguniform(*PENALTIES),
                "dropout": tune.uniform(*DROPOUTS),
            },
            tune_config=tune.TuneConfig(
                num_samples=-1,
                metric="accuracy",
                mode="max",
                scheduler=ASHAScheduler(
                    time_attr="epoch", max_t=EPOCHS, grace_period=1, reduction_factor=REDUCTION
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


def alone(*arguments: Any) -> dict[str, Any]:
    """Runs this file in a process of its own, and reads the last line that it prints."""
    command = [sys.executable, __file__, "--work", json.dumps(arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help="what a process of its own runs, as JSON")
    parser.add_argument("--trials", type=int, default=1000, help="configurations of jdl's search")
    parser.add_argument("--cap", type=float, default=90.0, help="seconds that a peer may take")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each")
    parser.add_argument("--only", nargs="*", default=list(SEARCHES), help="peers")
    args = parser.parse_args()
    if args.work:
        name, *rest = json.loads(args.work)
        search = jdl_search if name == "jdl" else SEARCHES[name]
        print(json.dumps(search(*rest)))
        return
    rounds = []
    for seed in range(args.seeds):
        found = alone("jdl", args.trials, None, seed)
        target = found["accuracy"]
        row = {"target": target, "whole": found, "jdl": alone("jdl", args.trials, target, seed)}
        print(
            f"seed {seed}: jdl finds {target:.4f} in {row['jdl']['seconds']:.1f} s; all "
            f"{found['trials']} trials take {found['seconds']:.1f} s",
            flush=True,
        )
        for name in args.only:
            row[name] = alone(name, target, args.cap, seed)
            reached = row[name]["accuracy"] >= target
            times = row[name]["seconds"] / row["jdl"]["seconds"]
            end = "reached" if reached else f"not reached: {row[name]['accuracy']:.4f}"
            print(
                f"  {name:7} {row[name]['seconds']:6.1f} s, {row[name]['trials']} trials, {end}; "
                f"{'' if reached else 'more than '}{times:.1f} times jdl's time",
                flush=True,
            )
        rounds.append(row)
    import harness

    result = {"machine": harness.machine("torch", "optuna", "ray"), "cap": args.cap}
    print(harness.record("search", {**result, "rounds": rounds}))


if __name__ == "__main__":
    main()

"""What early stopping saves: ASHA against running every configuration to its end.

`python bench/asha.py` prints a table and writes results/asha.json. The same 1,000 random
configurations (two optimizers, rate, dropout, L2) of an MLP train once to their end and once
under ASHA, on the digits and on a part of Fashion-MNIST, of which means over 2x2 pixels are taken.
Counted are the steps that lanes made, those of idle lanes included, against the steps of the trials
that ran to their end; and how far the best validation accuracy of the one is below the other's.
Neither depends on the machine's load.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import harness
from jdl import data, models, optim, sweep, train

TRIALS, REDUCTION, BATCH_SIZE = 1000, 4, 32
FEWER, LOSS, BUSY = 10.0, 0.005, 0.95  # what is to be reached

# Lanes are few, so that few idle while the last trials run out.
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"train": 957, "valid": 480, "hidden": 64, "steps": 2900, "reports": 100, "lanes": 8},
    "fashion-mnist": {
        "train": 6000,
        "valid": 2000,
        "hidden": 32,
        "steps": 3200,
        "reports": 80,
        "lanes": 8,
    },
}
SPACE = {
    "optimizer": sweep.choice("momentum", "adam"),
    "lr": sweep.log_uniform(1e-5, 1.0),
    "dropout": sweep.uniform(0.0, 0.5),
    "l2": sweep.log_uniform(1e-6, 1e-2),
}


def dataset(name: str) -> data.Dataset:
    """Training and validation examples of the sizes above, the latter many enough to tell 0.5 %."""
    whole = data.by_name(name)()
    assert whole.valid is not None
    x, y = (np.concatenate(parts) for parts in zip(whole.train, whole.valid))
    if x.shape[1:] == (28, 28, 1):
        x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    sizes = SETTINGS[name]["train"], SETTINGS[name]["valid"]
    parts = data.split_indices(len(x), sizes, labels=y)
    return data.Dataset(*((x[part].reshape(len(part), -1), y[part]) for part in parts))


def figures(name: str, seed: int, folder: Path | None) -> dict[str, Any]:
    """Runs the same random configurations whole, in `folder` if there is one, and under ASHA."""
    settings = SETTINGS[name]
    hidden, steps, reports = (settings[key] for key in ("hidden", "steps", "reports"))

    def make_trial(hp: dict[str, Any]) -> train.Trial:
        model = models.mlp((hidden, 10), dropout=hp["dropout"])
        return train.classifier(model, optim.by_name(hp["optimizer"])(hp["lr"]), l2=hp["l2"])

    def run(stopping: Any, out: Path | None) -> Any:
        return sweep.run(
            make_trial,
            SPACE,
            dataset(name),
            trials=TRIALS,
            steps=steps,
            report_every=steps // reports,
            batch_size=BATCH_SIZE,
            lanes=settings["lanes"],
            seed=seed,
            stopping=stopping,
            out=out,
        )

    halved = run(sweep.asha(REDUCTION), None)
    whole = run(None, None if folder is None else folder / f"{name}-{seed}")
    accuracy = [r.best.metrics["valid_accuracy"] for r in (whole, halved)]
    lane_steps = [sum(t.steps for t in whole.trials), halved.stats["lane_steps"]]
    row = {
        "seed": seed,
        "accuracy": {"whole": accuracy[0], "asha": accuracy[1]},
        "loss": accuracy[0] - accuracy[1],
        "lane_steps": {"whole": lane_steps[0], "asha": lane_steps[1]},
        "fewer": lane_steps[0] / lane_steps[1],
        "busy": halved.stats["busy"],
        "programs": len(halved.plans),
        "compilations": halved.programs,
        "compactions": halved.stats["compactions"],
        "diverged": whole.count("diverged"),
        "done": halved.count("done"),
        "seconds": halved.stats["seconds"],
    }
    row["reached"] = bool(
        row["fewer"] >= FEWER
        and row["loss"] <= LOSS
        and row["busy"] >= BUSY
        and row["compilations"] == row["programs"] + row["compactions"]
    )
    return row


def main() -> None:
    """Runs, prints and records; what is recorded of other data sets and seeds stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=[*SETTINGS], choices=[*SETTINGS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--folder", type=Path, help="of the whole runs, to go on with them")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    path = harness.RESULTS / "asha.json"
    result = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    for name in options.data:
        for seed in options.seeds:
            row = figures(name, seed, options.folder)
            print(
                f"{name:14} seed {seed}: {row['accuracy']['asha']:.4f} of "
                f"{row['accuracy']['whole']:.4f}, {row['fewer']:.1f} times fewer lane-steps, "
                f"lanes {row['busy']:.1%} busy, {row['compilations']} compilations = "
                f"{row['programs']} programs + {row['compactions']} compactions: "
                f"{'reached' if row['reached'] else 'missed'}",
                flush=True,
            )
            others = [r for r in result["rows"].get(name, {}).get("runs", []) if r["seed"] != seed]
            runs = sorted([*others, row], key=lambda r: r["seed"])
            common = {"trials": TRIALS, "reduction": REDUCTION, "batch_size": BATCH_SIZE}
            result["rows"][name] = {**common, **SETTINGS[name], "runs": runs}
            if not options.no_record:
                harness.record("asha", {"machine": harness.machine(), "rows": result["rows"]})


if __name__ == "__main__":
    main()

"""What early stopping saves: ASHA against running every configuration to its end."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np


def figures(
    name: str, trials: int, epochs: int, hidden: int, lanes: int, seed: int = 0
) -> dict[str, Any]:
    """Runs the same random configurations whole and under ASHA.

    Args:
      name: a data set that `jdl.data.by_name` knows.
      trials: configurations.
      epochs: of a whole trial.
      hidden: units of the MLP's one hidden layer.
      lanes: on each device; few, so that few idle while the last trials run out.
      seed: of the search and of all random numbers.
    """
    from jdl import data, nn, optim, sweep, train

    dataset = data.by_name(name)()
    inputs = int(np.prod(dataset.train[0].shape[1:]))

    def make_trial(hp: dict[str, Any]) -> train.Trial:
        model = nn.chain(
            nn.flatten, nn.dense(hidden), nn.relu, nn.dropout(hp["dropout"]), nn.dense(10)
        )
        return train.classifier(model, optim.by_name(hp["optimizer"])(hp["lr"]), l2=hp["l2"])

    space = {
        "optimizer": sweep.choice("momentum", "adam"),
        "lr": sweep.log_uniform(1e-5, 1.0),
        "dropout": sweep.uniform(0.0, 0.5),
        "l2": sweep.log_uniform(1e-6, 1e-2),
    }

    def run(stopping: Any) -> Any:
        return sweep.run(
            make_trial,
            space,
            dataset,
            trials=trials,
            epochs=epochs,
            lanes=lanes,
            seed=seed,
            stopping=stopping,
        )

    whole, halved = run(None), run(sweep.asha(reduction=4))
    best = [r.best.metrics["valid_accuracy"] for r in (whole, halved)]
    steps = [r.stats["lane_steps"] for r in (whole, halved)]
    return {
        "data": name,
        "inputs": inputs,
        "trials": trials,
        "epochs": epochs,
        "hidden": hidden,
        "lanes": lanes,
        "accuracy_whole": best[0],
        "accuracy_asha": best[1],
        "test_whole": whole.best.metrics.get("test_accuracy"),
        "test_asha": halved.best.metrics.get("test_accuracy"),
        "lane_steps_whole": steps[0],
        "lane_steps_asha": steps[1],
        "fewer": steps[0] / steps[1],
        "busy": halved.stats["busy"],
        "programs": len(halved.plans),
        "compilations": halved.compilations,
        "compactions": halved.stats["compactions"],
        "seconds_whole": whole.stats["seconds"],
        "seconds_asha": halved.stats["seconds"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(figures(*vars(given).values()), indent=1))

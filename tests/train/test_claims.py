"""What ensembles and averages gain on real data, with nothing chosen by the test split.

Each figure is a mean over three roots of a random search of 200 trials:

    python -m pytest tests/train/test_claims.py -m slow -s
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from tests import needs

from jdl import data, models, optim, sweep, train

ROOTS = (0, 1, 2)


class Task(NamedTuple):
    """A data set and the length of a trial on it."""

    load: object
    features: int
    epochs: int
    batch_size: int
    decay: float


TASKS = {
    "digits": Task(data.digits, 64, 20, 32, 0.99),
    "fashion-mnist": Task(lambda: data.fashion_mnist(flat=True), 128, 4, 128, 0.995),
}
SPACE = {
    "lr": sweep.log_uniform(1e-4, 3e-2),
    "dropout": sweep.uniform(0.0, 0.5),
    "l2": sweep.log_uniform(1e-6, 1e-2),
    "label_smoothing": sweep.uniform(0.0, 0.1),
}


def search(name: str, root: int, trials: int = 200, out: str | None = None) -> dict[str, float]:
    """Test accuracies of one search: of the best trial, of its average, of ensembles."""
    task = TASKS[name]
    splits = task.load()

    def make_trial(hp):
        model = models.mlp((task.features, 10), dropout=hp["dropout"])
        trial = train.classifier(
            model, optim.adam(hp["lr"]), l2=hp["l2"], label_smoothing=hp["label_smoothing"]
        )
        return train.averaged(trial, {"ema": optim.parameter_ema(task.decay)})

    results = sweep.run(
        make_trial,
        SPACE,
        splits,
        trials=trials,
        search="random",
        epochs=task.epochs,
        batch_size=task.batch_size,
        metric="valid_accuracy",
        seed=root,
        out=out,
        progress=False,
    )
    done = [trial for trial in results.trials if trial.status == "done"]
    best_ema = max(done, key=lambda trial: trial.metrics["valid_ema_accuracy"])
    ensemble = results.ensemble(10)
    chosen = ensemble.select(*splits.valid)
    x, y = splits.test

    def accuracy(probabilities):
        return float(np.mean(probabilities.argmax(1) == y))

    members = ensemble.predictions(x)
    best = results.best
    assert accuracy(members[0]) == pytest.approx(best.metrics["test_accuracy"], abs=1e-6)
    return {
        "best single": best.metrics["test_accuracy"],
        "its average of parameters": best.metrics["test_ema_accuracy"],
        "best by its average": best_ema.metrics["test_ema_accuracy"],
        "ensemble of 10": accuracy(ensemble.predict(x)),
        "mean of the 10": float(np.mean([accuracy(said) for said in members])),
        "greedy selection of the 10": accuracy(chosen.predict(x)),
        "last iterate, mean of all": float(np.mean([t.metrics["test_accuracy"] for t in done])),
        "average, mean of all": float(np.mean([t.metrics["test_ema_accuracy"] for t in done])),
        "calibration error, best single": float(train.calibration_error(members[0], y)),
        "calibration error, ensemble": float(train.calibration_error(ensemble.predict(x), y)),
    }


def means(figures: list[dict[str, float]]) -> dict[str, float]:
    """Mean over the roots, printed beside each root's own."""
    means = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
    for name, mean in means.items():
        print(f"{name:32} {mean:.4f}   " + " ".join(f"{f[name]:.4f}" for f in figures))
    return means


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["digits", pytest.param("fashion-mnist", marks=needs.fashion_mnist)]
)
def test_the_ensemble_of_the_best_ten_beats_the_best(name):
    mean = means([search(name, root) for root in ROOTS])
    assert mean["ensemble of 10"] > mean["best single"]
    assert mean["ensemble of 10"] > mean["mean of the 10"]

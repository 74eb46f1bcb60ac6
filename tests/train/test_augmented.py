"""Augmentation inside the lanes: its strength is a hyperparameter of one program."""

from __future__ import annotations

import numpy as np
import pytest
from tests import needs

from jdl import data, models, optim, sweep, train
from jdl.data import augment


def strengths(splits, model, space, epochs, batch_size, **options):
    """A sweep over how far images are moved; 0 leaves them as they are."""

    def make_trial(hp):
        moved = augment.chain(
            augment.shift(hp["shift"], hp["shift"]), augment.noise(hp.get("noise", 0.0))
        )
        return train.classifier(model, optim.adam(3e-3), augment=moved)

    return sweep.run(
        make_trial, space, splits, epochs=epochs, batch_size=batch_size, progress=False, **options
    )


def test_strength_on_digits():
    """Few examples, and test images moved by a pixel: what was trained so knows them better."""
    splits = data.digits(image=True)
    few = tuple(a[:300] for a in splits.train)
    x, y = splits.valid
    moved = np.concatenate([np.roll(x, 1, axis) for axis in (1, 2)]), np.concatenate([y, y])
    space = {"shift": sweep.choice(0, 1, 4), "seed": sweep.seeds(2)}
    results = strengths((few, moved, None), models.mlp((64, 10)), space, 30, 30)
    assert results.programs == 1 and results.count("done") == 6
    means = {s.config["shift"]: s.mean for s in results.configurations()}
    assert means[1] > means[0] + 0.1 and means[1] > means[4]
    train_loss = results.curves("train_loss")[:, -1].reshape(3, 2).mean(1)
    assert train_loss[0] < train_loss[1] < train_loss[2]


@pytest.mark.slow
@needs.fashion_mnist
def test_strength_on_fashion_mnist():
    """`-s` prints the table: twelve strengths, a CNN each, one program."""
    splits = data.fashion_mnist()
    splits = splits._replace(
        train=tuple(a[:8000] for a in splits.train), valid=tuple(a[:4000] for a in splits.valid)
    )
    space = {
        "shift": sweep.choice(0, 1, 2, 4),
        "noise": sweep.choice(0.0, 0.1, 0.3),
        "seed": sweep.seeds(1),
    }
    results = strengths(splits, models.cnn(10, features=(8, 16)), space, 6, 50)
    assert results.programs == 1 and results.count("done") == 12
    for trial in results.trials:
        print(trial.config, {name: round(value, 4) for name, value in trial.metrics.items()})
    by_shift = np.array([t.metrics["train_accuracy"] for t in results.trials]).reshape(4, 3)
    assert np.all(np.diff(by_shift.mean(1)) < 0)  # the further the images move, the harder
    gap = [t.metrics["train_accuracy"] - t.metrics["valid_accuracy"] for t in results.trials]
    assert np.mean(gap[:3]) > np.mean(gap[-3:])

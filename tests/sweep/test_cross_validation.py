"""Cross-validation: who is trained and validated on what, and that a fold's lane is its own run."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import nn, optim, sweep, train
from jdl.data import Dataset
from jdl.sweep.cross_validation import deal


def test_every_example_is_in_one_fold():
    data = dataset()  # 20 and 7 examples
    dealt = deal(data, 4, seed=3)
    x, y = dealt.train
    assert x.shape == (6, 4, 3) and y.shape == (6, 4) and dealt.test is None
    every = np.concatenate([data.train[0], data.valid[0]])
    flat = x.reshape(-1, 3)
    where = [np.flatnonzero((every == row).all(axis=1)) for row in flat]
    assert all(len(at) == 1 for at in where) and len({int(at[0]) for at in where}) == 24
    np.testing.assert_allclose(flat @ [1.0, -2.0, 0.5], y.reshape(-1), rtol=1e-5, atol=1e-6)


def test_classes_are_dealt_evenly():
    labels = np.repeat([0, 1, 2], [20, 10, 10]).astype(np.int32)
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    _, y = deal(Dataset((x, labels), None, None), 5).train
    for column in y.T:
        assert np.bincount(column).tolist() == [4, 2, 2]


def test_a_fold_is_trained_on_the_others_and_validated_on_itself():
    """Every batch that a lane was given, read back from its state."""
    data = dataset()
    results = sweep.cross_validate(
        lambda hp: line_trial(hp["lr"], steps=6, batch_size=6),
        {"lr": sweep.choice(0.01, 0.1), "seed": sweep.seeds(2)},
        data,
        folds=4,
        batch_size=6,
        steps=6,
        report_every=3,
        lanes=4,
        devices=2,
        keep=16,
        progress=False,
    )
    assert len(results.trials) == 2 * 2 * 4 and results.programs == 1
    x, y = deal(data, 4).train
    for trial in results.trials:
        fold = trial.config["fold"]
        held_out = {tuple(row) for row in x[:, fold]}
        others = {tuple(row) for row in np.delete(x, fold, axis=1).reshape(-1, 3)}
        seen = np.asarray(trial.state.x).reshape(-1, 3)
        assert seen.shape == (36, 3)
        assert {tuple(row) for row in seen} <= others and not others & held_out
        # Six rows, two a batch: an epoch of three steps meets each example once.
        assert len({tuple(row) for row in seen[:18]}) == 18
        error = np.mean((x[:, fold] @ np.asarray(trial.state.weights) - y[:, fold]) ** 2)
        assert trial.metrics["valid_loss"] == pytest.approx(error, rel=1e-4)
    best = results.configurations()[0]
    assert set(best.config) == {"lr"} and best.done == 8
    losses = [
        t.metrics["valid_loss"] for t in results.trials if t.config["lr"] == best.config["lr"]
    ]
    assert best.mean == pytest.approx(np.mean(losses))
    assert best.stderr == pytest.approx(np.std(losses, ddof=1) / np.sqrt(8))


def test_a_classifier_learns_its_shape_and_checks_its_labels():
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    data = Dataset((x, (x[:, 0] > 0).astype(np.int32)), None, None)

    def make_trial(hp, classes=2):
        return train.classifier(nn.chain(nn.dense(classes)), optim.sgd(hp["lr"]))

    arguments = {"folds": 3, "epochs": 3, "batch_size": 8, "lanes": 2, "progress": False}
    space = {"lr": sweep.choice(0.1, 1.0)}
    results = sweep.cross_validate(make_trial, space, data, **arguments)
    assert results.metric == "valid_accuracy" and results.configurations()[0].mean > 0.7
    with pytest.raises(ValueError, match="label"):
        sweep.cross_validate(lambda hp: make_trial(hp, 1), space, data, **arguments)
    with pytest.raises(ValueError, match="must not have an entry 'fold'"):
        sweep.cross_validate(make_trial, {"fold": 1}, data)
    with pytest.raises(ValueError, match="`count` of `folds` must be at least 2, got 1"):
        sweep.folds(1)

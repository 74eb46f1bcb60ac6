"""Set-ups of which no check may say anything."""

from __future__ import annotations

from typing import Any

from tests.diagnose import arrays, trials
from tests.diagnose.trials import classify, hand_written, mlp, mode, normed, two_layers, with_loss

from jdl import models, nn, optim, train


def healthy() -> dict[str, tuple[Any, Any, float]]:
    """By name `(make, dataset, rate)`."""
    images = arrays.pictures()
    dropped = nn.chain(nn.dense(32), nn.batch_norm(), nn.relu, nn.dropout(0.3), nn.dense(10))
    return {
        "an MLP with ReLU and Adam": (classify(models.mlp((32, 10))), arrays.digits(), 3e-3),
        "an MLP with tanh and Nesterov's momentum": (
            classify(models.mlp((32, 32, 10), activation=nn.tanh), optim.nesterov),
            arrays.digits(),
            0.03,
        ),
        "dropout, batch norm, AdamW and a penalty": (
            classify(dropped, optim.adamw, l2=1e-4),
            arrays.digits(),
            3e-3,
        ),
        "a convolutional net with batch norm": (
            classify(models.cnn(10, features=(8, 16), batch_norm=True), optim.momentum),
            images,
            0.03,
        ),
        "softmax regression by gradient descent": (
            classify(models.mlp((10,)), optim.sgd),
            arrays.digits(),
            0.1,
        ),
        "a regression with RMSProp": (
            lambda rate: train.regressor(
                nn.chain(nn.dense(32), nn.gelu, nn.dense(3)), optim.rmsprop(rate)
            ),
            arrays.line(),
            3e-3,
        ),
        "a vision transformer with Adam": (
            classify(models.vit(10, patch=4, depth=2, features=32, heads=2)),
            images,
            1e-3,
        ),
        "a trial written by hand": (hand_written(two_layers), arrays.digits(), 3e-3),
        "two classes a line apart, 90 % in one": (
            classify(models.mlp((16, 2))),
            arrays.apart(0.9),
            3e-3,
        ),
        "two classes that overlap": (classify(models.mlp((16, 2))), arrays.noisy_classes(), 3e-3),
        "an autoencoder on labelled data": (trials.autoencoder, arrays.digits(), 3e-3),
        "fine-tuning from trained weights": (trials.fine_tuned(normed()), arrays.digits(), 3e-4),
        "fine-tuning with frozen batch norm": (
            trials.fine_tuned(mode(normed(), never_training=True)),
            arrays.digits(),
            3e-4,
        ),
        "a vision transformer that needs longer": (
            classify(models.vit(10, patch=2, depth=2, features=32, heads=2)),
            images,
            3e-4,
        ),
        "images with a border of one value": (
            classify(nn.chain(nn.flatten, models.mlp((32, 10)))),
            arrays.bordered(),
            3e-3,
        ),
        "squared errors of labels": (with_loss(mlp(), trials.squares), arrays.digits(), 3e-3),
        "a hinge loss": (with_loss(mlp(), trials.hinge), arrays.digits(), 3e-3),
        "smoothed labels": (trials.with_smoothed_labels, arrays.digits(), 3e-3),
        "an average of parameters": (trials.averaged, arrays.digits(), 3e-3),
        "clipping and a rate that warms up": (
            classify(mlp(), trials.warmed_up),
            arrays.digits(),
            3e-3,
        ),
        "signs of momentum": (classify(mlp(), optim.lion), arrays.digits(), 1e-3),
        "an LSTM on sentences": (
            classify(models.lstm_classifier(40, 2, features=16)),
            arrays.sentences(),
            3e-3,
        ),
        "a language model": (
            lambda rate: train.language_model(
                models.transformer(20, length=16, depth=1, features=32, heads=2), optim.adam(rate)
            ),
            arrays.text(),
            3e-3,
        ),
    }

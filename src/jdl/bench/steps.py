"""Training steps of whole networks: forward, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdl import models, nn, optim, train
from jdl.bench.measurement import Measurement, chained, counts
from jdl.bench.timing import rounds
from jdl.engine.trial import Trial

CLASSES = 10
VOCABULARY = 256


def networks(batch: int, tokens: int, features: int) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Each network as a function that gives the model and a batch for it."""

    def classes(count: int, *shape: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((count, *shape), np.float32)
        return x, rng.integers(0, CLASSES, count).astype(np.int32)

    def text(count: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, VOCABULARY, (count, tokens + 1)).astype(np.int32)
        return drawn[:, :-1], drawn[:, 1:]

    def mlp() -> tuple[Any, Any]:
        return models.mlp((4 * features, 4 * features, CLASSES)), classes(8 * batch, 784)

    def cnn() -> tuple[Any, Any]:
        widths = (features // 8, features // 4)
        return models.cnn(CLASSES, features=widths), classes(2 * batch, 28, 28, 1)

    def transformer() -> tuple[Any, Any]:
        model = models.transformer(VOCABULARY, length=tokens, depth=2, features=features, heads=8)
        return model, text(max(1, batch // 4))

    return {"mlp": mlp, "cnn": cnn, "transformer": transformer}


def trial_of(name: str, model: nn.Layer) -> Trial:
    """The trial that trains `model` with Adam."""
    make = train.language_model if name == "transformer" else train.classifier
    return make(model, optim.adam(1e-3))


def measured(
    name: str, make: Callable[[], tuple[Any, Any]], dtype: str, length: float
) -> Measurement:
    """A training step of a network with Adam, its state donated.

    Args:
      name: of the network.
      make: as `networks` gives it.
      dtype: float32, or bfloat16 for products of matrices in bfloat16 (`nn.Policy`).
      length: seconds of a round.
    """
    model, batch = make()
    if dtype == "bfloat16":
        model = nn.with_policy(model, nn.Policy())
    trial = trial_of(name, model)
    batch = jax.device_put(batch)
    init_key, step_key = jax.random.split(jax.random.key(0))
    state = jax.jit(trial.init)(init_key, batch)

    def step(state: Any, batch: Any) -> tuple[Any]:
        return (trial.step(state, batch, step_key)[0],)

    counted = counts(step, state, batch)
    run = chained(step, (state,), batch)
    size = "x".join(map(str, batch[0].shape))
    return Measurement("steps", name, size, dtype, 1, *counted, rounds(run, length))

"""The work, and what a contestant is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

BATCH, HIDDEN, CLASSES = 32, 32, 10
LOW, HIGH = 1e-4, 1e-1  # learning rates


class Round(NamedTuple):
    """What one turn brought."""

    accuracy: list[float]  # on the validation split at the end, by trial
    compile_seconds: float = 0.0  # of the turn's wall time, spent compiling
    notes: Any = None


class Ready(NamedTuple):
    """A contestant that has compiled what can be compiled before its first turn."""

    turn: Callable[[Sequence[float]], Round]  # trains one trial for each learning rate
    compile_seconds: float = 0.0
    close: Callable[[], None] = lambda: None


def arrays() -> tuple[np.ndarray, ...]:
    from jdl import data

    digits = data.digits()
    assert digits.valid is not None
    return (*digits.train, *digits.valid)


def permuted(rng: np.random.Generator, steps: int, examples: int) -> np.ndarray:
    """Indices of shape (steps, batch): every epoch a permutation, its remainder dropped."""
    per_epoch = examples // BATCH
    epochs = [rng.permutation(examples)[: per_epoch * BATCH] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(epochs).astype(np.int32).reshape(-1, BATCH)[:steps]

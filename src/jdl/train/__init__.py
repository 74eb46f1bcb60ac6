"""Training: trials made from a model and an optimizer."""

from jdl.engine.checkpoint import CheckpointError, load, save
from jdl.engine.trial import Trial
from jdl.train.supervised import TrainState, classifier, regressor, supervised

__all__ = [
    "CheckpointError",
    "TrainState",
    "Trial",
    "classifier",
    "load",
    "regressor",
    "save",
    "supervised",
]

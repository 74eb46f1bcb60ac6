"""Training: trials made from a model and an optimizer."""

from jdl.engine.checkpoint import CheckpointError, load, save
from jdl.engine.trial import Trial
from jdl.train.fit import Fit, Interrupted, fit
from jdl.train.supervised import TrainState, classifier, regressor, supervised

__all__ = [
    # a run
    "fit",
    "Fit",
    "Interrupted",
    # what runs
    "Trial",
    "classifier",
    "regressor",
    "supervised",
    "TrainState",
    # checkpoints
    "save",
    "load",
    "CheckpointError",
]

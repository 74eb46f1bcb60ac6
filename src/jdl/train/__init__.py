"""Training: trials made from a model and an optimizer, one run of one, and what comes of it."""

from jdl.engine.checkpoint import CheckpointError, load, save
from jdl.engine.interrupt import Interrupted
from jdl.engine.trial import Trial
from jdl.train.autoencoding import autoencoder
from jdl.train.average import Average, AveragedState, averaged
from jdl.train.calibration import (
    Reliability,
    calibration_error,
    fit_temperature,
    reliability,
    with_temperature,
)
from jdl.train.ensemble import Ensemble, stacked
from jdl.train.exported import export, load_exported
from jdl.train.fit import Fit, fit
from jdl.train.language import language_model, perplexity
from jdl.train.predict import evaluate, predict
from jdl.train.selection import greedy_weights, likelihood
from jdl.train.sharded import load_sharded, save_sharded
from jdl.train.side_by_side import side_by_side
from jdl.train.supervised import TrainState, classifier, regressor, supervised
from jdl.train.tensorboard import tensorboard
from jdl.train.training import Callback, Report

__all__ = [
    # a run
    "fit",
    "Fit",
    "Interrupted",
    "Report",
    "Callback",
    "tensorboard",
    # what runs
    "Trial",
    "classifier",
    "regressor",
    "language_model",
    "perplexity",
    "autoencoder",
    "supervised",
    "side_by_side",
    "TrainState",
    # a trained network
    "evaluate",
    "predict",
    "export",
    "load_exported",
    # averages and ensembles
    "averaged",
    "Average",
    "AveragedState",
    "Ensemble",
    "stacked",
    "greedy_weights",
    "likelihood",
    # calibration
    "Reliability",
    "reliability",
    "calibration_error",
    "fit_temperature",
    "with_temperature",
    # checkpoints
    "save",
    "load",
    "save_sharded",
    "load_sharded",
    "CheckpointError",
]

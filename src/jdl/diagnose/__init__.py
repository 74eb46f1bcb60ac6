"""Looking after a run: checks of data, model, gradient and rate, before and during training."""

from jdl.diagnose.activation import activation_statistics, dead_units, measure_activations
from jdl.diagnose.carried import carried_state
from jdl.diagnose.curve import read_curve
from jdl.diagnose.data_report import data_report
from jdl.diagnose.examine import Report, examine
from jdl.diagnose.finding import Finding, Found, Problem, by_severity, worst
from jdl.diagnose.gradient import (
    gradient_statistics,
    measure_gradients,
    measure_updates,
    update_ratio,
)
from jdl.diagnose.gradient_check import gradient_check
from jdl.diagnose.initial import measure_symmetry, regularization_raises_loss, symmetry
from jdl.diagnose.initial_loss import loss_at_init, measure_loss
from jdl.diagnose.keys import key_reuse
from jdl.diagnose.mode import evaluation_mode, measure_mode
from jdl.diagnose.monitor import MONITORS, Monitor, monitored
from jdl.diagnose.overfit import overfit_small_batch
from jdl.diagnose.rate import learning_rate_range
from jdl.diagnose.subject import rescaled
from jdl.diagnose.tap import Site, tap
from jdl.engine.trial import params_of

__all__ = [
    "MONITORS",
    "Finding",
    "Found",
    "Monitor",
    "Problem",
    "Report",
    "Site",
    "activation_statistics",
    "by_severity",
    "carried_state",
    "data_report",
    "dead_units",
    "evaluation_mode",
    "examine",
    "gradient_check",
    "gradient_statistics",
    "key_reuse",
    "learning_rate_range",
    "loss_at_init",
    "measure_activations",
    "measure_gradients",
    "measure_loss",
    "measure_mode",
    "measure_symmetry",
    "measure_updates",
    "monitored",
    "overfit_small_batch",
    "params_of",
    "read_curve",
    "regularization_raises_loss",
    "rescaled",
    "symmetry",
    "tap",
    "update_ratio",
    "worst",
]

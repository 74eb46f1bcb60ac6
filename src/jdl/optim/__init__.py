"""Optimizers, transforms of gradients and schedules, as pure functions of traced numbers."""

from jdl.optim.adam import AdamState, adam, adamw, nadam, nadamw
from jdl.optim.adam_max import AmsgradState, adamax, adamaxw, amsgrad
from jdl.optim.adam_variants import AdanState, adabelief, adan, radam, yogi
from jdl.optim.adaptive import (
    AdadeltaState,
    AdagradState,
    RmspropState,
    adadelta,
    adagrad,
    rmsprop,
)
from jdl.optim.base import Optimizer, Schedule, apply_updates, at_step, chain
from jdl.optim.descent import DescentState, momentum, nesterov, sgd
from jdl.optim.names import by_name
from jdl.optim.schedule import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    inverse_time_decay,
    linear_schedule,
    natural_exponential_decay,
    polynomial_schedule,
    step_decay,
    warmup,
)
from jdl.optim.transform import add_decayed_weights, clip_by_global_norm

__all__ = [  # noqa: RUF022 - a table of contents, grouped by what a reader looks for
    # What an optimizer is.
    "Optimizer",
    "Schedule",
    "apply_updates",
    "at_step",
    "by_name",
    "chain",
    # Descent.
    "DescentState",
    "momentum",
    "nesterov",
    "sgd",
    # Adaptive rates.
    "AdadeltaState",
    "AdagradState",
    "RmspropState",
    "adadelta",
    "adagrad",
    "rmsprop",
    # Adam and its relatives.
    "AdamState",
    "AdanState",
    "AmsgradState",
    "adabelief",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "nadam",
    "nadamw",
    "radam",
    "yogi",
    # Transforms.
    "add_decayed_weights",
    "clip_by_global_norm",
    # Schedules.
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "inverse_time_decay",
    "linear_schedule",
    "natural_exponential_decay",
    "polynomial_schedule",
    "step_decay",
    "warmup",
]

"""The optimizers that the conformance tests run over: to join, add a row.

A row names a constructor and, for each numeric argument, three values in its
range: the one that means off first where there is one (never 0 for a learning
rate), then two that make a visible difference over four steps of gradients of
about 1. While one argument varies the others stay at their second value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jdl import optim
from jdl.optim.base import Optimizer


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      make: the constructor.
      numbers: three values for each numeric argument that `make` is to be swept over.
      fixed: its other arguments (flags, keys, an inner optimizer).
      label: tells rows of one constructor apart.
      elementwise: whether it also takes complex parameters, and then turning
        parameters and gradients by a phase turns the updates by it.
      steps: how many steps it takes until every number matters.
    """

    make: Callable[..., Optimizer]
    numbers: Mapping[str, tuple[float, float, float]]
    fixed: Mapping[str, Any] = {}
    label: str = ""
    elementwise: bool = True
    steps: int = 4


RATE = {"learning_rate": (0.02, 0.1, 0.5)}
EPS = {"eps": (0.0, 0.1, 0.7)}
EPS_ROOT = {"eps_root": (0.0, 0.2, 0.9)}
BETAS = {"b1": (0.0, 0.6, 0.9), "b2": (0.0, 0.7, 0.99)}
DECAY = {"weight_decay": (0.0, 0.1, 0.6)}
ADAM = {**RATE, **BETAS, **EPS, **EPS_ROOT}
MOMENTUM = {"momentum": (0.0, 0.6, 0.9)}

DESCENT = [
    Row(optim.sgd, RATE),
    Row(optim.sgd, {**RATE, **MOMENTUM, "dampening": (0.0, 0.3, 0.8)}, label="momentum"),
    Row(optim.sgd, {**RATE, **MOMENTUM}, {"nesterov": True}, label="nesterov"),
    Row(optim.momentum, {**RATE, **MOMENTUM}, {"convention": "inside"}, label="inside"),
    Row(optim.momentum, {**RATE, **MOMENTUM}, {"convention": "outside"}, label="outside"),
    Row(optim.momentum, {**RATE, **MOMENTUM}, {"convention": "average"}, label="average"),
    Row(optim.nesterov, {**RATE, **MOMENTUM}),
    Row(optim.nesterov, {**RATE, **MOMENTUM}, {"form": "lookahead"}, "lookahead", False),
]

ADAPTIVE = [
    Row(optim.adagrad, {**RATE, **EPS, "initial_accumulator_value": (0.0, 0.3, 1.0)}),
    Row(optim.adagrad, {**RATE, **EPS}, {"eps_in_sqrt": False}, "outside"),
    Row(
        optim.rmsprop,
        {**RATE, **EPS, "decay": (0.0, 0.6, 0.9), "initial_scale": (0.0, 0.4, 1.0), **MOMENTUM},
    ),
    Row(
        optim.rmsprop,
        {**RATE, **EPS, "decay": (0.3, 0.6, 0.9), "initial_scale": (0.4, 0.7, 2.0), **MOMENTUM},
        {"centered": True, "bias_correction": True, "eps_in_sqrt": False, "nesterov": True}
        | {"convention": "outside"},
        "every flag",
    ),
    Row(
        optim.adadelta,
        {**RATE, "rho": (0.0, 0.6, 0.9), "eps": (1e-6, 1e-2, 0.5), **DECAY},
    ),
]

ADAMS = [
    Row(optim.adam, ADAM),
    Row(optim.adam, ADAM, {"bias_correction": False, "nesterov": True}, "every flag"),
    Row(optim.adamw, {**ADAM, **DECAY}),
    Row(optim.adamw, {**ADAM, **DECAY}, {"decay": "independent"}, "independent"),
    Row(optim.adamw, {**ADAM, **DECAY}, {"decay": "coupled"}, "coupled"),
    Row(optim.nadam, ADAM),
    Row(optim.nadamw, {**ADAM, **DECAY}),
    Row(optim.amsgrad, ADAM),
    Row(optim.amsgrad, ADAM, {"correct_maximum": True}, "correct maximum"),
    Row(optim.adamax, {**RATE, **BETAS, "eps": (1e-3, 0.1, 0.7)}),
    Row(optim.adamaxw, {**RATE, **BETAS, "eps": (1e-3, 0.1, 0.7), **DECAY}),
    Row(
        optim.radam,
        {**ADAM, "b2": (0.8, 0.9, 0.99), "threshold": (float("inf"), 5.0, 4.1)},
        steps=6,
    ),
    Row(optim.radam, {**ADAM, "b2": (0.8, 0.9, 0.99)}, {"nesterov": True}, "nesterov", steps=6),
    Row(optim.adabelief, {**ADAM, "b1": (0.3, 0.6, 0.9)}),
    Row(optim.adabelief, {**ADAM, "b1": (0.3, 0.6, 0.9)}, {"nesterov": True}, "nesterov"),
    Row(
        optim.yogi,
        {**RATE, **BETAS, **EPS, "b2": (0.5, 0.7, 0.9)}
        | {"initial_accumulator_value": (0.0, 0.01, 0.5)},
        elementwise=False,  # its first moment starts at a real number
    ),
    Row(
        optim.adan,
        {**ADAM, "b2": (0.3, 0.6, 0.9), "b3": (0.2, 0.7, 0.95), **DECAY}
        | {"extrapolation": (0.0, 0.3, 0.9)},
    ),
]

TRANSFORMS = [
    Row(optim.add_decayed_weights, DECAY),
    Row(optim.clip_by_global_norm, {"max_norm": (float("inf"), 1.0, 0.1)}),
]

ROWS = DESCENT + ADAPTIVE + ADAMS + TRANSFORMS

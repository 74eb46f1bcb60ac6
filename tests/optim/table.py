"""The optimizers that the conformance tests run over: to join, add a row.

A row names a constructor and, for each numeric argument, three values in its
range: the one that means off first where there is one (never 0 for a learning
rate), then two that make a visible difference over four steps of gradients of
about 1. While one argument varies the others stay at their second value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

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
      compiled: for what is slow step by step (loops, decompositions, keys): the
        runs beside the lanes are compiled, with Python numbers for one of them.
    """

    make: Callable[..., Optimizer]
    numbers: Mapping[str, tuple[float, float, float]]
    fixed: Mapping[str, Any] = {}
    label: str = ""
    elementwise: bool = True
    steps: int = 4
    compiled: bool = False


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
    Row(
        optim.nesterov,
        {**RATE, **MOMENTUM},
        {"form": "lookahead"},
        "lookahead",
        False,
        compiled=True,
    ),
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
    Row(optim.scale, {"step_size": (0.0, 0.4, -1.3)}),
    Row(optim.add_decayed_weights, DECAY),
    Row(optim.normalize_by_update_norm, {"scale_factor": (0.3, 1.0, 2.0), "eps": (0.0, 0.4, 2.0)}),
    Row(optim.centralize, {}, {"output_axis": -1}),
    Row(
        optim.add_noise,
        {"eta": (0.0, 0.3, 1.0), "gamma": (0.0, 0.55, 2.0)},
        {"key": jax.random.key(3)},
        elementwise=False,
        compiled=True,
    ),
    Row(optim.ema, {"decay": (0.0, 0.6, 0.9)}),
    Row(optim.ema, {"decay": (0.0, 0.6, 0.9)}, {"debias": False}, "biased"),
    Row(optim.clip, {"max_delta": (float("inf"), 1.0, 0.3)}),
    Row(optim.clip_by_global_norm, {"max_norm": (float("inf"), 1.0, 0.1)}),
    Row(optim.clip_by_block_rms, {"threshold": (float("inf"), 0.7, 0.1)}),
    Row(
        optim.adaptive_grad_clip,
        {"clipping": (float("inf"), 0.5, 0.1), "eps": (1e-3, 1.6, 3.0)},
    ),
    Row(optim.zero_nans, {}),
]


def grouped(learning_rate, weight_decay):
    """Kernels by AdamW, the gain stays, the rest by momentum."""
    kinds = optim.by_path(lambda path: path.rsplit("/", 1)[-1])
    groups = {
        "kernel": optim.adamw(learning_rate, weight_decay=weight_decay),
        "bias": optim.momentum(learning_rate),
        "gain": optim.set_to_zero(),
    }
    return optim.partition(groups, kinds)


def first_frozen(learning_rate):
    """Momentum for all but the first layer."""
    return optim.chain(optim.momentum(learning_rate), optim.freeze((True, False)))


WRAPPERS = [
    Row(optim.accumulate, {"every": (1, 2, 3)}, {"inner": optim.momentum(0.3)}),
    Row(optim.accumulate, {"every": (1, 2, 3)}, {"inner": optim.adam(0.3), "use_grad_mean": False}),
    Row(
        optim.lookahead,
        {"sync_period": (1, 2, 3), "slow_step_size": (1.0, 0.5, 0.2)},
        {"fast_optimizer": optim.momentum(0.3), "reset_state": True},
    ),
    Row(
        optim.sam,
        {"rho": (0.0, 0.1, 0.7)},
        {"inner": optim.sgd(0.1, 0.6)},
        "",
        False,
        compiled=True,
    ),
    Row(
        optim.sam,
        {"rho": (0.0, 0.1, 0.7)},
        {"inner": optim.adam(0.1), "adaptive": True},
        "adaptive",
        elementwise=False,
        compiled=True,
    ),
    Row(grouped, {**RATE, **DECAY}),
    Row(first_frozen, RATE),
    Row(optim.masked, {}, {"inner": optim.adagrad(0.3), "mask": (True, False)}),
    Row(optim.apply_if_finite, {}, {"inner": optim.adam(0.3), "max_consecutive_errors": 3}),
]


def prodigy(b1, b2, **numbers):
    return optim.prodigy(betas=(b1, b2), **numbers)


def dadapt_adamw(b1, b2, **numbers):
    return optim.dadapt_adamw(betas=(b1, b2), **numbers)


def dog(first, kind, **numbers):
    return optim.dog(init_step=(kind, first), **numbers)


AVERAGE = {"beta": (0.0, 0.6, 0.9)}
KEY = {"key": jax.random.key(5)}
BETA_TUPLE = {"b1": (0.0, 0.6, 0.9), "b2": (0.1, 0.7, 0.99)}
FREE = {
    **RATE,
    "warmup_steps": (1.0, 2.0, 3.0),
    "b1": (0.0, 0.6, 0.9),
    **DECAY,
    "weight_lr_power": (0.0, 1.0, 2.0),
}
SHAMPOO = {
    **RATE,
    **MOMENTUM,
    "b2": (1.0, 0.7, 0.9),
    "eps": (0.01, 0.1, 0.7),
    **DECAY,
    "exponent": (0.1, 0.3, 0.5),
    "precondition_frequency": (1.0, 2.0, 3.0),
}

MODERN = [
    Row(optim.sign_sgd, RATE),
    Row(optim.signum, {**RATE, **AVERAGE}),
    Row(optim.lion, {**RATE, **BETAS, **DECAY}),
    Row(
        optim.rprop,
        {
            **RATE,
            "eta_minus": (1.0, 0.5, 0.7),
            "eta_plus": (1.0, 1.4, 1.9),
            "min_step_size": (0.0, 0.06, 0.09),
            "max_step_size": (float("inf"), 0.15, 0.11),
        },
        elementwise=False,
    ),
    Row(
        optim.lars,
        {**RATE, **DECAY, "trust_coefficient": (0.3, 1.0, 2.0), **EPS, **MOMENTUM},
    ),
    Row(
        optim.lars,
        {**RATE, **DECAY, **MOMENTUM},
        {"nesterov": True, "trust_coefficient": 1.0},
        "nesterov",
    ),
    Row(optim.lamb, {**ADAM, **DECAY}),
    Row(
        optim.adafactor,
        {
            **RATE,
            "decay_rate": (0.0, 0.6, 0.9),
            "decay_offset": (0.0, 1.0, 2.0),
            "clipping_threshold": (float("inf"), 0.8, 0.4),
            **MOMENTUM,
            "weight_decay_rate": (0.0, 0.1, 0.4),
            "eps": (1e-6, 0.1, 0.7),
        },
        {"min_dim_size_to_factor": 2},
        elementwise=False,
    ),
    Row(
        optim.muon,
        {
            **RATE,
            **AVERAGE,
            **EPS,
            **DECAY,
            "adam_b1": (0.0, 0.6, 0.9),
            "adam_b2": (0.0, 0.7, 0.99),
            "adam_eps_root": (0.0, 0.2, 0.9),
            "adam_weight_decay": (0.0, 0.1, 0.6),
            "adam_learning_rate": (0.02, 0.1, 0.5),
            "consistent_rms": (0.1, 0.3, 1.0),
        },
        compiled=True,
    ),
    Row(optim.muon, RATE, {"adaptive": True, "nesterov": False}, "adaptive"),
    Row(optim.shampoo, SHAMPOO, elementwise=False, compiled=True),
    Row(optim.shampoo, RATE, {"graft": "sgd", "method": "newton"}, "newton", False, compiled=True),
    Row(
        optim.shampoo,
        RATE,
        {"graft": "adagrad", "max_precond_dim": 2},
        "adagrad",
        False,
        compiled=True,
    ),
    Row(
        optim.soap,
        {
            **RATE,
            **BETAS,
            **DECAY,
            "eps": (0.01, 0.1, 0.7),
            "shampoo_beta": (0.0, 0.6, 0.9),
            "precondition_frequency": (1.0, 2.0, 3.0),
        },
        elementwise=False,
        compiled=True,
    ),
    Row(optim.schedule_free_sgd, FREE),
    Row(optim.schedule_free_adamw, {**FREE, "b2": (0.0, 0.7, 0.99), **EPS}),
    Row(
        prodigy,
        {
            "learning_rate": (0.3, 1.0, 2.0),
            **BETA_TUPLE,
            "beta3": (0.0, 0.6, 0.9),
            **EPS,
            "estim_lr0": (0.03, 0.1, 0.3),
            "estim_lr_coef": (10.0, 30.0, 60.0),
            **DECAY,
        },
    ),
    Row(prodigy, BETA_TUPLE, {"safeguard_warmup": True, "estim_lr0": 0.1}, "safeguard"),
    Row(
        dadapt_adamw,
        {
            "learning_rate": (0.3, 1.0, 2.0),
            **BETA_TUPLE,
            **EPS,
            "estim_lr0": (0.03, 0.1, 0.3),
            **DECAY,
        },
    ),
    *(
        Row(
            dog,
            {"learning_rate": (0.3, 1.0, 2.0), "first": (0.03, 0.1, 0.3), **EPS, **DECAY},
            {"kind": kind},
            kind,
        )
        for kind in ("heuristic", "distance", "learning_rate")
    ),
    Row(
        optim.dowg,
        {
            "learning_rate": (0.3, 1.0, 2.0),
            "init_estim_sq_dist": (0.03, 0.1, 0.3),
            "eps": (0.01, 0.1, 0.7),
            **DECAY,
        },
    ),
    Row(
        optim.ademamix,
        {**ADAM, "b3": (0.0, 0.8, 0.95), "alpha": (0.0, 1.0, 3.0), **DECAY},
    ),
    Row(optim.adopt, {**RATE, **BETAS, "eps": (0.0, 0.8, 1.5)}),
    Row(optim.adopt, RATE, {"nesterov": True, "use_clipping": False}, "nesterov"),
    Row(
        optim.sophia,
        {
            **RATE,
            **BETAS,
            **EPS,
            **DECAY,
            "gamma": (0.1, 0.3, 1.0),
            "clip_threshold": (float("inf"), 0.8, 0.4),
            "update_interval": (1.0, 2.0, 3.0),
        },
        KEY,
        elementwise=False,
        compiled=True,
    ),
    Row(
        optim.noisy_sgd,
        {**RATE, "eta": (0.0, 0.3, 1.0), "gamma": (0.0, 0.5, 2.0)},
        KEY,
        elementwise=False,
        compiled=True,
    ),
    Row(
        optim.sgld,
        {**RATE, "temperature": (0.0, 0.3, 1.0)},
        KEY,
        elementwise=False,
        compiled=True,
    ),
    Row(
        optim.polyak_sgd,
        {
            "max_learning_rate": (float("inf"), 0.08, 0.04),
            "scaling": (0.3, 1.0, 2.0),
            "f_min": (0.0, 0.3, 0.6),
            "eps": (0.0, 0.5, 3.0),
        },
    ),
    Row(optim.polyak_sgd, {"f_min": (0.0, 0.3, 0.9)}, {"variant": "sps+"}, "sps+"),
    Row(
        optim.asgd,
        {**RATE, "lambd": (0.0, 0.1, 0.6), "alpha": (0.0, 0.7, 3.0), **DECAY},
        {"t0": 1.0},
    ),
]

ROWS = DESCENT + ADAPTIVE + ADAMS + TRANSFORMS + WRAPPERS + MODERN

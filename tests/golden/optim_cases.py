"""The updates that other libraries' optimizers were recorded on, beside ours that must equal them.

Numbers are asymmetric and far from the defaults (a large eps, b1 far from b2), so
that two of them swapped cannot go unseen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

STEPS = 50
SHOWN = (0, 1, 2, 3, 7, 19, 49)


class Case(NamedTuple):
    """Our constructor and its arguments, and the peer's ("optax.adam") with its own."""

    name: str
    arguments: dict[str, Any]
    peer: str
    peer_arguments: dict[str, Any]


def params() -> dict[str, np.ndarray]:
    return {
        "a": np.array([0.7, -1.3, 0.0, 2.1]),
        "b": np.array([[0.4, -0.9], [1.7, -0.2], [3.0, 0.6]]),
    }


def gradients() -> dict[str, np.ndarray]:
    """[steps, ...]: normal, with exact zeros (always, at first, at times) and 1e-12."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(STEPS, 4)), rng.normal(size=(STEPS, 3, 2))
    a[:, 1] = 0.0
    a[:5, 2] = 0.0
    a[:, 3] *= 1e-12
    b[::3, 0, 0] = 0.0
    b[:, 1, 1] = 1e-12
    b[:, 2] *= [30.0, 0.01]
    return {"a": a, "b": b}


def decay_mask(tree: Any) -> dict[str, bool]:
    return {"a": False, "b": True}


def falling(step: Any) -> Any:
    return 0.2 / (1.0 + 0.3 * step)


def rising(step: Any) -> Any:
    return 0.5 + 0.008 * step


SHARED = [
    # The same call in both libraries: name, arguments.
    ("sgd", {"learning_rate": 0.3}),
    ("sgd", {"learning_rate": falling}),
    ("sgd", {"learning_rate": 0.3, "momentum": 0.7}),
    ("sgd", {"learning_rate": falling, "momentum": 0.7, "nesterov": True}),
    ("adagrad", {"learning_rate": 0.3}),
    ("adagrad", {"learning_rate": falling, "initial_accumulator_value": 0.4, "eps": 0.05}),
    ("rmsprop", {"learning_rate": 0.03}),
    ("rmsprop", {"learning_rate": falling, "decay": 0.7, "eps": 0.05, "initial_scale": 0.3}),
    ("rmsprop", {"learning_rate": 0.1, "decay": 0.7, "eps": 0.05, "eps_in_sqrt": False}),
    ("rmsprop", {"learning_rate": 0.1, "decay": 0.7, "eps": 0.05, "bias_correction": True}),
    ("rmsprop", {"learning_rate": 0.1, "decay": 0.7, "eps": 0.05, "centered": True}),
    (
        "rmsprop",
        {"learning_rate": falling, "decay": 0.7, "eps": 0.05, "momentum": 0.6, "nesterov": True}
        | {"centered": True, "eps_in_sqrt": False, "bias_correction": True, "initial_scale": 0.3},
    ),
    ("rmsprop", {"learning_rate": falling, "decay": 0.7, "eps": 0.05, "momentum": 0.6}),
    ("adadelta", {"learning_rate": 1.3}),
    ("adadelta", {"learning_rate": 1.3, "rho": 0.7, "eps": 0.02, "weight_decay": 0.1}),
    (
        "adadelta",
        {
            "learning_rate": falling,
            "rho": 0.7,
            "weight_decay": 0.1,
            "weight_decay_mask": decay_mask,
        },
    ),
    ("adam", {"learning_rate": 0.03}),
    ("adam", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}),
    ("adam", {"learning_rate": 0.1, "b1": 0.6, "b2": 0.8, "eps": 0.02, "nesterov": True}),
    ("adamw", {"learning_rate": 0.03}),
    (
        "adamw",
        {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}
        | {"weight_decay": 0.4, "mask": decay_mask},
    ),
    ("adamw", {"learning_rate": 0.1, "b1": 0.6, "nesterov": True, "weight_decay": falling}),
    ("nadam", {"learning_rate": 0.03}),
    ("nadam", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}),
    (
        "nadamw",
        {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}
        | {"weight_decay": 0.4, "mask": decay_mask},
    ),
    ("nadamw", {"learning_rate": 0.1, "nesterov": False}),
    ("amsgrad", {"learning_rate": 0.03}),
    ("amsgrad", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}),
    (
        "amsgrad",
        {"learning_rate": 0.1, "b1": 0.6, "b2": 0.8, "eps": 0.02}
        | {"bias_correction_mu": False, "bias_correction_nu": False},
    ),
    ("adamax", {"learning_rate": 0.03}),
    ("adamax", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3}),
    ("adamaxw", {"learning_rate": 0.03}),
    (
        "adamaxw",
        {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "weight_decay": 0.4}
        | {"mask": decay_mask},
    ),
    # At the default b2 = 0.999 optax's own rounding of `n` is above 1e-12.
    ("radam", {"learning_rate": 0.03, "b2": 0.98}),
    (
        "radam",
        {"learning_rate": falling, "b1": 0.6, "b2": 0.9, "eps": 0.3, "eps_root": 0.02}
        | {"threshold": 4.3},
    ),
    ("radam", {"learning_rate": 0.1, "b1": 0.6, "b2": 0.9, "eps": 0.02, "nesterov": True}),
    ("adabelief", {"learning_rate": 0.03}),
    ("adabelief", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3, "eps_root": 0.02}),
    (
        "adabelief",
        {"learning_rate": 0.1, "b1": 0.6, "b2": 0.8, "eps": 0.02, "eps_root": 0.1}
        | {"nesterov": True},
    ),
    ("yogi", {"learning_rate": 0.03}),
    ("yogi", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3}),
    ("adan", {"learning_rate": 0.03}),
    (
        "adan",
        {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "b3": 0.7, "eps": 0.3, "eps_root": 0.02}
        | {"weight_decay": 0.4, "mask": decay_mask},
    ),
    ("add_decayed_weights", {"weight_decay": 0.4, "mask": decay_mask}),
    ("clip", {"max_delta": 0.6}),
    ("clip_by_global_norm", {"max_norm": 2.5}),
    ("clip_by_block_rms", {"threshold": 0.6}),
    ("adaptive_grad_clip", {"clipping": 0.3, "eps": 0.2}),
    ("centralize", {}),
    ("ema", {"decay": 0.7}),
    ("ema", {"decay": 0.7, "debias": False}),
    ("normalize_by_update_norm", {"scale_factor": 1.7, "eps": 0.2}),
]

TORCH = [
    # Ours, and the call in torch that it must equal.
    Case("sgd", {"learning_rate": falling, "momentum": 0.7, "dampening": 0.4},
         "torch.SGD", {"lr": falling, "momentum": 0.7, "dampening": 0.4}),
    Case("sgd", {"learning_rate": falling, "momentum": 0.7, "nesterov": True},
         "torch.SGD", {"lr": falling, "momentum": 0.7, "nesterov": True}),
    Case("momentum", {"learning_rate": falling, "momentum": 0.7, "convention": "outside"},
         "torch.SGD", {"lr": falling, "momentum": 0.7}),
    Case("adagrad", {"learning_rate": falling, "initial_accumulator_value": 0.4, "eps": 0.05,
                     "eps_in_sqrt": False},
         "torch.Adagrad", {"lr": falling, "initial_accumulator_value": 0.4, "eps": 0.05}),
    Case("adagrad", {"learning_rate": 0.3, "initial_accumulator_value": 0.0, "eps": 1e-10,
                     "eps_in_sqrt": False}, "torch.Adagrad", {"lr": 0.3}),
    Case("rmsprop", {"learning_rate": falling, "decay": 0.7, "eps": 0.05, "eps_in_sqrt": False,
                     "momentum": 0.6, "convention": "outside"},
         "torch.RMSprop", {"lr": falling, "alpha": 0.7, "eps": 0.05, "momentum": 0.6}),
    Case("rmsprop", {"learning_rate": falling, "decay": 0.7, "eps": 0.05, "eps_in_sqrt": False,
                     "centered": True},
         "torch.RMSprop", {"lr": falling, "alpha": 0.7, "eps": 0.05, "centered": True}),
    Case("adadelta", {"learning_rate": falling, "rho": 0.7, "eps": 0.02, "weight_decay": 0.1},
         "torch.Adadelta", {"lr": falling, "rho": 0.7, "eps": 0.02, "weight_decay": 0.1}),
    Case("adam", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3},
         "torch.Adam", {"lr": falling, "betas": (0.6, 0.8), "eps": 0.3}),
    Case("adamw", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3,
                   "weight_decay": 0.4, "decay": "coupled"},
         "torch.Adam", {"lr": falling, "betas": (0.6, 0.8), "eps": 0.3, "weight_decay": 0.4}),
    Case("adamw", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3,
                   "weight_decay": 0.4},
         "torch.AdamW", {"lr": falling, "betas": (0.6, 0.8), "eps": 0.3, "weight_decay": 0.4}),
    Case("amsgrad", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3,
                     "correct_maximum": True},
         "torch.Adam", {"lr": falling, "betas": (0.6, 0.8), "eps": 0.3, "amsgrad": True}),
    Case("adamax", {"learning_rate": falling, "b1": 0.6, "b2": 0.8, "eps": 0.3},
         "torch.Adamax", {"lr": falling, "betas": (0.6, 0.8), "eps": 0.3}),
    Case("radam", {"learning_rate": falling, "b1": 0.6, "b2": 0.9, "eps": 1e-300},
         "torch.RAdam", {"lr": falling, "betas": (0.6, 0.9), "eps": 1e-300}),
]  # fmt: skip

CASES = [Case(name, kw, f"optax.{name}", kw) for name, kw in SHARED] + TORCH

HORIZON = 70

SCHEDULES = [
    # The same call in optax; step 0 to HORIZON - 1.
    ("constant_schedule", {"value": 0.3}),
    (
        "polynomial_schedule",
        {"init_value": 0.9, "end_value": 0.2, "power": 2.5}
        | {"transition_steps": 30, "transition_begin": 7},
    ),
    (
        "linear_schedule",
        {"init_value": 0.5, "end_value": 0.99, "transition_steps": 40, "transition_begin": 5},
    ),
    (
        "piecewise_constant_schedule",
        {"init_value": 0.8, "boundaries_and_scales": {40: 3.0, 11: 0.5, 25: 0.1}},
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 0.8}
        | {"boundaries_and_scales": {40: 3.0, 11: 0.5, 25: 0.1}},
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 0.8}
        | {"boundaries_and_scales": {40: 3.0, 11: 0.5, 25: 0.1}},
    ),
    ("exponential_decay", {"init_value": 0.9, "transition_steps": 13, "decay_rate": 0.6}),
    (
        "exponential_decay",
        {"init_value": 0.9, "transition_steps": 13, "decay_rate": 0.6, "transition_begin": 4}
        | {"staircase": True, "end_value": 0.15},
    ),
    (
        "exponential_decay",
        {"init_value": 0.2, "transition_steps": 13, "decay_rate": 1.7, "end_value": 0.9},
    ),
    ("cosine_decay_schedule", {"init_value": 0.9, "decay_steps": 45}),
    (
        "cosine_decay_schedule",
        {"init_value": 0.9, "decay_steps": 45, "alpha": 0.2, "exponent": 1.7},
    ),
    (
        "warmup_constant_schedule",
        {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 12},
    ),
    (
        "warmup_cosine_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 12, "decay_steps": 50}
        | {"end_value": 0.05, "exponent": 1.7},
    ),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 12, "transition_steps": 9}
        | {"decay_rate": 0.6, "transition_begin": 4, "staircase": True, "end_value": 0.15},
    ),
    (
        "linear_onecycle_schedule",
        {"transition_steps": 61, "peak_value": 0.7, "pct_start": 0.23, "pct_final": 0.8}
        | {"div_factor": 7.0, "final_div_factor": 30.0},
    ),
    ("linear_onecycle_schedule", {"transition_steps": 60, "peak_value": 0.7}),
    (
        "cosine_onecycle_schedule",
        {"transition_steps": 61, "peak_value": 0.7, "pct_start": 0.23}
        | {"div_factor": 7.0, "final_div_factor": 30.0},
    ),
    ("cosine_onecycle_schedule", {"transition_steps": 60, "peak_value": 0.7}),
    (
        "sgdr_schedule",
        {
            "cosine_kwargs": [
                {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 3, "decay_steps": 14},
                {"init_value": 0.2, "peak_value": 0.5, "warmup_steps": 5, "decay_steps": 31},
                {"init_value": 0.1, "peak_value": 0.3, "warmup_steps": 2, "decay_steps": 12},
            ]
        },
    ),
]

TORCH_SCHEDULES = [
    # Ours, and torch's scheduler over an optimizer of rate 0.9.
    Case("step_decay", {"init_value": 0.9, "transition_steps": 8, "decay_rate": 0.6},
         "StepLR", {"step_size": 8, "gamma": 0.6}),
    Case("cosine_restarts", {"init_value": 0.9, "first_steps": 5, "multiplier": 2.0,
                             "end_value": 0.1},
         "CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.1}),
    Case("cosine_restarts", {"init_value": 0.9, "first_steps": 11},
         "CosineAnnealingWarmRestarts", {"T_0": 11}),
    Case("cyclic_schedule", {"low_value": 0.2, "high_value": 0.8, "up_steps": 6},
         "CyclicLR", {"base_lr": 0.2, "max_lr": 0.8, "step_size_up": 6,
                      "cycle_momentum": False}),
    Case("cyclic_schedule", {"low_value": 0.2, "high_value": 0.8, "up_steps": 6,
                             "down_steps": 9, "cycle_decay": 0.5},
         "CyclicLR", {"base_lr": 0.2, "max_lr": 0.8, "step_size_up": 6, "step_size_down": 9,
                      "mode": "triangular2", "cycle_momentum": False}),
    Case("cyclic_schedule", {"low_value": 0.2, "high_value": 0.8, "up_steps": 6,
                             "down_steps": 9, "step_decay": 0.96},
         "CyclicLR", {"base_lr": 0.2, "max_lr": 0.8, "step_size_up": 6, "step_size_down": 9,
                      "mode": "exp_range", "gamma": 0.96, "cycle_momentum": False}),
]  # fmt: skip


def losses() -> list[float]:
    """What a plateau is told: falling, flat, rising, with steps near the threshold."""
    rng = np.random.default_rng(3)
    trend = np.concatenate([np.linspace(2.0, 1.0, 15), np.full(20, 1.0), np.linspace(1.0, 0.5, 15)])
    return list(trend + 0.02 * rng.normal(size=50))


PLATEAUS = [
    {"factor": 0.3, "patience": 3, "rtol": 0.01, "atol": 0.005, "cooldown": 2, "min_scale": 0.02},
    {"factor": 0.7, "patience": 1, "rtol": 0.0, "atol": 1e-9, "cooldown": 0, "min_scale": 0.1},
]

"""The updates that other libraries' optimizers were recorded on, beside ours that must equal them.

Numbers are asymmetric and far from the defaults (a large eps, b1 far from b2), so
that two of them swapped cannot go unseen.
"""

from __future__ import annotations

from collections.abc import Callable
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
        {"learning_rate": falling, "rho": 0.7, "weight_decay": 0.1, "weight_decay_mask": decay_mask},
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
    ("radam", {"learning_rate": 0.03}),
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

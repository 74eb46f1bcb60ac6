"""Records optax's and torch's trajectories in float64: `python tests/golden/record_optim.py`.

Writes optim.npz (case number and leaf -> [shown steps, ...]: the updates of an
optax optimizer, the parameters of a torch one; the values of schedules) and
optax_signatures.json (name -> its arguments in order, each with its default and
whether it is keyword-only).
"""

import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from optim_cases import (
    CASES,
    HORIZON,
    PLATEAUS,
    SCHEDULES,
    SHOWN,
    STEPS,
    TORCH_SCHEDULES,
    gradients,
    losses,
    params,
)

HERE = pathlib.Path(__file__).parent
SIGNATURES = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "nadam",
    "nadamw",
    "radam",
    "rmsprop",
    "sgd",
    "yogi",
    "add_decayed_weights",
    "add_noise",
    "adaptive_grad_clip",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "lookahead",
    "zero_nans",
    "apply_if_finite",
    "normalize_by_update_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


def of_optax(name, arguments):
    optimizer = getattr(optax, name)(**arguments)
    w = jax.tree.map(jnp.asarray, params())
    state, shown = optimizer.init(w), []
    for step in range(STEPS):
        grads = jax.tree.map(lambda g: jnp.asarray(g[step]), gradients())  # noqa: B023
        updates, state = optimizer.update(grads, state, w)
        w = optax.apply_updates(w, updates)
        if step in SHOWN:
            shown.append(updates)
    return {key: np.stack([u[key] for u in shown]) for key in w}


def of_torch(name, arguments):
    start = params()
    w = {key: torch.tensor(start[key], requires_grad=True) for key in start}
    rate = arguments["lr"]
    at = rate if callable(rate) else lambda step: rate
    optimizer = getattr(torch.optim, name)(list(w.values()), **arguments | {"lr": at(0)})
    shown = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = at(step)
        for key, leaf in w.items():
            leaf.grad = torch.tensor(gradients()[key][step])
        optimizer.step()
        if step in SHOWN:
            shown.append({key: leaf.detach().numpy().copy() for key, leaf in w.items()})
    return {key: np.stack([s[key] for s in shown]) for key in w}


def schedules():
    recorded = {}
    for i, (name, arguments) in enumerate(SCHEDULES):
        schedule = getattr(optax, name)(**arguments)
        recorded[f"schedule {i}"] = np.array([schedule(jnp.array(s)) for s in range(HORIZON)])
    for i, case in enumerate(TORCH_SCHEDULES):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.9)
        scheduler = getattr(torch.optim.lr_scheduler, case.peer)(optimizer, **case.peer_arguments)
        values = []
        for _ in range(HORIZON):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        recorded[f"torch schedule {i}"] = np.array(values)
    for i, arguments in enumerate(PLATEAUS):
        transform = optax.contrib.reduce_on_plateau(**arguments)
        state, scales = transform.init(jnp.ones(1)), []
        for value in losses():
            _, state = transform.update(jnp.ones(1), state, value=value)
            scales.append(state.scale)
        recorded[f"plateau {i}"] = np.array(scales)
    return recorded


def signature(name):
    of = inspect.signature(getattr(optax, name)).parameters.values()
    plain = (int, float, bool, str, type(None))
    return [
        [
            p.name,
            p.default if isinstance(p.default, plain) else "required",
            p.kind is p.KEYWORD_ONLY,
        ]
        for p in of
    ]


def main():
    recorded = {}
    with jax.enable_x64(True):
        for i, case in enumerate(CASES):
            library, name = case.peer.split(".")
            run = of_optax if library == "optax" else of_torch
            for key, value in run(name, case.peer_arguments).items():
                recorded[f"{i} {case.peer} {key}"] = value
        recorded |= schedules()
    np.savez_compressed(HERE / "optim.npz", **recorded)
    lines = [f'"{name}": {json.dumps(signature(name))}' for name in SIGNATURES]
    (HERE / "optax_signatures.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

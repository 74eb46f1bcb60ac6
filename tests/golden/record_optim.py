"""Records optax's and torch's trajectories in float64: `python tests/golden/record_optim.py`.

Writes optim.npz (case number and leaf -> [shown steps, ...]: the updates of an
optax optimizer, the parameters of a torch one) and optax_signatures.json (name ->
its arguments in order with their defaults).
"""

import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from optim_cases import CASES, SHOWN, STEPS, gradients, params

HERE = pathlib.Path(__file__).parent
SIGNATURES = """adabelief adadelta adagrad adam adamax adamaxw adamw adan amsgrad nadam nadamw radam
rmsprop sgd yogi add_decayed_weights add_noise adaptive_grad_clip centralize clip
clip_by_block_rms clip_by_global_norm ema lookahead zero_nans apply_if_finite
normalize_by_update_norm constant_schedule cosine_decay_schedule cosine_onecycle_schedule
exponential_decay join_schedules linear_onecycle_schedule linear_schedule
piecewise_constant_schedule piecewise_interpolate_schedule polynomial_schedule sgdr_schedule
warmup_constant_schedule warmup_cosine_decay_schedule warmup_exponential_decay_schedule""".split()


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


def signature(name):
    of = inspect.signature(getattr(optax, name)).parameters.values()
    plain = (int, float, bool, str, type(None))
    return [
        [p.name, p.default if isinstance(p.default, plain) else "required", str(p.kind)] for p in of
    ]


def main():
    recorded = {}
    with jax.enable_x64(True):
        for i, case in enumerate(CASES):
            library, name = case.peer.split(".")
            run = of_optax if library == "optax" else of_torch
            for key, value in run(name, case.peer_arguments).items():
                recorded[f"{i} {case.peer} {key}"] = value
    np.savez_compressed(HERE / "optim.npz", **recorded)
    text = json.dumps({name: signature(name) for name in SIGNATURES}, indent=1)
    (HERE / "optax_signatures.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Records what other implementations do, in float64, as the truth of tests/optim/test_modern.py.

Run by hand, `python tests/golden/record_optim_modern.py`, with optax, torch,
pytorch-optimizer, schedulefree installed; it writes optim_modern.npz beside it.
Fifty updates along fixed gradients; the updates at `KEPT` are kept.
"""

from __future__ import annotations

import inspect
import json
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from optax import contrib

jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)  # torch keeps some rates as tensors
STEPS = 50
KEPT = (0, 1, 2, 8, 24, 49)
NAMES = (
    "sign_sgd",
    "signum",
    "lion",
    "rprop",
    "lars",
    "lamb",
    "adafactor",
    "muon",
    "schedule_free",
    "schedule_free_sgd",
    "schedule_free_adamw",
    "prodigy",
    "dadapt_adamw",
    "dog",
    "dowg",
    "ademamix",
    "adopt",
    "sophia",
    "polyak_sgd",
    "noisy_sgd",
)
VALUES = np.random.default_rng(3).normal(size=STEPS) + 0.5
SHAPES = {"bias": (3,), "kernel": (4, 3), "tensor": (2, 5, 3)}


def problem():
    """Parameters and gradients, with elements that are always, or now and then, 0 or 1e-12."""
    rng = np.random.default_rng(20)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    grads = {name: rng.normal(size=(STEPS, *shape)) for name, shape in SHAPES.items()}
    for g in grads.values():
        flat = g.reshape(STEPS, -1)
        flat[:, 0] = 0  # an element that never has a gradient
        flat[:, 1] = 1e-12 * np.sign(flat[:, 1])  # one that hardly has
        flat[7, :] = 0  # an update without any
        flat[3:6, 2] = 0
        flat[10:13, 2] *= 1e-12
    return params, grads


def at(tree, t):
    return {name: x[t] for name, x in tree.items()}


def with_optax(optimizer, **extra):
    """The updates of an optax optimizer, and its parameters at the end."""
    params, grads = problem()
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    updates = []
    for t in range(STEPS):
        now = {name: value[t] for name, value in extra.items()}
        move, state = step(jax.tree.map(jnp.asarray, at(grads, t)), state, params, **now)
        params = optax.apply_updates(params, move)
        updates.append(jax.tree.map(np.asarray, move))
    return updates, params, state


def with_torch(make, names=tuple(SHAPES)):
    """The updates of a torch optimizer over the named parameters."""
    params, grads = problem()
    tensors = {n: torch.nn.Parameter(torch.tensor(params[n], dtype=torch.float64)) for n in names}
    optimizer = make(list(tensors.values()))
    if hasattr(optimizer, "train"):
        optimizer.train()
    updates = []
    for t in range(STEPS):
        before = {name: x.detach().numpy().copy() for name, x in tensors.items()}
        for name, x in tensors.items():
            x.grad = torch.tensor(grads[name][t], dtype=torch.float64)
        optimizer.step()
        updates.append({name: x.detach().numpy() - before[name] for name, x in tensors.items()})
    return updates, optimizer, {name: x.detach().numpy() for name, x in tensors.items()}


def soap(**options):
    """pytorch-optimizer's SOAP, its QR decomposition kept in float64 instead of float32."""
    from pytorch_optimizer.optimizer import soap as module

    class Torch:
        float32 = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    with mock.patch.object(module, "torch", Torch()):
        names = ("bias", "kernel", "tensor")
        return with_torch(lambda tensors: module.SOAP(tensors, **options), names)


def inverse_root(matrix, exponent, eps):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag((values + eps) ** -exponent) @ vectors.T


def shampoo(lr, momentum, b2, eps, decay, exponent=None, every=1, graft=None, longest=99):
    """Algorithms 1 and 2 of the paper, its diagonal form, momentum over the result."""
    params, grads = problem()
    entries = {
        name: [np.zeros((n, n) if len(shape) > 1 and n <= longest else n) for n in shape]
        for name, shape in SHAPES.items()
    }
    roots = {name: [None] * len(shape) for name, shape in SHAPES.items()}
    velocity = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    squares = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    updates = []
    for t in range(STEPS):
        move = {}
        for name, shape in SHAPES.items():
            u = g = grads[name][t]
            k = len(shape)
            for axis, n in enumerate(shape):
                unfolded = np.moveaxis(g, axis, 0).reshape(n, -1)
                h = entries[name][axis]
                now = unfolded @ unfolded.T if h.ndim == 2 else np.sum(unfolded**2, axis=1)
                h = entries[name][axis] = b2 * h + (1 if b2 == 1 else 1 - b2) * now
                p = 1 / (2 * k) if exponent is None else exponent
                if h.ndim == 1:
                    root = np.diag((h + eps) ** -p)
                else:
                    if t % every == 0:
                        roots[name][axis] = inverse_root(h, p, eps)
                    root = roots[name][axis]
                u = np.moveaxis(np.tensordot(root, u, (1, axis)), 0, axis)
            squares[name] += g**2
            length = np.linalg.norm(u)
            if graft == "sgd" and length:
                u = u * np.linalg.norm(g) / length
            if graft == "adagrad" and length:
                u = u * np.linalg.norm(g / np.sqrt(squares[name] + eps)) / length
            velocity[name] = momentum * velocity[name] + u
            move[name] = -lr * (velocity[name] + decay * params[name])
            params[name] = params[name] + move[name]
        updates.append(move)
    return updates


def sphere_curvature():
    """An estimator for Sophia that is known in closed form: 0.3 w**2 - 0.1."""
    return optax.GradientTransformationExtraArgs(
        lambda params: (),
        lambda grads, state, params=None, **_: (
            jax.tree.map(lambda w: 0.3 * w**2 - 0.1, params),
            state,
        ),
    )


def signatures():
    """The numeric and boolean defaults of optax's constructors, in their order."""
    found = {}
    for name in NAMES:
        make = getattr(optax, name, None) or getattr(contrib, name)
        found[name] = [
            [p.name, p.default if p.default is not p.empty else "required"]
            for p in inspect.signature(make).parameters.values()
        ]
    return found


def cases():
    """Each reference by the name that the test knows it by."""
    # optax keeps Adafactor's decay in float32 but where the exponent is a float64 array.
    rate = jnp.float64
    not_bias = {"bias": False, "kernel": True, "tensor": True}
    falling = lambda t: 0.2 / (1 + 0.3 * t)  # noqa: E731
    yield "sign_sgd", with_optax(optax.sign_sgd(falling))[0]
    yield "signum", with_optax(optax.signum(0.3, 0.7))[0]
    yield "lion", with_optax(optax.lion(0.3, 0.6, 0.85, weight_decay=0.2))[0]
    yield "lion mask", with_optax(optax.lion(falling, 0.6, 0.85, None, 0.2, not_bias))[0]
    yield (
        "rprop",
        with_torch(lambda p: torch.optim.Rprop(p, 0.03, (0.4, 1.3), (0.02, 0.09)))[0],
    )
    yield "lars", with_optax(optax.lars(0.3, 0.2, True, 0.05, 0.4, True, 0.7))[0]
    masked = optax.lars(falling, 0.2, not_bias, 0.05, 0.4, not_bias, 0.7, True)
    yield "lars nesterov masks", with_optax(masked)[0]
    yield "lamb", with_optax(optax.lamb(0.3, 0.6, 0.85, 0.1, 0.03, 0.2))[0]
    yield "lamb mask", with_optax(optax.lamb(falling, 0.6, 0.85, 1e-3, 0.0, 0.2, not_bias))[0]
    yield (
        "adafactor",
        with_optax(optax.adafactor(0.3, 3, rate(0.7), eps=1e-3, clipping_threshold=0.6))[0],
    )
    yield (
        "adafactor momentum decay",
        with_optax(
            optax.adafactor(
                falling,
                2,
                rate(0.6),
                0,
                False,
                0.8,
                0.7,
                jnp.float64,
                0.1,
                1e-2,
                True,
                not_bias,
            )
        )[0],
    )
    yield (
        "adafactor whole",
        with_optax(optax.adafactor(None, 2, rate(0.9), clipping_threshold=None, factored=False))[0],
    )
    yield "muon", with_optax(contrib.muon(0.3, beta=0.7, eps=0.1, weight_decay=0.2))[0]
    yield (
        "muon plain",
        with_optax(
            contrib.muon(
                falling,
                (3.0, -3.2, 1.2),
                3,
                0.6,
                1e-4,
                0.2,
                {"bias": True, "kernel": False, "tensor": True},
                nesterov=False,
                adaptive=True,
                adam_b1=0.8,
                adam_b2=0.9,
                adam_eps_root=0.02,
                adam_weight_decay=0.3,
                adam_learning_rate=0.05,
                consistent_rms=0.3,
                muon_weight_dimension_numbers={
                    "bias": None,
                    "kernel": contrib.MuonDimensionNumbers(1, 0),
                    "tensor": contrib.MuonDimensionNumbers(2, 0),
                },
            )
        )[0],
    )
    both = {
        "bias": None,
        "kernel": contrib.MuonDimensionNumbers(),
        "tensor": contrib.MuonDimensionNumbers((2, 0), 1),
    }
    for kind in ("spectral", "aol"):
        made = contrib.muon(
            0.3,
            "dion" if kind == "spectral" else (3.0, -3.2, 1.2),
            beta=0.7,
            eps=0.1,
            preconditioning=kind,
            muon_weight_dimension_numbers=both,
        )
        yield f"muon {kind}", with_optax(made)[0]
    yield "shampoo", shampoo(0.3, 0.7, 1.0, 0.01, 0.2)
    yield "shampoo average", shampoo(0.3, 0.0, 0.8, 0.1, 0.0, exponent=0.4, every=3, longest=4)
    yield "shampoo sgd", shampoo(0.3, 0.6, 0.9, 0.1, 0.0, graft="sgd")
    yield "shampoo adagrad", shampoo(0.3, 0.6, 1.0, 0.2, 0.1, graft="adagrad", longest=3)
    plain = {"lr": 0.3, "weight_decay": 0.0, "eps": 1e-3}
    yield "soap", soap(**plain, betas=(0.7, 0.8), precondition_frequency=3)[0]
    yield (
        "soap frequent",
        soap(
            **plain,
            betas=(0.7, 0.8),
            shampoo_beta=0.6,
            precondition_frequency=1,
            max_precondition_dim=4,
            correct_bias=False,
        )[0],
    )
    options = {"betas": (0.6, 0.9), "precondition_1d": True, "precondition_frequency": 2}
    yield "soap vectors", soap(**plain, **options)[0]
    free = contrib.schedule_free_sgd(0.3, None, 0.7, 0.2, 1.5)
    updates, params, state = with_optax(free)
    yield "schedule_free_sgd", updates
    yield "schedule_free_sgd average", [contrib.schedule_free_eval_params(state, params)]
    free = contrib.schedule_free_adamw(0.3, None, 0.7, 0.8, 0.1, 0.2, 1.5)
    yield "schedule_free_adamw", with_optax(free)[0]
    import schedulefree

    made = lambda p: schedulefree.AdamWScheduleFree(  # noqa: E731
        p, 0.3, (0.7, 0.8), 0.1, 0.2, 20, 0.0, 1.5, foreach=False
    )
    updates, optimizer, _ = with_torch(made)
    yield "schedule_free_adamw warmup", updates
    optimizer.eval()
    average = (p.detach().numpy() for p in optimizer.param_groups[0]["params"])
    yield "schedule_free_adamw warmup average", [dict(zip(SHAPES, average, strict=True))]
    made = lambda p: schedulefree.SGDScheduleFree(  # noqa: E731
        p, 0.3, 0.6, 0.2, 20, weight_lr_power=0.5, foreach=False
    )
    yield "schedule_free_sgd warmup", with_torch(made)[0]
    for safe in (False, True):
        made = contrib.prodigy(0.7, (0.6, 0.85), 0.9, 0.1, 1e-2, 1.7, 0.2, safe)
        yield f"prodigy safeguard={safe}", with_optax(made)[0]
    yield "prodigy beta3", with_optax(contrib.prodigy(0.7, (0.6, 0.85), None, 0.1, 1e-2))[0]
    yield "dadapt_adamw", with_optax(contrib.dadapt_adamw(0.7, (0.6, 0.85), 0.1, 1e-2, 0.2))[0]
    for kind, number in (("heuristic", 0.01), ("distance", 0.05), ("learning_rate", 0.07)):
        made = contrib.dog(0.7, (kind, number), 0.3, 0.2, not_bias)
        yield f"dog {kind}", with_optax(made)[0]
    yield "dowg", with_optax(contrib.dowg(0.7, 0.05, 0.3, 0.2, not_bias))[0]
    yield "dowg plain", with_optax(contrib.dowg(eps=0.04))[0]
    yield (
        "ademamix",
        with_optax(contrib.ademamix(0.3, 0.6, 0.85, 0.95, 2.5, 0.1, 0.03, None, 0.2, not_bias))[0],
    )
    yield "adopt", with_optax(contrib.adopt(0.3, 0.6, 0.85, 0.1))[0]
    made = contrib.adopt(falling, 0.6, 0.85, 0.3, nesterov=True, use_clipping=False)
    yield "adopt nesterov", with_optax(made)[0]
    made = contrib.adopt(0.3, 0.6, 0.85, 1e-2, clip_value_fn=lambda t: 0.3 * t)
    yield "adopt clip", with_optax(made)[0]
    sophia = contrib.sophia(
        0.3, 0.6, 0.85, 0.01, 0.2, not_bias, 0.4, 0.7, 3, hessian_diagonal_fn=sphere_curvature()
    )
    yield "sophia", with_optax(sophia)[0]
    for variant in ("sps", "sps+"):
        made = optax.polyak_sgd(0.02, 1.0, 0.3, 0.1, variant)
        yield f"polyak_sgd {variant}", with_optax(made, value=VALUES)[0]
    updates, optimizer, _ = with_torch(lambda p: torch.optim.ASGD(p, 0.3, 0.2, 0.6, 11.0, 0.1))
    yield "asgd", updates
    states = (optimizer.state[p]["ax"].numpy() for p in optimizer.param_groups[0]["params"])
    yield "asgd average", [dict(zip(SHAPES, states, strict=True))]


def main() -> None:
    params, grads = problem()
    arrays = {f"params/{k}": x for k, x in params.items()}
    arrays |= {f"grads/{k}": x for k, x in grads.items()} | {"values": VALUES}
    for name, updates in cases():
        kept = [updates[i] for i in KEPT] if len(updates) == STEPS else updates
        for key in SHAPES:
            if key in kept[0]:
                arrays[f"{name}/{key}"] = np.stack([np.asarray(u[key]) for u in kept])
    path = pathlib.Path(__file__).parent / "optim_modern.npz"
    np.savez_compressed(path, **arrays)
    text = json.dumps(signatures(), indent=1, default=lambda value: "other")
    path.with_name("optim_modern_signatures.json").write_text(text + "\n")
    print(path, path.stat().st_size, "bytes", len(arrays), "arrays")


if __name__ == "__main__":
    main()

"""The modern optimizers against recorded optax, torch and authors' code (golden/)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim
from jdl.optim.base import Optimizer

PATH = pathlib.Path(__file__).parent.parent / "golden" / "optim_modern.npz"
STEPS = 50
KEPT = np.array((0, 1, 2, 8, 24, 49))
NOT_BIAS = {"bias": False, "kernel": True, "tensor": True}
BOTH = {
    "bias": None,
    "kernel": optim.MuonDimensionNumbers(),
    "tensor": optim.MuonDimensionNumbers((2, 0), 1),
}


def falling(t):
    return 0.2 / (1 + 0.3 * t)


def curvature():
    """An estimator for Sophia that is known in closed form: 0.3 w**2 - 0.1."""
    return Optimizer(
        lambda params: (),
        lambda grads, state, params=None, **_: (
            jax.tree.map(lambda w: 0.3 * w**2 - 0.1, params),
            state,
        ),
    )


CASES = {
    "sign_sgd": optim.sign_sgd(falling),
    "signum": optim.signum(0.3, 0.7),
    "lion": optim.lion(0.3, 0.6, 0.85, weight_decay=0.2),
    "lion mask": optim.lion(falling, 0.6, 0.85, None, 0.2, NOT_BIAS),
    "rprop": optim.rprop(0.03, 0.4, 1.3, 0.02, 0.09),
    "lars": optim.lars(0.3, 0.2, True, 0.05, 0.4, True, 0.7),
    "lars nesterov masks": optim.lars(falling, 0.2, NOT_BIAS, 0.05, 0.4, NOT_BIAS, 0.7, True),
    "lamb": optim.lamb(0.3, 0.6, 0.85, 0.1, 0.03, 0.2),
    "lamb mask": optim.lamb(falling, 0.6, 0.85, 1e-3, 0.0, 0.2, NOT_BIAS),
    "adafactor": optim.adafactor(0.3, 3, 0.7, eps=1e-3, clipping_threshold=0.6),
    "adafactor momentum decay": optim.adafactor(
        falling, 2, 0.6, 0, False, 0.8, 0.7, jnp.float64, 0.1, 1e-2, True, NOT_BIAS
    ),
    "adafactor whole": optim.adafactor(None, 2, 0.9, clipping_threshold=None, factored=False),
    "muon": optim.muon(0.3, beta=0.7, eps=0.1, weight_decay=0.2),
    "muon plain": optim.muon(
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
            "kernel": optim.MuonDimensionNumbers(1, 0),
            "tensor": optim.MuonDimensionNumbers(2, 0),
        },
    ),
    "muon spectral": optim.muon(
        0.3,
        "dion",
        beta=0.7,
        eps=0.1,
        preconditioning="spectral",
        muon_weight_dimension_numbers=BOTH,
    ),
    "muon aol": optim.muon(
        0.3,
        (3.0, -3.2, 1.2),
        beta=0.7,
        eps=0.1,
        preconditioning="aol",
        muon_weight_dimension_numbers=lambda params: BOTH,
    ),
    "shampoo": optim.shampoo(0.3, 0.7, 1.0, 0.01, 0.2),
    "shampoo average": optim.shampoo(
        0.3, 0.0, 0.8, 0.1, 0.0, exponent=0.4, precondition_frequency=3, max_precond_dim=4
    ),
    "shampoo sgd": optim.shampoo(0.3, 0.6, 0.9, 0.1, graft="sgd"),
    "shampoo adagrad": optim.shampoo(0.3, 0.6, 1.0, 0.2, 0.1, graft="adagrad", max_precond_dim=3),
    "soap": optim.soap(0.3, 0.7, 0.8, None, 1e-3, 0.0, precondition_frequency=3),
    "soap frequent": optim.soap(
        0.3,
        0.7,
        0.8,
        0.6,
        1e-3,
        0.0,
        precondition_frequency=1,
        max_precond_dim=4,
        bias_correction=False,
    ),
    "soap vectors": optim.soap(
        0.3, 0.6, 0.9, None, 1e-3, 0.0, precondition_frequency=2, precondition_1d=True
    ),
    "schedule_free_sgd": optim.schedule_free_sgd(0.3, None, 0.7, 0.2, 1.5),
    "schedule_free_adamw": optim.schedule_free_adamw(0.3, None, 0.7, 0.8, 0.1, 0.2, 1.5),
    "schedule_free_adamw warmup": optim.schedule_free_adamw(0.3, 20, 0.7, 0.8, 0.1, 0.2, 1.5),
    "schedule_free_sgd warmup": optim.schedule_free_sgd(0.3, 20, 0.6, 0.2, 0.5),
    "prodigy safeguard=False": optim.prodigy(0.7, (0.6, 0.85), 0.9, 0.1, 1e-2, 1.7, 0.2),
    "prodigy safeguard=True": optim.prodigy(0.7, (0.6, 0.85), 0.9, 0.1, 1e-2, 1.7, 0.2, True),
    "prodigy beta3": optim.prodigy(0.7, (0.6, 0.85), None, 0.1, 1e-2),
    "dadapt_adamw": optim.dadapt_adamw(0.7, (0.6, 0.85), 0.1, 1e-2, 0.2),
    "dog heuristic": optim.dog(0.7, ("heuristic", 0.01), 0.3, 0.2, NOT_BIAS),
    "dog distance": optim.dog(0.7, ("distance", 0.05), 0.3, 0.2, NOT_BIAS),
    "dog learning_rate": optim.dog(0.7, ("learning_rate", 0.07), 0.3, 0.2, NOT_BIAS),
    "dowg": optim.dowg(0.7, 0.05, 0.3, 0.2, NOT_BIAS),
    "dowg plain": optim.dowg(eps=0.04),
    "ademamix": optim.ademamix(0.3, 0.6, 0.85, 0.95, 2.5, 0.1, 0.03, None, 0.2, NOT_BIAS),
    "adopt": optim.adopt(0.3, 0.6, 0.85, 0.1),
    "adopt nesterov": optim.adopt(falling, 0.6, 0.85, 0.3, nesterov=True, use_clipping=False),
    "adopt clip": optim.adopt(0.3, 0.6, 0.85, 1e-2, clip_value_fn=lambda t: 0.3 * t),
    "sophia": optim.sophia(
        0.3, 0.6, 0.85, 0.01, 0.2, NOT_BIAS, 0.4, 0.7, 3, hessian_diagonal_fn=curvature()
    ),
    "polyak_sgd sps": optim.polyak_sgd(0.02, 1.0, 0.3, 0.1, "sps"),
    "polyak_sgd sps+": optim.polyak_sgd(0.02, 1.0, 0.3, 0.1, "sps+"),
    "asgd": optim.asgd(0.3, 0.2, 0.6, 11.0, 0.1),
}
AVERAGES = {
    "schedule_free_sgd average": optim.schedule_free_eval_params,
    "schedule_free_adamw warmup average": optim.schedule_free_eval_params,
    "asgd average": lambda state, params: state.average,
}
# Where an update is the end of a long sum or of matrix products, one element of it
# is exact only to the size of the others.
COUPLED = ("muon", "shampoo", "soap", "schedule_free", "prodigy", "dadapt", "dog", "dowg", "asgd")


@pytest.fixture(scope="module")
def golden():
    with np.load(PATH) as file:
        return {name: file[name] for name in file.files}


def tree(golden, name):
    return {key: golden[f"{name}/{key}"] for key in NOT_BIAS if f"{name}/{key}" in golden}


def run(optimizer, golden):
    """All updates, stacked, and the last state and parameters."""

    def step(carry, inputs):
        params, state = carry
        grads, value = inputs
        updates, state = optimizer.update(grads, state, params, value=value)
        return (optim.apply_updates(params, updates), state), updates

    def loop(params, grads, values):
        return jax.lax.scan(step, (params, optimizer.init(params)), (grads, values))

    values = golden["values"]
    (params, state), updates = jax.jit(loop)(tree(golden, "params"), tree(golden, "grads"), values)
    return updates, state, params


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_equal_the_recorded_ones(name, golden, x64):
    updates, state, params = run(CASES[name], golden)
    for key, expected in tree(golden, name).items():
        scale = np.max(np.abs(expected)) if name.startswith(COUPLED) else 1e-4
        np.testing.assert_allclose(
            updates[key][KEPT], expected, rtol=1e-12, atol=1e-12 * scale, err_msg=key
        )
    average = f"{name} average"
    if average in AVERAGES:
        found = AVERAGES[average](state, params)
        for key, expected in tree(golden, average).items():
            np.testing.assert_allclose(found[key], expected[0], rtol=1e-12, err_msg=key)


def test_every_recording_is_compared(golden):
    names = {name.rsplit("/", 1)[0] for name in golden}
    assert names - {"params", "grads", "values"} == {*CASES, *AVERAGES}

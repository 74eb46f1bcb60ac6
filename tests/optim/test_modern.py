"""What all modern rules keep to: names, defaults, buffers, and standing zeros."""

import importlib
import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.optim.modern import golden, vector

from jdl import optim

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FILES = [
    importlib.import_module(f"tests.optim.{path}")
    for path in (
        "elementwise.test_adopt",
        "elementwise.test_ademamix",
        "elementwise.test_langevin",
        "elementwise.test_sign",
        "elementwise.test_sophia",
        "free.test_distance",
        "free.test_parameter_free",
        "free.test_polyak",
        "free.test_schedule_free",
        "matrix.test_factored",
        "matrix.test_layerwise",
        "matrix.test_muon",
        "matrix.test_shampoo",
        "matrix.test_soap",
    )
]
RANGES = {make: numbers for file in FILES for make, numbers in file.RANGES.items()}
NEEDS = {make: needs for file in FILES for make, needs in getattr(file, "NEEDS", {}).items()}


def test_every_recording_is_compared():
    compared = {name for file in FILES for name in getattr(file, "CASES", ())}
    compared |= {name for file in FILES for name in getattr(file, "AVERAGES", ())}
    names = {name.rsplit("/", 1)[0] for name in golden()}
    assert names - {"params", "grads", "values"} == compared


def test_static_choices_are_named():
    for call, message in (
        (lambda: optim.muon(0.1, "fast"), "`ns_coeffs` must be one of 'standard', 'dion', got"),
        (lambda: optim.shampoo(0.1, graft="adam"), "`graft` must be one of None, 'sgd', 'adagrad'"),
        (lambda: optim.shampoo(0.1, method="svd"), "`method` must be one of 'eigh', 'newton'"),
        (lambda: optim.polyak_sgd(variant="sps2"), "`variant` must be one of 'sps', 'sps[+]'"),
        (lambda: optim.noisy_sgd(0.1), r"noisy_sgd needs a key: .*got key=None"),
        (lambda: optim.sgld(0.1), r"sgld needs a key: .*got key=None"),
        (lambda: optim.sophia(0.1), r"sophia needs a key for its estimator: .*got None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


NOT_OPTAX = {
    "shampoo": {
        "learning_rate": "required",
        "momentum": 0.9,
        "b2": 1.0,
        "eps": 1e-6,
        "weight_decay": 0.0,
        "mask": None,
        "exponent": None,
        "precondition_frequency": 1,
        "max_precond_dim": 2048,
        "graft": None,
        "method": "eigh",
        "newton_steps": 40,
    },
    "soap": {
        "learning_rate": "required",
        "b1": 0.95,
        "b2": 0.95,
        "shampoo_beta": None,
        "eps": 1e-8,
        "weight_decay": 0.01,
        "mask": None,
        "precondition_frequency": 10,
        "max_precond_dim": 10_000,
        "precondition_1d": False,
        "bias_correction": True,
    },
    "asgd": {
        "learning_rate": "required",
        "lambd": 1e-4,
        "alpha": 0.75,
        "t0": 1e6,
        "weight_decay": 0.0,
    },
    "sgld": {"learning_rate": "required", "temperature": 1.0, "key": None},
    "orthogonalize": {
        "x": "required",
        "ns_coeffs": (3.4445, -4.7750, 2.0315),
        "ns_steps": 5,
        "preconditioning": "frobenius",
        "eps": 1e-8,
    },
    "inverse_root": {
        "matrix": "required",
        "exponent": "required",
        "eps": 0.0,
        "method": "eigh",
        "newton_steps": 40,
    },
}
DROPPED = {"verbose", "print_win_rate_every_n_steps", "seed"}


def test_names_order_and_defaults_are_optax_s():
    recorded = json.loads((GOLDEN / "optim_modern_signatures.json").read_text())
    expected = {name: dict(pairs) for name, pairs in recorded.items()} | NOT_OPTAX
    for name, theirs in expected.items():
        found = inspect.signature(getattr(optim, name)).parameters
        ours = {p.name: "required" if p.default is p.empty else p.default for p in found.values()}
        for argument, default in theirs.items():
            if argument in DROPPED or "other" in np.ravel(np.array(default, dtype=object)):
                continue
            given = ours[argument]
            assert (list(given) if isinstance(given, tuple) else given) == (
                list(default) if isinstance(default, tuple) else default
            ), f"{name}: {argument}"
        order = [argument for argument in theirs if argument not in DROPPED]
        assert list(ours)[: len(order)] == order, name


def test_every_one_is_known_by_name():
    for name in (*json.loads((GOLDEN / "optim_modern_signatures.json").read_text()), *NOT_OPTAX):
        if name not in ("schedule_free", "orthogonalize", "inverse_root"):
            assert optim.by_name(name) is getattr(optim, name)


def test_matrix_rules_keep_no_more_than_they_need():
    params = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3), "s": jnp.zeros(())}
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    muon = optim.muon(0.1).init(params)
    assert [x.size for x in jax.tree.leaves(muon.second_moment)] == [3, 1, 0]
    shampoo = optim.shampoo(0.1, max_precond_dim=3).init(params)
    assert shapes(shampoo.statistics) == {"w": ((4,), (3, 3)), "b": ((3,),), "s": ((1,),)}
    assert shapes(shampoo.preconditioners["w"]) == ((0, 0), (3, 3))
    assert jax.tree.leaves(shampoo.accumulator)[0].size == 0
    soap = optim.soap(0.1, max_precond_dim=3).init(params)
    assert shapes(soap.bases) == {"w": ((0, 0), (3, 3)), "b": ((0, 0),), "s": ()}
    adafactor = optim.adafactor(0.1, 3).init(params)
    assert (adafactor.rows["w"].shape, adafactor.columns["w"].shape) == ((3,), (4,))
    assert adafactor.second_moment["w"] is adafactor.rows["b"] is adafactor.momentum["w"] is None
    assert optim.adafactor(0.1, 4).init(params).second_moment["w"].shape == (4, 3)


def test_gradients_that_are_always_zero_leave_the_estimates_finite():
    params, zero = vector(1.0, -2.0), vector(0.0, 0.0)
    for make in (optim.prodigy, optim.dadapt_adamw, optim.dog, optim.dowg):
        options = {} if make is optim.dowg else {"eps": 0.0}
        optimizer = make(**options)
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(zero, state, params)
            np.testing.assert_array_equal(updates, 0, err_msg=make.__name__)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state)), make.__name__


def test_an_eps_of_zero_and_a_dead_element_move_nothing():
    params, g = vector(1.0, -2.0), vector(0.0, 3.0)
    for optimizer in (
        optim.lamb(0.1, eps=0.0),
        optim.ademamix(0.1, eps=0.0),
        optim.adopt(0.1, eps=0.0),
        optim.muon(0.1, eps=0.0),
        optim.schedule_free_adamw(0.1, eps=0.0),
        optim.prodigy(eps=0.0),
        optim.shampoo(0.1, eps=0.0),
    ):
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(g, state, params)
        assert updates[0] == 0 and np.isfinite(updates[1]) and updates[1] != 0


def test_first_state_and_parameters_share_no_buffer():
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    for make in RANGES:
        optimizer = make(
            **({"learning_rate": 0.1} if "learning_rate" in RANGES[make] else {}),
            **NEEDS.get(make, {}),
        )
        leaves = jax.tree.leaves((params, optimizer.init(params)))
        buffers = [x.unsafe_buffer_pointer() for x in leaves if x.size]
        assert len(set(buffers)) == len(buffers), make.__name__

"""The modern optimizers: their ranges, defaults and errors, and what no recording can show."""

import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from jdl import optim

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
KEY = jax.random.key(11)
inf = float("inf")


def vector(*values):
    return jnp.array(values, jnp.float32)


def one_update(optimizer, params, grads, **extra):
    return optimizer.update(grads, optimizer.init(params), params, **extra)[0]


# Ranges ---------------------------------------------------------------------------------

NOT_NEGATIVE = ("[0, inf)", (0.0, 3.0), (-0.1, inf))
POSITIVE = ("(0, inf)", (1e-3, 3.0), (0.0, -1.0, inf))
DECAY = ("[0, 1)", (0.0, 0.99), (-0.1, 1.0))
AT_LEAST_ONE = ("[1, inf)", (1.0, 9.0), (0.9, inf))
UP_TO_INF = ("(0, inf]", (1e-3, inf), (0.0, -1.0))
RANGES = {
    optim.sign_sgd: {"learning_rate": POSITIVE},
    optim.signum: {"learning_rate": POSITIVE, "beta": DECAY},
    optim.lion: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.rprop: {
        "learning_rate": POSITIVE,
        "eta_minus": ("(0, 1]", (0.1, 1.0), (0.0, 1.1)),
        "eta_plus": AT_LEAST_ONE,
        "min_step_size": NOT_NEGATIVE,
        "max_step_size": UP_TO_INF,
    },
    optim.lars: {
        "learning_rate": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "trust_coefficient": POSITIVE,
        "eps": NOT_NEGATIVE,
        "momentum": DECAY,
    },
    optim.lamb: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "eps_root": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.adafactor: {
        "learning_rate": POSITIVE,
        "decay_rate": ("[0, 1]", (0.0, 1.0), (-0.1, 1.1)),
        "decay_offset": NOT_NEGATIVE,
        "clipping_threshold": UP_TO_INF,
        "momentum": DECAY,
        "weight_decay_rate": NOT_NEGATIVE,
        "eps": POSITIVE,
    },
    optim.muon: {
        "learning_rate": POSITIVE,
        "beta": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "adam_b1": DECAY,
        "adam_b2": DECAY,
        "adam_eps_root": NOT_NEGATIVE,
        "adam_weight_decay": NOT_NEGATIVE,
        "adam_learning_rate": POSITIVE,
        "consistent_rms": POSITIVE,
    },
    optim.shampoo: {
        "learning_rate": POSITIVE,
        "momentum": DECAY,
        "b2": ("(0, 1]", (0.1, 1.0), (0.0, 1.1)),
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "exponent": POSITIVE,
        "precondition_frequency": AT_LEAST_ONE,
    },
    optim.soap: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "shampoo_beta": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "precondition_frequency": AT_LEAST_ONE,
    },
    optim.schedule_free: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "weight_lr_power": NOT_NEGATIVE,
    },
    optim.schedule_free_sgd: {
        "learning_rate": POSITIVE,
        "warmup_steps": AT_LEAST_ONE,
        "b1": DECAY,
        "weight_decay": NOT_NEGATIVE,
        "weight_lr_power": NOT_NEGATIVE,
    },
    optim.schedule_free_adamw: {
        "learning_rate": POSITIVE,
        "warmup_steps": AT_LEAST_ONE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "weight_lr_power": NOT_NEGATIVE,
    },
    optim.prodigy: {
        "learning_rate": POSITIVE,
        "beta3": DECAY,
        "eps": NOT_NEGATIVE,
        "estim_lr0": POSITIVE,
        "estim_lr_coef": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.dadapt_adamw: {
        "learning_rate": POSITIVE,
        "eps": NOT_NEGATIVE,
        "estim_lr0": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.dog: {"learning_rate": POSITIVE, "eps": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE},
    optim.dowg: {
        "learning_rate": POSITIVE,
        "init_estim_sq_dist": POSITIVE,
        "eps": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.ademamix: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "b3": DECAY,
        "alpha": NOT_NEGATIVE,
        "eps": NOT_NEGATIVE,
        "eps_root": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    },
    optim.adopt: {"learning_rate": POSITIVE, "b1": DECAY, "b2": DECAY, "eps": NOT_NEGATIVE},
    optim.sophia: {
        "learning_rate": POSITIVE,
        "b1": DECAY,
        "b2": DECAY,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "gamma": POSITIVE,
        "clip_threshold": UP_TO_INF,
        "update_interval": AT_LEAST_ONE,
    },
    optim.noisy_sgd: {"learning_rate": POSITIVE, "eta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE},
    optim.sgld: {"learning_rate": POSITIVE, "temperature": NOT_NEGATIVE},
    optim.polyak_sgd: {
        "max_learning_rate": UP_TO_INF,
        "scaling": POSITIVE,
        "f_min": ("(-inf, inf)", (-5.0, 5.0), (inf,)),
        "eps": NOT_NEGATIVE,
    },
    optim.asgd: {
        "learning_rate": POSITIVE,
        "lambd": NOT_NEGATIVE,
        "alpha": NOT_NEGATIVE,
        "t0": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
    },
}
NEEDS = {
    optim.noisy_sgd: {"key": KEY},
    optim.sgld: {"key": KEY},
    optim.sophia: {"key": KEY},
    optim.schedule_free: {"base_optimizer": optim.sgd(0.1)},
}


@pytest.mark.parametrize("make", RANGES, ids=lambda make: make.__name__)
def test_each_number_is_held_to_its_range(make):
    required = {"learning_rate": 0.1} if "learning_rate" in RANGES[make] else {}
    required |= NEEDS.get(make, {})
    for name, (interval, inside, outside) in RANGES[make].items():
        for value in inside:
            make(**(required | {name: value}))
        for value in outside:
            with pytest.raises(ValueError) as error:
                make(**(required | {name: value}))
            assert f"`{name}` must be in {interval}, got {name}={value}." in str(error.value)


@pytest.mark.parametrize("make", [optim.prodigy, optim.dadapt_adamw])
def test_both_betas_are_held_to_their_range(make):
    for betas, name in (((1.0, 0.5), "b1"), ((0.5, 1.0), "b2")):
        with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\), got {name}=1.0"):
            make(betas=betas)


def test_dog_names_the_ways_to_start():
    with pytest.raises(ValueError, match="`init_step` must be one of 'heuristic', 'distance'"):
        optim.dog(init_step=("length", 1.0))
    with pytest.raises(ValueError, match=r"`init_step` must be in \(0, inf\), got init_step=0.0"):
        optim.dog(init_step=("distance", 0.0))


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


# Defaults -------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    "make",
    [
        make
        for make in RANGES
        if make
        not in (
            optim.sign_sgd,
            optim.signum,
            optim.rprop,
            optim.adopt,
            optim.noisy_sgd,
            optim.sgld,
            optim.polyak_sgd,
        )
    ],
    ids=lambda make: make.__name__,
)
def test_says_that_it_needs_the_parameters(make):
    optimizer = make(**({"learning_rate": 0.1} | NEEDS.get(make, {})))
    params = vector(1.0, 2.0)
    name = make.__name__ if "schedule_free" not in make.__name__ else "schedule_free"
    with pytest.raises(ValueError, match=rf"{name} needs the parameters: .*got params=None"):
        optimizer.update(params, optimizer.init(params))


# Matrices -------------------------------------------------------------------------------


def random_matrices(*shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_orthogonalize_maps_the_singular_values_by_the_quintic(preconditioning, x64):
    x = np.asarray(random_matrices(5, 3))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    left = x
    if preconditioning == "frobenius":
        s = s / (np.linalg.norm(x) + 0.1)
    elif preconditioning == "spectral":
        s = s / (s[0] + 0.1)
    elif preconditioning == "schatten":
        s = s / np.sqrt(np.linalg.norm(x.T @ x))
    else:
        left = x / np.sqrt(np.abs(x.T @ x).sum(axis=0))[None, :]
        u, s, v = np.linalg.svd(left, full_matrices=False)
    for _ in range(4):
        s = 3.0 * s - 3.2 * s**3 + 1.2 * s**5
    for matrix, expected in ((x, u @ np.diag(s) @ v), (x.T, (u @ np.diag(s) @ v).T)):
        found = optim.orthogonalize(jnp.asarray(matrix), (3.0, -3.2, 1.2), 4, preconditioning, 0.1)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_orthogonalize_floors_the_scale_of_a_small_matrix(x64):
    x = 1e-3 * random_matrices(2, 4)
    for kind in ("aol", "schatten"):
        found = optim.orthogonalize(x, (1.0, 0.0, 0.0), 1, kind, 0.25)
        np.testing.assert_allclose(found, x / 0.5, rtol=1e-12)
    np.testing.assert_array_equal(optim.orthogonalize(0 * x, eps=0.0), 0)


def test_orthogonalize_takes_a_triple_for_each_iteration(x64):
    x = random_matrices(2, 3, 4)
    rows = ((3.0, -3.2, 1.2), (1.5, -0.5, 0.0))
    first = optim.orthogonalize(x, rows[:1], 9, "frobenius", 0.0)
    both = optim.orthogonalize(x, rows, 9, "frobenius", 0.0)
    s = first @ jnp.swapaxes(first, 1, 2)
    np.testing.assert_allclose(both, 1.5 * first - 0.5 * s @ first, rtol=1e-12, atol=1e-14)
    for single, batch in zip(x, both, strict=True):
        alone = optim.orthogonalize(single, rows, 9, "frobenius", 0.0)
        np.testing.assert_allclose(alone, batch, rtol=1e-12)


def test_standard_coefficients_bring_singular_values_near_one():
    s = np.linalg.svd(optim.orthogonalize(random_matrices(8, 30)), compute_uv=False)
    assert s.min() > 0.6 and s.max() < 1.25


def test_orthogonalize_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"`preconditioning` must be one of 'frobenius', 'spe"):
        optim.orthogonalize(jnp.eye(2), preconditioning="none")
    for coefficients in ((1.0, 2.0), jnp.ones((1, 1, 3))):
        with pytest.raises(ValueError, match=r"`ns_coeffs` must be \(a, b, c\) .* got shape \("):
            optim.orthogonalize(jnp.eye(2), coefficients)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_inverse_root_is_scipy_s_fractional_power(method, x64):
    x = np.asarray(random_matrices(4, 9))
    matrix = x @ x.T
    for p, eps in ((2, 0.0), (4, 0.3), (6, 0.0)):
        expected = linalg.fractional_matrix_power(matrix + eps * np.eye(4), -1 / p)
        found = optim.inverse_root(jnp.asarray(matrix), 1 / p, eps, method)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_newton_s_iteration_reaches_a_condition_of_1e12(x64):
    q = np.linalg.qr(np.asarray(random_matrices(3, 3)))[0]
    matrix = q @ np.diag([1e-9, 1.0, 1e3]) @ q.T
    root = optim.inverse_root(jnp.asarray((matrix + matrix.T) / 2), 0.25, 0.0, "newton")
    np.testing.assert_allclose(np.linalg.eigvalsh(root)[-1], 1e-9**-0.25, rtol=1e-5)
    short = optim.inverse_root(jnp.asarray(matrix), 0.25, 0.0, "newton", 20)
    assert np.linalg.eigvalsh(short)[-1] < 0.9 * 1e-9**-0.25


def test_inverse_root_of_a_singular_matrix_is_a_pseudo_inverse(x64):
    matrix = jnp.diag(jnp.array([16.0, 0.0, -1e-18]))
    np.testing.assert_allclose(optim.inverse_root(matrix, 0.25), np.diag([0.5, 0, 0]), atol=1e-15)
    np.testing.assert_array_equal(optim.inverse_root(0 * matrix, 0.25, method="newton"), 0)


def test_inverse_root_says_what_newton_cannot_do():
    message = r"`exponent` must be 1/p for a whole number p .*got exponent=0.3"
    with pytest.raises(ValueError, match=message):
        optim.inverse_root(jnp.eye(2), 0.3, method="newton")
    with pytest.raises(ValueError, match="`exponent` must be 1/p"):
        optim.inverse_root(jnp.eye(2), jnp.float32(0.5), method="newton")
    with pytest.raises(ValueError, match="`method` must be one of 'eigh', 'newton'"):
        optim.inverse_root(jnp.eye(2), 0.5, method="svd")


def test_shampoo_by_newton_equals_shampoo_by_eigh(x64):
    params = {"w": random_matrices(4, 3), "b": jnp.zeros(3), "s": jnp.ones(())}
    grads = jax.tree.map(lambda w: jnp.sin(3 * w + 1), params)
    ours, theirs = (
        one_update(optim.shampoo(0.1, eps=0.2, method=method), params, grads)
        for method in ("eigh", "newton")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, theirs)
    np.testing.assert_allclose(ours["s"], -0.1 * np.sin(4) / np.sqrt(np.sin(4) ** 2 + 0.2))


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
    assert adafactor.second_moment["w"].size == adafactor.rows["b"].size == 0
    assert adafactor.momentum["w"].size == 0
    assert optim.adafactor(0.1, 4).init(params).second_moment["w"].shape == (4, 3)


def test_muon_says_when_the_sides_share_an_axis():
    same = optim.MuonDimensionNumbers(0, -2)
    params = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"different axes for the two sides, .*shape \(2, 3\)"):
        one_update(optim.muon(0.1, muon_weight_dimension_numbers=same), params, jnp.ones((2, 3)))


def test_soap_in_a_turned_basis_takes_the_turned_step(x64):
    """Turning parameters and gradients by orthogonal matrices turns every update by them."""
    left = np.linalg.qr(np.asarray(random_matrices(3, 3)))[0]
    right = np.linalg.qr(np.asarray(random_matrices(4, 4)))[0]
    grads = np.random.default_rng(9).normal(size=(6, 3, 4))
    optimizer = optim.soap(0.1, 0.6, 0.8, eps=1e-3, weight_decay=0.0, precondition_frequency=2)

    def run(grads):
        def step(state, g):
            updates, state = optimizer.update(g, state, jnp.zeros((3, 4)))
            return state, updates

        return jax.lax.scan(step, optimizer.init(jnp.zeros((3, 4))), jnp.asarray(grads))[1]

    straight, turned = run(grads), run(left @ grads @ right)
    np.testing.assert_allclose(turned, left @ np.asarray(straight) @ right, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(straight[0], 0)


# One rule at a time ---------------------------------------------------------------------


def test_layerwise_ratio_is_one_where_a_norm_is_zero():
    zero, g = vector(0.0, 0.0), vector(3.0, 4.0)
    np.testing.assert_allclose(one_update(optim.lars(0.1), zero, g), -0.1 * g, rtol=1e-6)
    lamb = one_update(optim.lamb(0.1, eps=1.0), zero, g)
    np.testing.assert_allclose(lamb, [-0.075, -0.08], rtol=1e-5)
    np.testing.assert_array_equal(one_update(optim.lars(0.1), g, zero), 0)
    np.testing.assert_array_equal(one_update(optim.lamb(0.1), g, zero), 0)


def test_adafactor_starts_afresh_at_its_offset(x64):
    def updates(optimizer, count):
        state, found = optimizer.init(jnp.ones(2)), []
        for i in range(count):
            move, state = optimizer.update(jnp.array([1.0 + i, 2.0]), state, jnp.ones(2))
            found.append(move)
        return found, state

    options = {"clipping_threshold": None, "multiply_by_parameter_scale": False}
    late, state = updates(optim.adafactor(0.1, decay_offset=3, **options), 3)
    for i, move in enumerate(late):
        np.testing.assert_allclose(move, -0.1, rtol=1e-12, err_msg=str(i))
    np.testing.assert_allclose(state.second_moment, [9, 4], rtol=1e-12)


def test_adafactor_takes_a_scale_of_1e_minus_3_for_small_weights():
    small = vector(1e-5, -1e-5)
    options = {"eps": 1e-12, "clipping_threshold": None}
    move = one_update(optim.adafactor(0.1, **options), small, vector(5.0, -7.0))
    np.testing.assert_allclose(move, [-1e-4, 1e-4], rtol=1e-5)


def test_rprop_moves_the_parts_of_a_complex_number_each_by_its_own_step():
    optimizer = optim.rprop(0.1)
    w = jnp.array([1 + 1j])
    state = optimizer.init(w)
    for g, expected in ((2 - 3j, -0.1 + 0.1j), (1 + 2j, -0.12 + 0j), (1 + 5j, -0.144 - 0.05j)):
        move, state = optimizer.update(jnp.array([g]), state, w)
        np.testing.assert_allclose(move, [expected], rtol=1e-5, atol=1e-8)


def test_adopt_clips_the_modulus_of_a_complex_number():
    optimizer = optim.adopt(1.0, 0.0, 0.0, clip_value_fn=lambda t: 0.5 * t)
    state = optimizer.init(jnp.array([0j]))
    move, state = optimizer.update(jnp.array([1 + 0j]), state)
    np.testing.assert_array_equal(move, 0)
    move, _ = optimizer.update(jnp.array([3 + 4j]), state)
    np.testing.assert_allclose(move, [-0.3 - 0.4j], rtol=1e-6)


def test_schedule_free_follows_a_schedule_of_b1(x64):
    """Against the two sequences written out, x kept beside z instead of divided out of y."""
    beta = lambda t: 0.5 + 0.4 / (1 + t)  # noqa: E731
    rate = lambda t: 0.3 / (1 + 0.5 * t)  # noqa: E731
    optimizer = optim.schedule_free(optim.sgd(rate), rate, beta, 1.0)
    y = jnp.array([1.0, -2.0])
    state = optimizer.init(y)
    x = z = np.array([1.0, -2.0])
    weights = 0.0
    for t in range(6):
        g = 2 * y + t
        updates, state = optimizer.update(g, state, y)
        y = optim.apply_updates(y, updates)
        z = z - rate(t) * np.asarray(g)
        weights += rate(0)  # the highest rate so far
        x = x + rate(0) / weights * (z - x)
        np.testing.assert_allclose(y, beta(t) * x + (1 - beta(t)) * z, rtol=1e-12)
        np.testing.assert_allclose(optim.schedule_free_eval_params(state, y), x, rtol=1e-12)


def test_schedule_free_without_interpolation_is_the_base_optimizer():
    grads = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    for free, base in (
        (optim.schedule_free_sgd(0.3, b1=0.0), optim.sgd(0.3)),
        (optim.schedule_free(optim.adam(0.2), 0.2, 0.0), optim.adam(0.2)),
    ):
        ends = []
        for optimizer in (free, base):
            params = jnp.ones(3)
            state = optimizer.init(params)
            for g in grads:
                updates, state = optimizer.update(jnp.asarray(g), state, params)
                params = optim.apply_updates(params, updates)
            ends.append(params)
        np.testing.assert_allclose(*ends, rtol=1e-6)


def test_schedule_free_keeps_z_in_float32_or_in_the_dtype_asked_for():
    params = jnp.ones(2, jnp.bfloat16)
    assert optim.schedule_free_sgd(0.1).init(params).z.dtype == jnp.float32
    state = optim.schedule_free_sgd(0.1, state_dtype=jnp.float16).init(params)
    assert state.z.dtype == jnp.float16
    assert optim.schedule_free_eval_params(state, params).dtype == jnp.bfloat16


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


def test_polyak_s_rate_is_the_gap_over_the_squared_gradient():
    g = vector(3.0, 4.0)
    optimizer = optim.polyak_sgd(0.5, 3.0, 1.0, 5.0)
    move = lambda o, value, g=g: one_update(o, g, g, value=value)  # noqa: E731
    np.testing.assert_allclose(move(optimizer, 4.0), -3 * 0.1 * g, rtol=1e-6)
    np.testing.assert_allclose(move(optimizer, 100.0), -3 * 0.5 * g, rtol=1e-6)
    np.testing.assert_allclose(move(optimizer, -2.0), 3 * 0.1 * g, rtol=1e-6)
    plus = optim.polyak_sgd(0.5, 3.0, 1.0, 5.0, "sps+")
    np.testing.assert_array_equal(move(plus, -2.0), 0)
    np.testing.assert_array_equal(move(optim.polyak_sgd(), 4.0, 0 * g), 0)
    with pytest.raises(ValueError, match=r"polyak_sgd needs the loss: .*got value=None"):
        one_update(optimizer, g, g)


# Noise and curvature --------------------------------------------------------------------


def test_noise_has_the_stated_variance_and_dies_out():
    n = 40_000
    zeros = {"a": jnp.zeros(n), "b": jnp.zeros(n)}
    optimizer = optim.noisy_sgd(0.3, 0.8, 1.5, KEY)
    state = optimizer.init(zeros)
    draws = []
    for t in range(3):
        updates, state = jax.jit(optimizer.update)(zeros, state)
        expected = 0.3 * np.sqrt(0.8 / (t + 1) ** 1.5)
        for leaf in updates.values():
            error = expected / np.sqrt(2 * n)
            assert abs(np.std(leaf) - expected) < 5 * error
            assert abs(np.mean(leaf)) < 5 * expected / np.sqrt(n)
        draws += [np.asarray(leaf) / expected for leaf in updates.values()]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(n)


def test_noisy_descent_without_noise_is_descent():
    g = vector(1.0, -2.0)
    for optimizer in (optim.noisy_sgd(0.3, 0.0, key=KEY), optim.sgld(0.3, 0.0, KEY)):
        np.testing.assert_allclose(one_update(optimizer, g, g), -0.3 * g, rtol=1e-6)


def test_langevin_dynamics_sample_the_tempered_density():
    """On w**2/2 the stationary variance of the discrete chain is T / (1 - lr/2)."""
    lr, temperature, lanes = 0.4, 0.7, 4000
    optimizer = optim.sgld(lr, temperature, KEY)
    start = jnp.zeros(lanes)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(w, state, w)
        return (w + updates, state), w

    (_, _), path = jax.lax.scan(step, (start, optimizer.init(start)), length=120)
    samples = np.asarray(path[60::20])
    expected = temperature / (1 - lr / 2)
    error = expected * np.sqrt(2 / samples.size)
    assert abs(np.var(samples) - expected) < 5 * error


def quadratic(matrix):
    return lambda params: 0.5 * params["w"] @ matrix @ params["w"]


def test_hutchinson_is_exact_where_the_hessian_is_diagonal_and_unbiased_elsewhere():
    params = {"w": vector(1.0, -2.0, 0.5)}
    estimator = optim.hutchinson_estimator_diag_hessian(KEY)
    diagonal = jnp.diag(vector(2.0, -3.0, 0.25))
    state = estimator.init(params)
    found, state = estimator.update(params, state, params, value_fn=quadratic(diagonal))
    np.testing.assert_allclose(found["w"], [2, -3, 0.25], rtol=1e-6)
    assert state.step == 1
    full = diagonal + vector(0.0, 1.0, 2.0)[:, None] * vector(0.0, 1.0, 2.0)[None, :]

    def step(state, _):
        found, state = estimator.update(params, state, params, value_fn=quadratic(full))
        return state, found["w"]

    draws = np.asarray(jax.lax.scan(step, state, length=2000)[1])
    np.testing.assert_allclose(draws.mean(0), jnp.diag(full), atol=5 * 2 / np.sqrt(2000))
    assert draws[:, 1].std() > 1.5
    with pytest.raises(ValueError, match=r"needs the loss: .*got value_fn=None"):
        estimator.update(params, state, params)
    with pytest.raises(ValueError, match="hutchinson_estimator_diag_hessian needs the param"):
        estimator.update(params, state, value_fn=quadratic(full))


def test_sophia_with_its_own_estimator_takes_the_newton_step_of_a_diagonal_quadratic():
    params = {"w": vector(1.0, -2.0, 0.5)}
    curvature = vector(2.0, 3.0, 0.25)
    optimizer = optim.sophia(0.5, 0.0, 0.0, gamma=2.0, weight_decay=0.0, key=KEY)
    state = optimizer.init(params)
    extra = {"value_fn": quadratic(jnp.diag(curvature))}
    g = {"w": curvature * params["w"]}
    first, state = optimizer.update(g, state, params, **extra)
    np.testing.assert_allclose(first["w"], [-0.5, 0.5, -0.5], rtol=1e-6)
    second, _ = optimizer.update(g, state, params, **extra)
    np.testing.assert_allclose(second["w"], -0.5 * params["w"] / 2, rtol=1e-6)


def test_sophia_estimates_the_curvature_at_its_interval_alone():
    calls = optim.Optimizer(
        lambda params: jnp.zeros(()),
        lambda grads, count, params=None, **_: (jnp.full(2, count + 1.0), count + 1),
    )
    optimizer = optim.sophia(0.1, b2=0.0, update_interval=3, hessian_diagonal_fn=calls)
    params = vector(1.0, 2.0)
    state, seen = optimizer.init(params), []
    for _ in range(7):
        _, state = optimizer.update(params, state, params)
        seen.append(float(state.curvature[0]))
    assert seen == [1, 1, 1, 2, 2, 2, 3]


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

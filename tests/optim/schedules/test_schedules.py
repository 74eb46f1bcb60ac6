"""Schedules against optax's and torch's values, closed forms, and lanes."""

import inspect
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
sys.path.insert(0, str(GOLDEN))
from optim_cases import HORIZON, SCHEDULES, TORCH_SCHEDULES  # noqa: E402

RECORDED = dict(np.load(GOLDEN / "optim.npz"))
STEPS = np.arange(HORIZON)


def values(schedule, steps=STEPS):
    return np.asarray(jax.vmap(schedule)(jnp.asarray(steps)))


@pytest.mark.parametrize("number", range(len(SCHEDULES)), ids=lambda i: f"{i} {SCHEDULES[i][0]}")
def test_equals_optax(number, x64):
    name, arguments = SCHEDULES[number]
    found = values(getattr(optim, name)(**arguments))
    np.testing.assert_allclose(found, RECORDED[f"schedule {number}"], rtol=1e-12)


@pytest.mark.parametrize(
    "number", range(len(TORCH_SCHEDULES)), ids=lambda i: f"{i} {TORCH_SCHEDULES[i].name}"
)
def test_equals_torch(number, x64):
    case = TORCH_SCHEDULES[number]
    found = values(getattr(optim, case.name)(**case.arguments))
    np.testing.assert_allclose(found, RECORDED[f"torch schedule {number}"], rtol=1e-9)


def test_equals_the_closed_form(x64):
    t = STEPS.astype(float)
    triples = [
        (optim.natural_exponential_decay(0.8, 0.07), 0.8 * np.exp(-0.07 * t)),
        (optim.inverse_time_decay(0.8, 0.07), 0.8 / (1 + 0.07 * t)),
        (
            optim.inverse_sqrt_schedule(0.8, 12),
            [0.8 * min((i + 1) / 12, (12 / (i + 1)) ** 0.5) for i in t],
        ),
        (
            optim.sutskever_momentum(0.9, 10),
            [min(1 - 2 ** (-1 - np.log2(i // 10 + 1)), 0.9) for i in t],
        ),
        (
            optim.sutskever_momentum(0.99, 10),
            [1 - 0.5 / (i // 10 + 1) for i in t],
        ),
        (
            optim.wsd_schedule(0.8, 10, 20, 25, 0.1, 0.05),
            np.interp(t, [0, 10, 30, 55], [0.1, 0.8, 0.8, 0.05]),
        ),
        (
            optim.warmup(optim.inverse_time_decay(0.8, 0.07), 9, 0.1),
            [0.1 + 0.7 * i / 9 if i < 9 else 0.8 / (1 + 0.07 * (i - 9)) for i in t],
        ),
        (optim.warmup(0.6, 9, 0.1), np.interp(t, [0, 9], [0.1, 0.6])),
        (
            optim.join_schedules(
                [optim.constant_schedule(0.3), lambda s: 0.1 * s, lambda s: 5.0 - s], [4, 15]
            ),
            [0.3 if i < 4 else 0.1 * (i - 4) if i < 15 else 5.0 - (i - 15) for i in t],
        ),
    ]
    for schedule, expected in triples:
        np.testing.assert_allclose(values(schedule), expected, rtol=1e-12)


def test_the_default_sutskever_schedule_changes_every_250_steps():
    schedule = optim.sutskever_momentum()
    found = [float(schedule(step)) for step in (0, 249, 250, 499, 500, 100_000)]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.75, 0.75, 1 - 1 / 6, 0.99], rtol=1e-6)


def test_step_decay_halves_by_default():
    found = [float(optim.step_decay(0.8, 10)(step)) for step in (0, 9, 10, 19, 20)]
    np.testing.assert_allclose(found, [0.8, 0.8, 0.4, 0.4, 0.2], rtol=1e-6)


def test_long_restarts_begin_at_their_exact_step():
    schedule = jax.jit(jax.vmap(optim.cosine_restarts(1.0, 3, 3.0)))
    starts = np.array([3 * (3**n - 1) // 2 for n in range(1, 12)])
    np.testing.assert_allclose(schedule(jnp.asarray(starts)), 1.0, rtol=1e-6)
    assert np.all(schedule(jnp.asarray(starts[:8] - 1)) < 0.3)


def test_zero_lengths_are_off():
    assert float(optim.linear_schedule(0.2, 0.7, 0)(0)) == pytest.approx(0.7)
    assert float(optim.linear_schedule(0.2, 0.7, 0, 3)(2)) == pytest.approx(0.2)
    assert float(optim.warmup(0.6, 0)(0)) == pytest.approx(0.6)
    assert float(optim.warmup_cosine_decay_schedule(0.1, 0.6, 0, 10)(0)) == pytest.approx(0.6)


# Each schedule's numbers, two values each; every one is traced in turn.
TRACED = [
    (optim.constant_schedule, {"value": (0.3, 0.7)}),
    (
        optim.polynomial_schedule,
        {"init_value": (0.9, 0.8), "end_value": (0.2, 0.1), "power": (2.5, 1.5)}
        | {"transition_steps": (30, 20), "transition_begin": (7, 3)},
    ),
    (
        optim.linear_schedule,
        {"init_value": (0.9, 0.8), "end_value": (0.2, 0.1)}
        | {"transition_steps": (30, 0), "transition_begin": (7, 0)},
    ),
    (
        optim.step_decay,
        {"init_value": (0.9, 0.8), "transition_steps": (13, 8), "decay_rate": (0.6, 0.5)},
    ),
    (
        optim.exponential_decay,
        {"init_value": (0.9, 0.8), "transition_steps": (13, 8), "decay_rate": (0.6, 1.1)}
        | {"transition_begin": (4, 0), "end_value": (0.3, 0.5)},
    ),
    (optim.natural_exponential_decay, {"init_value": (0.9, 0.8), "decay_rate": (0.1, 0.0)}),
    (optim.inverse_time_decay, {"init_value": (0.9, 0.8), "decay_rate": (0.1, 0.0)}),
    (
        optim.cosine_decay_schedule,
        {"init_value": (0.9, 0.8), "decay_steps": (45, 30), "alpha": (0.2, 0.0)}
        | {"exponent": (1.7, 1.0)},
    ),
    (optim.inverse_sqrt_schedule, {"peak_value": (0.9, 0.8), "warmup_steps": (12, 1)}),
    (optim.sutskever_momentum, {"max_value": (0.7, 0.0), "period": (10, 25)}),
    (
        lambda steps, start: optim.warmup(optim.inverse_time_decay(0.8, 0.1), steps, start),
        {"steps": (9, 0), "start": (0.1, 0.2)},
    ),
    (
        optim.warmup_constant_schedule,
        {"init_value": (0.1, 0.0), "peak_value": (0.7, 0.6), "warmup_steps": (12, 0)},
    ),
    (
        optim.warmup_cosine_decay_schedule,
        {"init_value": (0.1, 0.0), "peak_value": (0.7, 0.0), "warmup_steps": (12, 0)}
        | {"decay_steps": (50, 30), "end_value": (0.05, 0.0), "exponent": (1.7, 1.0)},
    ),
    (
        optim.warmup_exponential_decay_schedule,
        {"init_value": (0.1, 0.0), "peak_value": (0.7, 0.6), "warmup_steps": (12, 0)}
        | {"transition_steps": (9, 5), "decay_rate": (0.6, 0.8), "transition_begin": (4, 0)}
        | {"end_value": (0.15, 0.4)},
    ),
    (
        optim.wsd_schedule,
        {"peak_value": (0.7, 0.6), "warmup_steps": (12, 0), "stable_steps": (9, 0)}
        | {"decay_steps": (20, 30), "init_value": (0.1, 0.0), "end_value": (0.1, 0.0)},
    ),
    (
        lambda b, c, s: optim.join_schedules(
            [lambda t: s * t, optim.constant_schedule(s), lambda t: s - t], [b, c]
        ),
        {"b": (4, 6), "c": (15, 20), "s": (0.3, 0.2)},
    ),
    (
        lambda v, b, s, c, r: optim.piecewise_constant_schedule(v, [(b, s), (c, r)]),
        {"v": (0.8, 0.7), "b": (4, 6), "s": (0.3, 1.0), "c": (15, 20), "r": (2.0, 0.5)},
    ),
    (
        lambda v, b, s, c, r: optim.piecewise_interpolate_schedule("cosine", v, [(b, s), (c, r)]),
        {"v": (0.8, 0.7), "b": (4, 6), "s": (0.3, 1.0), "c": (15, 20), "r": (2.0, 0.5)},
    ),
    (
        optim.linear_onecycle_schedule,
        {"transition_steps": (60, 50), "peak_value": (0.7, 0.6), "pct_start": (0.23, 0.4)}
        | {"pct_final": (0.8, 0.6), "div_factor": (7.0, 5.0), "final_div_factor": (30.0, 9.0)},
    ),
    (
        optim.cosine_onecycle_schedule,
        {"transition_steps": (60, 50), "peak_value": (0.7, 0.6), "pct_start": (0.23, 0.4)}
        | {"div_factor": (7.0, 5.0), "final_div_factor": (30.0, 9.0)},
    ),
    (
        lambda peak, steps, other: optim.sgdr_schedule(
            [
                {"init_value": 0.1, "peak_value": peak, "warmup_steps": 3, "decay_steps": steps},
                {"init_value": 0.0, "peak_value": other, "warmup_steps": 2, "decay_steps": 20},
            ]
        ),
        {"peak": (0.7, 0.6), "steps": (14, 20), "other": (0.5, 0.4)},
    ),
    (
        optim.cosine_restarts,
        {"init_value": (0.9, 0.8), "first_steps": (7, 11), "multiplier": (1.5, 1.0)}
        | {"end_value": (0.1, 0.0)},
    ),
    (
        optim.cyclic_schedule,
        {"low_value": (0.2, 0.1), "high_value": (0.8, 0.7), "up_steps": (6, 9)}
        | {"down_steps": (4, 8), "cycle_decay": (0.5, 1.0), "step_decay": (0.96, 1.0)},
    ),
]


@pytest.mark.parametrize(("make", "numbers"), TRACED, ids=lambda x: getattr(x, "__name__", ""))
def test_every_number_may_be_traced(make, numbers):
    base = {name: pair[0] for name, pair in numbers.items()}
    lanes = [base, *(base | {name: pair[1]} for name, pair in numbers.items())]
    stacked = {name: jnp.array([lane[name] for lane in lanes]) for name in base}
    traced = jax.jit(jax.vmap(lambda lane: jax.vmap(make(**lane))(jnp.asarray(STEPS))))(stacked)
    assert np.all(np.isfinite(traced))
    for lane, found in zip(lanes, traced, strict=True):
        np.testing.assert_allclose(found, values(make(**lane)), rtol=3e-5, atol=1e-6)
    for name, found in zip(numbers, traced[1:], strict=True):
        assert np.max(np.abs(found - traced[0])) > 1e-3, f"{name} makes no difference"


# Made of pairs or of other schedules; a lambda of `TRACED` traces the numbers inside.
NESTED = {"warmup", "join_schedules", "piecewise_constant_schedule"}
NESTED |= {"piecewise_interpolate_schedule", "sgdr_schedule"}


def test_every_argument_of_every_schedule_is_traced_above():
    traced = {make.__name__: set(numbers) for make, numbers in TRACED}
    public = {name: getattr(optim, name) for name in optim.__all__}
    for name, make in public.items():
        if getattr(make, "__module__", "").startswith("jdl.optim.schedules") and "chedule" in str(
            inspect.signature(make).return_annotation
        ):
            flags = {p.name for p in inspect.signature(make).parameters.values()}
            flags = {flag for flag in flags if flag == "staircase"}
            arguments = set(inspect.signature(make).parameters) - flags
            assert name in NESTED or arguments == traced[name], name


def test_the_first_update_uses_step_0():
    seen = []
    schedule = lambda step: seen.append(int(step)) or 0.25  # noqa: E731
    optimizer = optim.sgd(schedule)
    params = jnp.array([1.0])
    updates, state = optimizer.update(jnp.array([2.0]), optimizer.init(params), params)
    assert seen == [0] and updates.tolist() == [-0.5]
    optimizer.update(jnp.array([2.0]), state, params)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: optim.polynomial_schedule(1.0, 0.0, 1.0, -1),
            r"`transition_steps` must be in \[0",
        ),
        (lambda: optim.polynomial_schedule(1.0, 0.0, 1.0, 5, -1), r"`transition_begin` .*\[0, inf"),
        (lambda: optim.exponential_decay(1.0, 0, 0.5), r"`transition_steps` must be in \(0, inf"),
        (lambda: optim.exponential_decay(1.0, 5, 0.0), r"`decay_rate` must be in \(0, inf"),
        (lambda: optim.exponential_decay(1.0, 5, 0.5, -1), r"`transition_begin` must be in \[0"),
        (lambda: optim.natural_exponential_decay(1.0, -0.1), r"`decay_rate` must be in \[0, inf"),
        (lambda: optim.inverse_time_decay(1.0, -0.1), r"`decay_rate` must be in \[0, inf"),
        (lambda: optim.cosine_decay_schedule(1.0, 0), r"`decay_steps` must be in \(0, inf"),
        (lambda: optim.inverse_sqrt_schedule(1.0, 0), r"`warmup_steps` must be in \[1, inf"),
        (lambda: optim.sutskever_momentum(1.5), r"`max_value` must be in \[0, 1\]"),
        (lambda: optim.sutskever_momentum(0.9, 0), r"`period` must be in \(0, inf"),
        (lambda: optim.warmup(1.0, -1), r"`warmup_steps` must be in \[0, inf"),
        (lambda: optim.join_schedules([lambda s: s], [3]), "got 1 schedules and 1 boundaries"),
        (lambda: optim.piecewise_interpolate_schedule("cubic", 1.0), "must be one of 'linear'"),
        (lambda: optim.piecewise_constant_schedule(1.0, {3: -1.0}), r"must be in \[0, inf"),
        (lambda: optim.linear_onecycle_schedule(0, 1.0), r"`transition_steps` must be in \(0"),
        (lambda: optim.cosine_onecycle_schedule(9, 1.0, 1.5), r"`pct_start` must be in \[0, 1\]"),
        (lambda: optim.cosine_restarts(1.0, 0), r"`first_steps` must be in \(0, inf"),
        (lambda: optim.cosine_restarts(1.0, 5, 0.5), r"`multiplier` must be in \[1, inf"),
        (
            lambda: optim.warmup_cosine_decay_schedule(0, 1, 10, 10),
            r"`decay_steps` must be in \(10.0, inf\), got decay_steps=10. It counts the steps of",
        ),
        (lambda: optim.cyclic_schedule(0.1, 1.0, 0), r"`up_steps` must be in \(0, inf"),
        (lambda: optim.cyclic_schedule(0.1, 1.0, 5, 0), r"`down_steps` must be in \(0, inf"),
    ],
)
def test_numbers_out_of_range_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()

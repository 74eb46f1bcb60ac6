"""The rate that falls on a plateau: against optax, a plain loop, and in lanes."""

import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import optim

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
sys.path.insert(0, str(GOLDEN))
from optim_cases import PLATEAUS, losses  # noqa: E402

RECORDED = dict(np.load(GOLDEN / "optim.npz"))


def scales(plateau, reports):
    state, found = plateau.init(), []
    for loss in reports:
        state = plateau.update(loss, state)
        found.append(float(state.scale))
    return found


@pytest.mark.parametrize("number", range(len(PLATEAUS)))
def test_equals_optax(number, x64):
    found = scales(optim.plateau(**PLATEAUS[number]), losses())
    assert len(set(found)) > 3
    np.testing.assert_allclose(found, RECORDED[f"plateau {number}"], rtol=1e-12)


def test_halves_whenever_worse_than_the_epoch_before():
    reports = [1.0, 0.9, 0.95, 0.97, 0.97, 0.5, math.nan, 0.6, 0.4]
    #          -    -    half  half  -     -    half      half -
    found = scales(optim.plateau(0.5, patience=1, rtol=0.0, previous=True), reports)
    assert found == [1, 1, 0.5, 0.25, 0.25, 0.25, 0.125, 0.0625, 0.0625]


def test_better_is_below_the_best_by_both_tolerances():
    absolute = optim.plateau(0.5, patience=1, rtol=0.0, atol=0.1)
    assert scales(absolute, [1.0, 0.95, 0.85]) == [1, 0.5, 0.5]
    both = optim.plateau(0.5, patience=1, rtol=0.2, atol=0.1)
    assert scales(both, [1.0, 0.75, 0.65]) == [1, 0.5, 0.5]


def test_a_first_report_that_is_no_number_is_bad_at_once():
    """No cooldown is on at the start."""
    assert scales(optim.plateau(0.5, patience=1), [math.inf, math.nan, 3.0]) == [0.5, 0.25, 0.25]


def test_a_lane_has_its_own_numbers_and_state():
    def run(factor, patience, cooldown, rtol, atol, min_scale):
        plateau = optim.plateau(factor, patience, rtol, atol, cooldown, min_scale)
        step = lambda state, loss: (lambda s: (s, s.scale))(plateau.update(loss, state))  # noqa: E731
        return jax.lax.scan(step, plateau.init(), jnp.array(losses(), jnp.float32))[1]

    lanes = [
        (0.5, 1, 0, 0.0, 0.0, 0.0),
        (0.5, 3, 2, 1e-4, 0.01, 0.0),
        (1.0, 1, 0, 0.0, 0.0, 0.0),
        (0.5, 1, 0, 0.0, 0.0, 0.2),
    ]
    traced = jax.jit(jax.vmap(run))(*(jnp.array(x) for x in zip(*lanes, strict=True)))
    for lane, found in zip(lanes, traced, strict=True):
        factor, patience, cooldown, rtol, atol, min_scale = lane
        plateau = optim.plateau(factor, patience, rtol, atol, cooldown, min_scale)
        np.testing.assert_allclose(found, scales(plateau, losses()), rtol=1e-6)
    assert np.all(traced[2] == 1.0)
    assert float(jnp.min(traced[3])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"factor": 0.0}, r"`factor` must be in \(0, 1\]"),
        ({"patience": 0}, r"`patience` must be in \[1, inf\)"),
        ({"rtol": 1.0}, r"`rtol` must be in \[0, 1\)"),
        ({"atol": -1.0}, r"`atol` must be in \[0, inf\)"),
        ({"cooldown": -1}, r"`cooldown` must be in \[0, inf\)"),
        ({"min_scale": 2.0}, r"`min_scale` must be in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        optim.plateau(**arguments)

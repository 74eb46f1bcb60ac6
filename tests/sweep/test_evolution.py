"""Exchanges by hand: who copies, how far numbers move, and what lineages say of each report."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jdl import sweep
from jdl.engine.events import Exchanged
from jdl.sweep.population import _moved, ancestry, used
from jdl.sweep.space import parse_space

INF = math.inf
LINE = parse_space({"lr": sweep.uniform(0.5, 8.0)})


def copies(scores, quantile, trials=None):
    """Who copies one of whom, of members that cannot have a number of their own."""
    trials = trials or list(range(10, 10 + len(scores)))
    population = sweep.pbt(quantile=quantile, resample=0.0).start(LINE, 3)
    seen: dict[int, set[int]] = {}
    for report in range(40):
        found = population.evolve(report, trials, scores, [{"lr": 1.0}] * len(scores))
        assert len(found) == len(scores)
        for trial, exchange in zip(trials, found):
            if exchange is not None:
                seen.setdefault(trial, set()).add(exchange.source)
    return seen


@pytest.mark.parametrize(
    ("scores", "quantile", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, {11: {10}}),  # one and a half is one
        ([3.0, 1.0, 2.0, 4.0], 0.5, {11: {10, 13}, 12: {10, 13}}),
        ([3.0, 1.0, 2.0, 4.0, 0.5], 0.2, {14: {13}}),
        ([3.0, 1.0, 2.0, 4.0, 0.5, 5.0], 0.2, {14: {15}}),
        ([1.0, 1.0, 1.0], 0.2, {12: {10}}),  # of equals the later copies the earlier
        ([2.0, 1.0], 0.1, {11: {10}}),  # one at least
        ([2.0], 0.5, {}),
        ([3.0, -INF, 2.0, -INF, 4.0], 0.2, {11: {14}, 13: {14}}),  # whoever diverged copies
        ([-INF, -INF, -INF, 1.0], 0.5, {10: {13}, 11: {13}, 12: {13}}),
        ([-INF, -INF], 0.5, {}),
    ],
)
def test_the_worst_copy_the_best(scores, quantile, expected):
    assert copies(scores, quantile) == expected


def test_equal_scores_go_by_the_number_of_the_trial():
    assert copies([1.0, 1.0, 1.0], 0.2, [7, 3, 5]) == {7: {3}}


def test_what_is_drawn_depends_on_seed_report_and_trial_alone():
    population = sweep.pbt(quantile=0.5, resample=1.0)

    def drawn(seed, report, trials):
        found = population.start(LINE, seed).evolve(report, trials, [0.0, 1.0], [{"lr": 1.0}] * 2)
        return found[0].numbers["lr"]

    one = drawn(3, 4, [5, 6])
    assert drawn(3, 4, [5, 9]) == one
    assert len({one, drawn(2, 4, [5, 6]), drawn(3, 5, [5, 6]), drawn(3, 4, [4, 6])}) == 4
    # Its stream draws the source first, then whether a number is drawn anew, and where.
    random = np.random.default_rng([3, 4, 5])
    random.integers(1)
    random.random()
    assert one == LINE["lr"].at(random.random())


def test_a_quarter_of_the_numbers_is_drawn_anew():
    population = sweep.pbt(quantile=0.5).start(LINE, 0)
    found = [population.evolve(r, [0, 1], [0.0, 1.0], [{"lr": 2.0}] * 2)[0] for r in range(800)]
    values = [exchange.numbers["lr"] for exchange in found]
    moved = [value for value in values if value in (2.0 * 0.8, 2.0 * 1.2)]
    assert abs(len(moved) / 800 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 800)
    assert abs(moved.count(1.6) / len(moved) - 0.5) < 4 * 0.5 / math.sqrt(len(moved))


@pytest.mark.parametrize(
    ("dimension", "value", "factor", "moved"),
    [
        (sweep.uniform(-2.0, 3.0), 2.0, 1.25, 2.5),
        (sweep.uniform(-2.0, 3.0), 2.0, 1.75, 3.0),
        (sweep.uniform(-2.0, 3.0), -1.5, 1.5, -2.0),
        (sweep.log_uniform(1e-3, 10.0), 0.5, 0.25, 0.125),
        (sweep.log_uniform(1e-3, 10.0), 0.5, 1e-9, 1e-3),
        (sweep.choice(8.0, 1.0, 4.0), 4.0, 1.2, 8.0),
        (sweep.choice(8.0, 1.0, 4.0), 4.0, 0.8, 1.0),
        (sweep.choice(8.0, 1.0, 4.0), 8.0, 1.2, 8.0),
        (sweep.choice(8.0, 1.0, 4.0), 1.0, 0.8, 1.0),
        (sweep.choice(8.0, 1.0, 4.0), 1.0, 1.2, 4.0),
    ],
)
def test_how_far_a_number_moves(dimension, value, factor, moved):
    (parsed,) = parse_space({"a": dimension}).values()
    assert _moved(parsed, value, factor) == pytest.approx(moved, rel=1e-12)


def test_numbers_that_cannot_vary_are_left_alone():
    space = parse_space({"lr": sweep.uniform(0.5, 8.0), "n": 3.0, "seed": sweep.seeds(2)})
    population = sweep.pbt(quantile=0.5, resample=0.0, perturb=(2.0, 2.0)).start(space, 0)
    numbers = [{"lr": 1.0, "n": 3.0, "seed": 1, "other": 5.0}] * 2
    found = population.evolve(1, [0, 1], [0.0, 1.0], numbers)[0].numbers
    assert found == {"lr": 2.0, "n": 3.0}
    for fixed in ({"n": 3.0}, {"n": 3.0, "seed": sweep.seeds(2)}):
        with pytest.raises(ValueError, match="needs a number that varies"):
            sweep.pbt().start(parse_space(fixed), 0)
    assert sweep.pbt().start(parse_space({"n": sweep.choice(1.0, 2.0)}), 0).every == 1


def test_the_name_that_a_specification_has():
    assert sweep.pbt().name == "pbt(1, 0.2, [0.8, 1.2], 0.25)"
    population = sweep.pbt(3, 0.5, (0.5, 2.0), 0.0)
    assert population.name == "pbt(3, 0.5, [0.5, 2.0], 0.0)"
    started = population.start(LINE, 0)
    assert (started.name, started.every) == (population.name, 3)
    for wrong in ({"every": 0}, {"quantile": 0.0}, {"quantile": 0.51}, {"resample": 1.1},
                  {"perturb": (1.0, 0.0)}, {"resample": -0.1}):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be in"):
            sweep.pbt(**wrong)
    assert sweep.pbt(quantile=0.5, resample=1.0)


BRED = [
    Exchanged(1, 4, 0, {"lr": 4.0}),
    Exchanged(1, 2, 2, {"lr": 3.0}),
    Exchanged(0, 3, 0, {"lr": 0.25}),
    Exchanged(2, 2, 0, {"other": 9.0}),
]


def test_which_value_each_report_used():
    configs = [{"lr": 0.5}, {"lr": 1.5, "other": 7.0}, {}]
    np.testing.assert_array_equal(
        used(BRED, configs, 6, "lr"),
        [[0.5, 0.5, 0.5, 0.25, 0.25, 0.25], [1.5, 1.5, 3.0, 3.0, 4.0, 4.0], [math.nan] * 6],
    )
    other = used(BRED, configs, 3, "other")
    np.testing.assert_array_equal(other, [[math.nan] * 3, [7.0] * 3, [math.nan, math.nan, 9.0]])


def test_who_made_each_report_of_the_weights():
    assert ancestry(BRED, 1, 6).tolist() == [0, 0, 0, 0, 1, 1]
    assert ancestry(BRED, 2, 6).tolist() == [0, 0, 2, 2, 2, 2]
    assert ancestry(BRED, 0, 6).tolist() == [0] * 6
    # What happens after the last report comes too late for its weights.
    # Trial 1 took what trial 2 had made before that took another's state in its turn.
    assert ancestry(BRED, 1, 4).tolist() == [2, 2, 1, 1]

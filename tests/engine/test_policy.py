"""What decides, and after which reports: with a rule, a population, a target, or nothing."""

from __future__ import annotations

import math

import pytest
from tests.engine.by_hand import INF, Exchanges, Script, policy, queued

from jdl.engine.policy import Seat

RULE = Script((2, 5)).rule
POPULATION = Exchanges(2).population


@pytest.mark.parametrize(
    ("parts", "decides", "stops"),
    [
        ({}, False, [6]),
        ({"rule": RULE}, True, [2, 5]),
        ({"population": POPULATION}, True, [2, 4, 6]),
        ({"population": Exchanges(4).population}, True, [4, 6]),
        ({"target": 0.0}, True, [1, 2, 3, 4, 5, 6]),
        ({"rule": RULE, "target": 0.5}, True, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_when_something_is_decided(parts, decides, stops):
    it = policy(**parts)
    assert (it.decides, it.ordered, list(it.stops(9))) == (decides, decides, stops)
    assert policy(**parts, adaptive=True).ordered
    assert policy(**parts, adaptive=True).decides == decides


def test_the_rule_is_asked_for_the_rungs_of_each_trial():
    rule = RULE._replace(rungs=lambda trial, reports: [trial, reports - 1])
    assert policy(rule=rule).rungs(3) == [3, 5]


def test_a_target_is_reached_by_any_score_that_is_as_good():
    assert policy(target=0.5).reached([0.1, 0.5, 0.2])
    assert policy(target=0.5).reached([0.7])
    assert not policy(target=0.5).reached([0.49, -math.inf])
    assert not policy(target=0.5).reached([])
    assert not policy().reached([INF])


def test_a_seat_runs_until_the_next_decision():
    trial, it = queued(4), policy(rule=RULE)
    seats = [it.seat(trial, done) for done in (0, 1, 2, 4, 5)]
    assert seats == [Seat(trial, d, u) for d, u in [(0, 2), (1, 2), (2, 5), (4, 5), (5, 6)]]
    assert policy().seat(trial, 3) == Seat(trial, 3, 6)

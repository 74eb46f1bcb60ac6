"""Stopping by configuration: seeds go on or stop together, judged by their mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine.rules import Rule, Stopping, Verdicts
from jdl.sweep.by_configuration import Numbered, by_configuration

INF = math.inf


def started(stopping, configs, seeds=2, reports=9):
    """The rule of trials `2 c + s` for configuration `c` and seed `s`."""
    numbered = Numbered({"x": sweep.choice(*range(99)), "seed": sweep.seeds(seeds)})
    given = [{"x": c, "seed": s} for c in range(configs) for s in range(seeds)]
    numbered.note(list(enumerate(given)))
    rule = by_configuration(stopping, numbered).start()
    for trial in range(len(given)):
        assert list(rule.rungs(trial, reports))
    return rule


def said(verdicts):
    return tuple(sorted(field) for field in verdicts)


def test_a_configuration_is_judged_by_the_mean_once_its_seeds_are_there():
    rule = started(sweep.asha(2.0), 3)
    assert said(rule.decide(1, [0], [[0.9]])) == ([], [], [])  # waits for its other seed
    assert said(rule.decide(1, [1, 2], [[0.1], [0.6]])) == ([0, 1], [], [])  # mean 0.5, the first
    assert said(rule.decide(1, [3, 4], [[0.5], [0.95]])) == ([2, 3], [], [])  # 0.55 of 0.5
    # 0.475 is third of three, though one of its seeds is the best of all.
    assert said(rule.decide(1, [5], [[0.0]])) == ([], [4, 5], [])


def test_a_seed_that_diverged_counts_as_the_worst():
    rule = started(sweep.asha(2.0), 3)
    assert said(rule.decide(1, [0, 1], [[0.5], [0.5]]))[0] == [0, 1]
    assert said(rule.decide(1, [2], [[-INF]])) == ([], [], [])
    assert said(rule.decide(1, [3], [[9.0]])) == ([], [2, 3], [])
    # It will not come to the next rung, so nobody waits for it there.
    rule = started(sweep.asha(2.0), 1)
    assert said(rule.decide(1, [0, 1], [[-INF], [0.5]])) == ([0, 1], [], [])
    assert said(rule.decide(2, [1], [[0.5]])) == ([1], [], [])


def test_who_never_comes_is_not_waited_for_for_ever():
    rule = started(sweep.asha(2.0), 2)
    assert said(rule.decide(1, [0, 1], [[0.5], [0.5]]))[0] == [0, 1]
    assert not any(rule.decide(1, [2], [[0.1]]))
    assert said(rule.settle()) == ([], [2], [])
    assert said(rule.decide(1, [3], [[0.9]])) == ([], [3], [])  # as its configuration


def test_halving_counts_configurations():
    rule = started(sweep.successive_halving(2.0, cohort=4), 4)
    scores = [[s] for s in (0.9, 0.1, 0.6, 0.6, 0.3, 0.3, 0.7, 0.2)]  # means 0.5 0.6 0.3 0.45
    assert not any(rule.decide(1, list(range(7)), scores[:7]))
    assert said(rule.decide(1, [7], scores[7:])) == ([0, 1, 2, 3], [4, 5, 6, 7], [])


def test_patience_stays_with_the_trial_and_nobody_waits_for_one_that_is_done():
    rule = started(sweep.combine(sweep.patience(1), sweep.asha(2.0, grace=4)), 2, reports=16)
    assert said(rule.decide(1, [0, 1], [[0.5], [0.5]])) == ([0, 1], [], [])
    assert said(rule.decide(2, [0, 1], [[0.4], [0.6]])) == ([1], [], [0])
    assert said(rule.decide(3, [1], [[0.7]])) == ([1], [], [])
    assert said(rule.decide(4, [1], [[0.8]])) == ([1], [], [])  # its rung, without trial 0
    # One waits at the rung until the other is done without reaching it.
    for report in (1, 2, 3):
        assert said(rule.decide(report, [2], [[1.0 * report]]))[0] == [2]
    assert said(rule.decide(1, [3], [[0.0]])) == ([3], [], [])
    assert said(rule.decide(4, [2], [[9.0]])) == ([], [], [])
    assert said(rule.decide(2, [3], [[0.0]])) == ([2], [], [3])


def test_a_space_without_repeats_keeps_its_rule():
    rule = sweep.asha()
    assert by_configuration(rule, Numbered({"x": sweep.choice(1, 2)})) is rule
    assert by_configuration(rule, Numbered({"x": sweep.choice(1, 2), "s": sweep.seeds(1)})) is rule
    alone = sweep.patience(3)
    assert by_configuration(alone, Numbered({"x": sweep.choice(1), "s": sweep.seeds(2)})) is alone


def test_a_configuration_drawn_twice_is_two():
    numbered = Numbered({"x": sweep.choice(1, True), "s": sweep.seeds(2)})
    configs = [{"x": x, "s": s} for x in (1, 1, True) for s in (0, 1)]
    numbered.note(list(enumerate(configs)))
    assert [numbered[i] for i in range(6)] == [0, 0, 1, 1, 2, 2]


@pytest.fixture(scope="module")
def whole():
    return sweep_lines(None)


def sweep_lines(stopping, **options):
    return sweep.run(
        lambda hp: line_trial(hp["lr"], steps=45),
        {"lr": sweep.log_uniform(1e-3, 1e-1), "seed": sweep.seeds(3)},
        dataset(),
        epochs=9,
        trials=24,
        batch_size=4,
        seed=3,
        progress=False,
        devices=1,
        stopping=stopping,
        **{"lanes": 4} | options,
    )


@pytest.mark.parametrize("stopping", [sweep.asha(2.0), sweep.successive_halving(2.0)])
def test_seeds_end_together_in_the_lanes(whole, stopping):
    results = sweep_lines(stopping)
    made = np.isfinite(results.curves()).sum(axis=1)
    ends = [{(results.trials[t].status, made[t]) for t in s.trials}
            for s in results.configurations()]  # fmt: skip
    assert all(len(end) == 1 for end in ends) and len(ends) == 8
    assert results.count("stopped") and results.configurations()[0].done == 3
    # Up to where it ended, each trial is the one of the whole run.
    for trial, count in enumerate(made):
        a, b = results.curves()[trial, :count], whole.curves()[trial, :count]
        np.testing.assert_array_equal(a, b)


def test_halving_keeps_the_best_means(whole):
    results = sweep_lines(sweep.successive_halving(2.0))
    first = whole.curves()[:, 0].reshape(8, 3).mean(axis=1)  # loss; seeds vary fastest
    made = np.isfinite(results.curves()).sum(axis=1).reshape(8, 3)[:, 0]
    assert {*np.flatnonzero(made > 1)} == {*np.argsort(first)[:4]}


def test_a_custom_rule_hears_configurations():
    heard = []

    def decide(rung, trials, curves):
        heard.append((rung, list(trials), [len(curve) for curve in curves]))
        return Verdicts(go=trials)

    rule = Stopping(lambda: Rule(lambda trial, reports: (2, 5), decide), "custom")
    results = sweep_lines(rule)
    assert results.count("done") == 24
    assert {c for rung, cs, _ in heard for c in cs} == {*range(8)}
    assert sorted(c for rung, cs, _ in heard if rung == 5 for c in cs) == [*range(8)]
    assert all(n == {2: 2, 5: 3}[rung] for rung, _, lengths in heard for n in lengths)
    assert results.specification["stopping"] == "custom by configuration"

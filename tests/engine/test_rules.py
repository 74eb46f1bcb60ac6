"""Protocols of what decides: a rule that makes nobody wait has nothing to settle."""

from __future__ import annotations

import pytest

from jdl import sweep
from jdl.engine.rules import Rule, Verdicts


def test_a_rule_settles_nothing_unless_it_says_how():
    rule = Rule(lambda trial, reports: (1,), lambda rung, trials, curves: Verdicts(go=trials))
    assert rule.settle() == Verdicts() and not any(rule.settle())


@pytest.mark.parametrize(
    "stopping",
    [
        sweep.asha(reduction=2),
        sweep.successive_halving(reduction=2, cohort=2),
        sweep.hyperband(reduction=2),
        sweep.median_stopping(trials=1),
        sweep.patience(1),
        sweep.combine(sweep.asha(reduction=2), sweep.patience(1)),
    ],
    ids=lambda stopping: stopping.name,
)
def test_each_rule_is_a_function_of_what_it_was_told(stopping):
    """Told the same again, a new one says the same: so a run that goes on decides as before."""

    def said():
        rule, verdicts = stopping.start(), []
        rungs = {trial: list(rule.rungs(trial, 8)) for trial in range(6)}
        assert all(r == sorted({*r}) and all(1 <= n <= 8 for n in r) for r in rungs.values())
        for rung in sorted({r for each in rungs.values() for r in each}):
            trials = [trial for trial in rungs if rung in rungs[trial]]
            curves = [[((trial * 7 + rung * 5) % 11) / 10] for trial in trials]
            found = rule.decide(rung, trials, curves)
            verdicts.append([sorted(field) for field in found])
            rungs = {t: r for t, r in rungs.items() if t not in (*found.stop, *found.finish)}
        return verdicts, [sorted(field) for field in rule.settle()]

    first = said()
    assert said() == first
    assert any(any(fields) for fields in (*first[0], first[1]))

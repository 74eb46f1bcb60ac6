"""Halving by hand: rungs, brackets and their sizes, who goes on and who is waited for."""

from __future__ import annotations

import pytest

from jdl import sweep
from jdl.engine.rules import Verdicts, joined
from jdl.sweep.halving import bracket_sizes, levels

INF = float("inf")


def said(verdicts):
    return tuple(map(list, verdicts))


@pytest.mark.parametrize(
    ("reports", "reduction", "grace", "expected"),
    [
        (20, 4, 1, (1, 4, 16)),
        (16, 4, 1, (1, 4)),  # the last report is no rung
        (17, 4, 1, (1, 4, 16)),
        (3, 3, 4, ()),
        (4, 3, 4, ()),
        (5, 3, 4, (4,)),
        (30, 2.5, 2, (2, 5, 12)),  # 12.5 rounds to 12; 31.25 is too late
        (9, 1.2, 1, (1, 2, 3, 4, 5, 6, 7)),  # rungs that round to the same are one
    ],
)
def test_rungs_grow_by_the_reduction(reports, reduction, grace, expected):
    assert levels(reports, reduction, grace) == expected


def test_the_names_that_a_specification_has():
    assert sweep.successive_halving().name == "successive_halving(4.0, 1, None)"
    assert sweep.successive_halving(3, 2, 9).name == "successive_halving(3, 2, 9)"
    assert sweep.hyperband().name == "hyperband(3.0, 1)"
    assert sweep.hyperband(2, 5).name == "hyperband(2, 5)"


def test_what_halves_nothing_is_refused():
    for make in (sweep.successive_halving, sweep.hyperband, sweep.asha):
        for arguments in ((1.0, 1), (0.5, 1), (2.0, 0)):
            with pytest.raises(ValueError, match="must be in"):
                make(*arguments)
        assert make(1.01, 1).name
    with pytest.raises(ValueError, match=r"`cohort` must be in \[2, inf\)"):
        sweep.successive_halving(cohort=1)


def test_each_cohort_is_halved_by_itself():
    """Trials 0 to 2 and 3 to 5: of each three one goes on, and then to the end."""
    rule = sweep.successive_halving(3, 2, cohort=3).start()
    assert [list(rule.rungs(trial, 7)) for trial in (0, 3)] == [[2, 6], [2, 6]]
    assert said(rule.decide(2, [0, 3, 4], [[9.0, 0.5], [0.1], [0.3]])) == ([], [], [])
    # Both cohorts come to be complete in one segment; the last of a trial's scores counts.
    verdicts = rule.decide(2, [1, 2, 5], [[0.1, 0.7], [0.6], [0.2]])
    assert said(verdicts) == ([1, 4], [2, 0, 5, 3], [])
    assert said(rule.decide(6, [4], [[0.9]])) == ([4], [], [])
    assert said(rule.decide(6, [1], [[-INF]])) == ([], [1], [])


def test_of_few_trials_the_best_goes_on_and_of_equals_the_earlier():
    rule = sweep.successive_halving(4, cohort=2).start()
    rule.rungs(0, 9)
    assert said(rule.decide(1, [1, 0], [[0.5], [0.5]])) == ([0], [1], [])
    rule = sweep.successive_halving(1.5, cohort=5).start()
    rule.rungs(0, 9)
    scores = [[0.2], [0.8], [-INF], [-INF], [-INF]]
    # Three of five might go on, but one that diverged never does; two are then waited for.
    assert said(rule.decide(1, [0, 1, 2, 3, 4], scores)) == ([1, 0], [2, 3, 4], [])
    assert said(rule.decide(2, [0], [[0.3]])) == ([], [], [])
    assert said(rule.decide(2, [1], [[0.1]])) == ([0], [1], [])


def test_without_a_cohort_all_wait_until_nobody_comes():
    rule = sweep.successive_halving(2).start()
    assert list(rule.rungs(0, 9)) == [1, 2, 4, 8] == list(rule.rungs(99, 9))
    for trial in range(5):
        assert said(rule.decide(1, [trial], [[trial / 10]])) == ([], [], [])
    assert said(rule.settle()) == ([4, 3], [2, 1, 0], [])
    # From then on it is known how many are left.
    assert said(rule.decide(2, [4], [[0.1]])) == ([], [], [])
    assert said(rule.decide(2, [3], [[0.2]])) == ([3], [4], [])
    assert rule.settle() == Verdicts()


def test_the_first_bracket_and_rung_that_wait_are_settled():
    rule = sweep.successive_halving(2, cohort=4).start()
    rule.rungs(0, 9)
    rule.decide(1, [4], [[0.4]])
    rule.decide(2, [2], [[0.1]])
    rule.decide(1, [1], [[0.3]])
    assert said(rule.settle()) == ([1], [], [])
    assert said(rule.settle()) == ([2], [], [])
    assert said(rule.settle()) == ([4], [], [])
    assert rule.settle() == Verdicts()


@pytest.mark.parametrize(
    ("reports", "reduction", "grace", "sizes"),
    [
        (81, 3, 1, (81, 34, 15, 8, 5)),  # table 1 of the paper
        (80, 3, 1, (27, 12, 6, 4)),  # floor(log(80) / log(3)) is 3
        (27, 3, 1, (27, 12, 6, 4)),
        (9, 3, 2, (3, 2)),
        (8, 2, 1, (8, 6, 4, 4)),
        (3, 4, 1, (1,)),
        (1, 2, 4, (1,)),
        (1000, 10, 1, (1000, 134, 20, 4)),  # log(1000) / log(10) is a hair below 3
    ],
)
def test_how_many_trials_fill_each_bracket(reports, reduction, grace, sizes):
    assert bracket_sizes(reports, reduction, grace) == sizes
    assert bracket_sizes(81) == bracket_sizes(81, 3.0, 1)


def test_trials_are_dealt_to_brackets_in_their_order():
    """Of eight reports, by two: eight, six, four and four trials, and then eight again."""
    rule = sweep.hyperband(2).start()
    first = {trial: list(rule.rungs(trial, 8)) for trial in (0, 7, 8, 13, 14, 17, 18, 21, 22, 30)}
    assert first == {
        0: [1, 2, 4], 7: [1, 2, 4], 8: [2, 4], 13: [2, 4], 14: [4], 17: [4], 18: [], 21: [],
        22: [1, 2, 4], 30: [2, 4],
    }  # fmt: skip
    # Brackets of the second round are others than those of the first.
    for trial in (14, 15, 16):
        assert said(rule.decide(4, [trial], [[trial / 100]])) == ([], [], [])
    assert said(rule.decide(4, [36], [[0.9]])) == ([], [], [])
    assert said(rule.decide(4, [17], [[0.17]])) == ([17, 16], [15, 14], [])
    # A bracket of six is smaller than one of eight.
    for trial in range(8, 13):
        assert said(rule.decide(2, [trial], [[trial / 100]])) == ([], [], [])
    assert said(rule.decide(2, [13], [[0.13]])) == ([13, 12, 11], [10, 9, 8], [])


def test_verdicts_about_different_trials_as_one():
    parts = [Verdicts([1], [2], [3]), Verdicts(), Verdicts([6], (5,), [])]
    assert joined(parts) == Verdicts([1, 6], [2, 5], [3]) and joined([]) == Verdicts([], [], [])

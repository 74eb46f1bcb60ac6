"""Stopping rules against plain references, by hand, and in the lanes against whole runs."""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
from tests.engine.toys import dataset, line_trial

from jdl import sweep
from jdl.engine.rules import Verdicts
from jdl.sweep.halving import levels

INF = math.inf


def decide(rule, rung, scores, first=0):
    """Tells `rule` of trials `first`, `first + 1` ... at a rung, with one score each."""
    trials = list(range(first, first + len(scores)))
    return lists(rule.decide(rung, trials, [[score] for score in scores]))


def lists(verdicts):
    return Verdicts(*map(list, verdicts))


# ASHA


def test_defaults_are_those_that_the_docstrings_name():
    defaults = {
        sweep.asha: {"reduction": 4.0, "grace": 1},
        sweep.patience: {"reports": 5, "least": 0.0},
    }
    for rule, expected in defaults.items():
        parameters = inspect.signature(rule).parameters
        assert {name: p.default for name, p in parameters.items()} == expected


def test_asha_by_hand():
    rule = sweep.asha(reduction=2, grace=1).start()
    assert list(rule.rungs(0, 9)) == [1, 2, 4, 8]
    # One alone is the best of one; the second is worse than the best of two.
    assert decide(rule, 1, [0.5]) == Verdicts([0], [], [])
    assert decide(rule, 1, [0.4], 1) == Verdicts([], [1], [])
    # Of three one goes on: 0.45 is not the best. Of four two: 0.45 would be, but is gone.
    assert decide(rule, 1, [0.45], 2) == Verdicts([], [2], [])
    assert decide(rule, 1, [0.47], 3) == Verdicts([3], [], [])
    # Another rung has its own memory.
    assert decide(rule, 2, [0.1], 3) == Verdicts([3], [], [])


def test_asha_ties_go_on_and_divergence_counts_as_worst():
    rule = sweep.asha(reduction=2).start()
    assert decide(rule, 1, [0.5, 0.5, 0.5]).go == [0, 1, 2]
    rule = sweep.asha(reduction=2).start()
    verdicts = decide(rule, 1, [-INF, 0.1, -INF, 0.0])
    assert verdicts == Verdicts([1, 3], [0, 2], [])


@pytest.mark.parametrize("reduction", [1.5, 3, 4])
def test_asha_against_sorting(reduction):
    random = np.random.default_rng(1)
    rule, seen = sweep.asha(reduction).start(), []
    first = 0
    for count in random.integers(1, 9, size=60):
        scores = random.choice([*random.normal(size=5), 0.0, -INF], size=count).tolist()
        seen += scores
        threshold = sorted(seen, reverse=True)[max(1, math.floor(len(seen) / reduction)) - 1]
        verdicts = decide(rule, 1, scores, first)
        assert verdicts.go == [first + i for i, s in enumerate(scores) if s >= threshold]
        assert verdicts.stop == [first + i for i, s in enumerate(scores) if s < threshold]
        first += count


def test_two_runs_of_one_rule_share_no_memory():
    stopping = sweep.asha(reduction=2)
    decide(stopping.start(), 1, [1.0, 2.0, 3.0, 4.0])
    assert decide(stopping.start(), 1, [0.5]).go == [0]


# Synchronous halving


def test_halving_by_hand():
    rule = sweep.successive_halving(reduction=2, cohort=5).start()
    assert list(rule.rungs(0, 4)) == [1, 2]
    assert decide(rule, 1, [0.1, 0.9, 0.9, -INF]) == Verdicts([], [], [])
    # The fifth completes the cohort: two of five go on, of equals the earlier ones.
    assert decide(rule, 1, [0.9], 4) == Verdicts([1, 2], [4, 0, 3], [])
    assert decide(rule, 2, [0.3], 2) == Verdicts([], [], [])
    assert decide(rule, 2, [0.2], 1) == Verdicts([2], [1], [])


def test_halving_of_those_who_came():
    rule = sweep.successive_halving(reduction=4).start()
    rule.rungs(0, 10)
    assert decide(rule, 1, [0.1, 0.3, 0.2]) == Verdicts([], [], [])
    assert lists(rule.settle()) == Verdicts([1], [2, 0], [])
    assert lists(rule.settle()) == Verdicts([], [], [])


def test_halving_when_all_diverged():
    rule = sweep.successive_halving(reduction=2, cohort=2).start()
    rule.rungs(0, 10)
    assert decide(rule, 1, [-INF, -INF]) == Verdicts([], [0, 1], [])


def test_the_brackets_of_the_paper():
    """Li et al. (2018), table 1: n_i and r_i of every bracket for R = 81, reduction 3."""
    assert sweep.bracket_sizes(81, 3) == (81, 34, 15, 8, 5)
    rule = sweep.hyperband(reduction=3).start()
    table = {
        81: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        34: [(34, 3), (11, 9), (3, 27), (1, 81)],
        15: [(15, 9), (5, 27), (1, 81)],
        8: [(8, 27), (2, 81)],
        5: [(5, 81)],
    }
    first = 0
    for size, rungs in table.items():
        trials = list(range(first, first + size))
        for trial in trials:
            assert list(rule.rungs(trial, 81)) == [rung for _, rung in rungs[:-1]]
        for (count, rung), (after, _) in itertools.pairwise(rungs):
            assert len(trials) == count
            for trial in trials[:-1]:
                assert lists(rule.decide(rung, [trial], [[float(trial)]])) == Verdicts([], [], [])
            verdicts = rule.decide(rung, trials[-1:], [[float(trials[-1])]])
            trials = sorted(verdicts.go)
            assert len(trials) == after
        first += size
    # The next trial opens the first bracket again.
    assert list(rule.rungs(first, 81)) == [1, 3, 9, 27]


def test_hyperband_of_short_trials_has_one_bracket_without_rungs():
    rule = sweep.hyperband(reduction=4).start()
    assert sweep.bracket_sizes(3, 4) == (1,)
    assert list(rule.rungs(0, 3)) == []


# Median stopping


def median_reference(curves, grace, least):
    """Trials one after another: where each stops, by NumPy."""
    done, lengths = [], []
    for curve in curves:
        length = len(curve)
        for report in range(grace, len(curve) + 1):
            others = [np.mean(other[:report]) for other in done]
            if len(others) >= least and np.max(curve[:report]) < np.median(others):
                length = report
                break
        else:
            done.append(curve)
        lengths.append(length)
    return lengths


def follow(rule, curves):
    """How many reports each trial makes when they run one after another."""
    lengths = []
    for trial, curve in enumerate(curves):
        since, length = [], len(curve)
        for report, score in enumerate(curve, 1):
            since.append(score)
            if report in rule.rungs(trial, len(curve)):
                verdicts = rule.decide(report, [trial], [since])
                since = []
                if report < len(curve) and trial not in verdicts.go:
                    assert trial in (*verdicts.stop, *verdicts.finish)
                    length = report
                    break
        lengths.append(length)
    return lengths


@pytest.mark.parametrize("grace,least", [(1, 1), (2, 3), (4, 5)])
def test_median_against_numpy(grace, least):
    random = np.random.default_rng(2)
    curves = np.cumsum(random.normal(0.3, 1.0, size=(40, 6)), axis=1).round(1).tolist()
    rule = sweep.median_stopping(grace, least).start()
    assert follow(rule, curves) == median_reference(curves, grace, least)


def test_median_by_hand():
    rule = sweep.median_stopping(trials=2).start()
    # Means of reports 1 and 1..2 of those done: (1, 2) and (3, 4); medians 2 and 3.
    assert follow(rule, [[1.0, 3.0], [3.0, 5.0]]) == [2, 2]
    assert follow(rule, [[2.0, 2.5]]) == [2]  # equal to the median is not worse
    rule = sweep.median_stopping(trials=2).start()
    assert follow(rule, [[1.0, 3.0], [3.0, 5.0], [1.9, 9.0]]) == [2, 2, 1]


# Patience


def test_patience_by_hand():
    rule = sweep.patience(2, least=0.5)
    assert follow(rule.start(), [[1.0, 2.0, 2.4, 2.5, 9.0]]) == [4]
    assert follow(rule.start(), [[1.0, 2.0, 2.4, 2.6, 2.7, 3.0, 9.0]]) == [6]
    assert follow(sweep.patience(1).start(), [[1.0, 1.0, 2.0]]) == [2]
    assert follow(sweep.patience(3).start(), [[-INF, -INF, 1.0, 0.0, 0.0, 0.0]]) == [6]
    verdicts = lists(sweep.patience(1).start().decide(2, [7], [[3.0, 1.0]]))
    assert verdicts == Verdicts([], [], [7])


# Several at once


def test_combine_by_hand():
    rule = sweep.combine(sweep.patience(2), sweep.asha(reduction=2, grace=2)).start()
    assert list(rule.rungs(0, 6)) == [1, 2, 3, 4, 5]
    assert follow(rule, [[1.0, 2.0, 3.0, 3.0, 3.0, 9.0]]) == [5]
    # Behind at the first rung: stopped there, though it improves.
    assert follow(rule, [[0.0, 1.0, 9.0, 10.0, 11.0, 12.0]]) == [2]
    assert lists(rule.decide(1, [5], [[0.0]])) == Verdicts([5], [], [])


def test_combined_rules_hear_of_divergence_at_their_own_rungs():
    rule = sweep.combine(sweep.asha(reduction=2, grace=3), sweep.patience(9)).start()
    rule.rungs(0, 9)
    rule.decide(1, [0], [[-INF]])
    # The diverged one counts at rung 3, so of two one goes on; of three, too.
    assert decide(rule, 3, [0.1, 0.3], 1) == Verdicts([2], [1], [])


def test_a_trial_waits_while_any_rule_says_so():
    rule = sweep.combine(
        sweep.successive_halving(reduction=2, cohort=2, grace=2), sweep.patience(3)
    ).start()
    rule.rungs(0, 9)
    assert lists(rule.decide(2, [0], [[0.1, 0.2]])) == Verdicts([], [], [])
    assert lists(rule.decide(2, [1], [[0.1, 0.3]])) == Verdicts([1], [0], [])


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: sweep.asha(reduction=1), r"`reduction` must be in \(1, inf\), got reduction=1"),
        (lambda: sweep.asha(grace=0), r"`grace` must be in \[1, inf\), got grace=0"),
        (lambda: sweep.successive_halving(cohort=1), r"`cohort` must be in \[2, inf\)"),
        (lambda: sweep.hyperband(reduction=0.5), r"`reduction` must be in \(1, inf\)"),
        (lambda: sweep.median_stopping(trials=0), r"`trials` must be in \[1, inf\)"),
        (lambda: sweep.patience(0), r"`reports` must be in \[1, inf\), got reports=0"),
        (lambda: sweep.patience(least=-1.0), r"`least` must be in \[0, inf\)"),
        (lambda: sweep.combine(), "needs at least one rule"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# In the lanes: a whole run tells what each rule must do.

REPORTS = 8
SPACE = {"lr": sweep.log_uniform(1e-3, 5.0)}


def run(**options):
    given = {"trials": 24, "epochs": REPORTS, "lanes": 3, "devices": 1} | options
    return sweep.run(
        lambda hp: line_trial(hp["lr"], steps=5 * REPORTS),
        SPACE,
        dataset(),
        batch_size=4,
        progress=False,
        **given,
    )


@pytest.fixture(scope="module")
def whole():
    results = run()
    assert 1 < results.count("diverged") < 12
    return results


def scores_of(results):
    curves = -results.curves("valid_loss")
    return np.where(np.isfinite(curves), curves, -INF)


def lengths(results):
    """Reports that each trial made, 0 where it diverged."""
    return [0 if t.status == "diverged" else t.steps // 5 for t in results.trials]


def assert_as_in_whole(results, whole):
    """What trials did report is what they report when nothing stops them."""
    here, there = results.curves("valid_loss"), whole.curves("valid_loss")
    np.testing.assert_array_equal(here[~np.isnan(here)], there[~np.isnan(here)])


@pytest.mark.parametrize("cohort", [None, 8])
def test_halving_in_the_lanes(whole, cohort):
    results = run(stopping=sweep.successive_halving(reduction=2, cohort=cohort))
    scores = scores_of(whole)
    wanted = [REPORTS] * 24
    for start in range(0, 24, cohort or 24):
        left = list(range(start, start + (cohort or 24)))
        for rung in levels(REPORTS, 2, 1):
            order = sorted(left, key=lambda t: (-scores[t, rung - 1], t))
            going = [t for t in order[: max(1, len(left) // 2)] if scores[t, rung - 1] > -INF]
            for trial in {*left} - {*going}:
                wanted[trial] = rung
            left = going
    diverged = [t.trial for t in results.trials if t.status == "diverged"]
    for trial in diverged:
        assert whole.trials[trial].status == "diverged"
        wanted[trial] = 0
    assert lengths(results) == wanted
    assert_as_in_whole(results, whole)
    assert results.programs == 1


def test_asha_in_one_lane(whole):
    results = run(stopping=sweep.asha(reduction=2), lanes=1)
    seen, wanted = {}, []
    for curve in scores_of(whole):
        length = REPORTS
        for rung in (1, 2, 4):
            here = seen.setdefault(rung, [])
            if curve[rung - 1] == -INF:
                here.append(-INF)
                length = 0
                break
            here.append(curve[rung - 1])
            if curve[rung - 1] < sorted(here)[-max(1, len(here) // 2)]:
                length = rung
                break
        else:
            length = 0 if curve[-1] == -INF else REPORTS
        wanted.append(length)
    assert lengths(results) == wanted
    assert_as_in_whole(results, whole)


def test_median_in_one_lane(whole):
    results = run(stopping=sweep.median_stopping(grace=2, trials=2), lanes=1)
    finite = [trial for trial, curve in enumerate(scores_of(whole)) if curve[-1] > -INF]
    wanted = median_reference(scores_of(whole)[finite].tolist(), 2, 2)
    assert [lengths(results)[trial] for trial in finite] == wanted
    assert len({*wanted}) > 1


def test_patience_in_the_lanes(whole):
    """A rate of which the loss rises soon: trials end early, are done, and have test metrics."""
    results = run(stopping=sweep.patience(2, least=0.05))
    finite = [trial for trial, curve in enumerate(scores_of(whole)) if curve[-1] > -INF]
    wanted = follow(sweep.patience(2, least=0.05).start(), scores_of(whole)[finite].tolist())
    assert [lengths(results)[trial] for trial in finite] == wanted
    assert min(wanted) < REPORTS
    early = results.trials[finite[wanted.index(min(wanted))]]
    assert early.status == "done" and np.isfinite(early.metrics["test_loss"])


def test_the_test_metrics_of_a_trial_that_ends_early(whole):
    """They are those of its last weights: a trial of that many epochs has the same."""
    results = run(stopping=sweep.patience(2, least=0.05), keep=24)
    early = min((t for t in results.trials if t.status == "done"), key=lambda t: t.steps)
    assert early.steps < 5 * REPORTS
    x, y = dataset().test
    loss = np.mean((x @ np.asarray(early.state.weights) - y) ** 2)
    assert early.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert int(early.state.step) == early.steps


def test_a_target_ends_the_run(whole):
    losses = whole.curves("valid_loss")
    target = float(np.nanquantile(losses[:6].min(axis=1), 0.3))
    results = run(target=target)
    reached = [t for t in results.trials if t.metrics["valid_loss"] <= target]
    assert reached and all(t.status == "done" for t in reached)
    assert results.count("done") == len(reached) < 4
    assert results.count("pending") == results.count("running") == 0
    assert results.stats["complete"]


def test_hyperband_in_the_lanes(whole):
    results = run(stopping=sweep.hyperband(reduction=2), trials=22)
    sizes = sweep.bracket_sizes(REPORTS, 2)
    assert sum(sizes) >= 22
    scores, wanted, first = scores_of(whole), [], 0
    for s, size in zip(range(len(sizes) - 1, -1, -1), sizes):
        left = list(range(first, min(first + size, 22)))
        ends = dict.fromkeys(left, REPORTS)
        for i in range(s):
            rung = round(REPORTS * 2.0 ** (i - s))
            order = sorted(left, key=lambda t: (-scores[t, rung - 1], t))
            going = [t for t in order[: max(1, len(left) // 2)] if scores[t, rung - 1] > -INF]
            ends |= dict.fromkeys({*left} - {*going}, rung)
            left = going
        wanted += [ends[trial] for trial in range(first, min(first + size, 22))]
        first += size
    for trial, result in enumerate(results.trials):
        if result.status == "diverged":
            wanted[trial] = 0
    assert lengths(results) == wanted


def test_seconds_cut_a_run_that_goes_on_later(tmp_path):
    options = {"trials": 200, "lanes": 1, "out": tmp_path / "run"}
    first = run(**options, seconds=1e-3)
    assert first.count("done") < 200 and not first.stats["complete"]
    assert first.stats["out_of_time"]
    assert run(**options).count("pending") == 0
    with pytest.raises(ValueError, match=r"`seconds` must be in \(0, inf\)"):
        run(seconds=0)

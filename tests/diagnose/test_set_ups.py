"""Every broken set-up is named by the check that should name it, and no healthy one by any."""

import jax
import pytest
from tests.diagnose import broken
from tests.diagnose.healthy import healthy

from jdl import diagnose

CASES = broken.cases()
HEALTHY = healthy()


def marked(name):
    """A curve is read from a whole report."""
    return pytest.param(name, marks=pytest.mark.slow if CASES[name].check == "read_curve" else ())


@pytest.mark.parametrize("name", [marked(case) for case in CASES])
def test_is_named_by_its_check(name):
    case = CASES[name]
    found = broken.only(case, jax.random.key(11))
    assert case.kind in found.kinds, (found.verdict, found.advice)
    assert found.check == case.check


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_is_named_first_among_all_checks(name):
    case = CASES[name]
    with jax.debug_key_reuse(False):
        report = diagnose.examine(
            case.make, case.dataset, rate=case.rate, penalty=case.penalty, seed=3
        )
    first = report.problems[0]
    said = [(found.check, found.problem.kind, found.problem.verdict) for found in report.problems]
    right = {(case.check, case.kind), *case.also}
    assert (first.check, first.problem.kind) in right, said
    assert (case.check, case.kind) in {(check, kind) for check, kind, _ in said}, said


@pytest.mark.parametrize("name", list(HEALTHY)[:2])
def test_nothing_cries_on_the_healthy(name):
    make, dataset, rate = HEALTHY[name]
    report = diagnose.examine(make, dataset, rate=rate)
    assert report.problems == []
    assert report.runs.held["loss"].shape[-1] >= 8  # which a curve needs to be called overfit


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_cries_on_the_healthy_whatever_the_seed(name, seed):
    make, dataset, rate = HEALTHY[name]
    report = diagnose.examine(make, dataset, rate=rate, seed=seed)
    assert report.problems == []

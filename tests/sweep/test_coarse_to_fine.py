"""Coarse to fine: which way ranges go, and that a first guess that missed is mended."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.toys import dataset, line_trial

from jdl import sweep


def narrow(space, best, good=None, shrink=0.3, limits=None, first=None):
    parsed = sweep.parse_space(space)
    start = sweep.parse_space(first or space)
    return sweep.narrowed(start, parsed, best, good or [best], shrink, limits or {})


def test_ranges_by_hand():
    space = {"lr": sweep.log_uniform(1e-4, 1.0), "p": sweep.uniform(0.0, 0.5)}
    fine, moved = narrow(space, {"lr": 0.01, "p": 0.25}, shrink=0.5)
    assert fine["lr"].arguments == pytest.approx([1e-3, 1e-1])
    assert fine["p"].arguments == pytest.approx([0.125, 0.375])
    assert moved == ()
    # At the edge the range keeps its four decades, and moves; a rate of a unit is cut at its limit.
    fine, moved = narrow(space, {"lr": 0.9, "p": 0.49}, shrink=0.5)
    assert fine["lr"].arguments == pytest.approx([0.009, 90.0]) and moved == ("lr",)
    assert fine["p"].arguments == pytest.approx([0.365, 0.5])
    fine, moved = narrow(space, {"lr": 0.9, "p": 0.49}, limits={"lr": (0.0, 2.0), "p": (0.0, 0.9)})
    assert fine["lr"].arguments == pytest.approx([0.009, 2.0])
    assert fine["p"].arguments == pytest.approx([0.24, 0.74]) and moved == ("lr", "p")


def test_grids_and_integers_and_choices():
    space = {
        "lr": sweep.log_grid(1e-4, 1.0, 5),
        "n": sweep.integer(0, 20),
        "opt": sweep.choice("a", "b", "c"),
        "mu": sweep.when("opt", ("a", "b"), sweep.uniform(0.0, 1.0)),
        "of_c": sweep.when("opt", "c", sweep.uniform(0.0, 1.0)),
        "width": 64,
    }
    good = [{"opt": "b"}, {"opt": "a"}]
    best = {"lr": 0.01, "n": 10, "opt": "b", "mu": 0.5, "width": 64}
    fine, _ = narrow(space, best, good, shrink=0.5)
    assert fine["lr"].points == pytest.approx((1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1), rel=1e-4)
    assert fine["n"].arguments == [5, 15]
    assert fine["opt"].points == ("a", "b") and fine["opt"].static
    assert fine["mu"].when == (("opt", ("a", "b")),) and "of_c" not in fine
    assert fine["width"].points == (64,)
    sweep.parse_space(fine)


@given(st.floats(1e-5, 1.0), st.floats(0.05, 0.9), st.integers(1, 5))
def test_the_best_stays_inside(best, shrink, stages):
    first = now = {"lr": sweep.log_uniform(1e-5, 1.0)}
    for _ in range(stages):
        before = np.log(now["lr"].arguments)
        now, moved = narrow(now, {"lr": best}, shrink=shrink, first=first)
        low, high = now["lr"].arguments
        assert low <= best * (1 + 1e-9) and best <= high * (1 + 1e-9)
        ratio = np.log(high / low) / (before[1] - before[0])
        at = (np.log(best) - before[0]) / (before[1] - before[0])
        edge = not 0.1 <= at <= 0.9
        assert ratio == pytest.approx(1.0 if edge else shrink, rel=1e-6)
        assert not edge or moved == ("lr",)


def test_a_guess_that_missed_is_mended(tmp_path):
    """The best rate of this line is near 0.3; the first range ends at 0.03."""
    arguments = {"batch_size": 4, "lanes": 4, "devices": 2, "progress": False, "out": tmp_path}
    found = sweep.coarse_to_fine(
        lambda hp: line_trial(hp["lr"], steps=20),
        {"lr": sweep.log_uniform(1e-3, 3e-2), "seed": sweep.seeds(2)},
        dataset(),
        [(1, 16), (2, 16), (4, 16)],
        search="sobol",
        **arguments,
    )
    assert [len(stage.results.trials) for stage in found.stages] == [16] * 3
    assert [stage.results.specification["steps"] for stage in found.stages] == [5, 10, 20]
    assert found.stages[1].moved == ("lr",)
    assert found.final is found.stages[-1].results
    first, last = found.stages[0].results, found.final
    assert first.best.config["lr"] < 0.03 < last.best.config["lr"]
    assert last.best.metrics["valid_loss"] < 0.5 * first.best.metrics["valid_loss"]
    assert (tmp_path / "stage-2" / "run.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": []}, "`stages` needs at least one pair of epochs and trials"),
        ({"stages": [(1, 2)], "shrink": 1.0}, r"`shrink` must be in \(0, 1\), got shrink=1.0"),
        ({"stages": [(1, 2)], "limits": {"rate": (0, 1)}}, "`limits` names 'rate', which is not"),
    ],
)
def test_errors(arguments, message):
    space = {"lr": sweep.log_uniform(1e-5, 3e-3)}
    with pytest.raises(ValueError, match=message):
        sweep.coarse_to_fine(line_trial, space, dataset(), **arguments)


def test_a_stage_that_is_cut_is_gone_on_with(tmp_path):
    def search(out, **budget):
        return sweep.coarse_to_fine(
            lambda hp: line_trial(hp["lr"], steps=20),
            {"lr": sweep.log_uniform(1e-3, 3e-2)},
            dataset(),
            [(2, 8), (4, 6)],
            batch_size=4,
            lanes=2,
            devices=1,
            progress=False,
            out=out,
            **budget,
        )

    right = search(tmp_path / "whole")
    assert right.complete and right.final.complete
    cut = search(tmp_path / "cut", seconds=1e-9)
    assert not cut.complete and not cut.final.complete and len(cut.stages) == 1
    assert cut.final.count("done") < 8
    calls = 1
    while not cut.complete:
        cut = search(tmp_path / "cut", seconds=1e-9)
        calls += 1
        assert calls < 20
    assert calls > 2 and len(cut.stages) == 2
    for a, b in zip(cut.stages, right.stages, strict=True):
        assert sweep.to_json(a.space) == sweep.to_json(b.space)
        assert [t.config for t in a.results.trials] == [t.config for t in b.results.trials]
        np.testing.assert_array_equal(a.results.curves(), b.results.curves())


def test_options_that_compare_equal_stay_apart():
    space = {
        "x": sweep.choice(True, 1, 1.0),
        "of_true": sweep.when("x", True, sweep.uniform(0.0, 1.0)),
        "of_one": sweep.when("x", 1, sweep.uniform(0.0, 1.0)),
    }
    fine, _ = narrow(space, {"x": 1, "of_one": 0.5}, [{"x": 1, "of_one": 0.5}])
    assert [repr(point) for point in fine["x"].points] == ["1"]
    assert [*fine] == ["x", "of_one"] and repr(fine["of_one"].when) == "(('x', (1,)),)"


@pytest.mark.parametrize(
    ("dimension", "best"),
    [
        (sweep.uniform(0.0, 1.0), 0.3),
        (sweep.log_uniform(1e-3, 1.0), 0.02),
        (sweep.grid(1.0, 2.0, 5), 1.25),
        (sweep.log_grid(1e-3, 1.0, 4), 0.01),
        (sweep.integer(1, 10**6), 77),
    ],
)
def test_a_range_narrows_until_its_numbers_are_one_to_a_lane(dimension, best):
    space = sweep.parse_space({"x": dimension})
    for _ in range(60):
        space, _ = narrow(space, {"x": best}, shrink=0.5)
    points = space["x"].points or [space["x"].at(u) for u in (0.0, 0.25, 0.5, 0.75, 1 - 1e-9)]
    numbers = np.array([float(point) for point in points])
    # A range of integers keeps a neighbour on each side.
    assert np.abs(numbers - best).max() <= (1 if dimension.kind == "integer" else 1e-6 * best)
    if space["x"].kind.endswith("grid"):
        assert len(set(numbers.astype(np.float32))) == len(numbers)

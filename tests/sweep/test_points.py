"""Points of a sweep by hand: means, the best of each place, scales, and labels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl import sweep
from jdl.sweep.points import (
    averaged,
    group_label,
    is_log,
    is_number,
    points_by_group,
    repeated,
    values_of,
    varying,
    words,
)

NAN = math.nan

values = st.one_of(
    st.text("ab =1'\"\\", max_size=4), st.integers(-2, 2), st.booleans(), st.none(), st.just(1.0)
)


@given(st.tuples(values, values), st.tuples(values, values))
def test_two_groups_have_two_labels(one, other):
    labels = [group_label(dict(zip(("width", "a b"), group))) for group in (one, other)]
    assert (labels[0] == labels[1]) == (repr(one) == repr(other))


SPACE = {
    "lr": sweep.log_grid(0.01, 1.0, 3),
    "optimizer": sweep.choice("sgd", "adam"),
    "width": sweep.choice(8, 16, static=True),
    "depth": sweep.choice(2, 3, static=True),
    "seed": sweep.seeds(3),
}
# Rate, optimizer, seed, how it ended, its loss; all are 8 wide and 2 deep but the last.
TRIALS = [
    (0.01, "sgd", 0, "done", 1.0),
    (0.01, "sgd", 1, "done", 3.0),
    (0.01, "sgd", 2, "diverged", NAN),
    (0.1, "sgd", 0, "stopped", 4.0),
    (0.1, "sgd", 1, "stopped", 5.0),
    (0.1, "sgd", 2, "done", 2.5),
    (0.01, "adam", 0, "done", 0.5),
    (1.0, "adam", 0, "diverged", NAN),
]


def results(trials=TRIALS, space=SPACE, **more):
    made = []
    for number, (lr, optimizer, seed, status, loss) in enumerate(trials):
        width = 16 if number == 7 else 8
        config = {"lr": lr, "optimizer": optimizer, "width": width, "depth": 2, "seed": seed}
        made.append(sweep.TrialResult(number, config, status, 10, {"valid_loss": loss}))
    specification = {"space": sweep.to_json(space), "metric": "valid_loss", "goal": "min"}
    specification |= {"steps": 10, "report_every": 10, **more}
    return sweep.Results(specification, made, {}, {})


def test_points_by_hand():
    found = points_by_group(results(), "lr", "valid_loss")
    # By the order of the space's values; deep networks are all alike.
    assert list(found) == ["sgd width=8", "adam width=8", "adam width=16"]
    near = {"rel": 1e-12, "nan_ok": True}
    assert found["sgd width=8"] == [
        (0.01, 2.0, pytest.approx(1.0, **near), 2, 1, pytest.approx(NAN, **near), True, 1),
        (0.1, 2.5, pytest.approx(NAN, **near), 1, 0, 4.5, True, 2),
    ]
    assert found["adam width=8"][0][:2] == (0.01, 0.5) and found["adam width=8"][0].rank == 0
    (lost,) = found["adam width=16"]
    assert math.isnan(lost.mean) and not lost.best and (lost.done, lost.diverged) == (0, 1)
    assert found["sgd width=8"][0].span == (1.0, 3.0) and found["sgd width=8"][1].span == (2.5, 2.5)


def test_the_best_of_each_place():
    """Along the seedless rate, two optimizers are two groups; along the optimizer, one."""
    found = points_by_group(results(), "optimizer", "valid_loss")
    marks = [(point.x, point.mean, point.best) for point in found["width=8"]]
    assert marks == [("adam", 0.5, True), ("sgd", 2.0, True), ("sgd", 2.5, False)]


def test_what_a_mean_is_of():
    one = results()
    assert averaged(one, one.configurations()) == "; mean ± standard error over n = 1 to 2 seeds"
    assert averaged(one, one.configurations()[:2]) != ""
    lone = results([t for t in TRIALS if t[2] == 0])
    assert averaged(lone, lone.configurations()) == ""
    even = results([t for t in TRIALS if t[1] == "sgd" and t[0] == 0.01])
    assert averaged(even, even.configurations()) == "; mean ± standard error over 2 seeds"
    assert repeated(one) == "seeds" == repeated(results(population="pbt"))
    assert repeated(results(space={**SPACE, "fold": sweep.folds(3)})) == "seeds and folds"


def test_a_text_that_begins_as_a_number_has_its_name():
    assert group_label({"width": "a1", "depth": "1a"}) == "a1 depth=1a"


def test_what_varies():
    one = results()
    assert varying(one, static=True) == ["optimizer", "width"]
    assert varying(one, static=False) == ["lr"]
    assert varying(results(TRIALS[:3]), static=True) == []
    assert values_of(one, "lr") == [t[0] for t in TRIALS] and values_of(one, "momentum") == []


def test_scales_of_axes():
    assert is_number([1, 2.5]) and not is_number([1, True]) and not is_number([1, "2"])
    assert is_log({"log_uniform": [1e-3, 1]}, [0.1, 0.2]) and is_log({"log_grid": []}, [1.0])
    assert not is_log({"log_grid": []}, [0.0, 1.0]) and not is_log({"log_grid": []}, ["a"])
    assert is_log({"choice": []}, [1, 100]) and not is_log({"choice": []}, [1, 99])
    assert is_log({"choice": []}, [0.01, 1.0]) and not is_log({"choice": []}, [0.02, 1.0])
    for even in ("uniform", "grid", "integer"):
        assert not is_log({even: []}, [1, 1000])
    assert not is_log({"choice": []}, [])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("valid_top_5_accuracy", "validation top 5 accuracy"),
        ("train_loss", "training loss"),
        ("test_loss", "test loss"),
        ("my_valid_loss", "my valid loss"),
        ("loss", "loss"),
    ],
)
def test_a_metric_in_words(metric, said):
    assert words(metric) == said

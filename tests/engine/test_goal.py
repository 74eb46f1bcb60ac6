"""What a run is judged by: names that tell, scores of which more is better, JSON and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jdl.engine.goal import Goal, choose_goal, larger_is_better


@pytest.mark.parametrize(
    ("reported", "metric", "goal", "expected"),
    [
        ({"train_loss", "valid_loss", "valid_accuracy"}, None, None, Goal("valid_accuracy", 1)),
        ({"train_loss", "valid_loss"}, None, None, Goal("valid_loss", -1)),
        ({"train_loss", "other"}, None, None, Goal("train_loss", -1)),
        ({"train_loss", "size"}, "size", "max", Goal("size", 1)),
        ({"train_loss", "size"}, "size", "min", Goal("size", -1)),
        ({"train_loss"}, "train_loss", "max", Goal("train_loss", 1)),
        ({"train_loss", "valid_F1"}, "valid_F1", None, Goal("valid_F1", 1)),
    ],
)
def test_the_goal_that_is_chosen(reported, metric, goal, expected):
    assert choose_goal(reported, metric, goal) == expected


@pytest.mark.parametrize(
    ("metric", "goal", "message"),
    [
        (None, None, r"Name the `metric` to judge by, one of \['b', 'size'\]"),
        ("c", None, r"`metric` must be one of \['b', 'size'\], got metric='c'"),
        ("size", "least", "`goal` must be 'max' or 'min', got goal='least'"),
        ("size", None, "Say with `goal` whether a larger 'size' is better"),
    ],
)
def test_a_goal_that_cannot_be_chosen(metric, goal, message):
    with pytest.raises(ValueError, match=message):
        choose_goal({"size", "b"}, metric, goal)


def test_names_that_tell_and_names_that_do_not():
    told = {
        "accuracy": True, "valid_acc": True, "auc.test": True, "f1": True, "precision-1": True,
        "R2": True, "recall": True, "bits": False, "test_error": False, "loss": False,
        "mae": False, "MSE": False, "nll": False, "perplexity": False, "rmse": False,
        "size": None, "lossy": None, "accuracy_loss": None,
    }  # fmt: skip
    assert {name: larger_is_better(name) for name in told} == told


def test_a_score_is_better_if_it_is_larger_and_worst_if_it_is_no_number():
    up, down = Goal("m", 1), Goal("m", -1)
    assert (up.score(0.3), down.score(0.3)) == (0.3, -0.3)
    values = np.array([0.25, -2.0, math.nan, math.inf, -math.inf], np.float32)
    assert up.scores(values).tolist() == [0.25, -2.0, -math.inf, -math.inf, -math.inf]
    assert down.scores(values).tolist() == [-0.25, 2.0, -math.inf, -math.inf, -math.inf]
    assert [down.score(v) for v in values.tolist()] == down.scores(values).tolist()
    assert up.scores(values).dtype == np.float64


def test_a_goal_comes_back_from_json():
    assert Goal("m", 1).to_json() == {"metric": "m", "goal": "max"}
    assert Goal("m", -1).to_json() == {"metric": "m", "goal": "min"}
    for goal in (Goal("m", 1), Goal("n", -1)):
        assert Goal.from_json({**goal.to_json(), "more": 3}) == goal

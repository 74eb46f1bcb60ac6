"""The goal of a run, which is a metric and its direction."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

LARGER = {"accuracy", "acc", "auc", "f1", "precision", "r2", "recall"}
SMALLER = {"bits", "error", "loss", "mae", "mse", "nll", "perplexity", "rmse"}


class Goal(NamedTuple):
    """The metric that judges a run, and its direction.

    Attributes:
      metric: its name in the reports.
      sign: 1 if larger is better, -1 if smaller is.
    """

    metric: str
    sign: int

    @property
    def direction(self) -> str:
        """Gives "max" if larger is better, else "min"."""
        return "max" if self.sign > 0 else "min"

    def to_json(self) -> dict[str, str]:
        """The goal's entries in a specification."""
        return {"metric": self.metric, "goal": self.direction}

    @staticmethod
    def from_json(specification: Mapping[str, Any]) -> Goal:
        """The inverse of `to_json`."""
        return Goal(specification["metric"], 1 if specification["goal"] == "max" else -1)

    def score(self, value: float) -> float:
        """`value` signed so that larger is better; -inf if it is not finite."""
        return self.sign * value if math.isfinite(value) else -math.inf

    def scores(self, values: np.ndarray) -> np.ndarray:
        """`score` of every element, as float64."""
        wide = np.asarray(values, np.float64)
        return np.where(np.isfinite(wide), self.sign * wide, -math.inf)


def choose_goal(reported: set[str], metric: str | None, goal: str | None) -> Goal:
    """Chooses the goal, as `run` describes.

    Raises:
      ValueError: no such metric is reported, `goal` is invalid, or it is None
        and the metric's name does not tell the direction.
    """
    if metric is None:
        wanted = ("valid_accuracy", "valid_loss", "train_loss")
        metric = next((m for m in wanted if m in reported), None)
        if metric is None:
            raise ValueError(f"Name the `metric` to judge by, one of {sorted(reported)}.")
    if metric not in reported:
        raise ValueError(f"`metric` must be one of {sorted(reported)}, got metric={metric!r}.")
    if goal not in (None, "max", "min"):
        raise ValueError(f"`goal` must be 'max' or 'min', got goal={goal!r}.")
    larger = larger_is_better(metric) if goal is None else goal == "max"
    if larger is None:
        raise ValueError(
            f"Say with `goal` whether a larger {metric!r} is better ('max') or a smaller one "
            "('min'): its name does not tell."
        )
    return Goal(metric, 1 if larger else -1)


def larger_is_better(metric: str) -> bool | None:
    """Whether larger values of `metric` are better, None if its name does not tell.

    >>> larger_is_better("valid_accuracy"), larger_is_better("test_loss"), larger_is_better("x")
    (True, False, None)
    """
    words = {*re.split("[^a-z0-9]+", metric.lower())}
    larger, smaller = bool(words & LARGER), bool(words & SMALLER)
    return None if larger == smaller else larger

"""What a run is judged by."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Goal(NamedTuple):
    """What a run is judged by.

    Attributes:
      metric: its name among the reports.
      sign: 1 if larger is better, -1 if smaller is.
    """

    metric: str
    sign: int

    def score(self, value: float) -> float:
        """Larger is better, and worst of all if `value` is not a number."""
        return self.sign * value if math.isfinite(value) else -math.inf

    def scores(self, values: np.ndarray) -> np.ndarray:
        """`score` of every element, as float64."""
        wide = np.asarray(values, np.float64)
        return np.where(np.isfinite(wide), self.sign * wide, -math.inf)


def choose_goal(reported: set[str], metric: str | None, goal: str | None) -> Goal:
    """What trials are judged by, as `run` describes it.

    Raises:
      ValueError: nothing of that name is reported, or `goal` is no goal.
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
    if goal is None:
        goal = "max" if "accuracy" in metric else "min"
    return Goal(metric, 1 if goal == "max" else -1)

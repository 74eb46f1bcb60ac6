"""The reliability diagram: accuracy against confidence, and how many examples stand behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.style import FAINT, PALETTE, new_figure, styled


def reliability_figure(reliability: Any, title: str = "") -> Any:
    """Draws a `train.Reliability`; on the diagonal, confidence is what it says.

    Args:
      reliability: as `train.reliability` gives it.
      title: above the picture.

    Returns:
      The matplotlib figure.
    """
    confidence, accuracy, count = (np.asarray(part, np.float64) for part in reliability)
    bins, filled = len(count), count > 0
    left = np.arange(bins) / bins
    error = np.sum(count[filled] * np.abs(accuracy - confidence)[filled]) / count.sum()
    with styled():
        figure = new_figure(4.4, 5.0)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(
            left[filled],
            accuracy[filled],
            1 / bins,
            align="edge",
            color=PALETTE[5],
            edgecolor="white",
            label="accuracy",
        )
        upper.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
        upper.plot(
            confidence[filled],
            accuracy[filled],
            color=PALETTE[0],
            marker="o",
            linestyle="",
            label="at the mean confidence",
        )
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of right answers")
        upper.text(0.035, 0.8, f"calibration error {error:.4f}")
        upper.legend(loc="upper left")
        if title:
            upper.set_title(title)
        lower.bar(left, count / count.sum(), 1 / bins, align="edge", color=FAINT, edgecolor="white")
        lower.set(xlabel="confidence: the largest probability", ylabel="share")
        return figure

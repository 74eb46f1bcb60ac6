"""The vertical axis of a metric: linear, logarithmic, or stretched towards perfect accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.style import INK

_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def scale_y(axes: Any, metric: str, values: Any, maximise: bool) -> str:
    """Scales the vertical axis for `values` and says how, to be appended to its label.

    On a linear scale all that is well trained would be one thick line at the top, so that
    accuracies which differ enough are drawn by their logit; losses over more
    than a decade and a half are drawn by their logarithm.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    axes.margins(y=0.12)
    if not values.size:
        axes.set_yticks([])
        return ""
    if "accuracy" in metric:
        inside = np.clip([values.min(), values.max()], 0.01, 0.9995)
        worst, best = np.log(inside / (1 - inside))
        margin = 0.1 * (best - worst) + 0.15
        low, high = 1 / (1 + np.exp([margin - worst, -margin - best]))
        ticks = [y for y in _TICKS if low <= y <= high]
        if len(ticks) >= 3:

            def stretch(y: np.ndarray) -> np.ndarray:
                part = np.clip(y, low / 4, 1 - (1 - high) / 4)
                return np.log(part / (1 - part))

            axes.set_ylim(low, high)
            axes.set_yscale("function", functions=(stretch, lambda z: 1 / (1 + np.exp(-z))))
            axes.set_yticks(ticks, [f"{y:g}" for y in ticks])
            return " (logit scale)"
    if values.min() > 0 and not maximise and values.max() / values.min() > 30:
        axes.set_yscale("log")
        axes.set_ylim(values.min() * 0.7, values.max() * 1.4)
        return " (log scale)"
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
    axes.set_ylim(low - margin, high + margin)
    return ""


def limit(values: Any, final: Any, maximise: bool) -> np.ndarray:
    """`values` without the far end of bad ones, which would flatten the rest of a picture.

    The bad end is at the worst value that is no outlier: from the median at most
    three times as far as 95 % of the values, or, for a final value, three
    interquartile ranges.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return values
    last = np.asarray(final, float)
    last = last[np.isfinite(last)]
    sign = -1.0 if maximise else 1.0
    middle, cut = np.quantile(sign * values, [0.5, 0.95])
    cut = (sign * values)[sign * values <= middle + 3 * (cut - middle)].max()
    if last.size:
        quarter, half, most = np.quantile(sign * last, [0.25, 0.5, 0.75])
        usual = last[sign * last <= half + 3 * (most - quarter)]
        cut = max(cut, (sign * usual).max())
    return values[sign * values <= cut]


def beyond(axes: Any, worst: Any, maximise: bool, word: str) -> str:
    """How many of `worst` lie beyond the bad end of the axis; empty if none does.

    Args:
      axes: scaled.
      worst: the worst value of each thing drawn; NaN where there is none.
      maximise: whether small values are the bad ones.
      word: what is counted, in the singular.
    """
    low, high = axes.get_ylim()
    worst = np.asarray(worst, float)
    count = int((worst < low).sum() if maximise else (worst > high).sum())
    return f"{count:,} {word}{'s' * (count != 1)} beyond the axis" if count else ""


def say_beyond(axes: Any, worst: Any, maximise: bool, word: str) -> None:
    """Writes `beyond` at the bad end of the axis."""
    if text := beyond(axes, worst, maximise, word):
        axes.text(
            0.99,
            0.015 if maximise else 0.985,
            text,
            transform=axes.transAxes,
            ha="right",
            va="bottom" if maximise else "top",
            fontsize=8,
            color=INK,
        )

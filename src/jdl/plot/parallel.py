"""Parallel coordinates: every trial a line through its hyperparameters to its final metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.columns import (
    Column,
    column,
    counts,
    final_values,
    goodness,
    jitter,
    nothing,
    varying_names,
)
from jdl.plot.scale import limit
from jdl.plot.style import DIVERGED, FAINT, INK, SHADES, new_figure, styled
from jdl.sweep.points import words

MOST = 10  # axes
BELOW = -0.11  # where an axis puts what it has no value of


def parallel_figure(results: Any, metric: str | None = None) -> Any:
    """Draws every trial as a line across one axis for each hyperparameter, to its metric.

    Better trials are lighter and lie on top; diverged ones are thin dotted
    lines that end below the axis, where conditional hyperparameters pass that
    do not exist. Names are spread a little, so that their lines stay apart.

    Args:
      results: of a sweep, finished or running.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure.
    """
    metric = metric or results.metric
    with styled():
        return _draw(results, metric)


def _draw(results: Any, metric: str) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection

    names = varying_names(results)
    left_out = len(names) - MOST
    columns = [column(results, name) for name in names[:MOST]]
    good = goodness(results, metric)
    figure = new_figure(max(6.5, 1.45 * (len(columns) + 2)), 4.8)
    axes = figure.add_subplot()
    title = f"Parallel coordinates: {counts(results)}"
    axes.set_title(title + (f"; {left_out} hyperparameters left out" if left_out > 0 else ""))
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_yticks([])
    ended = np.isfinite(good) | np.array([t.status == "diverged" for t in results.trials], bool)
    if not columns or not ended.any():
        axes.set_xticks([])
        nothing(axes, "no trial has ended" if columns else "no hyperparameter varies")
        return figure
    last, ticks = _metric_axis(results, metric)
    at = np.column_stack([*(_spread(c) for c in columns), last])
    at = np.where(np.isnan(at), BELOW + jitter(len(at), 0.015)[:, None], at)
    x = np.arange(at.shape[1])
    order = np.argsort(np.nan_to_num(good, nan=-1.0), kind="stable")
    failed = [row for row in order if np.isnan(good[row]) and ended[row]]
    shown = [row for row in order if np.isfinite(good[row])]
    alpha = float(np.clip(40 / max(1, len(shown)), 0.25, 0.9))
    lines = LineCollection(
        [np.column_stack([x, at[row]]) for row in failed],
        colors=DIVERGED,
        linewidths=0.7,
        linestyles="dotted",
        alpha=float(np.clip(25 / max(1, len(failed)), 0.08, 0.6)),
    )
    axes.add_collection(lines)
    lines = LineCollection(
        [np.column_stack([x, at[row]]) for row in shown],
        cmap=SHADES,
        linewidths=[0.9 + 1.3 * (good[row] > 0.98) for row in shown],
        alpha=[max(alpha, float(good[row] > 0.95)) for row in shown] or None,
    )
    lines.set_array(good[shown])
    lines.set_clim(0, 1)
    axes.add_collection(lines)
    below = bool(failed) or any(np.isnan(c.at).any() for c in columns)
    axes.set_xlim(-0.25, x[-1] + 0.6)
    axes.set_ylim(BELOW - 0.06 if below else -0.06, 1.06)
    for place, (axis_ticks, absent) in enumerate(
        [(c.ticks, np.isnan(c.at).any()) for c in columns] + [(ticks, bool(failed))]
    ):
        last_axis = place == len(columns)
        axes.plot([place, place], [0, 1], color=INK if last_axis else FAINT, linewidth=1.2)
        absent_tick = [(BELOW, "diverged" if last_axis else "none")] if absent else []
        for y, text in [*axis_ticks, *absent_tick]:
            axes.plot([place, place + 0.05], [y, y], color=FAINT, linewidth=0.8)
            axes.text(
                place + 0.07,
                y,
                text if len(text) <= 14 else text[:13] + "…",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
                zorder=5,
            )
    labels = [c.label.replace(" (log scale)", "\n(log scale)") for c in columns]
    axes.set_xticks(x, [*labels, words(metric).replace(" ", "\n")])
    axes.tick_params(axis="x", length=0)
    if shown:
        bar = figure.colorbar(ScalarMappable(lines.norm, SHADES), ax=axes, pad=0.02, aspect=30)
        bar.set_label("share of trials that it beats")
        bar.outline.set_visible(False)
    return figure


def _spread(one: Column) -> np.ndarray:
    if not one.names:
        return one.at
    room = 0.25 / max(1, len(one.ticks) - 1)
    return one.at + jitter(len(one.at), min(0.04, room))


def _metric_axis(results: Any, metric: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The final metric of each trial from 0 to 1, the better the higher, outliers at 0."""
    values = final_values(results, metric)
    finite = values[np.isfinite(values)]
    higher = results.larger_is_better(metric)
    if not finite.size:
        return values, []
    inside = limit(finite, finite, higher)
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        return np.where(np.isfinite(values), 0.5, np.nan), [(0.5, f"{low:.4g}")]
    worst, best = (low, high) if higher else (high, low)
    at = np.clip((values - worst) / (best - worst), 0, 1)
    texts = [f"{worst + share * (best - worst):.3g}" for share in (0, 0.25, 0.5, 0.75, 1)]
    if inside.size < finite.size:
        texts[0] += " or worse"
    return at, list(zip((0.0, 0.25, 0.5, 0.75, 1.0), texts))

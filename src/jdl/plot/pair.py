"""Two hyperparameters and what came of them: every trial a dot, over a smoothed map."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdl.plot.columns import (
    Column,
    column,
    counts,
    final_values,
    goodness,
    has_status,
    jitter,
    nothing,
    varying_names,
)
from jdl.plot.importance import importances
from jdl.plot.style import DIVERGED, INK, SHADES, new_figure, styled
from jdl.sweep.points import words

GRID = 80  # points of the map, each way


def pair_figure(
    results: Any, x: str | None = None, y: str | None = None, metric: str | None = None
) -> Any:
    """Draws the final metric over two hyperparameters.

    Dots are trials, lighter the better; crosses diverged. Where both are
    numbers, the map below is a weighted mean of the trials nearby (Nadaraya,
    1964, with a Gaussian of Scott's width), drawn only where there are some.

    Args:
      results: of a sweep, finished or running.
      x: a hyperparameter; the most important number, if not given.
      y: another; the next.
      metric: any that is reported; what trials are judged by, if not given.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: the sweep has no such hyperparameter.
    """
    metric = metric or results.metric
    space = results.specification["space"]
    for argument, name in (("x", x), ("y", y)):
        if name is not None and name not in space:
            raise ValueError(f"`{argument}` must be one of {', '.join(space)}, got {name!r}.")
    chosen = [name for name in (x, y) if name is not None]
    chosen += [name for name in _by_importance(results, metric) if name not in chosen]
    with styled():
        if len(chosen) < 2:
            figure = new_figure(6.4, 4.6)
            axes = figure.add_subplot()
            axes.set_axis_off()
            nothing(axes, "fewer than two hyperparameters vary")
            return figure
        first, second = (x or chosen[0]), (y or next(n for n in chosen if n != (x or chosen[0])))
        return _draw(results, column(results, first), column(results, second), metric)


def _by_importance(results: Any, metric: str) -> list[str]:
    """The hyperparameters that vary: numbers that all trials have first, then by importance."""
    names = varying_names(results)
    ordered = [i.name for i in importances(results, metric) if i.name] or names
    columns = {name: column(results, name) for name in names}

    def lacks(name: str) -> tuple[bool, bool]:
        return bool(np.isnan(columns[name].at).any()), columns[name].names

    return sorted(ordered, key=lacks)


def _draw(results: Any, one: Column, two: Column, metric: str) -> Any:
    figure = new_figure(6.8, 5.0)
    axes = figure.add_subplot()
    good, values = goodness(results, metric), final_values(results, metric)
    x = one.at + jitter(len(one.at), 0.25 / max(1, len(one.ticks) - 1) if one.names else 0)
    turned = np.roll(jitter(len(two.at), 0.25 / max(1, len(two.ticks) - 1)), 7)
    y = two.at + (turned if two.names else 0)
    placed = np.isfinite(x) & np.isfinite(y)
    shown = placed & np.isfinite(good)
    failed = placed & has_status(results, "diverged")
    if shown.sum() >= 8 and not one.names and not two.names:
        grid = np.linspace(0, 1, GRID)
        level = _smooth(one.at[shown], two.at[shown], good[shown], grid)
        axes.contourf(grid, grid, level, np.linspace(0, 1, 11), cmap=SHADES, alpha=0.55)
    size = float(np.clip(700 / max(1, shown.sum()), 9, 40))
    order = np.flatnonzero(shown)[np.argsort(good[shown], kind="stable")]
    dots = axes.scatter(
        x[order],
        y[order],
        c=good[order],
        s=size,
        cmap=SHADES,
        vmin=0,
        vmax=1,
        edgecolors=INK,
        linewidths=0.4,
        zorder=3,
    )
    if failed.any():
        axes.scatter(
            x[failed], y[failed], marker="x", s=16, color=DIVERGED, linewidths=0.9, alpha=0.6
        )
    if shown.any():
        best = order[-1]
        axes.plot(x[best], y[best], "o", markersize=13, fillstyle="none", color=INK, zorder=4)
        side = "right" if x[best] > 0.6 else "left"
        axes.annotate(
            f"best: {values[best]:.4g}",
            (x[best], y[best]),
            xytext=(-9 if side == "right" else 9, 9 if y[best] < 0.85 else -15),
            textcoords="offset points",
            ha=side,
            fontsize=9,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.2},
            zorder=5,
        )
        bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=30)
        bar.set_label(f"{words(metric)}: share of trials that it beats")
        bar.outline.set_visible(False)
    else:
        nothing(axes, "no trial has a finite value")
    for axis, c in ((axes.xaxis, one), (axes.yaxis, two)):
        axis.set_ticks([p for p, _ in c.ticks], [text for _, text in c.ticks])
        axis.set_label_text(c.label)
    for set_limits, c in ((axes.set_xlim, one), (axes.set_ylim, two)):
        room = 0.45 / max(1, len(c.ticks) - 1) if c.names else 0.04
        set_limits(-room, 1 + room)
    left = int((~shown & ~failed).sum()) - results.count("running") - results.count("pending")
    axes.set_title(
        f"{one.name} and {two.name}: {counts(results)}"
        + (f"; {left:,} without a place or a value" if left else "")
    )
    return figure


def _smooth(x: np.ndarray, y: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(grid, grid) weighted means of `values` near each point, NaN far from all of them."""
    width = 0.9 * len(x) ** (-1 / 6) * max(0.08, float(np.hypot(x.std(), y.std()) / np.sqrt(2)))
    across = np.exp(-0.5 * ((grid[:, None] - x) / width) ** 2)
    up = np.exp(-0.5 * ((grid[:, None] - y) / width) ** 2)
    weight = up @ across.T
    mean = (up * values) @ across.T / np.maximum(weight, 1e-300)
    return np.where(weight > 0.3, mean, np.nan)
